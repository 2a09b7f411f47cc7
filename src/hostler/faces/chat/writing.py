"""An answer in the words of Chat Completions: whole, or as chunks of a stream.

What is the same in each chunk is made once per answer, and what changes is encoded alone.

Invariant: the texts of all chunks, joined, are those of the whole answer, and each call's id and
name come once, before its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from hostler.core.events import CallId, JsonObject, Stop, ToolCall, Usage
from hostler.core.ports import Delta, Failure, Reply
from hostler.faces.http.answers import Answer, naming
from hostler.faces.http.keepsakes import NOTHING, Keepsakes, keepsake_of
from hostler.faces.http.openai import error_event, failed, tell_openai

encode = msgspec.json.Encoder().encode
FINGERPRINT = "fp_hostler"
"""OpenAI's schema has no null here, and its clients no use for it."""
DONE = b"data: [DONE]\n\n"
ALIVE = b": still here\n\n"
FORMAT = "hostler-v2"
"""Of what a model wants back.  Chat Completions has no field for it; clients of OpenRouter know
`reasoning_details`, and send back what they got there."""
FINISHES: Mapping[Stop, str] = {
    "end": "stop",
    "tools": "tool_calls",
    "length": "length",
    "refusal": "content_filter",
}


tell = naming(
    tell_openai,
    {
        "client_tools": "/tools",
        "content": "/messages",
        "history": "/messages",
        "json_schema": "/response_format/json_schema/schema",
    },
)
"""How this face tells what went wrong: agents call these fields otherwise."""


class Named(Struct, frozen=True, kw_only=True):
    """What all parts of one answer say."""

    id: str
    created: int
    model: str


class Writer:
    """Writes one answer: the `http.direct.Words` of this face."""

    alive = ALIVE
    tell = staticmethod(tell)
    id_headers: Sequence[bytes] = ()

    def __init__(self, named: Named, keepsakes: Keepsakes, *, usage: bool = False) -> None:
        """`usage`: told in a chunk of its own, at the end of a stream."""
        self._named, self._keepsakes, self._usage = named, keepsakes, usage
        self._head = _head(named) + b'"choices":[{"index":0,"delta":'
        rest = b',"usage":null}\n\n' if usage else b"}\n\n"
        self._tail = b',"logprobs":null,"finish_reason":null}]' + rest
        self._open = b'{"role":"assistant","content":"","refusal":null}'
        self._calls = dict[CallId | None, int]()

    def begin(self) -> Sequence[bytes]:
        return (b"%b%b%b" % (self._head, self._open, self._tail),)

    def add(self, delta: Delta) -> Sequence[bytes]:
        text = encode(delta.text)
        if delta.part == "text":
            said = b'{"content":%b}' % text
        elif delta.part == "thinking":
            said = b'{"reasoning_content":%b}' % text
        else:
            said = self._arguments(delta, text)
        return (b"%b%b%b" % (self._head, said, self._tail),)

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

    def end(self, reply: Reply) -> Sequence[bytes]:
        made = list[bytes]()
        for call in reply.calls:
            if call.id not in self._calls:  # a model that told of no arguments while it made them
                whole = Delta("arguments", arguments_of(call), call.id, call.name)
                made += self.add(whole)
        if details := _details(reply, self._keepsakes):
            told = encode({"reasoning_details": details})
            made.append(b"%b%b%b" % (self._head, told, self._tail))
        finish = b'{},"logprobs":null,"finish_reason":"%b"}]' % FINISHES[reply.stop].encode()
        rest = b',"usage":null}\n\n' if self._usage else b"}\n\n"
        made.append(b"%b%b%b" % (self._head, finish, rest))
        if self._usage:
            told = encode(usage_of(reply.usage))
            made.append(b'%b"choices":[],"usage":%b}\n\n' % (_head(self._named), told))
        made.append(DONE)
        return made

    def error(self, answer: Answer, request: str) -> Sequence[bytes]:
        del request
        return (error_event(answer),)

    def whole(self, reply: Reply) -> Answer:
        return Answer(200, completion(self._named, reply, self._keepsakes))

    def failed(self, failure: Failure) -> Answer:
        return failed(failure)


def _head(named: Named) -> bytes:
    form = (
        b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,'
        b'"service_tier":"default","system_fingerprint":%b,'
    )
    told = encode(named.id), named.created, encode(named.model), encode(FINGERPRINT)
    return form % told


def _details(reply: Reply, keepsakes: Keepsakes) -> list[JsonObject]:
    """Return `reasoning_details`: one that nobody but us can read, if the model wants it back."""
    keepsake = keepsake_of(reply, shown=True)
    if keepsake == NOTHING:
        return []
    data = keepsakes.give(keepsake)
    return [{"type": "reasoning.encrypted", "data": data, "id": None, "format": FORMAT, "index": 0}]


def completion(named: Named, reply: Reply, keepsakes: Keepsakes) -> JsonObject:
    """Return the whole answer."""
    message: JsonObject = {
        "role": "assistant",
        "content": reply.text if reply.text or not reply.calls else None,
        "refusal": None,
        "annotations": [],
    }
    if reply.thinking is not None:
        message["reasoning_content"] = reply.thinking
    if details := _details(reply, keepsakes):
        message["reasoning_details"] = details
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
