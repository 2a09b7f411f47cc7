"""A session's events as a response that does not end by itself.

Invariant: a stream begins at once, is never silent for long, and is sent in chunks of bounded size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, aclosing

import anyio
from starlette.types import Message, Receive, Scope, Send

from hostler.core.errors import HostlerError, NotFound
from hostler.core.events import Event
from hostler.core.news import Attendance, Piece, Presence
from hostler.faces.http.endpoint import Call
from hostler.faces.http.open_streams import OpenStream, OpenStreams, cutter, while_there
from hostler.faces.http.request import REQUEST_ID, request_of
from hostler.faces.http.streaming import HEADERS, LARGEST_CHUNK, Follow, body, chunks
from hostler.faces.native.wire import sse, sse_presence

OPENING = b"retry: 1000\n: open\n\n"
HEARTBEAT = b": still here\n\n"
LEAVING = b"retry: 100\n: this server stops, another one goes on\n\n"
"""The last words of a server: whoever watches comes back sooner than after `OPENING`'s second."""
LAST_S = 0.5
"""What a client gets to take them."""


class EventStream:
    """An ASGI application that sends `first` and then each batch as Server-Sent Events.

    A client that goes away ends the stream and nothing else.  With `attendance`, who watches is
    sent beside, whenever that changes.
    """

    def __init__(
        self,
        call: Call,
        follow: Follow,
        streams: OpenStreams,
        *,
        first: bytes = b"",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        owns: ExitStack | None = None,
        attendance: AbstractContextManager[Attendance] | None = None,
    ) -> None:
        self._call, self._follow, self._streams = call, follow, streams
        self._first, self._headers = first, (*HEADERS, *headers)
        self._owns, self._attendance = owns or ExitStack(), attendance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._owns:
            call, headers = self._call, [*self._headers, (REQUEST_ID, request_of(scope).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            with self._streams.one(
                scope, send, call.who, until=call.until, session=call.session
            ) as stream:
                async with while_there(receive) as tasks:
                    if self._attendance is not None:
                        tasks.start_soon(send_presence, self._attendance, stream, _presence)
                    await self._send(stream)
            if stream.why == "draining":
                with anyio.move_on_after(LAST_S):
                    await send(body(LEAVING, more=False))
        if stream.why == "slow" and (cut := cutter(scope)) is not None:
            cut(0, "slow")

    async def _send(self, stream: OpenStream) -> None:
        await stream.send(body(OPENING + self._first))

        def at_once(items: Sequence[Event | Piece]) -> bool:
            chunk = b"".join(map(sse, items))
            return len(chunk) <= LARGEST_CHUNK and stream.write(chunk)

        async with aclosing(self._follow(at_once=at_once)) as batches:
            try:
                async for batch in batches:
                    for chunk in chunks(map(sse, batch)) if batch else (HEARTBEAT,):
                        await stream.send(body(chunk))
            except NotFound:
                pass  # the session was deleted: whoever comes back is told so
            except HostlerError:
                return  # the store went away: a cut that the client resumes
        await stream.send(body(b"", more=False))


async def send_presence(
    attendance: AbstractContextManager[Attendance],
    stream: OpenStream,
    message: Callable[[Presence], Message],
) -> None:
    """Send who watches, as a message of the stream's kind, whenever that changes."""
    with attendance as seat:
        while True:
            await stream.send(message(await seat.next()))


def _presence(presence: Presence) -> Message:
    return body(sse_presence(presence))
