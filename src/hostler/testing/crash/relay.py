"""A network that breaks: what stands between two programs, and cuts, holds up, goes silent, refuses.

Invariant: bytes that pass are passed in order and unchanged.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream

Way: TypeAlias = Literal["up", "down"]
"""`up`: to the server; `down`: to the client."""
GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


@dataclass
class Relay:
    """A way to a server.  Made with `relaying`; what is set holds for bytes that come after."""

    host: str
    port: int
    listens_at: int = 0
    is_down: bool = False
    """Who comes is sent away."""
    delay_s: float = 0.0
    """Before each piece is passed on."""
    passed: int = 0
    """Bytes, both ways together."""
    connections: int = 0
    cuts: int = 0
    """Connections that were cut at a byte, as `cut_at` said."""
    _cut_at: dict[Way, int] = field(default_factory=dict[Way, int])
    _flows: anyio.Event = field(default_factory=anyio.Event)
    _open: set[anyio.CancelScope] = field(default_factory=set[anyio.CancelScope])

    def __post_init__(self) -> None:
        self._flows.set()

    def url(self, there: str) -> str:
        """Return the URL of a server as it is reached through here."""
        parts = urlsplit(there)
        who, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{who}{at}127.0.0.1:{self.listens_at}"))

    def cut(self) -> None:
        """End all connections."""
        for scope in self._open:
            scope.cancel()

    def cut_at(self, way: Way, byte: int) -> None:
        """Cut the connection on which that many more bytes have gone this way: those do arrive."""
        self._cut_at[way] = byte

    def stall(self) -> None:
        """Let nothing pass any more, with all connections open: nobody is told."""
        self._flows = anyio.Event()

    def flow(self) -> None:
        self._flows.set()

    async def serve(self, client: SocketStream) -> None:
        """Carry one connection."""
        async with client:
            if self.is_down:
                return
            try:
                server = await anyio.connect_tcp(self.host, self.port)
            except OSError:
                return
            self.connections += 1
            async with server, anyio.create_task_group() as tasks:
                scope = tasks.cancel_scope
                self._open.add(scope)
                tasks.start_soon(self._pump, client, server, "up", scope)
                await self._pump(server, client, "down", scope)
                self._open.discard(scope)

    async def _pump(
        self, source: SocketStream, sink: SocketStream, way: Way, scope: anyio.CancelScope
    ) -> None:
        with suppress(*GONE):
            async for piece in source:
                if self.delay_s:
                    await anyio.sleep(self.delay_s)
                await self._flows.wait()
                arrives, is_cut = self._before_the_cut(piece, way)
                self.passed += len(arrives)
                if arrives:
                    await sink.send(arrives)
                if is_cut:
                    break
        scope.cancel()

    def _before_the_cut(self, piece: bytes, way: Way) -> tuple[bytes, bool]:
        left = self._cut_at.get(way)
        if left is None:
            return piece, False
        if left > len(piece):
            self._cut_at[way] = left - len(piece)
            return piece, False
        del self._cut_at[way]
        self.cuts += 1
        return piece[:left], True


@asynccontextmanager
async def relaying(url: str) -> AsyncGenerator[Relay]:
    """Yield a way to the server of a URL, which must name its port."""
    parts = urlsplit(url)
    relay = Relay(parts.hostname or "127.0.0.1", parts.port or 0)
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        relay.listens_at = listener.extra(SocketAttribute.local_port)  # noqa: S610  no Django
        tasks.start_soon(listener.serve, relay.serve)
        yield relay
        tasks.cancel_scope.cancel()
