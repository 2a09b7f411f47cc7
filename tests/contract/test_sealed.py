"""Sealed secrets are kept, replaced, wrapped again and scrubbed alike by every store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from tests.canaries import FixedKeys, master_keys
from tests.services import Database

from hostler.core.errors import Conflict, SetupError, Unavailable
from hostler.core.events import TenantId
from hostler.core.sealed import LONGEST, DataKey, Mask, Scrubbed, SealedRows, SealedSecret
from hostler.core.store import Store
from hostler.stores.memory import MemoryStore
from hostler.stores.memory_sealed import MemorySealed
from hostler.stores.postgres_open import open_postgres
from hostler.stores.postgres_sealed import PostgresSealed
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_sealed import SqliteSealed
from hostler.vault.envelope import Unopened, new_key, seal, unseal
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio
A, B = TenantId("a"), TenantId("b")
VALUE = "sk-0123456789abcdef"


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def kept(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncGenerator[tuple[Store, SealedRows]]:
    if request.param == "memory":
        memory = MemoryStore()
        yield memory, MemorySealed(memory)
        return
    if request.param == "postgres":
        database: Database = request.getfixturevalue("postgres")
        async with open_postgres(database.url) as there:
            yield there, PostgresSealed(there)
        return
    store = SqliteStore.open(tmp_path / "log.db")
    yield store, SqliteSealed(store, tmp_path / "log.db")
    store.close()


async def opened(rows: SealedRows, keys: FixedKeys) -> SealedVault:
    vault = SealedVault(keys)
    await vault.open(rows)
    return vault


async def test_a_secret_is_found_again_by_its_tenant_alone(kept: tuple[Store, SealedRows]) -> None:
    _, rows, keys = *kept, master_keys()
    first = await opened(rows, keys)
    await first.put(A, "github", "tool", VALUE)

    again = await opened(rows, keys)

    assert again.find(A, "github") == VALUE
    assert again.find(B, "github") is None
    assert [one.name for one in again.named(A)] == ["github"]
    assert all(VALUE.encode() not in one.sealed for one in await rows.secrets())


async def test_a_replaced_secret_keeps_when_it_was_made_and_stays_masked(
    kept: tuple[Store, SealedRows],
) -> None:
    _, rows, keys = *kept, master_keys()
    times = iter([1.0, 2.0])
    vault = SealedVault(keys, _clock=lambda: next(times))
    await vault.open(rows)
    await vault.put(A, "github", "tool", VALUE)
    await vault.put(A, "github", "tool", "another-value")

    mask, (row,) = vault.mask(A), await rows.secrets()

    assert vault.find(A, "github") == "another-value"
    assert (row.about.created_at, row.about.updated_at) == (1.0, 2.0)
    assert mask is not None
    assert mask.text(f"{VALUE} another-value") == "[secret:github] [secret:github]"


async def test_a_removed_secret_is_gone_and_its_value_still_masked(
    kept: tuple[Store, SealedRows],
) -> None:
    _, rows, keys = *kept, master_keys()
    vault = await opened(rows, keys)
    await vault.put(A, "github", "tool", VALUE)

    assert await vault.drop(A, "github")
    assert not await vault.drop(A, "github")

    mask = vault.mask(A)
    assert vault.find(A, "github") is None
    assert await rows.secrets() == []
    assert mask is not None
    assert VALUE not in mask.text(VALUE)


async def test_a_rotation_that_was_cut_is_finished_by_the_next(
    kept: tuple[Store, SealedRows],
) -> None:
    old, new = new_key(), new_key()
    _, rows, keys = *kept, master_keys(old)
    vault = await opened(rows, keys)
    for tenant in (A, B):
        await vault.put(tenant, "github", "tool", f"{VALUE}-{tenant}")
    keys.keys = master_keys(new, old).keys

    assert await vault.rotate() == 2
    assert await vault.rotate() == 0

    found = await opened(rows, master_keys(new))
    assert [found.find(tenant, "github") for tenant in (A, B)] == [f"{VALUE}-a", f"{VALUE}-b"]


async def test_a_rotation_half_done_is_read_with_both_keys(kept: tuple[Store, SealedRows]) -> None:
    old, new = new_key(), new_key()
    _, rows = kept
    vault = await opened(rows, master_keys(old))
    await vault.put(A, "github", "tool", VALUE)

    other = await opened(rows, master_keys(new, old))
    await other.put(B, "github", "tool", VALUE)

    assert other.find(A, "github") == other.find(B, "github") == VALUE
    assert await other.rotate() == 1


@dataclass
class Slow:
    """Rows in which a secret is put when a test says so."""

    rows: SealedRows
    asked: anyio.Event = field(default_factory=anyio.Event)
    go_on: anyio.Event = field(default_factory=anyio.Event)

    async def put(self, secret: SealedSecret, key: DataKey | None) -> None:
        self.asked.set()
        await self.go_on.wait()
        await self.rows.put(secret, key)

    async def drop(self, tenant: TenantId, name: str) -> bool:
        return await self.rows.drop(tenant, name)

    async def secrets(self) -> Sequence[SealedSecret]:
        return await self.rows.secrets()

    async def data_keys(self) -> Sequence[DataKey]:
        return await self.rows.data_keys()

    async def rewrap(self, keys: Sequence[DataKey]) -> None:
        await self.rows.rewrap(keys)

    async def scrub(self, tenant: TenantId, mask: Mask, done: Scrubbed) -> Scrubbed:
        return await self.rows.scrub(tenant, mask, done)


@pytest.mark.parametrize("first", ["first", None])
async def test_a_rotation_while_a_secret_is_set_leaves_nothing_under_the_old_key(
    kept: tuple[Store, SealedRows], first: str | None
) -> None:
    old, new = new_key(), new_key()
    rows, keys = kept[1], master_keys(old)
    if first is not None:
        await (await opened(rows, keys)).put(A, first, "tool", VALUE)
    slow = Slow(rows)
    vault = await opened(slow, keys)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(vault.put, A, "github", "tool", f"{VALUE}-new")
            await slow.asked.wait()
            keys.keys = master_keys(new, old).keys
            tasks.start_soon(vault.rotate)
            await anyio.wait_all_tasks_blocked()
            slow.go_on.set()
    keys.keys = master_keys(new).keys

    assert await vault.rotate() == 0
    await vault.put(A, "another", "tool", f"{VALUE}-another")
    assert (await opened(rows, keys)).find(A, "github") == f"{VALUE}-new"


async def test_a_secret_that_is_set_while_it_is_removed_is_there_or_gone_everywhere(
    kept: tuple[Store, SealedRows],
) -> None:
    _, rows, keys = *kept, master_keys()
    slow = Slow(rows)
    vault = await opened(slow, keys)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(vault.put, A, "github", "tool", VALUE)
            await slow.asked.wait()
            tasks.start_soon(vault.drop, A, "github")
            await anyio.wait_all_tasks_blocked()
            slow.go_on.set()

    assert vault.find(A, "github") == (await opened(rows, keys)).find(A, "github")


async def test_master_keys_that_do_not_open_all_leave_those_in_use_that_do(
    kept: tuple[Store, SealedRows],
) -> None:
    old, new = new_key(), new_key()
    _, rows, keys = *kept, master_keys(old)
    vault = await opened(rows, keys)
    await vault.put(A, "github", "tool", VALUE)
    keys.keys = master_keys(new).keys

    with pytest.raises(SetupError, match=master_keys(old).keys[0].id):
        await vault.rotate()
    for tenant in (A, B):
        await vault.put(tenant, "another", "tool", f"{VALUE}-{tenant}")
    keys.keys = master_keys(new, old).keys

    assert await vault.rotate() == 2
    assert (await opened(rows, master_keys(new))).find(B, "another") == f"{VALUE}-b"


async def test_a_secret_that_could_not_be_kept_is_not_there_and_still_masked(
    kept: tuple[Store, SealedRows],
) -> None:
    class Failing(Slow):
        async def put(self, secret: SealedSecret, key: DataKey | None) -> None:
            del secret, key
            raise Unavailable("not now")

    _, rows, keys = *kept, master_keys()
    await (await opened(rows, keys)).put(A, "github", "tool", VALUE)
    vault = await opened(Failing(rows), keys)
    with pytest.raises(Unavailable):
        await vault.put(A, "github", "tool", "another-value")

    mask = vault.mask(A)
    assert vault.find(A, "github") == VALUE
    assert mask is not None
    assert mask.text(f"{VALUE} another-value") == "[secret:github] [secret:github]"


async def test_a_tenant_has_as_many_secrets_as_can_be_masked(
    kept: tuple[Store, SealedRows], monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = await opened(kept[1], master_keys())
    monkeypatch.setattr("hostler.vault.vault.MOST", 2)
    for name in "ab":
        await vault.put(A, name, "tool", name * LONGEST)
    with pytest.raises(Conflict) as third:
        await vault.put(A, "c", "tool", VALUE)
    monkeypatch.setattr("hostler.vault.vault.MOST_BYTES", 2 * LONGEST)
    await vault.put(A, "b", "tool", "c" * LONGEST)
    with pytest.raises(Conflict) as longer:
        await vault.put(A, "b", "tool", "\u00e9" * LONGEST)
    await vault.put(B, "c", "tool", VALUE)

    assert third.value.code == longer.value.code == "too_many_secrets"
    assert [one.name for one in vault.named(A)] == ["a", "b"]


async def test_without_the_master_key_nothing_opens_and_the_error_names_it(
    kept: tuple[Store, SealedRows],
) -> None:
    _, rows = kept
    await (await opened(rows, keys := master_keys())).put(A, "github", "tool", VALUE)

    with pytest.raises(SetupError, match=keys.keys[0].id) as refused:
        await opened(rows, master_keys())

    assert VALUE not in str(refused.value)
    assert keys.keys[0].written not in str(refused.value)


async def test_a_sealed_value_moved_to_another_tenant_or_name_does_not_open(
    kept: tuple[Store, SealedRows],
) -> None:
    _, rows, keys = *kept, master_keys()
    vault = await opened(rows, keys)
    await vault.put(A, "one", "tool", VALUE)
    await vault.put(A, "two", "tool", f"{VALUE}-two")
    await vault.put(B, "one", "tool", f"{VALUE}-b")
    one, two, of_b = await rows.secrets()
    await rows.put(SealedSecret(about=two.about, sealed=one.sealed, data_key=one.data_key), None)
    await rows.put(SealedSecret(about=of_b.about, sealed=one.sealed, data_key=one.data_key), None)

    again = await opened(rows, keys)

    assert again.find(A, "one") == VALUE
    for tenant, name in ((A, "two"), (B, "one")):
        with pytest.raises(SetupError, match="cannot be opened"):
            again.find(tenant, name)


@pytest.mark.parametrize("at", [0, 3, 20, -1])
def test_a_changed_byte_is_seen(at: int) -> None:
    key = new_key()
    sealed = bytearray(seal(key, VALUE.encode(), "a", "secrets", "sealed", "one"))
    sealed[at] ^= 1

    with pytest.raises(Unopened) as refused:
        unseal(key, bytes(sealed), "a", "secrets", "sealed", "one")

    assert VALUE not in str(refused.value)
