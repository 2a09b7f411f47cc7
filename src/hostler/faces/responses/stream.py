"""A response that has a log, sent as events or waited for as a whole.

Invariant: who goes away ends the stream; a run is cancelled by that only where its client said
that it would wait.  A stream that is cut has no `[DONE]`, and its client comes back with a number.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias

from starlette.types import Receive, Scope, Send

from hostler.core.errors import HostlerError, NotFound
from hostler.core.events import Event, SessionId
from hostler.core.news import Piece
from hostler.faces.http.answers import Answer
from hostler.faces.http.endpoint import Call
from hostler.faces.http.open_streams import OpenStream, OpenStreams, cutter, while_there
from hostler.faces.http.request import REQUEST_ID, request_of
from hostler.faces.http.streaming import HEADERS, LARGEST_CHUNK, Follow, body, chunks, why_cut
from hostler.faces.responses.errors import tell
from hostler.faces.responses.telling import Teller

HEARTBEAT = b": still here\n\n"
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
Beginning: TypeAlias = Callable[[Event | Piece], Teller | None]
"""Makes what tells a response of the fact that it begins with; None: this is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a response comes from."""

    session: SessionId
    follow: Follow
    begin: Beginning
    owns: AbstractContextManager[object] = field(default_factory=nullcontext[None])
    left: Callable[[], Awaitable[object]] | None = None
    """Called when its client went away before its end."""


class Sent:
    """An ASGI application that answers with a response: `streamed`, or whole."""

    def __init__(
        self,
        call: Call,
        streams: OpenStreams,
        source: Source,
        *,
        streamed: bool,
        headers: Headers = (),
    ) -> None:
        self._headers = headers
        self._call, self._streams, self._source = call, streams, source
        self._is_streamed, self._teller = streamed, None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call, source, is_gone = self._call, self._source, True
        kind = "sse" if self._is_streamed else "poll"
        with (
            source.owns,
            self._streams.one(
                scope, send, call.who, until=call.until, session=source.session, kind=kind
            ) as stream,
        ):
            async with while_there(receive):
                answer = await (self._stream(scope, stream) if self._is_streamed else self._whole())
                is_gone = False
        if is_gone and stream.why is None and source.left is not None:
            await source.left()
        if stream.why == "slow" and (cut := cutter(scope)) is not None:
            cut(0, "slow")
        elif not self._is_streamed and (not is_gone or stream.why is not None):
            await (tell(why_cut(stream)) if is_gone else answer)(scope, receive, send)

    async def _whole(self) -> Answer:
        async for _, teller in told(self._source, at_once=lambda _: False):
            if teller is not None and teller.is_over:
                return Answer(200, teller.response, tuple(self._headers))
        return tell(NotFound("the response was deleted"))

    async def _stream(self, scope: Scope, stream: OpenStream) -> Answer:
        headers = [*HEADERS, *self._headers, (REQUEST_ID, request_of(scope).encode())]
        await stream.send({"type": "http.response.start", "status": 200, "headers": headers})
        over = False

        def at_once(more: bytes) -> bool:
            return len(more) <= LARGEST_CHUNK and (not more or stream.write(more))

        try:
            async for frames, teller in told(self._source, at_once=at_once):
                over = teller is not None and teller.is_over
                if frames:
                    for piece in chunks(frames):
                        await stream.send(body(piece))
        except HostlerError:
            over = False  # the store went away: a cut, after which the client comes back
        await stream.send(body(b"", more=False))
        return Answer(200, over)


async def told(
    source: Source, *, at_once: Callable[[bytes], bool]
) -> AsyncGenerator[tuple[Sequence[bytes], Teller | None], None]:
    """Yield the events of a response as they come, up to its end.

    `at_once` sends text that only goes on, without waiting; False: it did not.
    """
    teller: Teller | None = None

    def more(items: Sequence[Event | Piece]) -> bool:
        made = None if teller is None else teller.more(items)
        if teller is None or made is None or not at_once(made):
            return False
        teller.note()
        return True

    async with aclosing(source.follow(at_once=more)) as batches:
        try:
            async for batch in batches:
                made = list[bytes]()
                for item in batch:
                    if teller is None:
                        teller = source.begin(item)
                    if teller is not None:
                        teller.take(item)
                        made += teller.taken()
                        if teller.is_over:
                            yield made, teller
                            return
                yield made if batch else [HEARTBEAT], teller
        except NotFound:
            return  # it was deleted
