"""Which columns hold what people and programs wrote and no fact tells: a scrub masks these.

Invariant: a word of ours that a value may equal is in none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import msgspec

from hostler.core.events import ClientTool
from hostler.core.sealed import Mask
from hostler.stores.masking import masked_answer

_tools = msgspec.json.Decoder(tuple[ClientTool, ...])


def _text(mask: Mask, stored: str) -> str:
    return mask.text(stored)


def _json(mask: Mask, stored: str) -> str:
    return mask.json(stored.encode()).decode()


def _client_tools(mask: Mask, stored: str) -> str:
    return msgspec.json.encode(mask.value(_tools.decode(stored))).decode()


Masking: TypeAlias = Callable[[Mask, str], str] | Callable[[Mask, bytes], bytes]
FREE_TEXT: Mapping[str, tuple[str, Mapping[str, Masking]]] = {
    "sessions": ("id", {"title": _text, "metadata": _json, "client_tools": _client_tools}),
    "approvals": ("session, call", {"name": _text, "arguments": _json, "reason": _text}),
    "answers": ("scope", {"answer": masked_answer}),
    "direct_calls": ("id", {"purpose": _text, "model": _text, "error_message": _text}),
    "tenants": ("tenant", {"title": _text}),
    "keys": ("id", {"title": _text}),
    "endpoints": ("provider", {"base_url": _text}),
    "webhooks": ("id", {"url": _text, "description": _text}),
    "deliveries": ("webhook, id", {"body": _json, "error": _text}),
}
"""By table: its key within a tenant, and what is written in it that no fact tells."""


class Facts(NamedTuple):
    """What a step did: whose facts it changed, how many it could not read, and how far it got."""

    changed: list[str]
    unread: int
    after: tuple[str, int]
    more: bool


class Rows(NamedTuple):
    changed: int
    after: tuple[object, ...]
    more: bool


def first_of(table: str) -> tuple[object, ...]:
    """Return what is before the first row of a table."""
    return ("",) * len(FREE_TEXT[table][0].split(","))
