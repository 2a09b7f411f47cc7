"""The faces over HTTP: uvicorn with the C parser and, where there is one, uvloop.

Invariant: a shutdown ends streams, not runs; clients come back with their cursors.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio
import uvicorn
from starlette.routing import Router
from starlette.types import ASGIApp

from hostler.app.connections import HttpConnection, SocketConnection
from hostler.core.errors import SetupError
from hostler.faces.native.entry import Gate
from hostler.faces.native.face import native_routes
from hostler.faces.native.http import not_found
from hostler.faces.native.open_streams import SLOW_S, OpenStreams
from hostler.faces.native.socket import LARGEST_MESSAGE
from hostler.service.service import Service

log = logging.getLogger(__name__)

BACKLOG = 4096
PING_S = 20.0
"""Between pings of a socket: proxies drop what is silent for a minute."""
DRAIN_S = 5
"""What a request in flight gets at shutdown; streams are cut at once."""


def make_app(
    service: Service, gate: Gate, streams: OpenStreams, *, origins: Sequence[str] = ()
) -> ASGIApp:
    """Return the ASGI application: a router alone, since each layer costs every token."""
    return Router(native_routes(service, gate, streams, origins=origins), default=not_found)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        SetupError: the address is taken or is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SetupError(
            f"cannot listen on {host}:{port}: {error.strerror}.  Is another server running there?  "
            "Give another --port."
        ) from error


async def serve_http(
    app: ASGIApp,
    listening: socket.socket,
    streams: OpenStreams,
    *,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until cancelled or, in a process's main thread, until one of the `signals`.

    Requests in flight get `DRAIN_S`; a second signal ends without them.
    """
    config = uvicorn.Config(
        app,
        lifespan="off",
        http=HttpConnection,
        ws=SocketConnection,
        ws_max_size=LARGEST_MESSAGE,
        ws_ping_interval=PING_S,
        ws_ping_timeout=SLOW_S,
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_S,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
    )
    server = _Server(config, streams, ready)
    async with anyio.create_task_group() as tasks:
        if signals and threading.current_thread() is threading.main_thread():
            tasks.start_soon(_until_told, server, signals)
        try:
            await server.serve(sockets=[listening])
        finally:
            # Cancelled, uvicorn leaves its sockets with the loop, which takes the next ones for them.
            for one in server.servers:
                one.close()
        tasks.cancel_scope.cancel()


async def _until_told(server: uvicorn.Server, signals: Sequence[signal.Signals]) -> None:
    with anyio.open_signal_receiver(*signals) as received:
        async for _ in received:
            server.force_exit = server.should_exit
            server.should_exit = True


class _Server(uvicorn.Server):
    """Uvicorn's server, which has no other way to hear of start and shutdown in time."""

    def __init__(
        self, config: uvicorn.Config, streams: OpenStreams, ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._streams, self._ready = streams, ready
        self.servers = []

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        # Uvicorn raises the signal again when it is done, so that a clean stop looks like a kill.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.close()
        await super().shutdown(sockets)
