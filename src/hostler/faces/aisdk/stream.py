"""The answer to a chat: one run, or the rest of it, as a stream that ends with it.

Invariant: a client that goes away ends the stream and nothing else; a stream that is cut has no
`[DONE]`, so its client comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, aclosing

from starlette.types import Receive, Scope, Send

from hostler.core.errors import HostlerError, NotFound
from hostler.core.events import Event, Seq, SessionId
from hostler.core.news import Piece
from hostler.faces.aisdk.chunks import Chunks
from hostler.faces.aisdk.wire import DONE
from hostler.faces.http.endpoint import Call
from hostler.faces.http.headers import Headers
from hostler.faces.http.open_streams import OpenStream, OpenStreams, cutter, while_there
from hostler.faces.http.request import REQUEST_ID, request_of
from hostler.faces.http.streaming import LARGEST_CHUNK, Follow, body

HEADERS: Headers = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"connection", b"keep-alive"),
    (b"x-vercel-ai-ui-message-stream", b"v1"),
    (b"x-accel-buffering", b"no"),
)
"""As the client's own package sets them."""
HEARTBEAT = b": keep-alive\n\n"


class ChatStream:
    """An ASGI application that sends the chunks of a run."""

    def __init__(
        self,
        call: Call,
        chunks: Chunks,
        follow: Follow,
        streams: OpenStreams,
        *,
        session: SessionId,
        settled: Seq,
        rest: bool = False,
        headers: Headers = (),
        owns: ExitStack | None = None,
    ) -> None:
        """`settled`: how far the log was; that the run waits counts from there on.

        `rest`: what the client has seen of it is known there, and no sooner.
        """
        self._call, self._chunks, self._follow, self._streams = call, chunks, follow, streams
        self._session, self._settled, self._rest = session, settled, rest
        self._headers, self._owns = (*HEADERS, *headers), owns or ExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._owns:
            call, headers = self._call, [*self._headers, (REQUEST_ID, request_of(scope).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            with self._streams.one(
                scope, send, call.who, until=call.until, session=self._session
            ) as stream:
                async with while_there(receive):
                    await self._send(stream)
        if stream.why == "slow" and (cut := cutter(scope)) is not None:
            cut(0, "slow")

    async def _send(self, stream: OpenStream) -> None:
        chunks = self._chunks
        chunks.start()
        await stream.send(body(chunks.drain()))

        def at_once(items: Sequence[Event | Piece]) -> bool:
            more = chunks.more(items)
            if more is None or len(more) > LARGEST_CHUNK or (more and not stream.write(more)):
                return False
            chunks.note(items)
            return True

        async with aclosing(self._follow(at_once=at_once)) as batches:
            try:
                async for batch in batches:
                    for piece in self._pieces(batch):
                        await stream.send(body(piece))
                    if chunks.is_over:
                        break
            except NotFound:
                chunks.gone()
            except HostlerError:
                return  # the store went away: a cut, after which the client resumes
        await stream.send(body(chunks.drain() + DONE, more=False))

    def _pieces(self, batch: Sequence[Event | Piece]) -> list[bytes]:
        """Return what to send for a batch, in pieces of a bounded size."""
        chunks, pieces, size = self._chunks, [b""], 0
        for item in batch:
            chunks.take(item)
            if isinstance(item, Event):
                self._rest = self._rest and item.seq < self._settled
                if item.seq >= self._settled and chunks.parked:
                    chunks.pause()
            if not self._rest:
                made = chunks.drain()
                size += len(made)
                if size > LARGEST_CHUNK:
                    pieces.append(b"")
                    size = len(made)
                pieces[-1] += made
            if chunks.is_over:
                break
        return [piece for piece in pieces if piece] if batch else [HEARTBEAT]
