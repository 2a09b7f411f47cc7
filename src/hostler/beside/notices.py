"""What webhooks are told of facts: pure functions, one for each client that has words of its own.

A body is thin: ids, and how it ended.  Nothing that was said and no arguments are in one; whoever
wants these asks for them, with a key.

Invariant: the same fact gives the same notice, id and bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, cast

import msgspec
from msgspec import Struct

from hostler.beside.webhooks import EventType
from hostler.core.audited import stamp
from hostler.core.events import (
    ApprovalAsked,
    Event,
    JsonObject,
    Key,
    RunEnded,
    RunStatus,
)

TOLD = (RunEnded, ApprovalAsked)
"""Facts of which somebody may be told."""
LONGEST = 1_000
"""Characters of one text in a body: with all of them, a body stays under 20 KB."""
_INCOMPLETE = frozenset({"length", "refusal", "step_limit", "budget", "stop_when"})
"""Why a run stopped short, as OpenAI's clients would call it."""
_RUN: Mapping[RunStatus, EventType] = {
    "done": "run.completed",
    "failed": "run.failed",
    "cancelled": "run.cancelled",
}
_RESPONSE: Mapping[RunStatus, EventType] = {
    "done": "response.completed",
    "failed": "response.failed",
    "cancelled": "response.cancelled",
}
MOST_S = 253_402_300_799
"""The end of the year 9999: what is told beyond it is no time."""
_json = msgspec.json.Encoder(decimal_format="string")


class Notice(NamedTuple):
    id: str
    type: EventType
    body: bytes


class Began(Struct, frozen=True, kw_only=True):
    """Of the message that began a run, what notices need: it may bring a long history."""

    purpose: str | None = None
    metadata: JsonObject = {}


class Happened(NamedTuple):
    """A fact of `TOLD`, with what its notices need to know."""

    key: Key
    agent: str
    event: Event
    began: Began = Began()


Teller: TypeAlias = Callable[[Happened], Notice | None]
"""Tells of a fact in the words of one kind of client; None: it says nothing of this one."""


def notices(of: Happened) -> Sequence[Notice]:
    """Return what is told of a fact."""
    return [told for teller in TELLERS if (told := teller(of)) is not None]


def native(of: Happened) -> Notice | None:
    """Tell of ends of runs and of requests for approval, in this server's own words."""
    fact = of.event.fact
    data: JsonObject = {"session": of.key.session}
    if isinstance(fact, ApprovalAsked):
        data |= {
            "run": fact.run,
            "call": fact.call,
            "tool": _cut(fact.name),
            "expires_at": _stamp(fact.expires_at.timestamp()),
        }
        return _thin(of, "approval.requested", data)
    if not isinstance(fact, RunEnded):
        return None
    data |= {
        "run": fact.run,
        "agent": _cut(of.agent),
        "purpose": _cut(of.began.purpose),
        "status": fact.status,
        "reason": _cut(fact.reason),
        "usage": fact.usage,
    }
    return _thin(of, _RUN[fact.status], data)


def openai(of: Happened) -> Notice | None:
    """Tell of ends of background responses, as `client.webhooks.unwrap()` of OpenAI's SDK reads it.

    Which runs are such, the metadata of the message say that began them: `openai.background`.
    """
    fact = of.event.fact
    mark = of.began.metadata.get("openai")
    is_marked = isinstance(mark, dict) and cast("JsonObject", mark).get("background") is True
    if not isinstance(fact, RunEnded) or fact.run is None or not is_marked:
        return None
    kind = _RESPONSE[fact.status]
    if fact.status != "cancelled" and fact.reason in _INCOMPLETE:
        kind = "response.incomplete"
    name = _id(of, kind)
    body: JsonObject = {
        "id": name,
        "object": "event",
        "created_at": int(of.event.at),
        "type": kind,
        "data": {"id": f"resp_{fact.run.removeprefix('run_')}"},
    }
    return Notice(name, kind, _json.encode(body))


TELLERS: Sequence[Teller] = (native, openai)


def thin(kind: str, at: float, data: JsonObject) -> bytes:
    """Return a body as Standard Webhooks advises it."""
    return _json.encode({"type": kind, "timestamp": _stamp(at), "data": data})


def _thin(of: Happened, kind: EventType, data: JsonObject) -> Notice:
    return Notice(_id(of, kind), kind, thin(kind, of.event.at, data))


def _id(of: Happened, kind: str) -> str:
    """Return an id that sorts by time, as others do, and is the same for the same fact."""
    place = f"{of.key.tenant}\n{of.key.session}\n{of.event.seq}\n{kind}"
    ms = max(0, int(of.event.at * 1000))
    return f"evt_{ms:012x}{hashlib.sha256(place.encode()).hexdigest()[:16]}"


def _stamp(at: float) -> str:
    return stamp(round(max(0.0, min(MOST_S, at)) * 1_000_000))


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
