"""HTTP/1.1 in as few lines as will do, so that neither the load nor the yardstick is the cost.

Invariant: it understands what the servers of this bench send, and is no HTTP library.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import msgspec

HOST = "127.0.0.1"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
IDLE_S = 2.0
"""Older connections are not used again: servers close theirs after 5 s, maybe just now."""
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

OnEvent = Callable[[bytes], None]


class BrokenError(Exception):
    """The server hung up in mid-answer, or answered with an error."""


class Request(NamedTuple):
    method: str
    path: str
    body: bytes


def chunk(data: bytes) -> bytes:
    """Return data as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


# -- the server's side -----------------------------------------------------------------------


class Line(asyncio.Protocol):
    """One client's connection: hands on each whole request, the next when the last is answered."""

    def __init__(self, asked: Callable[[Line, Request], None]) -> None:
        self._asked, self._data, self._busy = asked, bytearray(), False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._next()

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def answer(self, value: object, status: int = 200) -> None:
        body = msgspec.json.encode(value)
        head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.write(head % (status, len(body)) + body)
        self.over()

    def over(self) -> None:
        """Say that the request is answered."""
        self._busy = False
        self._next()

    def _next(self) -> None:
        end = self._data.find(b"\r\n\r\n")
        if self._busy or end < 0:
            return
        head = bytes(self._data[:end])
        found = LENGTH.search(head)
        over = end + 4 + (int(found[1]) if found else 0)
        if len(self._data) < over:
            return
        body = bytes(self._data[end + 4 : over])
        del self._data[:over]
        method, path, _ = head.split(b" ", 2)
        self._busy = True
        self._asked(self, Request(method.decode(), path.decode(), body))


async def listen(asked: Callable[[Line, Request], None]) -> asyncio.Server:
    """Return a server on a free port of loopback, and print the port for whoever started us."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Line(asked), HOST, 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    return server


# -- the client's side -----------------------------------------------------------------------


class _Connection(asyncio.Protocol):
    """Carries one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._data, self._body = b"", b""
        self.status, self._length = 0, 0
        self._on_event: OnEvent | None = None

    @property
    def usable(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def ask(self, request: bytes, on_event: OnEvent | None) -> asyncio.Future[bytes]:
        assert self.transport is not None
        self._data, self._body, self.status, self._on_event = b"", b"", 0, on_event
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(BrokenError(f"hung up: {exc}"))

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self.status == 0 and not self._read_head():
            return
        is_whole = self._read_chunks() if self._length < 0 else self._read_length()
        if is_whole and self._answer is not None and not self._answer.done():
            self._answer.set_result(self._body)

    def _read_head(self) -> bool:
        head, blank, rest = self._data.partition(b"\r\n\r\n")
        if not blank:
            return False
        found = LENGTH.search(head)
        self.status, self._length = int(head[9:12]), int(found[1]) if found else -1
        self._data = rest
        return True

    def _read_length(self) -> bool:
        self._body = self._data
        return len(self._body) >= self._length

    def _read_chunks(self) -> bool:
        data, at, size, pieces = self._data, 0, -1, list[bytes]()
        while size and (end := data.find(b"\r\n", at)) >= 0:
            size = int(data[at:end], 16)
            if len(data) < end + size + 4:
                size = -1
                break
            pieces.append(data[end + 2 : end + 2 + size])
            at = end + size + 4
        self._data = data[at:]
        self._body += b"".join(pieces)
        if self._on_event is not None:
            *blocks, self._body = self._body.split(b"\n\n")
            for block in blocks:
                self._on_event(block)
        return size == 0


class Client:
    """Sends requests to one server over connections that it keeps, as many as there are at once."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None) -> None:
        self._port, self._idle = port, list[tuple[float, _Connection]]()
        lines = [f"{name}: {value}\r\n" for name, value in (headers or {}).items()]
        self._head = "".join(["Host: localhost\r\nContent-Type: application/json\r\n", *lines])

    @property
    def port(self) -> int:
        return self._port

    async def request(
        self, method: str, path: str, body: object = None, *, on_event: OnEvent | None = None
    ) -> bytes:
        """Return the body; with `on_event`, hand on each Server-Sent Event as it comes.

        Raises:
            BrokenError: no 2xx, or no whole answer.
            OSError: nobody listens.
        """
        data = b"" if body is None else msgspec.json.encode(body)
        accept = "" if on_event is None else "Accept: text/event-stream\r\n"
        head = f"{method} {path} HTTP/1.1\r\n{self._head}{accept}Content-Length: {len(data)}\r\n"
        connection = await self._connect()
        try:
            answer = await connection.ask(f"{head}\r\n".encode() + data, on_event)
        except BaseException:
            connection.close()
            raise
        self._idle.append((time.monotonic(), connection))
        if connection.status >= 400:
            raise BrokenError(f"{connection.status} {answer[:300]!r}")
        return answer

    def close(self) -> None:
        for _, connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _connect(self) -> _Connection:
        while self._idle:
            since, connection = self._idle.pop()
            if connection.usable and time.monotonic() < since + IDLE_S:
                return connection
            connection.close()
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, HOST, self._port)
        return connection
