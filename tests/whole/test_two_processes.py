"""What another process changes on one PostgreSQL database is known here, with no bus between them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import cast

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace
from tests.canaries import canary, master_keys
from tests.people import new_key as new_key_of
from tests.services import Database
from tests.serving import Client, Json, quick, serving
from tests.viewers import ConnectionLost

from hostler.app.storage import Storage, open_storage
from hostler.beside.shared import CHANGED, Shared
from hostler.core.directory import ApiKey, Endpoint, Tenant, TenantSettings
from hostler.core.errors import Unauthorised
from hostler.core.events import Principal, PrincipalId, TenantId
from hostler.core.ports import World
from hostler.core.sealed import DataKey, masked
from hostler.faces.http.endpoint import Caller
from hostler.faces.http.entry import TICKET_S, Tickets
from hostler.service.endpoints import Endpoints
from hostler.service.keys import Keys, NewKey
from hostler.service.rereading import Rereading
from hostler.service.tenants import Tenants
from hostler.stores.memory import MemoryStore
from hostler.stores.memory_directory import MemoryDirectory
from hostler.stores.memory_sealed import MemorySealed
from hostler.testing.doubles import an_agent
from hostler.testing.store_kit import Clock
from hostler.vault.envelope import MasterKey, new_key
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio
DEFAULT = TenantId("default")
ADMIN = Principal(id=PrincipalId("admin"), tenant=DEFAULT, is_operator=True)
SECRET = canary("a secret of another process", "sk-from-elsewhere-0123456789")
WITHIN_S = 30.0


def an_endpoint(url: str = "https://one.example/v1") -> Endpoint:
    return Endpoint(tenant=DEFAULT, provider="openai", base_url=url, created_at=1.0, updated_at=1.0)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(WITHIN_S):
        while not await true():
            await anyio.lowlevel.checkpoint()


# -- a server ----------------------------------------------------------------------------------


@asynccontextmanager
async def beside_a_server(
    database: Database, vault: SealedVault, other: SealedVault
) -> AsyncGenerator[tuple[Client, Storage]]:
    """Yield a server, and what another process has open of its database."""
    agent, known = an_agent(quick()), Endpoints(["openai"])
    async with (
        open_storage(database.url) as storage,
        serving(agent, file=database.url, vault=vault, endpoints=known) as client,
    ):
        await other.open(storage.sealed)
        yield client, storage


async def test_a_server_masks_what_another_process_has_set_and_then_finds_it(
    postgres: Database,
) -> None:
    keys = master_keys()
    here, there = SealedVault(keys), SealedVault(keys)
    async with beside_a_server(postgres, here, there) as (client, _):
        session = await client.session()
        await there.put(DEFAULT, "tool", "tool", SECRET)

        async def is_found() -> bool:
            found = here.find(DEFAULT, "tool")
            assert found is None or SECRET not in masked(here, DEFAULT, f"it is {SECRET}")
            return found == SECRET

        await until(is_found)
        await client.speak(session, f"it is {SECRET}")
        said = str(await client.facts(session))

    assert "[secret:tool]" in said
    assert SECRET not in said


async def test_a_server_asks_where_another_process_says(postgres: Database) -> None:
    keys = master_keys()
    async with beside_a_server(postgres, SealedVault(keys), SealedVault(keys)) as (client, storage):

        async def urls() -> list[object]:
            found = cast("list[Json]", (await client.get("/api/endpoints"))["items"])
            return [one["base_url"] for one in found]

        async def is_there() -> bool:
            return await urls() == ["https://one.example/v1"]

        async def is_gone() -> bool:
            return await urls() == []

        assert await is_gone()
        await storage.directory.put_endpoint(an_endpoint())
        await until(is_there)
        await storage.directory.drop_endpoint(DEFAULT, "openai")
        await until(is_gone)


async def test_a_ticket_of_another_process_opens_one_socket(postgres: Database) -> None:
    keys = master_keys()
    async with beside_a_server(postgres, SealedVault(keys), SealedVault(keys)) as (client, storage):
        session = await client.session()
        ticket = await Tickets(shared=storage.shared).give(Caller(ADMIN))
        url, codes = f"{client.url}/api/sessions/{session}/socket?ticket={ticket}", list[object]()
        async with client.http.ws_connect(url) as socket:
            await socket.send_json({"id": "1", "verb": "ping"})
            first = (await socket.receive(timeout=WITHIN_S)).type
        async with client.http.ws_connect(url) as socket:
            await socket.receive(timeout=WITHIN_S)
            codes.append(socket.close_code)

    assert (first, codes) == (aiohttp.WSMsgType.TEXT, [4401])


async def test_what_is_open_with_a_key_that_another_process_ends_is_cut(
    postgres: Database,
) -> None:
    keys = master_keys()
    async with beside_a_server(postgres, SealedVault(keys), SealedVault(keys)) as (client, storage):
        session = await client.session()
        made = await new_key_of(client, user="u", role="admin")
        theirs = Client(client.http, client.url, str(made["key"]))
        await client.speak(session)
        begun, ended = anyio.Event(), anyio.Event()

        async def watch() -> None:
            with suppress(*ConnectionLost):
                async with aclosing(theirs.frames(f"/api/sessions/{session}/events")) as frames:
                    async for _ in frames:
                        begun.set()
            ended.set()

        with anyio.fail_after(WITHIN_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch)
                await begun.wait()
                await storage.directory.revoke_key(DEFAULT, str(made["id"]), at=5.0)
                await ended.wait()
        status, _ = await theirs.call("GET", f"/api/sessions/{session}")

    assert status == 401


# -- what is counted ---------------------------------------------------------------------------


async def a_key(storage: Storage) -> ApiKey:
    tenants = Tenants(storage.directory, World("w"), {})
    key, _ = await Keys(storage.directory, tenants, World("w")).create(ADMIN, NewKey(user="u"))
    return key


async def make_a_tenant(storage: Storage) -> None:
    acme = Tenant(id=TenantId("acme"), title=None, created_at=1.0, settings=TenantSettings())
    assert await storage.directory.create_tenant(acme)


async def change_a_tenant(storage: Storage) -> None:
    await storage.directory.change_tenant(DEFAULT, lambda there: replace(there, title="new"))


async def put_an_endpoint(storage: Storage) -> None:
    await storage.directory.put_endpoint(an_endpoint())


async def drop_an_endpoint(storage: Storage) -> None:
    await storage.directory.drop_endpoint(DEFAULT, "openai")


async def put_a_secret(storage: Storage) -> None:
    vault = SealedVault(master_keys())
    await vault.open(storage.sealed)
    await vault.put(DEFAULT, "tool", "tool", SECRET)


async def drop_a_secret(storage: Storage) -> None:
    await storage.sealed.drop(DEFAULT, "tool")


async def wrap_anew(storage: Storage) -> None:
    await storage.sealed.rewrap([DataKey(tenant=DEFAULT, id="dk_1", wrapped=b"x", wrapped_by="mk")])


async def revoke_a_key(storage: Storage) -> None:
    key = await a_key(storage)
    await storage.directory.revoke_key(DEFAULT, key.id, at=5.0)


async def use_a_key(storage: Storage) -> None:
    key = await a_key(storage)
    await storage.directory.touch_keys({(DEFAULT, key.id): 5.0})


COUNTED: Mapping[Callable[[Storage], Awaitable[None]], str | None] = {
    make_a_tenant: "tenants",
    change_a_tenant: "tenants",
    put_an_endpoint: "endpoints",
    drop_an_endpoint: "endpoints",
    put_a_secret: "secrets",
    drop_a_secret: "secrets",
    wrap_anew: "secrets",
    revoke_a_key: "keys",
    use_a_key: None,
}


@pytest.mark.parametrize("change", COUNTED, ids=lambda change: change.__name__)
async def test_a_change_is_counted_and_told(
    postgres: Database, change: Callable[[Storage], Awaitable[None]]
) -> None:
    told, wanted = list[str](), COUNTED[change]
    async with open_storage(postgres.url) as here, open_storage(postgres.url) as there:
        assert here.shared is not None
        assert there.shared is not None
        there.shared.listen(told.append)
        before = await here.shared.changes()
        await change(there)
        after = await here.shared.changes()

    changed = {what for what, number in after.items() if before.get(what) != number}
    assert changed == ({wanted} if wanted else set())
    assert set(told) == changed


# -- reading anew ------------------------------------------------------------------------------


class SharedDouble:
    """Has the numbers that a test gives."""

    def __init__(self) -> None:
        self.numbers = dict[str, int]()
        self.tell: Callable[[str], None] = lambda _: None

    def listen(self, tell: Callable[[str], None]) -> None:
        self.tell = tell

    async def changes(self) -> Mapping[str, int]:
        return dict(self.numbers)

    async def keep_ticket(
        self, tenant: TenantId, digest: str, holder: bytes, *, until: float
    ) -> None:
        raise NotImplementedError

    async def take_ticket(self, digest: str) -> tuple[bytes, float] | None:
        raise NotImplementedError


class NodesDouble:
    """Keeps what is told, and tells what a test says."""

    def __init__(self) -> None:
        self.told = list[tuple[str, ...]]()
        self.hears = dict[str, Callable[[list[str]], None]]()

    def tell(self, kind: str, *words: str) -> None:
        self.told.append((kind, *words))

    def on(self, kind: str, hear: Callable[..., None]) -> None:
        self.hears[kind] = hear


async def test_what_was_changed_is_read_once_and_again_if_that_failed() -> None:
    shared, read = SharedDouble(), list[str]()
    fails = [False]

    async def tenants() -> None:
        read.append("tenants")

    async def secrets() -> None:
        read.append("secrets")
        if fails[0]:
            raise Unauthorised("not now")

    rereading = Rereading(shared, {"tenants": tenants, "secrets": secrets})
    await rereading.look()
    await rereading.look()
    assert read == ["tenants", "secrets"], "the first time all, then nothing"

    shared.numbers, fails[0] = {"secrets": 1, "what a newer build has": 3}, True
    with pytest.raises(Unauthorised):
        await rereading.look()
    fails[0] = False
    await rereading.look()
    await rereading.look()

    assert read[2:] == ["secrets", "secrets"]


async def test_nodes_are_told_of_a_change_and_whoever_hears_of_one_looks_at_once() -> None:
    shared, nodes = SharedDouble(), NodesDouble()
    rereading = Rereading(shared, {})
    rereading.join(nodes)

    shared.tell("secrets")
    nodes.hears[CHANGED](["anything", "at all"])
    began = anyio.current_time()
    await rereading.wait()

    assert nodes.told == [(CHANGED, "secrets")]
    assert anyio.current_time() - began < 1


async def test_settings_and_keys_are_looked_up_anew() -> None:
    directory, world = MemoryDirectory(MemoryStore()), World("w", clock=Clock())
    here, there = (Tenants(directory, world, {}) for _ in range(2))
    keys, other = Keys(directory, here, world), Keys(directory, there, world)
    key, text = await other.create(ADMIN, NewKey(user="u"))
    await keys.holder(text)
    assert (await here.settings_of(DEFAULT)).most_streams is None
    await there.change(ADMIN, "default", settings={"most_streams": 7})
    await other.revoke(ADMIN, key.id)

    await here.forget()
    await keys.forget_all()

    assert (await here.settings_of(DEFAULT)).most_streams == 7
    with pytest.raises(Unauthorised):
        await keys.holder(text)


async def test_a_vault_knows_what_others_set_changed_and_dropped_and_masks_all_of_it() -> None:
    rows, keys = MemorySealed(MemoryStore()), master_keys()
    here, there = SealedVault(keys), SealedVault(keys)
    await here.open(rows)
    await there.open(rows)
    values = [canary(f"value {number}", f"sk-value-{number}-0123456789") for number in range(3)]
    for name, value in zip(("a", "b", "c"), values, strict=True):
        await there.put(DEFAULT, name, "tool", value)
    await here.reread()
    assert [here.find(DEFAULT, name) for name in ("a", "b", "c")] == values

    newer = canary("a newer value", "sk-newer-0123456789")
    await there.put(DEFAULT, "a", "tool", newer)
    await there.drop(DEFAULT, "b")
    await here.reread()

    assert [here.find(DEFAULT, name) for name in ("a", "b", "c")] == [newer, None, values[2]]
    assert [one.name for one in here.named(DEFAULT)] == ["a", "c"]
    text = masked(here, DEFAULT, " ".join([*values, newer]))
    assert not [one for one in (*values, newer) if one in text]
    assert await here.put(DEFAULT, "d", "tool", values[1]) in here.named(DEFAULT)


async def test_a_vault_reads_a_master_key_that_another_process_has_begun_to_use() -> None:
    rows, old, new = MemorySealed(MemoryStore()), new_key(), new_key()
    mine, theirs = master_keys(old), master_keys(old)
    here, there = SealedVault(mine), SealedVault(theirs)
    await there.open(rows)
    await there.put(DEFAULT, "a", "tool", SECRET)
    await here.open(rows)
    both = [MasterKey(new, new.hex()), MasterKey(old, old.hex())]
    theirs.keys = both
    await there.rotate()
    await there.put(DEFAULT, "b", "tool", f"{SECRET}-b")

    await here.reread()
    with pytest.raises(Exception, match="cannot be opened"):
        here.find(DEFAULT, "b")
    assert here.find(DEFAULT, "a") == SECRET

    mine.keys = both
    await here.reread()
    assert here.find(DEFAULT, "b") == f"{SECRET}-b"


# -- tickets -----------------------------------------------------------------------------------


@asynccontextmanager
async def two(database: Database) -> AsyncGenerator[tuple[Shared, Shared]]:
    async with open_storage(database.url) as one, open_storage(database.url) as other:
        assert one.shared is not None
        assert other.shared is not None
        yield one.shared, other.shared


async def test_of_many_who_come_with_a_ticket_one_is_let_in_as_who_it_was_given_to(
    postgres: Database,
) -> None:
    who = Principal(
        id=PrincipalId("u"),
        tenant=TenantId("acme"),
        role="member",
        user="u",
        scopes=frozenset({"sessions:read"}),
        key="key_1",
    )
    let_in, refused = list[Caller](), list[str]()
    async with two(postgres) as (one, other):
        ticket = await Tickets(shared=one).give(Caller(who, 2e9))

        async def take(shared: Shared) -> None:
            try:
                let_in.append(await Tickets(shared=shared).take(ticket))
            except Unauthorised as error:
                refused.append(str(error))

        async with anyio.create_task_group() as tasks:
            for shared in (one, other, one, other):
                tasks.start_soon(take, shared)

    assert let_in == [Caller(who, 2e9)]
    assert len(refused) == 3


@pytest.mark.parametrize("ticket", ["", "ht_", "ht_" + "x" * 43, "ht_\0" + "x" * 42, "x" * 10_000])
async def test_what_is_no_ticket_lets_nobody_in(postgres: Database, ticket: str) -> None:
    async with two(postgres) as (one, _):
        with pytest.raises(Unauthorised):
            await Tickets(shared=one).take(ticket)


async def test_a_ticket_that_is_too_old_lets_nobody_in(postgres: Database) -> None:
    clock = Clock(2_000_000_000.0)
    async with two(postgres) as (one, other):
        ticket = await Tickets(clock, one).give(Caller(ADMIN))
        clock.now += TICKET_S
        with pytest.raises(Unauthorised):
            await Tickets(clock, other).take(ticket)


async def test_what_is_kept_of_a_ticket_does_not_let_anybody_in(postgres: Database) -> None:
    async with two(postgres) as (one, _):
        ticket = await Tickets(shared=one).give(Caller(ADMIN))
        rows = await postgres.run("SELECT digest, holder FROM tickets")

    assert len(rows) == 1
    assert ticket[3:] not in str(rows)
