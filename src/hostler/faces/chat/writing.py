"""An answer in the form of Chat Completions: whole, or as chunks of a stream.

What is the same in each chunk is made once per answer, and what changes is encoded alone.

Invariant: the texts of all chunks, joined, are those of the whole answer, and each call's id and
name come once, before its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from hostler.core.events import CallId, JsonObject, Stop, ToolCall, Usage
from hostler.core.ports import Delta, Reply
from hostler.faces.chat.sealed import detail

encode = msgspec.json.Encoder().encode
FINGERPRINT = "fp_hostler"
"""OpenAI's schema has no null here, and its clients no use for it."""
DONE = b"data: [DONE]\n\n"
FINISHES: Mapping[Stop, str] = {
    "end": "stop",
    "tools": "tool_calls",
    "length": "length",
    "refusal": "content_filter",
}


class Named(Struct, frozen=True, kw_only=True):
    """What all parts of one answer say."""

    id: str
    created: int
    model: str


class Chunks:
    """Writes the stream of one answer."""

    __slots__ = ("_calls", "_head", "_named", "_open", "_tail", "_usage")

    def __init__(self, named: Named, *, usage: bool = False) -> None:
        """`usage`: told in a chunk of its own, at the end."""
        self._named, self._usage = named, usage
        self._head = _head(named) + b'"choices":[{"index":0,"delta":'
        rest = b',"usage":null}\n\n' if usage else b"}\n\n"
        self._tail = b',"logprobs":null,"finish_reason":null}]' + rest
        self._open = b'{"role":"assistant","content":"","refusal":null}'
        self._calls = dict[CallId | None, int]()

    def open(self) -> bytes:
        """Return the first chunk."""
        return b"%b%b%b" % (self._head, self._open, self._tail)

    def delta(self, delta: Delta) -> bytes:
        """Return the chunk of what is new."""
        text = encode(delta.text)
        if delta.part == "text":
            said = b'{"content":%b}' % text
        elif delta.part == "thinking":
            said = b'{"reasoning_content":%b}' % text
        else:
            said = self._arguments(delta, text)
        return b"%b%b%b" % (self._head, said, self._tail)

    def _arguments(self, delta: Delta, text: bytes) -> bytes:
        place = self._calls.get(delta.call)
        if place is None:
            place = self._calls[delta.call] = len(self._calls)
            form = (
                b'{"tool_calls":[{"index":%d,"id":%b,"type":"function",'
                b'"function":{"name":%b,"arguments":%b}}]}'
            )
            return form % (place, encode(delta.call), encode(delta.name or ""), text)
        return b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (place, text)

    def end(self, reply: Reply) -> bytes:
        """Return the last chunks, and what ends the stream."""
        made = list[bytes]()
        for call in reply.calls:
            if call.id not in self._calls:  # a model that told of no arguments while it made them
                whole = Delta("arguments", arguments_of(call), call.id, call.name)
                made.append(self.delta(whole))
        if reply.replay is not None:
            told = encode({"reasoning_details": [detail(reply.replay)]})
            made.append(b"%b%b%b" % (self._head, told, self._tail))
        finish = b'{},"logprobs":null,"finish_reason":"%b"}]' % FINISHES[reply.stop].encode()
        rest = b',"usage":null}\n\n' if self._usage else b"}\n\n"
        made.append(b"%b%b%b" % (self._head, finish, rest))
        if self._usage:
            told = encode(usage_of(reply.usage))
            made.append(b'%b"choices":[],"usage":%b}\n\n' % (_head(self._named), told))
        made.append(DONE)
        return b"".join(made)


def _head(named: Named) -> bytes:
    form = (
        b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,'
        b'"service_tier":"default","system_fingerprint":%b,'
    )
    told = encode(named.id), named.created, encode(named.model), encode(FINGERPRINT)
    return form % told


def completion(named: Named, reply: Reply) -> JsonObject:
    """Return the whole answer."""
    message: JsonObject = {
        "role": "assistant",
        "content": reply.text if reply.text or not reply.calls else None,
        "refusal": None,
        "annotations": [],
    }
    if reply.thinking is not None:
        message["reasoning_content"] = reply.thinking
    if reply.replay is not None:
        message["reasoning_details"] = [detail(reply.replay)]
    if reply.calls:
        message["tool_calls"] = _calls(reply.calls)
    choice: JsonObject = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": FINISHES[reply.stop],
    }
    return {
        "id": named.id,
        "object": "chat.completion",
        "created": named.created,
        "model": named.model,
        "choices": [choice],
        "usage": usage_of(reply.usage),
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }


def _calls(calls: Sequence[ToolCall]) -> list[JsonObject]:
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": arguments_of(call)},
        }
        for call in calls
    ]


def arguments_of(call: ToolCall) -> str:
    """Return the arguments as the model wrote them, or as it meant them."""
    return encode(call.arguments).decode() if call.unparsed is None else call.unparsed


def usage_of(usage: Usage) -> JsonObject:
    """Return what was used, under OpenAI's names."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
