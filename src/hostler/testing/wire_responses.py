"""OpenAI's Responses as OpenAI streams it, every event in full dress: a `WireFormat`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

import msgspec

from hostler.core.events import JsonObject, Usage
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

_ERRORS: Mapping[FaultKind, tuple[str, str | None]] = {
    "overloaded": ("service_unavailable_error", "server_is_overloaded"),
    "rate_limit": ("tokens", "rate_limit_exceeded"),
    "server": ("server_error", "server_error"),
    "invalid": ("invalid_request_error", None),
    "auth": ("invalid_request_error", "invalid_api_key"),
}
_DELTAS = {
    "output_text": ("response.output_text", "text"),
    "refusal": ("response.refusal", "refusal"),
    "reasoning": ("response.reasoning_summary_text", "text"),
    "function_call": ("response.function_call_arguments", "arguments"),
}
"""By kind of what is said: the events' name, and the field of the `done` that has it whole."""


class ResponsesWire:
    """A `WireFormat`."""

    name = "responses"

    def events(self, steps: Sequence[Step]) -> Sequence[bytes]:
        stream = Stream()
        stream.begin()
        for step in steps:
            stream.take(step)
        return stream.made

    def refusal(self, kind: FaultKind, message: str) -> bytes:
        type_, code = _ERRORS[kind]
        error = {"message": message, "type": type_, "param": None, "code": code}
        return msgspec.json.encode({"error": error})


@dataclass(slots=True)
class _Item:
    index: int
    says: str
    """A key of `_DELTAS`."""
    fields: JsonObject
    """Those of the item that are neither its type nor what it says."""
    text: str = ""

    @property
    def id(self) -> object:
        return self.fields["id"]

    def told(self, status: str, *, whole: bool = True) -> JsonObject:
        """Return the item, with all it says or with nothing yet."""
        if self.says == "reasoning":
            summary = [{"type": "summary_text", "text": self.text}] if whole else []
            sealed = f"sealed-{self.id}" if whole else ""
            return {
                "type": "reasoning",
                **self.fields,
                "encrypted_content": sealed,
                "summary": summary,
            }
        if self.says == "function_call":
            arguments = self.text if whole else ""
            return {
                "type": "function_call",
                "status": status,
                **self.fields,
                "arguments": arguments,
            }
        content = [self.part(whole=True)] if whole else []
        return {
            "type": "message",
            "status": status,
            "role": "assistant",
            **self.fields,
            "content": content,
        }

    def part(self, *, whole: bool) -> JsonObject:
        text = self.text if whole else ""
        if self.says == "reasoning":
            return {"type": "summary_text", "text": text}
        if self.says == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


@dataclass(slots=True)
class Stream:
    """One answer as it is told.  `begin`, then steps; `made` is what has been told."""

    phase: str | None = None
    """Of the messages."""
    made: list[bytes] = field(default_factory=list[bytes])
    _items: list[_Item] = field(default_factory=list[_Item])
    _calls: dict[str, _Item] = field(default_factory=dict[str, _Item])
    _open: _Item | None = None
    """The message or thought that is being told."""
    _number: int = 0

    def begin(self) -> None:
        self._event("response.created", response=self._response("in_progress"))
        self._event("response.in_progress", response=self._response("in_progress"))

    def take(self, step: Step) -> None:
        match step:
            case Text(text=text):
                self._say("output_text", text)
            case Refuse(text=text):
                self._say("refusal", text)
            case Think(text=text):
                self._say("reasoning", text)
            case Begin(call=call, name=name, id=id_):
                self._close()
                fields: JsonObject = {"id": f"fc_{len(self._items)}", "call_id": id_, "name": name}
                self._calls[call] = self._add("function_call", fields)
            case Args(call=call, text=text):
                self._delta(self._calls[call], text)
            case Fault(kind=kind, message=message):
                self._fail(kind, message)
            case Raw(data=data):
                self.made.append(data)
            case End():
                self._end(step)
            case _:
                assert_never(step)

    def _say(self, says: str, text: str) -> None:
        item = self._open
        if item is None or item.says != says:
            self._close()
            named = "rs" if says == "reasoning" else "msg"
            fields: JsonObject = {"id": f"{named}_{len(self._items)}"}
            if self.phase is not None and named == "msg":
                fields["phase"] = self.phase
            item = self._open = self._add(says, fields)
            kind = "reasoning_summary_part" if says == "reasoning" else "content_part"
            self._event(f"response.{kind}.added", **_place(item), part=item.part(whole=False))
        self._delta(item, text)

    def _add(self, says: str, fields: JsonObject) -> _Item:
        item = _Item(len(self._items), says, fields)
        self._items.append(item)
        told = item.told("in_progress", whole=False)
        self._event("response.output_item.added", output_index=item.index, item=told)
        return item

    def _delta(self, item: _Item, text: str) -> None:
        item.text += text
        more: JsonObject = {"logprobs": []} if item.says == "output_text" else {}
        name = f"{_DELTAS[item.says][0]}.delta"
        self._event(name, **_place(item), delta=text, **more, obfuscation="k3Jx0QzT")

    def _close(self, item: _Item | None = None, status: str = "completed") -> None:
        """Tell that an item is done; without one, the message or thought that is open."""
        if item is None:
            item, self._open = self._open, None
        if item is None:
            return
        name, said = _DELTAS[item.says]
        more: JsonObject = {"logprobs": []} if item.says == "output_text" else {}
        self._event(f"{name}.done", **_place(item), **{said: item.text}, **more)
        if item.says != "function_call":
            kind = "reasoning_summary_part" if item.says == "reasoning" else "content_part"
            self._event(f"response.{kind}.done", **_place(item), part=item.part(whole=True))
        self._event("response.output_item.done", output_index=item.index, item=item.told(status))

    def _fail(self, kind: FaultKind, message: str) -> None:
        _, code = _ERRORS[kind]
        self._event("error", code=code, message=message, param=None)
        error: JsonObject = {"code": code, "message": message}
        self._event("response.failed", response=self._response("failed", error=error))

    def _end(self, end: End) -> None:
        status = "incomplete" if end.stop == "length" else "completed"
        self._close(status=status)
        for item in self._calls.values():
            self._close(item, status)
        why = {"reason": "max_output_tokens"} if end.stop == "length" else None
        response = self._response(
            status,
            incomplete_details=why,
            output=[item.told(status) for item in self._items],
            usage=counts(end.usage),
        )
        self._event(f"response.{status}", response=response)

    def _event(self, type_: str, **fields: object) -> None:
        self.made.append(event(type_, **fields, sequence_number=self._number))
        self._number += 1

    def _response(self, status: str, **fields: object) -> JsonObject:
        return {**WHOLE, "status": status, **fields}


def _place(item: _Item) -> JsonObject:
    place: JsonObject = {"item_id": item.id, "output_index": item.index}
    if item.says == "reasoning":
        place["summary_index"] = 0
    elif item.says != "function_call":
        place["content_index"] = 0
    return place


def event(type_: str, **fields: object) -> bytes:
    data = msgspec.json.encode({"type": type_, **fields})
    return b"event: " + type_.encode() + b"\ndata: " + data + b"\n\n"


def counts(usage: Usage) -> JsonObject:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


WHOLE: JsonObject = {
    "id": "resp_0",
    "object": "response",
    "created_at": 1795000000,
    "status": "completed",
    "background": False,
    "error": None,
    "incomplete_details": None,
    "instructions": "Be brief.",
    "max_output_tokens": None,
    "max_tool_calls": None,
    "model": "kit",
    "output": [],
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "safety_identifier": None,
    "service_tier": "default",
    "store": False,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": None,
    "user": None,
    "metadata": {},
}
"""A response object that holds nothing yet."""

RESPONSES = ResponsesWire()

# -- events with just these fields, as servers that leave some out send them


def text(delta: object, **place: object) -> bytes:
    return event("response.output_text.delta", **place, delta=delta)


def added(item: JsonObject, **place: object) -> bytes:
    return event("response.output_item.added", **place, item=item)


def done(item: JsonObject, **place: object) -> bytes:
    return event("response.output_item.done", **place, item=item)


def argued(delta: str, **place: object) -> bytes:
    return event("response.function_call_arguments.delta", **place, delta=delta)


def thought(delta: str, kind: str = "reasoning_summary_text", **place: object) -> bytes:
    return event(f"response.{kind}.delta", **place, delta=delta)


def message(said: str, **fields: object) -> JsonObject:
    content = [{"type": "output_text", "text": said, "annotations": list[object]()}]
    return {"type": "message", "role": "assistant", "content": content, **fields}


def call(name: str, arguments: object, **fields: object) -> JsonObject:
    return {"type": "function_call", "name": name, "arguments": arguments, **fields}


def end(*output: JsonObject, status: str = "completed", **fields: object) -> bytes:
    response = {**WHOLE, "status": status, "output": output, **fields}
    return event(f"response.{status}", response=response)
