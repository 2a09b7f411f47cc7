"""A trusted proxy: whom it names is let in, and nobody who only says that they are one."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.serving import KEY, quick, serving

from hostler.app.identity.proxy import TrustedProxy
from hostler.app.identity.settings import Proxy
from hostler.app.keys import ADMIN, AdminGate
from hostler.core.errors import Unauthorised
from hostler.core.events import TenantId
from hostler.core.ports import World
from hostler.faces.http.entry import Entrance, Ways
from hostler.faces.http.headers import Joined
from hostler.service.authorise import Access
from hostler.service.keys import Keys
from hostler.service.shares import Shares
from hostler.service.tenants import Tenants
from hostler.stores.memory import MemoryStore
from hostler.stores.memory_directory import MemoryDirectory
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio
SAID: dict[str, object] = {
    "trusted": ["10.1.0.0/16", "2001:db8::7", "127.0.0.1"],
    "tenant_header": "X-Forwarded-Tenant",
    "roles_header": "X-Forwarded-Groups",
    "roles": {"ops": "admin"},
}
ALICE = {"x-forwarded-user": "alice", "x-forwarded-tenant": "acme"}


def proxy(**changes: object) -> TrustedProxy:
    return TrustedProxy(Proxy.model_validate({**SAID, **changes}))


@pytest.mark.parametrize("peer", ["10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3", "2001:db8::7"])
async def test_a_listed_address_says_who_calls(peer: str) -> None:
    caller = await proxy()(Joined({**ALICE, "x-forwarded-groups": "staff, ops"}), peer)

    assert caller is not None
    assert (caller.who.id, caller.who.tenant, caller.who.role) == ("alice", "acme", "admin")


@pytest.mark.parametrize(
    "peer",
    ["10.2.0.1", "2001:db8::8", "::ffff:10.2.0.1", "10.1.0.1, 10.2.0.1", "localhost", "", None],
)
async def test_from_any_other_address_the_headers_mean_nothing(peer: str | None) -> None:
    assert await proxy()(Joined({**ALICE, "x-forwarded-for": "10.1.0.1"}), peer) is None


async def test_a_proxy_that_names_nobody_says_nothing() -> None:
    assert await proxy()(Joined({"x-forwarded-tenant": "acme"}), "127.0.0.1") is None


async def test_a_key_that_came_along_goes_first() -> None:
    assert await proxy()(Joined({**ALICE, "authorization": f"Bearer {KEY}"}), "127.0.0.1") is None
    assert await proxy()(Joined({**ALICE, "authorization": "Basic eDp5"}), "127.0.0.1") is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"x-forwarded-user": ""},
        {"x-forwarded-user": "alice, bob"},
        {"x-forwarded-user": "a" * 201},
        {"x-forwarded-user": "al\x1bice"},
        {"x-forwarded-tenant": "acme, other"},
        {"x-forwarded-tenant": "../other"},
        {"x-forwarded-tenant": ""},
    ],
)
async def test_what_a_proxy_says_is_refused_when_it_is_not_as_it_has_to_be(
    changes: dict[str, str],
) -> None:
    with pytest.raises(Unauthorised):
        await proxy()(Joined({**ALICE, **changes}), "127.0.0.1")


async def test_a_user_of_a_tenant_that_does_not_exist_is_refused() -> None:
    async def exists(tenant: TenantId) -> bool:
        return tenant == "globex"

    with pytest.raises(Unauthorised):
        await TrustedProxy(Proxy.model_validate(SAID), exists=exists)(Joined(ALICE), "127.0.0.1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"trusted": []},
        {"trusted": ["0.0.0.0/0"]},
        {"trusted": ["::/0"]},
        {"trusted": ["10.1.2.3/16"]},
        {"trusted": ["proxy.example.org"]},
        {"tenant_header": None},
    ],
)
def test_settings_that_would_trust_too_many_or_say_too_little_are_refused(
    wrong: dict[str, object],
) -> None:
    with pytest.raises(ValidationError):
        Proxy.model_validate({**SAID, **wrong})


async def test_a_served_app_believes_its_proxy_and_nobody_else(tmp_path: Path) -> None:
    for trusted, status in ((["127.0.0.1"], 200), (["10.0.0.0/8"], 401)):
        said = Proxy.model_validate({**SAID, "trusted": trusted})
        ways = Ways([TrustedProxy(said)], said.headers)
        file = tmp_path / f"{status}.db"
        async with serving(an_agent(quick()), file=file, ways=ways) as client:
            await client.call("POST", "/api/tenants", {"id": "acme"})
            client.key = ""

            assert (await client.call("GET", "/api/me", headers=ALICE))[0] == status


async def test_a_user_that_a_client_puts_before_the_proxy_s_own_is_refused(tmp_path: Path) -> None:
    said = Proxy.model_validate(SAID)
    ways = Ways([TrustedProxy(said)], said.headers)
    async with serving(an_agent(quick()), file=tmp_path / "log.db", ways=ways) as client:
        twice = [("x-forwarded-user", "root"), *ALICE.items()]
        async with client.http.get(f"{client.url}/api/me", headers=twice) as answer:
            assert answer.status == 401


@pytest.mark.parametrize("name", ["x-forwarded-user", "x-forwarded-tenant", "x-forwarded-groups"])
async def test_whatever_a_client_sends_beside_what_the_proxy_sends_is_refused(
    tmp_path: Path, name: str
) -> None:
    said = Proxy.model_validate(SAID)
    ways = Ways([TrustedProxy(said)], said.headers)
    async with serving(an_agent(quick()), file=tmp_path / "log.db", ways=ways) as client:
        await client.call("POST", "/api/tenants", {"id": "acme"})
        by_proxy = {**ALICE, "x-forwarded-groups": "staff"}
        for more, status in (((), 200), (((name, "ops"),), 401), (((name, ""),), 401)):
            sent = [*more, *by_proxy.items()]
            async with client.http.get(f"{client.url}/api/me", headers=sent) as answer:
                assert answer.status == status


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.9.9.9"])
async def test_nobody_behind_the_door_gets_to_see_the_proxy_s_headers(peer: str) -> None:
    said = Proxy.model_validate(SAID)
    store, world = MemoryStore(), World("worker")
    directory = MemoryDirectory(store)
    tenants = Tenants(directory, world, {})
    shares = Shares(store=store, world=world, access=Access(directory))
    ways = Ways([TrustedProxy(said)], said.headers)
    keys = Keys(directory, tenants, world)
    entry = Entrance(AdminGate(KEY.encode()), shares, keys, tenants, ways=ways)
    sent = {**ALICE, "x-forwarded-groups": "ops", "authorization": f"Bearer {KEY}", "accept": "x"}
    by_key, by_ticket = Joined(sent), Joined(sent)

    caller = await entry(by_key, {}, peer)
    await entry.for_socket(by_ticket, {"ticket": await entry.tickets.give(caller)}, peer)

    assert caller.who == ADMIN
    assert set(by_key) == set(by_ticket) == {"authorization", "accept"}
