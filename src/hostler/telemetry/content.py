"""What was said and used, in the forms that OpenTelemetry's conventions give it.

Invariant: no value is larger than a collector takes.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from hostler.core.events import ModelReplied, Usage, UserSpoke
from hostler.core.said import TextPart

LARGEST_VALUE = 32 * 1024
"""Characters of one attribute; collectors refuse messages of some megabytes."""
FINISHED = {"end": "stop", "tools": "tool_call", "length": "length", "refusal": "content_filter"}
Value: TypeAlias = str | int | float | bool | tuple[str, ...]

_json = msgspec.json.Encoder(decimal_format="string")


def tokens(usage: Usage) -> dict[str, Value]:
    """Return what was used; kinds of tokens that not all models have only if there are any."""
    told: dict[str, Value] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }
    rarer = {
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }
    told.update({name: number for name, number in rarer.items() if number})
    if usage.cost is not None:
        told["hostler.cost_dollars"] = float(usage.cost)
    return told


def said(end: ModelReplied) -> dict[str, object]:
    """Return a reply as a message."""
    parts: list[object] = [{"type": "text", "content": end.text}] if end.text else []
    parts += [
        {"type": "tool_call", "id": one.id, "name": one.name, "arguments": one.arguments}
        for one in end.calls
    ]
    return {"role": "assistant", "parts": parts, "finish_reason": FINISHED[end.stop]}


def asked_for(spoke: UserSpoke) -> dict[str, object]:
    """Return an input as a message; of images and files nothing is told."""
    texts = [spoke.content]
    if not isinstance(spoke.content, str):
        texts = [one.text for one in spoke.content if isinstance(one, TextPart)]
    return {"role": "user", "parts": [{"type": "text", "content": one} for one in texts]}


def as_json(value: object) -> str:
    return bounded(_json.encode(value).decode())


def bounded(text: str) -> str:
    return text if len(text) <= LARGEST_VALUE else f"{text[:LARGEST_VALUE]}…"
