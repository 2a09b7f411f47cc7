"""OpenAI's Chat Completions as OpenAI speaks it: a `WireFormat`, and an example of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

import msgspec

from hostler.core.events import JsonObject, Stop, Usage
from hostler.testing.model_script import (
    Args,
    Begin,
    End,
    Fault,
    FaultKind,
    Raw,
    Refuse,
    Step,
    Text,
    Think,
)

_FINISH: Mapping[Stop, str] = {
    "end": "stop",
    "tools": "tool_calls",
    "length": "length",
    "refusal": "stop",
}
_TYPES: Mapping[FaultKind, tuple[str, str | None]] = {
    "overloaded": ("overloaded_error", None),
    "rate_limit": ("rate_limit_error", "rate_limit_exceeded"),
    "server": ("server_error", None),
    "invalid": ("invalid_request_error", None),
    "auth": ("authentication_error", "invalid_api_key"),
}


class ChatWire:
    """A `WireFormat`."""

    name = "chat"

    def events(self, steps: Sequence[Step]) -> Sequence[bytes]:
        indexes: dict[str, int] = {}
        made: list[bytes] = [delta({"role": "assistant", "content": ""})]
        for step in steps:
            made += _events(step, indexes)
        return made

    def refusal(self, kind: FaultKind, message: str) -> bytes:
        type_, code = _TYPES[kind]
        error = {"message": message, "type": type_, "param": None, "code": code}
        return msgspec.json.encode({"error": error})


def _events(step: Step, indexes: dict[str, int]) -> list[bytes]:
    match step:
        case Text(text=text):
            return [delta({"content": text})]
        case Think(text=text):
            return [delta({"reasoning_content": text})]
        case Refuse(text=text):
            return [delta({"refusal": text})]
        case Begin(call=call, name=name, id=id_):
            indexes[call] = len(indexes)
            return [fragment(index=indexes[call], id=id_, name=name, arguments="")]
        case Args(call=call, text=text):
            return [fragment(index=indexes[call], arguments=text)]
        case Fault(kind=kind, message=message):
            return [event(msgspec.json.decode(CHAT.refusal(kind, message), type=dict[str, object]))]
        case Raw(data=data):
            return [data]
        case End(stop=stop, usage=usage):
            return end(_FINISH[stop], usage)
        case _:
            assert_never(step)


def event(fields: JsonObject) -> bytes:
    return b"data: " + msgspec.json.encode(fields) + b"\n\n"


def chunk_of(choice: JsonObject) -> bytes:
    """Return a chunk with one choice, in full dress."""
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1795000000,
            "model": "kit",
            "choices": [{"index": 0, "logprobs": None, "finish_reason": None, **choice}],
            "usage": None,
        }
    )


def delta(fields: JsonObject) -> bytes:
    return chunk_of({"delta": fields})


def fragment(**fields: object) -> bytes:
    """Return a fragment of a call, as OpenAI has it, with just these fields."""
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return delta({"tool_calls": [{**fields, "type": "function", "function": function}]})


def end(finish: str | None, usage: Usage | None = None, *, done: bool = True) -> list[bytes]:
    made = [chunk_of({"delta": {}, "finish_reason": finish})]
    if usage is not None:
        counts: JsonObject = {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        }
        made.append(event({"choices": [], "usage": counts}))
    return [*made, b"data: [DONE]\n\n"] if done else made


CHAT = ChatWire()
