"""What the process that holds a local model says, and the answer that this adds up to.

Invariant: text that came in one wake-up of the loop is one delta.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Literal

import msgspec
from msgspec import Struct, to_builtins

from hostler.core.events import CallId, JsonObject, Stop, ToolCall, Usage
from hostler.core.ports import Delta, Failure, FaultCode, Reply, mint

_STOPS: Mapping[str, Stop] = {"stop": "end", "length": "length", "tool_calls": "tools"}
_object = msgspec.json.Decoder(JsonObject)


class _Function(Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class ToolDelta(Struct, frozen=True):
    index: int = 0
    id: str | None = None
    function: _Function = _Function()


class _Said(Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolDelta] | None = None


class _Choice(Struct, frozen=True):
    delta: _Said = _Said()
    finish_reason: str | None = None


class _Cached(Struct, frozen=True):
    cached_tokens: int = 0


class _Usage(Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Cached = _Cached()


class Error(Struct, frozen=True):
    code: int = 500
    message: str = ""
    type: str = ""


class Chunk(Struct, frozen=True):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Error | None = None


class Line(Struct, frozen=True):
    ask: int = 0
    ready: bool = False
    broken: str | None = None
    chunk: Chunk | None = None
    end: bool = False


class Answer:
    """What has come of an answer."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._fresh: list[Delta] = []
        self._finish: str | None = None
        self._usage = _Usage()
        self._error: Error | None = None

    def take(self, lines: Iterable[Line]) -> bool:
        """Take what came in one wake-up; return whether that was all."""
        over, text, thinking = False, list[str](), list[str]()
        for line in lines:
            over = over or line.end
            if line.chunk is None:
                continue
            self._error = line.chunk.error or self._error
            self._usage = line.chunk.usage or self._usage
            for choice in line.chunk.choices:
                self._finish = choice.finish_reason or self._finish
                thinking.append(choice.delta.reasoning_content or "")
                text.append(choice.delta.content or "")
                for part in choice.delta.tool_calls or ():
                    self._call(part)
        self._tell("thinking", "".join(thinking), self._thinking)
        self._tell("text", "".join(text), self._text)
        return over

    def deltas(self) -> list[Delta]:
        """Return what is new since the last time."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def end(self) -> Reply | Failure:
        if self._error is not None:
            return _as_failure(self._error)
        if self._finish is None:
            return failed("truncated", "the answer has no end", again=True)
        usage = self._usage
        return Reply(
            text="".join(self._text),
            thinking="".join(self._thinking) or None,
            calls=tuple(call.made(cut=self._finish == "length") for call in self._calls.values()),
            stop=_STOPS.get(self._finish, "end"),
            usage=Usage(
                input_tokens=usage.prompt_tokens,
                output_tokens=usage.completion_tokens,
                cache_read_tokens=usage.prompt_tokens_details.cached_tokens,
                cost=Decimal(0),
                price="local",
            ),
            raw_usage=to_builtins(usage),
        )

    def _tell(self, part: Literal["text", "thinking"], text: str, said: list[str]) -> None:
        if text:
            said.append(text)
            self._fresh.append(Delta(part, text))

    def _call(self, part: ToolDelta) -> None:
        call = self._calls.get(part.index)
        if call is None:
            call = self._calls[part.index] = _Call(part.function.name or "")
            self._fresh.append(Delta("arguments", "", call.id, call.name))
        if part.function.arguments:
            call.pieces.append(part.function.arguments)
            self._fresh.append(Delta("arguments", part.function.arguments, call.id))


class _Call:
    """A call in the model's own format, which llama.cpp has read."""

    def __init__(self, name: str) -> None:
        self.id = CallId(mint("call"))
        self.name = name
        self.pieces: list[str] = []

    def made(self, *, cut: bool) -> ToolCall:
        text = "".join(self.pieces)
        try:
            arguments: JsonObject = _object.decode(text) if text else {}
        except (ValueError, RecursionError):
            return ToolCall(id=self.id, name=self.name, arguments={}, unparsed=text, cut=cut)
        return ToolCall(id=self.id, name=self.name, arguments=arguments)


def failed(code: FaultCode, message: str, *, again: bool = False) -> Failure:
    return Failure(code=code, message=message, again=again)


def _as_failure(error: Error) -> Failure:
    """Return what an error of llama.cpp means."""
    if error.type == "exceed_context_size_error":
        return failed("context_overflow", error.message)
    if error.code == 503:
        return failed("overloaded", error.message, again=True)
    if error.code >= 500:
        return failed("server", error.message, again=True)
    return failed("invalid_request", error.message)
