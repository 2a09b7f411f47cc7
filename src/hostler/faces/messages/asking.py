"""A question to a raw model, and its answer as it comes or as one message.

    ask ─▶ parts ─▶ writer ─▶ written at once ──▶ client
                        └──── what the client is not ready for waits here

What comes in one turn of the loop is written at its end, in one piece.  The status is told with the
first part: what fails before it fails as a status, what fails later is the stream's last event.  A
model that thinks for long without a word is waited for only so long before the stream begins.

Invariant: whoever goes away ends the question; what waits for a client stays bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeAlias

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from hostler.core.ports import Delta, Failure, Reply
from hostler.faces.http.answers import Answer
from hostler.faces.http.endpoint import Call, answered
from hostler.faces.http.open_streams import OpenStream, OpenStreams, cutter, while_there
from hostler.faces.http.request import REQUEST_ID, request_of
from hostler.faces.http.streaming import HEADERS, LARGEST_CHUNK, body, why_cut
from hostler.faces.messages.errors import VendorAnswer, event, failed, tell
from hostler.faces.messages.writer import PING, Writer

Parts: TypeAlias = AsyncGenerator[Delta | Reply | Failure, None]

PING_S = 15.0
"""Between signs of life; proxies drop what is silent for a minute."""


class Whole:
    """An ASGI application that answers with one message, made of the reply by `written`."""

    def __init__(
        self, call: Call, streams: OpenStreams, parts: Parts, written: Callable[[Reply], object]
    ) -> None:
        self._call, self._streams = call, streams
        self._parts, self._written = parts, written

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call, answer, what = self._call, None, f"{scope['method']} {scope['path']}"
        with self._streams.one(scope, send, call.who, until=call.until, kind="poll") as stream:
            async with while_there(receive):
                answer = await answered(self._answer(), what, tell)
        if answer is None and stream.why is not None:
            answer = tell(why_cut(stream))
        if answer is not None:  # else nobody is there to be answered
            await answer(scope, receive, send)

    async def _answer(self) -> ASGIApp:
        async with aclosing(self._parts) as parts:
            async for part in parts:
                if isinstance(part, Failure):
                    return failed(part)
                if isinstance(part, Reply):
                    return VendorAnswer(200, self._written(part))
        return tell(None)


class Streamed:
    """An ASGI application that sends what a writer makes of the parts."""

    def __init__(self, call: Call, streams: OpenStreams, parts: Parts, writer: Writer) -> None:
        self._call, self._streams, self._parts = call, streams, parts
        self._writer = writer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call, refused = self._call, None
        what = f"{scope['method']} {scope['path']}"
        with self._streams.one(scope, send, call.who, until=call.until) as stream:
            pipe = _Pipe(scope, stream, self._writer)
            async with while_there(receive) as tasks:
                tasks.start_soon(pipe.keep)
                answer = await answered(self._pump(pipe), what, tell)
                if isinstance(answer, Answer):
                    refused = await pipe.refuse(answer)
        if refused is None and stream.why is not None and not pipe.is_begun:
            refused = tell(why_cut(stream))
        if refused is not None:
            await refused(scope, receive, send)
        elif stream.why == "slow" and (cut := cutter(scope)) is not None:
            cut(0, "slow")

    async def _pump(self, pipe: _Pipe) -> ASGIApp:
        """Send all parts; return what went wrong, or else what does nothing more."""
        writer = self._writer
        async with aclosing(self._parts) as parts:
            async for part in parts:
                if isinstance(part, Failure):
                    return failed(part)
                if not pipe.is_begun:
                    await pipe.begin()
                if isinstance(part, Reply):
                    writer.end(part)
                    await pipe.send(more=False)
                    return _nothing
                writer.add(part)
                if pipe.is_full:
                    await pipe.send()
                else:
                    pipe.soon()
        return tell(None)


class _Pipe:
    """From a writer to a client: at once if that takes no waiting, else in order, when it can be."""

    def __init__(self, scope: Scope, stream: OpenStream, writer: Writer) -> None:
        self._request = request_of(scope)
        self._stream, self._writer = stream, writer
        self._lock, self._late = anyio.Lock(), anyio.Event()
        self._loop = asyncio.get_running_loop()
        self._is_coming = self._is_over = False
        self._left = b""
        """What was to be written at once, and could not be."""
        self.is_begun = self._is_open = False

    @property
    def is_full(self) -> bool:
        return bool(self._left) or self._writer.size > LARGEST_CHUNK

    async def begin(self) -> None:
        """Send the head; what begins the message waits for what comes next."""
        async with self._lock:
            if self.is_begun:
                return
            self.is_begun = True
            id_ = self._request.encode()
            headers = [*HEADERS, (REQUEST_ID, id_), (b"request-id", id_)]
            start = {"type": "http.response.start", "status": 200, "headers": headers}
            await self._stream.send(start)
            self._writer.begin()
            self._is_open = True

    async def send(self, *, more: bool = True, last: bytes = b"") -> None:
        """Send all that there is; after the end, nothing."""
        async with self._lock:
            if self._is_over:
                return
            self._is_over = not more
            left, self._left = self._left, b""
            await self._stream.send(body(left + self._writer.take() + last, more=more))

    def soon(self) -> None:
        """Write what there is when this turn of the loop is over."""
        if not self._is_coming:
            self._is_coming = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_coming = False
        if not self._is_open or self._lock.locked() or self._left:
            self._late.set()
            return
        made = self._writer.take()
        if made and not self._stream.write(made):
            self._left = made
            self._late.set()

    async def keep(self) -> None:
        """Send what could not be written at once, and signs of life."""
        while True:
            with anyio.move_on_after(PING_S) as silence:
                await self._late.wait()
                self._late = anyio.Event()
            await self.begin()
            await self.send(last=PING if silence.cancelled_caught else b"")

    async def refuse(self, answer: Answer) -> Answer | None:
        """Return the answer to give in place of a stream; None: it had begun, and ends with it."""
        if not self.is_begun:
            return answer
        await self.send(more=False, last=event(answer, self._request))
        return None


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send
