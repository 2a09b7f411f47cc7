"""Anthropic's Messages API as Anthropic speaks it: a `WireFormat`.

Fragments of two calls are sent one call after the other: blocks come one by one on this API.
"""

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

SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"
_STOPS: Mapping[Stop, str] = {
    "end": "end_turn",
    "tools": "tool_use",
    "length": "max_tokens",
    "refusal": "refusal",
}
_TYPES: Mapping[FaultKind, str] = {
    "overloaded": "overloaded_error",
    "rate_limit": "rate_limit_error",
    "server": "api_error",
    "invalid": "invalid_request_error",
    "auth": "authentication_error",
}


class AnthropicWire:
    """A `WireFormat`."""

    name = "anthropic"

    def events(self, steps: Sequence[Step]) -> Sequence[bytes]:
        usage = next((step.usage for step in steps if isinstance(step, End)), Usage())
        blocks = _Blocks()
        made = [message_start(usage), event({"type": "ping"})]
        for step in _one_call_at_a_time(steps):
            made += blocks.play(step)
        return made

    def refusal(self, kind: FaultKind, message: str) -> bytes:
        return msgspec.json.encode(_error(kind, message))


class _Blocks:
    """The blocks of one answer, opened and closed as its steps need."""

    def __init__(self) -> None:
        self._index = -1
        self._open: str | None = None

    def play(self, step: Step) -> list[bytes]:
        match step:
            case Text(text=text) | Refuse(text=text):
                opened = self._enter("text", {"type": "text", "text": ""})
                return [*opened, delta(self._index, type="text_delta", text=text)]
            case Think(text=text):
                empty: JsonObject = {"type": "thinking", "thinking": "", "signature": ""}
                opened = self._enter("thinking", empty)
                return [*opened, delta(self._index, type="thinking_delta", thinking=text)]
            case Begin(call=call, name=name, id=id_):
                block: JsonObject = {"type": "tool_use", "id": id_, "name": name, "input": {}}
                opened = self._enter(f"call {call}", block)
                return [*opened, delta(self._index, type="input_json_delta", partial_json="")]
            case Args(text=text):
                return [delta(self._index, type="input_json_delta", partial_json=text)]
            case Fault(kind=kind, message=message):
                return [event(_error(kind, message))]
            case Raw(data=data):
                return [data]
            case End(stop=stop, usage=usage):
                return [*self._leave(), *end(_STOPS[stop], usage)]
            case _:
                assert_never(step)

    def _enter(self, what: str, block: JsonObject) -> list[bytes]:
        if what == self._open:
            return []
        closed = self._leave()
        self._index, self._open = self._index + 1, what
        return [*closed, start(self._index, block)]

    def _leave(self) -> list[bytes]:
        if self._open is None:
            return []
        signed = self._open == "thinking"
        self._open = None
        signature = delta(self._index, type="signature_delta", signature=SIGNATURE)
        return [*([signature] if signed else []), stop(self._index)]


def _one_call_at_a_time(steps: Sequence[Step]) -> list[Step]:
    made: list[Step] = []
    for step in steps:
        if isinstance(step, Begin):
            made += [
                step,
                *(one for one in steps if isinstance(one, Args) and one.call == step.call),
            ]
        elif not isinstance(step, Args):
            made.append(step)
    return made


def event(fields: JsonObject) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (
        str(fields["type"]).encode(),
        msgspec.json.encode(fields),
    )


def message_start(usage: Usage) -> bytes:
    counts: JsonObject = {
        "input_tokens": usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens,
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": 1,
        "service_tier": "standard",
    }
    message: JsonObject = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "kit",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": counts,
    }
    return event({"type": "message_start", "message": message})


def start(index: int, block: JsonObject) -> bytes:
    return event({"type": "content_block_start", "index": index, "content_block": block})


def delta(index: int, **fields: object) -> bytes:
    return event({"type": "content_block_delta", "index": index, "delta": fields})


def stop(index: int) -> bytes:
    return event({"type": "content_block_stop", "index": index})


def end(
    reason: str, usage: Usage | None = None, *, details: JsonObject | None = None
) -> list[bytes]:
    usage = usage or Usage()
    counts: JsonObject = {
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }
    stopped: JsonObject = {"stop_reason": reason, "stop_sequence": None, "stop_details": details}
    return [
        event({"type": "message_delta", "delta": stopped, "usage": counts}),
        event({"type": "message_stop"}),
    ]


def _error(kind: FaultKind, message: str) -> JsonObject:
    error: JsonObject = {"type": _TYPES[kind], "message": message}
    return {"type": "error", "error": error, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


ANTHROPIC = AnthropicWire()
