"""A balancer that sends each request to another node, by chance, so that nothing can rest on luck.

It knows as much of HTTP/1.1 as that takes: where a request ends.  To a node each request is the last
one of its connection; the client's goes on, and its next request to somebody else.  What is upgraded
stays where it is.

Invariant: a request is sent to one node only.  Whether it was done by one that died meanwhile,
nobody here knows, and so it is answered with 502 or not at all, and never sent again.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio
from anyio.abc import SocketAttribute, SocketStream

from hostler.testing.crash.relay import GONE

END = b"\r\n\r\n"
LARGEST_HEAD = 64 * 1024
UNAVAILABLE = b"HTTP/1.1 503 \r\ncontent-length: 0\r\nretry-after: 0\r\n\r\n"
BAD_GATEWAY = b"HTTP/1.1 502 \r\ncontent-length: 0\r\n\r\n"


class _Ended(Exception):
    """The other side is gone."""


@dataclass
class _Incoming:
    """Bytes of one side, and those that came and were not used yet."""

    stream: SocketStream
    kept: bytearray = field(default_factory=bytearray)

    async def more(self) -> None:
        """Raises _Ended."""
        try:
            self.kept += await self.stream.receive()
        except GONE as error:
            raise _Ended from error

    async def until(self, mark: bytes) -> bytes:
        """Return what comes up to a mark, with it.  Raises _Ended."""
        while (at := self.kept.find(mark)) < 0:
            if len(self.kept) > LARGEST_HEAD:
                raise _Ended
            await self.more()
        return self.take(at + len(mark))

    async def exactly(self, size: int) -> bytes:
        while len(self.kept) < size:
            await self.more()
        return self.take(size)

    def take(self, size: int) -> bytes:
        taken = bytes(self.kept[:size])
        del self.kept[:size]
        return taken


def _fields(head: bytes) -> list[tuple[bytes, bytes]]:
    lines = head[: -len(END)].split(b"\r\n")[1:]
    return [
        (name.strip().lower(), value.strip())
        for name, _, value in (s.partition(b":") for s in lines)
    ]


def _without(head: bytes, *names: bytes) -> bytes:
    first, *lines = head[: -len(END)].split(b"\r\n")
    left = [one for one in lines if one.partition(b":")[0].strip().lower() not in names]
    return b"\r\n".join([first, *left])


@dataclass
class Balancer:
    """Stands before nodes.  Made with `balancing`."""

    nodes: Callable[[], Sequence[int]]
    """The ports of those that live, now."""
    chance: random.Random = field(default_factory=random.Random)
    port: int = 0
    sent: dict[int, int] = field(default_factory=dict[int, int])
    """How many requests each node was sent, by its port."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, stream: SocketStream) -> None:
        """Answer one client until it goes, or until an answer broke off."""
        client = _Incoming(stream)
        async with stream:
            try:
                while await self._answer(client):
                    pass
            except _Ended:
                return

    async def _answer(self, client: _Incoming) -> bool:
        """Answer one request; return whether there may be another one."""
        head = await client.until(END)
        node = await self._connect()
        if node is None:
            await _send(client.stream, UNAVAILABLE)
            return False  # its body is not read
        async with node:
            fields = dict(_fields(head))
            if b"upgrade" in fields:
                await _send(node, head)
                await _both_ways(client, node)
                return False
            await _send(node, _without(head, b"connection") + b"\r\nconnection: close" + END)
            await _pass_body(client, node, fields)
            return await self._pass_answer(client, _Incoming(node))

    async def _pass_answer(self, client: _Incoming, node: _Incoming) -> bool:
        is_whole = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_gone, client, tasks.cancel_scope)
            try:
                head = await node.until(END)
            except _Ended:
                await _send(client.stream, BAD_GATEWAY)
            else:
                await _send(client.stream, _without(head, b"connection") + END)
                is_whole = await _pass_rest(client.stream, node, head)
            tasks.cancel_scope.cancel()
        return is_whole

    async def _connect(self) -> SocketStream | None:
        """Return a connection to a node: to another one, if the first is not there any more."""
        ports = [*self.nodes()]
        self.chance.shuffle(ports)
        for port in ports:
            try:
                stream = await anyio.connect_tcp("127.0.0.1", port)
            except OSError:
                continue
            self.sent[port] = self.sent.get(port, 0) + 1
            return stream
        return None


async def _send(stream: SocketStream, data: bytes) -> None:
    try:
        await stream.send(data)
    except GONE as error:
        raise _Ended from error


async def _pass_body(client: _Incoming, node: SocketStream, fields: dict[bytes, bytes]) -> None:
    if b"chunked" in fields.get(b"transfer-encoding", b"").lower():
        while True:
            size = await client.until(b"\r\n")
            chunk = await client.exactly(int(size.split(b";")[0], 16) + 2)
            await _send(node, size + chunk)
            if chunk == b"\r\n":
                return
    elif length := int(fields.get(b"content-length", b"0")):
        await _send(node, await client.exactly(length))


async def _pass_rest(client: SocketStream, node: _Incoming, head: bytes) -> bool:
    """Pass on all that a node still says; return whether that was a whole answer."""
    fields, last, length = dict(_fields(head)), b"", 0
    while True:
        if node.kept:
            piece = node.take(len(node.kept))
            length, last = length + len(piece), (last + piece)[-len(LAST_CHUNK) :]
            await _send(client, piece)
        try:
            await node.more()
        except _Ended:
            break
    if b"chunked" in fields.get(b"transfer-encoding", b"").lower():
        return last == LAST_CHUNK
    return length == int(fields.get(b"content-length", b"0")) or head.split()[1] in NO_BODY


LAST_CHUNK = b"0\r\n\r\n"
NO_BODY = frozenset({b"204", b"304"})


async def _until_gone(client: _Incoming, scope: anyio.CancelScope) -> None:
    try:
        while True:
            await client.more()
    except _Ended:
        scope.cancel()


async def _both_ways(client: _Incoming, node: SocketStream) -> None:
    async with anyio.create_task_group() as tasks:
        pump = partial(_pump, scope=tasks.cancel_scope)
        await _send(node, client.take(len(client.kept)))
        tasks.start_soon(pump, client.stream, node)
        tasks.start_soon(pump, node, client.stream)


async def _pump(source: SocketStream, sink: SocketStream, *, scope: anyio.CancelScope) -> None:
    try:
        async for piece in source:
            await sink.send(piece)
    except GONE:
        pass
    scope.cancel()


@asynccontextmanager
async def balancing(
    nodes: Callable[[], Sequence[int]], *, chance: random.Random | None = None
) -> AsyncGenerator[Balancer]:
    """Yield a balancer before nodes; who they are is asked at each request."""
    balancer = Balancer(nodes, chance or random.Random())  # noqa: S311  no secret
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        balancer.port = listener.extra(SocketAttribute.local_port)  # noqa: S610  no Django
        tasks.start_soon(listener.serve, balancer.serve)
        yield balancer
        tasks.cancel_scope.cancel()
