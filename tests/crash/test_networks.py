"""The lab's networks: each request to another node, and connections that break where they are told."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import anyio
import pytest
from aiohttp import WSMsgType, web

from hostler.testing.crash.balancer import balancing
from hostler.testing.crash.relay import Relay, relaying

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
LONG = b"x" * 300_000


class Node:
    """A server that says who it is."""

    def __init__(self, name: str) -> None:
        self.name, self.port = name, 0
        self.is_cut, self.left = False, anyio.Event()
        self.asked = list[str]()

    async def who(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        body = await request.read()
        return web.Response(body=self.name.encode() + b" " + body)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            for number in range(1000 if request.path == "/long" else 3):
                await answer.write(f"{self.name} {number}\n".encode())
                await anyio.lowlevel.checkpoint()
                if self.is_cut and request.transport is not None:
                    request.transport.abort()
                    return answer
        finally:
            self.left.set()
        return answer

    async def socket(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{self.name} {message.data}")
        return socket


@asynccontextmanager
async def a_node(name: str) -> AsyncGenerator[Node]:
    node = Node(name)
    app = web.Application(client_max_size=10_000_000)
    app.router.add_route("*", "/who", node.who)
    app.router.add_get("/stream", node.stream)
    app.router.add_get("/long", node.stream)
    app.router.add_get("/socket", node.socket)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    node.port = int(runner.addresses[0][1])
    try:
        yield node
    finally:
        await runner.cleanup()


@asynccontextmanager
async def a_fleet() -> AsyncGenerator[tuple[list[Node], str, aiohttp.ClientSession, list[Node]]]:
    """Yield three nodes, the URL of what stands before them, one client's connection, and who lives."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(a_node(name)) for name in "abc"]
        alive = [*nodes]
        balancer = await stack.enter_async_context(
            balancing(lambda: [one.port for one in alive], chance=random.Random(7))
        )
        one_connection = aiohttp.TCPConnector(limit=1)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=one_connection))
        yield nodes, balancer.url, http, alive


async def test_the_requests_of_one_connection_go_to_all_nodes() -> None:
    async with a_fleet() as (nodes, url, http, _):
        for number in range(40):
            body = LONG if number % 2 else None
            async with http.post(f"{url}/who", data=body) as answer:
                said = await answer.read()
            assert said[2:] == (body or b"")

    assert sum(len(one.asked) for one in nodes) == 40
    assert all(len(one.asked) >= 5 for one in nodes)


async def test_a_body_in_chunks_arrives_whole() -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        for _ in range(10):
            yield LONG

    async with a_fleet() as (_, url, http, _alive):
        for _ in range(2):
            async with http.post(f"{url}/who", data=pieces()) as answer:
                assert len(await answer.read()) == 2 + 10 * len(LONG)


async def test_a_stream_comes_from_one_node_as_it_is_sent() -> None:
    async with a_fleet() as (_, url, http, _alive):
        async with http.get(f"{url}/stream") as answer:
            lines = (await answer.read()).decode().split("\n")
        async with http.get(f"{url}/who") as answer:
            assert answer.status == 200

    assert [line[1:] for line in lines] == [" 0", " 1", " 2", ""]
    assert len({line[:1] for line in lines if line}) == 1


async def test_a_node_hears_that_the_client_of_its_stream_went_away() -> None:
    async with a_fleet() as (nodes, url, http, alive):
        alive[:] = nodes[:1]
        async with http.get(f"{url}/long") as answer:
            await answer.content.readline()
            answer.close()
        with anyio.fail_after(20):
            await nodes[0].left.wait()


async def test_a_stream_whose_node_died_breaks_off_and_is_not_ended() -> None:
    async with a_fleet() as (nodes, url, http, _):
        for node in nodes:
            node.is_cut = True
        with pytest.raises(aiohttp.ClientPayloadError):
            async with http.get(f"{url}/long") as answer:
                await answer.read()


async def test_a_socket_stays_where_it_is() -> None:
    async with a_fleet() as (nodes, url, http, _), http.ws_connect(f"{url}/socket") as socket:
        heard = set[str]()
        for _ in range(20):
            await socket.send_str("hello")
            message = await socket.receive()
            assert message.type is WSMsgType.TEXT
            heard.add(str(message.data))
        assert len(heard) == 1
        assert sum(len(one.asked) for one in nodes) == 1


async def test_nodes_that_are_gone_are_not_asked_and_without_any_it_says_so() -> None:
    async with a_fleet() as (nodes, url, http, alive):
        alive[:] = nodes[2:]
        for _ in range(10):
            async with http.get(f"{url}/who") as answer:
                assert (await answer.read())[:1] == b"c"
        alive.clear()
        async with http.get(f"{url}/who") as answer:
            assert answer.status == 503


# -- a network that breaks -------------------------------------------------------------------


@asynccontextmanager
async def a_way() -> AsyncGenerator[tuple[Node, Relay, str, aiohttp.ClientSession]]:
    async with (
        a_node("a") as node,
        relaying(f"http://127.0.0.1:{node.port}") as relay,
        aiohttp.ClientSession() as http,
    ):
        yield node, relay, relay.url(f"http://127.0.0.1:{node.port}"), http


async def test_a_cut_is_at_the_byte_that_was_named() -> None:
    async with a_way() as (node, relay, _, _http):
        for byte in (1, 5, 17):
            relay.cut_at("down", byte)
            stream = await anyio.connect_tcp("127.0.0.1", relay.listens_at)
            async with stream:
                await stream.send(b"GET /who HTTP/1.1\r\nHost: a\r\n\r\n")
                got = b""
                with anyio.fail_after(20):
                    async for piece in stream:
                        got += piece
            assert len(got) == byte
    assert relay.cuts == 3
    assert node.asked == ["/who"] * 3


async def test_a_request_that_was_cut_off_does_not_arrive() -> None:
    async with a_way() as (node, relay, url, http):
        relay.cut_at("up", 10)
        with pytest.raises(aiohttp.ClientError):
            await http.post(f"{url}/who")  # a GET would be sent again at once
        assert node.asked == []
        async with http.get(f"{url}/who") as answer:
            assert answer.status == 200


async def test_a_way_that_is_down_or_was_cut_is_told_and_one_that_stalls_is_not() -> None:
    async with a_way() as (_, relay, url, http):
        relay.is_down = True
        with pytest.raises(aiohttp.ClientError):
            await http.post(f"{url}/who")
        relay.is_down = False
        relay.stall()
        got = list[int]()

        async def ask() -> None:
            async with http.get(f"{url}/who") as answer:
                got.append(answer.status)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            with anyio.fail_after(20):
                while relay.connections == 0:
                    await anyio.lowlevel.checkpoint()
            assert got == []
            relay.flow()
        assert got == [200]
        async with http.get(f"{url}/long") as answer:
            await answer.content.readline()
            relay.cut()
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
