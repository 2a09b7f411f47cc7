"""The faces over HTTP: uvicorn with the C parser and, where there is one, uvloop.

Invariant: a shutdown ends streams, not runs; clients come back with their cursors.
"""

from __future__ import annotations

import logging
import resource
import signal
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import cast

import anyio
import uvicorn
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from hostler.app import wiring
from hostler.app.connections import HttpConnection, SocketConnection
from hostler.app.identity.settings import Identity
from hostler.app.part import STOP, Stop
from hostler.core.errors import NotFound, SetupError
from hostler.faces.aisdk import face as aisdk
from hostler.faces.chat import face as chat
from hostler.faces.http import answers as http
from hostler.faces.http import openai as openai_errors
from hostler.faces.http.endpoint import Operation
from hostler.faces.http.entry import Gate, Ways
from hostler.faces.http.guard import ANY, Guard
from hostler.faces.http.keepsakes import KeepsakesOf
from hostler.faces.http.open_streams import SLOW_S, OpenStreams
from hostler.faces.messages import errors as messages_errors
from hostler.faces.messages import face as messages
from hostler.faces.native.face import native_routes
from hostler.faces.native.socket import LARGEST_MESSAGE
from hostler.faces.responses import table as responses
from hostler.faces.responses.socket import PATH as RESPONSES
from hostler.faces.responses.socket import response_socket
from hostler.service.service import Service

log = logging.getLogger(__name__)

BACKLOG = 4096
OPEN_FILES = 10_240
"""What macOS grants (OPEN_MAX) to a process whose hard limit it calls infinite."""
PING_S = 20.0
"""Between pings of a socket: proxies drop what is silent for a minute."""
DRAIN_S = 5
"""What a request in flight gets at shutdown; streams are cut at once."""


def make_app(
    service: Service,
    gate: Gate,
    streams: OpenStreams,
    *,
    ways: Ways | None = None,
    keepsakes: KeepsakesOf | None = None,
    hosts: Sequence[str] = (ANY,),
    origins: Sequence[str] = (),
    only: Collection[str] | None = None,
) -> ASGIApp:
    """Return the ASGI application: a guard that tokens do not pass, and a router.

    `keepsakes`: without it, what clients of raw models keep is good as long as this process.
    `hosts` and `origins`: see `Guard`.  `only`: the paths that there are; without it, all.
    """
    others = other_operations(service, streams, keepsakes or KeepsakesOf())
    sockets = {RESPONSES: response_socket(service, streams)}
    routes = native_routes(service, gate, streams, ways=ways, others=others, sockets=sockets)
    if only is not None:
        routes = [one for one in routes if isinstance(one, Route) and one.path in only]
    router = Router(routes, default=_not_found)
    return Guard(router, hosts=hosts, origins=origins)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for a path that is no route, in the words of those whose path it looks like."""
    tell, path = http.tell, str(scope["path"])
    if path.startswith("/v1/"):
        tell = (
            messages_errors.tell if path.startswith("/v1/messages") else openai_errors.tell_openai
        )
    await tell(NotFound("there is no such route"))(scope, receive, send)


def other_operations(
    service: Service, streams: OpenStreams, keepsakes: KeepsakesOf
) -> list[Operation]:
    """Return the operations of the faces for clients that were made for others' servers."""
    return [
        *aisdk.chat_operations(service, streams),
        *chat.chat_operations(service, streams, keepsakes),
        *messages.messages_operations(service, streams, keepsakes),
        *responses.responses_operations(service, streams, keepsakes),
    ]


@asynccontextmanager
async def opened_ways(said: Identity, service: Service) -> AsyncGenerator[Ways]:
    """Yield the ways to say who one is that the settings name; tenants must be there."""
    if not said.jwt and said.proxy is None:
        yield Ways()
        return
    async with cast(
        "AbstractAsyncContextManager[Ways]", wiring.identity(said, service.tenants.exists)
    ) as ways:
        yield ways


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        SetupError: the address is taken or is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SetupError(
            f"cannot listen on {host}:{port}: {error.strerror}.  Is another server running there?  "
            "Give another --port."
        ) from error
    # Connections inherit it.  asyncio sets it on none of them, as these are of protocol 0, and then
    # a body waits 40 ms for its headers to be acknowledged; uvloop does.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def allow_connections() -> int:
    """Let this process have as many files and sockets as it may; return how many.

    Shells give programs 1,024, which is 500 streams whose models stream, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems say "no limit" and mean another one.
        for wanted in (hard, OPEN_FILES):
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                return wanted
    return soft


async def serve_http(
    app: ASGIApp,
    listening: socket.socket,
    streams: OpenStreams,
    *,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
    ready: Callable[[], None] = lambda: None,
    stop: Stop = STOP,
) -> None:
    """Serve until cancelled or, in a process's main thread, until one of the `signals`.

    Requests in flight get `DRAIN_S`, and what else goes on has its own time; a second signal ends
    without them.
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
    server, rest = _Server(config, streams, ready), anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        if signals and threading.current_thread() is threading.main_thread():
            tasks.start_soon(_until_told, server, signals, stop, rest)
        try:
            await server.serve(sockets=[listening])
            with rest:
                await stop.rest()
        finally:
            # Cancelled, uvicorn leaves its sockets with the loop, which takes the next ones for them.
            for one in server.servers:
                one.close()
        tasks.cancel_scope.cancel()


async def _until_told(
    server: uvicorn.Server,
    signals: Sequence[signal.Signals],
    stop: Stop,
    rest: anyio.CancelScope,
) -> None:
    with anyio.open_signal_receiver(*signals) as received:
        async for _ in received:
            if server.should_exit:
                server.force_exit = True
                rest.cancel()
            else:
                stop.begin()
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
