"""A way to a server on which requests and answers do not arrive."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream
from tests.serving import Client

Cut: TypeAlias = Literal["request", "answer", "none"]
"""What does not arrive."""


@dataclass
class Cutter:
    """A way to a server on which connections break, one after the other as it is told."""

    server: str
    cuts: list[Cut]
    met: list[Cut] = field(default_factory=list[Cut])

    async def carry(self, client: SocketStream) -> None:
        async with client:
            cut = self.cuts.pop(0) if self.cuts else "none"
            self.met.append(cut)
            if cut == "request":
                await client.receive()
                return
            at = urlsplit(self.server)
            assert at.hostname is not None
            assert at.port is not None
            async with (
                await anyio.connect_tcp(at.hostname, at.port) as server,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(pump, client, server)
                await (pump(server, client) if cut == "none" else server.receive())
                tasks.cancel_scope.cancel()


async def pump(source: SocketStream, sink: SocketStream) -> None:
    try:
        async for data in source:
            await sink.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return


@asynccontextmanager
async def cutting(server: Client, *cuts: Cut) -> AsyncGenerator[tuple[str, Cutter]]:
    """Yield an address that leads to the server, if it leads there."""
    cutter = Cutter(server.url, list(cuts))
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, cutter.carry)
        port = listener.extra(SocketAttribute.local_port)
        yield f"http://127.0.0.1:{port}", cutter
        tasks.cancel_scope.cancel()
