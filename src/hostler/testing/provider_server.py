"""A provider on loopback that does as it is told, to the byte: splits, stalls, cuts, resets, floods.

It speaks just enough HTTP to be asked, and answers with what a `Play` says.

Invariant: nothing here waits for time, but for a `Trickle`; it waits for the client.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import SocketAttribute, SocketStream

from hostler.core.events import JsonObject


@dataclass(frozen=True, slots=True)
class Send:
    """Write this in one go, then let the client have a look at it."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Flood:
    """Write this again and again, until the client closes or `limit_bytes` are sent."""

    data: bytes
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class Trickle:
    """Write this every so often, until the client closes."""

    data: bytes
    every_s: float


@dataclass(frozen=True, slots=True)
class Hang:
    """Do nothing until the client closes."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until the test sets the event."""

    until: anyio.Event


@dataclass(frozen=True, slots=True)
class Reset:
    """End the connection with a RST, as a crashed process's kernel does."""


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection; without this it is kept for the next request."""


Move: TypeAlias = Send | Flood | Trickle | Hang | Wait | Reset | Close
Play: TypeAlias = Sequence[Move]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, as it came."""

    method: str
    path: str
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes
    connection: int
    """Counted from 1."""

    @property
    def json(self) -> JsonObject:
        return msgspec.json.decode(self.body, type=dict[str, object])


@dataclass(slots=True)
class ProviderServer:
    """What a test sees of the server."""

    play: Callable[[Asked], Play]
    url: str = ""
    asked: list[Asked] = field(default_factory=list[Asked])
    connections: int = 0
    sent_bytes: int = 0
    closed: anyio.Event = field(default_factory=anyio.Event)
    """Set when a client has closed a connection that was in the middle of a play."""

    async def serve(self, stream: SocketStream) -> None:
        self.connections += 1
        number = self.connections
        try:
            async with stream:
                buffered = b""
                while request := await _request(stream, buffered, number):
                    asked, buffered = request
                    self.asked.append(asked)
                    for move in self.play(asked):
                        if not await self._do(move, stream):
                            return
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.closed.set()

    async def _do(self, move: Move, stream: SocketStream) -> bool:
        """Make a move; return whether the connection goes on."""
        match move:
            case Send() | Flood() | Trickle():
                await self._write(move, stream)
            case Hang():
                await _closed(stream)
                self.closed.set()
                return False
            case Wait(until=until):
                await until.wait()
            case Reset():
                linger = struct.pack("ii", 1, 0)
                raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio, not Django
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return False
            case Close():
                return False
            case _:
                assert_never(move)
        return True

    async def _write(self, move: Send | Flood | Trickle, stream: SocketStream) -> None:
        match move:
            case Send(data=data):
                await self._send(stream, data)
                for _ in range(3):  # the client reads when the loop has looked at its socket
                    await anyio.lowlevel.checkpoint()
            case Flood(data=data, limit_bytes=limit_bytes):
                block = data * max(1, 65_536 // len(data))
                while self.sent_bytes < limit_bytes:
                    await self._send(stream, block)
            case Trickle(data=data, every_s=every_s):
                while True:
                    await anyio.sleep(every_s)
                    await self._send(stream, data)

    async def _send(self, stream: SocketStream, data: bytes) -> None:
        await stream.send(data)
        self.sent_bytes += len(data)


@asynccontextmanager
async def provider_server(play: Callable[[Asked], Play]) -> AsyncGenerator[ProviderServer]:
    """Serve on a free port of loopback; all connections end with the context."""
    server = ProviderServer(play)
    async with _listening(server.serve) as server.url:
        yield server


@asynccontextmanager
async def refused() -> AsyncGenerator[str]:
    """Give the URL of a port where nobody listens, and nobody else will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@asynccontextmanager
async def hanging_up() -> AsyncGenerator[str]:
    """Give the URL of a server that ends every connection at its first byte, in mid-handshake."""

    async def hang_up(stream: SocketStream) -> None:
        async with stream:
            await stream.receive(1)

    async with _listening(hang_up) as url:
        yield url


@asynccontextmanager
async def _listening(serve: Callable[[SocketStream], Awaitable[None]]) -> AsyncGenerator[str]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - anyio, not Django
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{port}"
        tasks.cancel_scope.cancel()


def head(
    status: int = 200, *, content_type: str = "text/event-stream", headers: Sequence[str] = ()
) -> bytes:
    """Return a status line and headers for a chunked body."""
    lines = (
        f"HTTP/1.1 {status} Whatever",
        f"Content-Type: {content_type}",
        "Transfer-Encoding: chunked",
        *headers,
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data: bytes) -> bytes:
    """Return `data` as one chunk; an empty one ends the body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


async def _request(
    stream: SocketStream, buffered: bytes, number: int
) -> tuple[Asked, bytes] | None:
    """Read one request; None when the client has no more of them."""
    data = buffered
    try:
        while b"\r\n\r\n" not in data:
            data += await stream.receive()
        start, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = start.decode("latin-1").split("\r\n")
        pairs = [line.split(":", 1) for line in lines]
        headers = {name.strip().lower(): value.strip() for name, value in pairs}
        length = int(headers.get("content-length", "0"))
        while len(rest) < length:
            rest += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return None
    method, path, _ = first.split(" ", 2)
    asked = Asked(method=method, path=path, headers=headers, body=rest[:length], connection=number)
    return asked, rest[length:]


async def _closed(stream: SocketStream) -> None:
    try:
        while True:
            await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return
