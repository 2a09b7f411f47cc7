"""HTTP as models need it: lists of models, loops that come and go, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from contextlib import ExitStack

import anyio
import anyio.lowlevel
import msgspec
import pytest
from tests.canaries import canary

from hostler.core.ports import Delta, Failure, Reply, Request
from hostler.core.said import UserSaid
from hostler.models.discover import served
from hostler.models.exchange import Bounds, Patience
from hostler.models.faults import Failed
from hostler.models.openai_chat import OpenAIChat
from hostler.models.transport import Aiohttp
from hostler.testing.model_script import End, Text
from hostler.testing.provider_server import (
    Asked,
    Flood,
    Hang,
    Play,
    Send,
    Wait,
    chunk,
    head,
    provider_server,
    refused,
)
from hostler.testing.wire_chat import CHAT

pytestmark = pytest.mark.anyio
KEY = canary("key of an adapter", "sk-1")
QUESTION = Request(system="", transcript=[UserSaid("Hi.")])


def says(value: object, status: int = 200) -> Play:
    start = head(status, content_type="application/json")
    return [Send(start), Send(chunk(msgspec.json.encode(value)) + chunk(b""))]


def answered(_: Asked) -> Play:
    return [Send(head()), Send(chunk(b"".join(CHAT.events([Text("Hi."), End()]))) + chunk(b""))]


async def test_the_models_of_a_server_are_listed_with_the_key() -> None:
    listed = {"object": "list", "data": [{"id": "a", "owned_by": "x"}, {"id": "b"}]}
    async with provider_server(lambda _: says(listed)) as server:
        transport = Aiohttp()

        names = await served(transport, f"{server.url}/v1/", KEY)

        assert names == ["a", "b"]
        assert (server.asked[0].method, server.asked[0].path) == ("GET", "/v1/models")
        assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
        await transport.aclose()


async def test_no_key_is_sent_to_a_server_that_has_none() -> None:
    async with provider_server(lambda _: says({"data": []})) as server:
        transport = Aiohttp()

        assert await served(transport, server.url, None) == []
        assert "authorization" not in server.asked[0].headers
        await transport.aclose()


@pytest.mark.parametrize(
    ("play", "code"),
    [
        (says({"models": []}), "invalid_request"),
        (says({"error": {"message": "who are you?"}}, 401), "auth"),
        ([Send(head()), Send(chunk(b"{oops") + chunk(b""))], "invalid_request"),
        ([Send(head()), Flood(chunk(b"[" * 9000), 1 << 28)], "invalid_request"),
        ([Hang()], "timeout_first_byte"),
        ([Send(head()), Hang()], "timeout_first_byte"),
    ],
    ids=["other JSON", "an error", "no JSON", "a flood", "silence", "a status and silence"],
)
async def test_a_list_that_cannot_be_had_is_a_failure(play: Play, code: str) -> None:
    async with provider_server(lambda _: play) as server:
        transport = Aiohttp(bounds=Bounds(error_bytes=10_000))

        with pytest.raises(Failed) as raised:
            await served(transport, server.url, None, timeout_s=0.2)

        assert raised.value.code == code
        await transport.aclose()


async def test_a_server_that_is_not_there_is_a_failure() -> None:
    async with refused() as url:
        transport = Aiohttp()

        with pytest.raises(Failed) as raised:
            await served(transport, url, None)

        assert raised.value.code == "unavailable"
        await transport.aclose()


async def test_a_server_that_does_not_take_connections_is_given_up_soon() -> None:
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # the kernel completes one or two for it, and drops the others
            one = waiting.enter_context(socket.socket())
            one.settimeout(0)
            one.connect_ex(full.getsockname())
        transport = Aiohttp()
        url = f"http://127.0.0.1:{full.getsockname()[1]}"

        parts = model(url, transport, Patience(connect_s=0.2)).stream(QUESTION)
        (failure,) = [part async for part in parts]

        assert isinstance(failure, Failure)
        assert (failure.code, failure.again) == ("timeout_connect", True)
        await transport.aclose()


def model(url: str, transport: Aiohttp, patience: Patience | None = None) -> OpenAIChat:
    return OpenAIChat(
        name="m",
        base_url=url,
        transport=transport,
        key=lambda _: None,
        provider="p",
        patience=patience,
    )


async def test_a_closed_transport_opens_again() -> None:
    async with provider_server(answered) as server:
        transport = Aiohttp()
        for _ in range(2):
            last = [part async for part in model(server.url, transport).stream(QUESTION)][-1]
            assert isinstance(last, Reply), last
            await transport.aclose()

        assert server.connections == 2


async def test_closing_leaves_no_connection_behind_even_one_whose_body_never_ends() -> None:
    def play(_: Asked) -> Play:
        return [Send(head()), Send(chunk(b"".join(CHAT.events([Text("Hi."), End()])))), Hang()]

    async with provider_server(play) as server:
        transport = Aiohttp()
        last = [part async for part in model(server.url, transport).stream(QUESTION)][-1]
        assert isinstance(last, Reply), last

        await transport.aclose()

        await server.closed.wait()
    gc.collect()  # an unclosed connection would warn here, and warnings are errors


async def test_a_body_that_does_not_end_costs_its_connection_but_not_the_reply() -> None:
    def play(_: Asked) -> Play:
        return [Send(head()), Send(chunk(b"".join(CHAT.events([Text("Hi."), End()])))), Hang()]

    async with provider_server(play) as server:
        transport = Aiohttp()
        last = [part async for part in model(server.url, transport).stream(QUESTION)][-1]

        assert isinstance(last, Reply), last
        await server.closed.wait()  # a moment later, by itself
        await transport.aclose()


async def test_a_process_that_had_no_time_does_not_blame_the_provider() -> None:
    more, begun = anyio.Event(), anyio.Event()
    events = list(CHAT.events([Text("Hi."), Text(" Bye."), End()]))

    def play(_: Asked) -> Play:
        first, rest = b"".join(events[:2]), b"".join(events[2:])
        return [Send(head()), Send(chunk(first)), Wait(more), Send(chunk(rest) + chunk(b""))]

    last: list[Delta | Reply | Failure] = []
    async with provider_server(play) as server, anyio.create_task_group() as tasks:
        transport = Aiohttp()
        patience = Patience(first_byte_s=5.0, idle_s=0.2, tail_s=0.2)

        async def listen() -> None:
            async for part in model(server.url, transport, patience).stream(QUESTION):
                last[:] = [part]
                begun.set()
            await transport.aclose()

        tasks.start_soon(listen)
        await begun.wait()
        sent = server.sent_bytes
        more.set()
        while server.sent_bytes == sent:
            await anyio.lowlevel.checkpoint()
        stopped = time.monotonic() + 0.4
        while time.monotonic() < stopped:
            pass  # as a collection of garbage does, or a laptop's lid

    ending = last[0]
    assert isinstance(ending, Reply), ending
    assert ending.text == "Hi. Bye."


def test_one_transport_serves_one_loop_after_the_other() -> None:
    transport = Aiohttp()

    async def ask() -> None:
        async with provider_server(answered) as server:
            last = [part async for part in model(server.url, transport).stream(QUESTION)][-1]
            assert isinstance(last, Reply), last

    asyncio.run(ask())
    asyncio.run(ask())
    asyncio.run(transport.aclose())
