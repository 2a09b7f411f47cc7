"""What is open for tenants' endpoints: apart from each other, bounded, and never cut in use."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
import anyio.lowlevel
import pytest
from tests.canaries import canary

from hostler.app.endpoints import IDLE_S, Elsewhere, Open, Placed
from hostler.core.directory import DEFAULT, Endpoint, Tenant
from hostler.core.errors import SetupError
from hostler.core.events import TenantId
from hostler.core.ports import Delta, Failure, Model, Reply, Request
from hostler.core.said import UserSaid
from hostler.harness.egress import Egress
from hostler.harness.key_limits import KeyLimits
from hostler.harness.outbound import Outbound
from hostler.models.breaker import Breaking
from hostler.models.openai_chat import OpenAIChat
from hostler.models.transport import Aiohttp
from hostler.service.endpoints import Endpoints
from hostler.stores.memory import MemoryStore
from hostler.stores.memory_directory import MemoryDirectory
from hostler.testing.doubles import ModelDouble
from hostler.testing.model_script import End, Text
from hostler.testing.provider_server import Asked, Play, Send, Wait, chunk, head, provider_server
from hostler.testing.store_kit import Clock
from hostler.testing.wire_chat import CHAT

pytestmark = pytest.mark.anyio
KEY = canary("key of an adapter", "sk-of-them-all-0123")


def chat(url: str, transport: Aiohttp, limits: KeyLimits) -> Model:
    made = OpenAIChat(name="m", base_url=url, transport=transport, key=lambda _: KEY, provider="p")
    return Breaking(made, limits, place=url, key=lambda _: KEY)


class Tenants:
    """Tenants with endpoints, and a model that is asked there."""

    def __init__(self, *, make: Open = chat, most: int = 200) -> None:
        self.clock, self.endpoints = Clock(), Endpoints()
        self.directory = MemoryDirectory(MemoryStore())
        guard = Outbound(Egress(allow=["127.0.0.1"]), in_clear=False)
        self.elsewhere = Elsewhere(self.endpoints, guard, most=most, clock=self.clock)
        own = ModelDouble(lambda _: Reply(text="operator's", stop="end"), provider="p")
        self.model = Placed(own, self.elsewhere, make)

    async def put(self, url: str, *tenants: str) -> None:
        for name in tenants:
            tenant = TenantId(name)
            await self.directory.create_tenant(Tenant(id=tenant, title=None, created_at=1.0))
            endpoint = Endpoint(
                tenant=tenant, provider="p", base_url=url, created_at=1.0, updated_at=1.0
            )
            await self.endpoints.put(self.directory, endpoint)

    def stream(self, tenant: str) -> AsyncGenerator[Delta | Reply | Failure, None]:
        request = Request(system="", transcript=[UserSaid("Hi.")], tenant=tenant)
        return self.model.stream(request)

    async def said(self, tenant: str) -> str:
        last = [part async for part in self.stream(tenant)][-1]
        assert isinstance(last, Reply | Failure)
        return last.text if isinstance(last, Reply) else last.message

    async def aclose(self) -> None:
        await self.elsewhere.aclose()


def answered(_: Asked) -> Play:
    said = b"".join(CHAT.events([Text("Hi."), End()]))
    return [Send(head()), Send(chunk(said) + chunk(b""))]


async def test_connections_are_kept_for_a_tenant_and_used_for_no_other() -> None:
    async with provider_server(answered) as server, aclosing(Tenants()) as all_of:
        await all_of.put(server.url, "a", "b")
        for name in ("a", "a", "b", "b", "a", "c"):
            await all_of.said(name)

    assert [asked.connection for asked in server.asked] == [1, 1, 2, 2, 1]


async def test_breakers_are_one_tenant_s_at_the_same_place_with_the_same_key() -> None:
    def limited(asked: Asked) -> Play:
        del asked
        return [Send(head(429, headers=["Retry-After: 3000"]) + chunk(b""))]

    async with provider_server(limited) as server, aclosing(Tenants()) as all_of:
        await all_of.put(server.url, "a", "b")
        told = [await all_of.said(name) for name in ("a", "a", "b", "c")]

    assert ["is not asked for another" in one for one in told] == [False, True, False, False]
    assert told[3] == "operator's"
    assert len(server.asked) == 2


async def test_no_more_is_kept_than_may_be_and_what_was_longest_not_used_goes_first() -> None:
    async with provider_server(answered) as server, aclosing(Tenants(most=2)) as all_of:
        await all_of.put(server.url, "a", "b", "c")
        for name in ("a", "b", "a", "c", "a", "b"):
            await all_of.said(name)
            assert all_of.elsewhere.open <= 2

    assert [asked.connection for asked in server.asked] == [1, 2, 1, 3, 1, 4]


async def test_what_is_not_used_for_a_while_is_closed() -> None:
    async with provider_server(answered) as server, aclosing(Tenants()) as all_of:
        await all_of.put(server.url, "a", "b")
        await all_of.said("a")
        all_of.clock.now += IDLE_S
        await all_of.said("b")
        kept = all_of.elsewhere.open
        await all_of.said("a")

    assert kept == 1
    assert [asked.connection for asked in server.asked] == [1, 2, 3]


async def test_a_question_goes_on_where_it_began_whatever_changes_meanwhile() -> None:
    go, told, opened = anyio.Event(), list[str](), list[int]()

    def slow(_: Asked) -> Play:
        first, *rest = CHAT.events([Text("Hi."), Text(" There."), End()])
        last = chunk(b"".join(rest)) + chunk(b"")
        return [Send(head()), Send(chunk(first)), Wait(go), Send(last)]

    async with (
        provider_server(slow) as server,
        provider_server(answered) as other,
        aclosing(Tenants(most=1)) as all_of,
    ):
        await all_of.put(server.url, "a")
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                told.append(await all_of.said("a"))

            tasks.start_soon(ask)
            with anyio.fail_after(5):
                while not server.asked:
                    await anyio.lowlevel.checkpoint()
            await all_of.put(other.url, "a", "b")
            assert [await all_of.said(name) for name in ("a", "b", "a")] == ["Hi."] * 3
            opened.append(all_of.elsewhere.open)
            go.set()
        opened.append(all_of.elsewhere.open)

    assert told == ["Hi. There."]
    assert opened == [2, 1]


async def test_a_model_that_cannot_be_made_is_a_failure_and_not_the_end_of_the_run() -> None:
    def broken(url: str, transport: Aiohttp, limits: KeyLimits) -> Model:
        del transport, limits
        raise SetupError(f"{url} is no place")

    async with aclosing(Tenants(make=broken)) as all_of:
        await all_of.put("https://a.example", "a")
        assert await all_of.said("a") == "p is not asked: https://a.example is no place"


class Slow(MemoryDirectory):
    """Says that it has written when it is told to."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.wrote, self.go = anyio.Event(), anyio.Event()

    async def put_endpoint(self, endpoint: Endpoint) -> None:
        await super().put_endpoint(endpoint)
        self.wrote.set()
        await self.go.wait()

    async def drop_endpoint(self, tenant: TenantId, provider: str) -> bool:
        was_there = await super().drop_endpoint(tenant, provider)
        self.wrote.set()
        await self.go.wait()
        return was_there


@pytest.mark.parametrize("what", ["put", "drop"])
async def test_what_is_kept_is_known_even_if_whoever_asked_for_it_is_gone(what: str) -> None:
    directory, endpoints = Slow(), Endpoints()
    made = Endpoint(
        tenant=DEFAULT, provider="p", base_url="https://a", created_at=1.0, updated_at=1.0
    )
    if what == "drop":
        await MemoryDirectory.put_endpoint(directory, made)
        await endpoints.open(directory)

    async def change() -> None:
        if what == "put":
            await endpoints.put(directory, made)
        else:
            await endpoints.drop(directory, DEFAULT, "p")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(change)
            await directory.wrote.wait()
            tasks.cancel_scope.cancel()
            directory.go.set()

    assert endpoints.of(DEFAULT) == await directory.endpoints() == ([made] if what == "put" else [])
