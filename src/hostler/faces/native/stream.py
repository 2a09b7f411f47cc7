"""A session's events as a response that does not end by itself.

Invariant: a stream begins at once, is never silent for long, and costs nobody else anything.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import ExitStack, aclosing, contextmanager

import anyio
from starlette.types import Receive, Scope, Send

from hostler.core.errors import HostlerError
from hostler.core.events import Event
from hostler.core.ports import Piece
from hostler.faces.native.wire import sse

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
OPENING = b"retry: 1000\n: open\n\n"
HEARTBEAT = b": still here\n\n"

Batches = AsyncGenerator[Sequence[Event | Piece], None]


class OpenStreams:
    """The streams of one server, so that a shutdown can end them: they have no end of their own."""

    def __init__(self) -> None:
        self._scopes = set[anyio.CancelScope]()

    def __len__(self) -> int:
        return len(self._scopes)

    @contextmanager
    def one(self, scope: anyio.CancelScope) -> Generator[None]:
        self._scopes.add(scope)
        try:
            yield
        finally:
            self._scopes.discard(scope)

    def close(self) -> None:
        """Cut every stream; its client comes back with its cursor."""
        for scope in self._scopes:
            scope.cancel()


class EventStream:
    """An ASGI application that sends `first` and then each batch as Server-Sent Events.

    A client that goes away ends the stream and nothing else.
    """

    def __init__(
        self,
        batches: Batches,
        streams: OpenStreams,
        *,
        first: bytes = b"",
        owns: ExitStack | None = None,
    ) -> None:
        self._batches, self._streams = batches, streams
        self._first, self._owns = first, owns or ExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        with self._owns:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            async with anyio.create_task_group() as tasks:
                with self._streams.one(tasks.cancel_scope):
                    tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
                    await self._send(send)
                    tasks.cancel_scope.cancel()

    async def _send(self, send: Send) -> None:
        opening = OPENING + self._first
        await send({"type": "http.response.body", "body": opening, "more_body": True})
        async with aclosing(self._batches) as batches:
            try:
                async for batch in batches:
                    body = b"".join([sse(item) for item in batch]) if batch else HEARTBEAT
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            except HostlerError:
                # The session was deleted, or the store went away: a cut that the client resumes.
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
