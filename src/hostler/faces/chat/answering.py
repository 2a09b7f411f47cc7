"""A question to a model, answered whole or as a stream.

Nothing is sent before the model has said its first: what fails until then has a status of its own.

Invariant: a client that goes away ends the question, and a stream without `[DONE]` is not whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send

from hostler.core.errors import Unavailable
from hostler.core.ports import Delta, Failure, Reply
from hostler.faces.chat.errors import error_event, failed, failed_body, tell_chat, unavailable_body
from hostler.faces.chat.writing import Chunks, Named, completion
from hostler.faces.http.answers import Answer
from hostler.faces.http.endpoint import Call, answered
from hostler.faces.http.open_streams import OpenStream, OpenStreams, cutter, while_there
from hostler.faces.http.request import REQUEST_ID, request_of
from hostler.faces.http.streaming import HEADERS, body, why_cut

Parts: TypeAlias = AsyncGenerator[Delta | Reply | Failure, None]


class Answering:
    """An ASGI application; without `chunks`, it answers when all is said."""

    def __init__(
        self,
        call: Call,
        parts: Parts,
        streams: OpenStreams,
        named: Named,
        chunks: Chunks | None = None,
    ) -> None:
        self._call, self._parts, self._streams = call, parts, streams
        self._named, self._chunks = named, chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call, answer = self._call, None
        kind = "poll" if self._chunks is None else "sse"
        with self._streams.one(scope, send, call.who, until=call.until, kind=kind) as stream:
            async with while_there(receive), aclosing(self._parts):
                what = f"{scope['method']} {scope['path']}"
                answer = await answered(self._begin(stream), what, tell_chat)
                if not isinstance(answer, Answer):
                    await answer(scope, receive, send)
        if stream.why == "slow" and (cut := cutter(scope)) is not None:
            cut(0, "slow")
        elif isinstance(answer, Answer):
            await answer(scope, receive, send)
        elif answer is None and stream.why is not None:
            await tell_chat(why_cut(stream))(scope, receive, send)

    async def _begin(self, stream: OpenStream) -> ASGIApp:
        """Return the answer, or what streams it when the model has begun."""
        async for part in self._parts:
            if isinstance(part, Failure):
                return failed(part)
            if self._chunks is not None:
                return _Stream(self._chunks, part, self._parts, stream)
            if isinstance(part, Reply):
                return Answer(200, completion(self._named, part))
        raise AssertionError("a direct call ends with a reply or a failure")


class _Stream:
    """An answer that has begun with `first`, as an ASGI application."""

    def __init__(
        self, chunks: Chunks, first: Delta | Reply, parts: Parts, stream: OpenStream
    ) -> None:
        self._chunks, self._first, self._parts, self._stream = chunks, first, parts, stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        headers = [*HEADERS, (REQUEST_ID, request_of(scope).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        last = self._chunks.open()
        if isinstance(self._first, Delta):
            await self._stream.send(body(last + self._chunks.delta(self._first)))
            last = await self._rest()
        else:
            last += self._chunks.end(self._first)
        await self._stream.send(body(last, more=False))

    async def _rest(self) -> bytes:
        """Send what comes; return what ends the stream."""
        try:
            async for part in self._parts:
                if isinstance(part, Reply):
                    return self._chunks.end(part)
                if isinstance(part, Failure):
                    return error_event(failed_body(part))
                chunk = self._chunks.delta(part)
                if not self._stream.write(chunk):
                    await self._stream.send(body(chunk))
        except Unavailable as error:  # the end cannot be kept, so it is not told
            return error_event(unavailable_body(error))
        raise AssertionError("a direct call ends with a reply or a failure")
