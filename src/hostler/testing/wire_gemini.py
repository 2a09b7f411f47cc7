"""The Gemini API as Google speaks it: a `WireFormat`."""

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
    "end": "STOP",
    "tools": "STOP",
    "length": "MAX_TOKENS",
    "refusal": "STOP",
}
_STATUS: Mapping[FaultKind, tuple[int, str]] = {
    "overloaded": (503, "UNAVAILABLE"),
    "rate_limit": (429, "RESOURCE_EXHAUSTED"),
    "server": (500, "INTERNAL"),
    "invalid": (400, "INVALID_ARGUMENT"),
    "auth": (401, "UNAUTHENTICATED"),
}
UNSAID = frozenset({"it declines"})
"""Scenarios of the kit that cannot be told from others here: a model declines in plain words, or
is stopped by a filter, which is a fault."""


class GeminiWire:
    """A `WireFormat`.  Calls come whole, so one is said where it begins, with all its arguments."""

    name = "gemini"

    def events(self, steps: Sequence[Step]) -> Sequence[bytes]:
        arguments: dict[str, str] = {}
        for step in steps:
            if isinstance(step, Args):
                arguments[step.call] = arguments.get(step.call, "") + step.text
        ended = any(isinstance(step, End) for step in steps)
        return [one for step in steps for one in _events(step, arguments, ended=ended)]

    def refusal(self, kind: FaultKind, message: str) -> bytes:
        return msgspec.json.encode(error(kind, message))


def _events(step: Step, arguments: Mapping[str, str], *, ended: bool) -> list[bytes]:
    match step:
        case Text(text=text) | Refuse(text=text):
            return [said({"text": text})]
        case Think(text=text):
            return [said({"text": text, "thought": True})]
        case Begin(call=call, name=name, id=id_):
            made = _call(id_, name, arguments.get(call), ended=ended)
            return [] if made is None else [said({"functionCall": made})]
        case Args():
            return []
        case Fault(kind=kind, message=message):
            return [event(error(kind, message))]
        case Raw(data=data):
            return [data]
        case End(stop=stop, usage=usage):
            return [end(_FINISH[stop], usage)]
        case _:
            assert_never(step)


def _call(id_: str, name: str, arguments: str | None, *, ended: bool) -> JsonObject | None:
    """Return a call as it stands in a part; None for what is never sent, an unfinished one."""
    made: JsonObject = {"id": id_, "name": name}
    if arguments is None:
        return made
    try:
        msgspec.json.decode(arguments)
        made["args"] = msgspec.Raw(arguments.encode())
    except ValueError:
        if not ended:
            return None
        made["args"] = arguments  # as text: a gateway before another wire API may have no better
    return made


def event(fields: object) -> bytes:
    return b"data: " + msgspec.json.encode(fields) + b"\n\n"


def response(candidate: JsonObject, counts: JsonObject) -> bytes:
    """Return an event with one candidate, in full dress."""
    return event(
        {
            "candidates": [{**candidate, "index": 0}],
            "usageMetadata": counts,
            "modelVersion": "kit",
            "responseId": "kJogaaqAFN-0xN8PsaWRiQQ",
        }
    )


def said(*parts: JsonObject) -> bytes:
    """Return an event with these parts; as in life, only what was read is counted already."""
    content = {"parts": parts, "role": "model"}
    return response({"content": content}, {"promptTokenCount": 20, "totalTokenCount": 20})


def end(finish: str, usage: Usage | None = None, *parts: JsonObject, **more: object) -> bytes:
    """Return the last event; like Google's, it has a part with no text, if there is no other."""
    content = {"parts": parts or [{"text": ""}], "role": "model"}
    return response({"content": content, "finishReason": finish, **more}, _counts(usage or Usage()))


def _counts(usage: Usage) -> JsonObject:
    counts = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
        "cachedContentTokenCount": usage.cache_read_tokens,
        "thoughtsTokenCount": usage.reasoning_tokens,
    }
    return {name: count for name, count in counts.items() if count}


def error(kind: FaultKind, message: str, *details: JsonObject) -> JsonObject:
    code, status = _STATUS[kind]
    made: JsonObject = {"code": code, "message": message, "status": status}
    if details:
        made["details"] = details
    return {"error": made}


GEMINI = GeminiWire()
