"""An answer of a model that was asked with no session, as a response: whole, or as events.

Invariant: the text of all pieces of an item, joined, is that of the item when it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from hostler.beside.responses import ended
from hostler.core.events import JsonObject, Usage
from hostler.core.ports import Delta, Failure, Reply
from hostler.faces.http.answers import Answer
from hostler.faces.http.keepsakes import NOTHING, Keepsakes, keepsake_of
from hostler.faces.http.openai import ErrorBody, failed
from hostler.faces.responses.attempt import Attempt
from hostler.faces.responses.echo import About
from hostler.faces.responses.errors import tell
from hostler.faces.responses.writer import Writer

ALIVE = b": still here\n\n"
SEALED = "reasoning.encrypted_content"


class _Failed(msgspec.Struct):
    error: ErrorBody


_failed = msgspec.json.Decoder(_Failed).decode


class Words:
    """Writes one answer: the `http.direct.Words` of this face."""

    tell = staticmethod(tell)
    id_headers: Sequence[bytes] = ()

    def __init__(
        self,
        about: About,
        keepsakes: Keepsakes,
        clock: Callable[[], float],
        *,
        sse: bool = True,
    ) -> None:
        self.alive = ALIVE if sse else b""
        tail = about.id.removeprefix("resp_")
        self._writer = Writer(about, tail=tail, sse=sse)
        self._writer.begin()
        self._beginning = self._writer.taken()
        self._attempt = Attempt(self._writer, 0, names=None)
        self._keepsakes, self._clock = keepsakes, clock
        self._is_sealed, self._thought = SEALED in about.echo.include, False
        self.response: JsonObject = {}
        """The whole of it, once it is over."""

    def begin(self) -> Sequence[bytes]:
        return self._beginning

    def add(self, delta: Delta) -> Sequence[bytes]:
        item = self._attempt.follows(delta)
        if item is not None:
            self._attempt.grow(item, delta.text)
            return self._writer.taken()
        if self._is_sealed:
            self._thought = self._thought or delta.part == "thinking"
            if self._thought and delta.part == "arguments":
                return ()  # what has to stand before it is known at the end alone
        self._attempt.add(delta)
        return self._writer.taken()

    def end(self, reply: Reply) -> Sequence[bytes]:
        writer, attempt = self._writer, self._attempt
        kept = keepsake_of(reply, shown=True) if self._is_sealed else NOTHING
        seal = None if kept == NOTHING else self._keepsakes.give(kept)
        attempt.replied(reply, seal=seal)
        attempt.close_calls(reply.calls)
        status, incomplete = ended("done", reply.stop)
        at = int(self._clock())
        self.response = writer.end(status, reply.usage, at, incomplete=incomplete)
        return writer.taken()

    def error(self, answer: Answer, request: str) -> Sequence[bytes]:
        del request
        assert isinstance(answer.body, bytes)
        told = _failed(answer.body).error
        code = told.code if told.code == "rate_limit_exceeded" else "server_error"
        error: JsonObject = {"code": code, "message": told.message}
        self._attempt.stopped()
        self.response = self._writer.end("failed", Usage(), int(self._clock()), error=error)
        return self._writer.taken()

    def whole(self, reply: Reply) -> Answer:
        self.end(reply)
        return Answer(200, self.response)

    def failed(self, failure: Failure) -> Answer:
        return failed(failure)
