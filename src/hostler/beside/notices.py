"""What webhooks are told of facts: pure functions, one for each client that has words of its own.

A body is thin: ids, and how it ended.  Nothing that was said and no arguments are in one; whoever
wants these asks for them, with a key.

Invariant: the same fact gives the same notice, id and bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from hostler.beside.responses import Status, over_at_end, since_background
from hostler.beside.webhooks import EventType
from hostler.core.audited import stamp
from hostler.core.events import (
    START,
    ApprovalAsked,
    Event,
    JsonObject,
    Key,
    RunEnded,
    RunId,
    RunStatus,
    Seq,
    ToolFinished,
    ToolStarted,
    Unknown,
)
from hostler.core.head import Head, advance

LONGEST = 1_000
"""Characters of one text in a body: with all of them, a body stays under 20 KB."""
_RUN: Mapping[RunStatus, EventType] = {
    "done": "run.completed",
    "failed": "run.failed",
    "cancelled": "run.cancelled",
}
_RESPONSE: Mapping[Status, EventType] = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
    "cancelled": "response.cancelled",
}
MOST_S = 253_402_300_799
"""The end of the year 9999: what is told beyond it is no time."""
_TELLABLE = (RunEnded, ApprovalAsked, ToolStarted)
_json = msgspec.json.Encoder(decimal_format="string")


class Notice(NamedTuple):
    id: str
    type: EventType
    body: bytes


class Began(Struct, frozen=True, kw_only=True):
    """Of the messages of a run, what notices need: each may bring a long history."""

    purpose: str | None = None
    """What the first of them says."""
    first: Seq = START
    """Where that is."""
    since: Seq | None = None
    """Where its last response in the background was asked for; None: it is not in the background."""


class Spoken(Struct, frozen=True, kw_only=True):
    """Of one message, what notices need."""

    run: RunId | None = None
    purpose: str | None = None
    metadata: JsonObject = {}


class Happened(NamedTuple):
    """A fact that may be told, with what its notices need to know."""

    key: Key
    agent: str
    event: Event
    began: Began = Began()
    since: Sequence[Event] = ()
    """What the run wrote from `Began.since` up to this fact, with it."""


def tellable(head: Head, events: Sequence[Event]) -> Sequence[Event]:
    """Return which of an append's events may be told; `head` is the session's before them.

    These are ends of runs, requests for approval, and whatever leaves a run waiting for somebody.
    """
    if not head.waits and not any(isinstance(one.fact, _TELLABLE) for one in events):
        return ()
    found = list[Event]()
    for event in events:
        fact = event.fact
        if not isinstance(fact, Unknown):
            head = advance(head, event.seq, fact)
        is_parked = isinstance(fact, ToolStarted | ToolFinished) and head.parked
        if is_parked or isinstance(fact, RunEnded | ApprovalAsked):
            found.append(event)
    return found


def began(run: RunId | None, messages: Iterable[tuple[Seq, str | bytes]]) -> Began:
    """Return what notices need of a run, read from messages of its session, the run's first first."""
    mine = [(seq, one) for seq, raw in messages if (one := _read(raw)).run == run]
    if run is None or not mine:
        return Began()
    since = since_background([(seq, one.metadata) for seq, one in mine])
    return Began(purpose=mine[0][1].purpose, first=mine[0][0], since=since)


def _read(raw: str | bytes) -> Spoken:
    try:
        return _spoken.decode(raw)
    except (msgspec.DecodeError, RecursionError):  # who wrote this is told without it
        return Spoken()


Teller: TypeAlias = Callable[[Happened], Notice | None]
"""Tells of a fact in the words of one kind of client; None: it says nothing of this one."""

_spoken = msgspec.json.Decoder(Spoken)


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
    """Tell of responses in the background that are over, as `client.webhooks.unwrap()` reads it.

    A response that stops for its client is over, and what the client answers begins the next.
    """
    run = of.event.fact.run
    over = None if run is None else over_at_end(run, of.began.first, of.since)
    if over is None:
        return None
    kind = _RESPONSE[over.status]
    name = _id(of, kind)
    body: JsonObject = {
        "id": name,
        "object": "event",
        "created_at": int(of.event.at),
        "type": kind,
        "data": {"id": over.id},
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
