"""An answer to who asked a model or an agent, whole or as it comes, in the words of any face.

    parts ─▶ words ─▶ outlet ─▶ client

Nothing is sent before there is something to say: what fails until then has a status of its own, by
which clients know whether to ask again; what fails later is the stream's last event.  A model that
is silent for long is waited for only so long: proxies drop what is silent for a minute, some for
half of one, so then the stream begins, and from time to time it says that it is still there.

Invariant: whoever goes away ends the question, and a stream without its end is not whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol, TypeAlias, runtime_checkable

import anyio
from anyio.abc import TaskGroup
from starlette.types import Receive, Scope, Send

from hostler.core.ports import Delta, Failure, Reply
from hostler.faces.http.answers import Answer, Telling
from hostler.faces.http.endpoint import Call, answered
from hostler.faces.http.headers import Headers
from hostler.faces.http.open_streams import OpenStream, OpenStreams, cutter, while_there
from hostler.faces.http.request import REQUEST_ID, request_of
from hostler.faces.http.streaming import HEADERS, LARGEST_CHUNK, body, chunks, why_cut
from hostler.service.leg import Did

Parts: TypeAlias = AsyncGenerator[Delta | Did | Reply | Failure, None]

SILENT_LOOKS = 3
"""So many looks at a stream (`open_streams`, 5 s apart) that see nothing sent: 10 to 15 s.  Longer
than a connection to a provider may take: that it fails is still told by a status."""


class Words(Protocol):
    """How a face says one answer; made for it.  Events are bytes as its outlet sends them."""

    alive: bytes
    """What is sent to show that somebody is there, and means nothing else; empty: no need to."""
    tell: Telling
    """How it tells errors."""
    id_headers: Sequence[bytes]
    """Where else than in ours its clients look for the id of the request."""

    def begin(self) -> Sequence[bytes]:
        """Return what begins a stream; asked for once, before all the rest."""
        ...

    def add(self, delta: Delta) -> Sequence[bytes]:
        """Return what is new; nothing, if it waits for more."""
        ...

    def end(self, reply: Reply) -> Sequence[bytes]:
        """Return what is left of the reply, and what ends a stream."""
        ...

    def error(self, answer: Answer, request: str) -> Sequence[bytes]:
        """Return what ends a stream instead: an answer that would have told of an error."""
        ...

    def whole(self, reply: Reply) -> Answer: ...
    def failed(self, failure: Failure) -> Answer:
        """Tell why the model gave no answer."""
        ...


@runtime_checkable
class Doing(Protocol):
    """`Words` that have some for what an agent does, too: also of a whole answer, they are told of
    all that comes, in order.
    """

    def add(self, delta: Delta) -> Sequence[bytes]: ...
    def did(self, did: Did) -> Sequence[bytes]:
        """Return what is new."""
        ...


class Outlet(Protocol):
    """Takes the events of one answer to its client."""

    async def begin(self) -> None:
        """Called once, before all the rest."""
        ...

    def write(self, events: Sequence[bytes]) -> bool:
        """Send, if it has begun and that takes no waiting; whether it was sent."""
        ...

    async def send(self, events: Sequence[bytes], *, last: bool = False) -> None:
        """Send when the client is ready for it; nothing follows the `last`."""
        ...


class SseOutlet:
    """An `Outlet` whose events are the body of an HTTP answer."""

    def __init__(self, stream: OpenStream, headers: Headers) -> None:
        self._stream, self._headers = stream, (*HEADERS, *headers)
        self._is_open = False

    async def begin(self) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self._headers}
        await self._stream.send(start)
        self._is_open = True

    def write(self, events: Sequence[bytes]) -> bool:
        return self._is_open and self._stream.write(b"".join(events))

    async def send(self, events: Sequence[bytes], *, last: bool = False) -> None:
        whole = b"".join(events)
        if len(whole) > LARGEST_CHUNK:
            *most, whole = chunks(events)
            for chunk in most:
                await self._stream.send(body(chunk))
        await self._stream.send(body(whole, more=not last))


class Sending:
    """Sends one answer as it comes, to any outlet.  Whoever makes it calls `look` now and then."""

    def __init__(self, outlet: Outlet, words: Words, request: str, tasks: TaskGroup) -> None:
        """`tasks`: where to wait for the client beside the model; `request`: its id."""
        self._outlet, self._words, self._request = outlet, words, request
        self._tasks = tasks
        self._silent = 0
        """Looks since something was sent."""
        self._beat: anyio.Event | None = None
        """A sign of life is on its way, until this is set."""
        self._is_sending = self._is_over = False
        self.is_begun = False

    async def all(self, parts: Parts, what: str) -> Answer | None:
        """Send all that comes; return the answer instead of it, if it failed before it had begun.

        `what`: the request, for the log.
        """
        answer = await answered(self._parts(parts), what, self._words.tell)
        if answer is None:
            return None
        await self._until_shown()
        if self.is_begun:
            await self._put(self._words.error(answer, self._request), last=True)
            return None
        self._is_over = True
        return answer

    def look(self) -> None:
        """Say that somebody is there, if nothing was said for long."""
        self._silent += 1
        if self._silent < SILENT_LOOKS or self._is_sending or self._is_over:
            return  # who has not read what was sent has no use for more
        if self._beat is None and (self._words.alive or not self.is_begun):
            self._beat = anyio.Event()
            self._tasks.start_soon(self._show_life, self._beat)

    async def _parts(self, parts: Parts) -> Answer | None:
        words, add, write = self._words, self._words.add, self._outlet.write
        async for part in parts:
            if isinstance(part, Delta):
                events = add(part)
            elif isinstance(part, Did):
                events = words.did(part) if isinstance(words, Doing) else ()
            elif isinstance(part, Reply):
                await self._send(words.end(part), last=True)
                return None
            else:
                return words.failed(part)
            if events:
                self._silent = 0
                if self._beat is not None or not write(events):
                    await self._send(events)
        raise AssertionError("an answer ends with a reply or a failure")

    async def _send(self, events: Sequence[bytes], *, last: bool = False) -> None:
        if self._beat is not None:
            await self._until_shown()
        await self._put(events, last=last)

    async def _put(self, events: Sequence[bytes], *, last: bool = False) -> None:
        self._is_sending, self._is_over = True, last
        if not self.is_begun:
            self.is_begun = True
            events = [*self._words.begin(), *events]
            await self._outlet.begin()
        await self._outlet.send(events, last=last)
        self._is_sending = False

    async def _until_shown(self) -> None:
        while self._beat is not None:
            await self._beat.wait()

    async def _show_life(self, shown: anyio.Event) -> None:
        if not (self._is_sending or self._is_over):  # since it was asked for
            alive = self._words.alive
            await self._put([alive] if alive else [])
        self._silent, self._beat = 0, None
        shown.set()


class Answering:
    """An ASGI application that answers."""

    def __init__(
        self, call: Call, streams: OpenStreams, parts: Parts, words: Words, *, streamed: bool
    ) -> None:
        self._call, self._streams, self._parts = call, streams, parts
        self._words, self._is_streamed = words, streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call, answer, sending = self._call, None, None
        what, kind = f"{scope['method']} {scope['path']}", "sse" if self._is_streamed else "poll"
        with self._streams.one(scope, send, call.who, until=call.until, kind=kind) as stream:
            async with while_there(receive) as tasks, aclosing(self._parts):
                if self._is_streamed:
                    request = request_of(scope)
                    outlet = SseOutlet(stream, self._names(request.encode()))
                    sending = Sending(outlet, self._words, request, tasks)
                    stream.looked = sending.look
                    answer = await sending.all(self._parts, what)
                else:
                    answer = await answered(self._whole(), what, self._words.tell)
        is_begun = sending is not None and sending.is_begun
        if answer is None and stream.why is not None and not is_begun:
            answer = self._words.tell(why_cut(stream))
        if stream.why == "slow" and (cut := cutter(scope)) is not None:
            cut(0, "slow")
        elif answer is not None:  # else it was sent, or nobody is there to be answered
            await answer(scope, receive, send)

    def _names(self, request: bytes) -> Headers:
        return tuple((name, request) for name in (REQUEST_ID, *self._words.id_headers))

    async def _whole(self) -> Answer:
        words = self._words
        doing = words if isinstance(words, Doing) else None
        async for part in self._parts:
            if isinstance(part, Reply):
                return words.whole(part)
            if isinstance(part, Failure):
                return words.failed(part)
            if doing is not None:
                _ = doing.did(part) if isinstance(part, Did) else doing.add(part)
        raise AssertionError("an answer ends with a reply or a failure")
