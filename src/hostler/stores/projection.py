"""What an append changes besides the log: shared by all stores, so that they cannot disagree.

Invariant: pure.  Everything in here could be rebuilt from the logs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from msgspec.structs import replace

from hostler.core import codec
from hostler.core.errors import Conflict, Fenced, Moved
from hostler.core.events import (
    KIND_OF,
    ApprovalAsked,
    ApprovalGiven,
    CallId,
    ClientTool,
    ConversationEdited,
    Event,
    Fact,
    InputDropped,
    InputId,
    Key,
    MessageScheduled,
    ModelReplied,
    PrincipalId,
    RunId,
    RunKey,
    Seq,
    SessionForked,
    ToolFinished,
    Unknown,
    UserSpoke,
)
from hostler.core.head import LONGEST_QUEUE, Head, advance
from hostler.core.ports import Job
from hostler.core.records import Timer
from hostler.core.said import ModelSaid, Said, UserSaid
from hostler.core.sealed import Mask
from hostler.stores.entries import Ledger, enter, plain

ApprovalStatus: TypeAlias = Literal["open", "allow", "deny", "closed"]


@dataclass(slots=True, kw_only=True)
class ApprovalChange:
    """A new approval (`asked`), or what became of one."""

    run: RunId
    status: ApprovalStatus
    asked: ApprovalAsked | None = None
    principal: PrincipalId | None = None
    reason: str | None = None
    asked_at: float | None = None
    answered_at: float | None = None


@dataclass(slots=True)
class Projection:
    """All that one append writes."""

    events: list[Event]
    head: Head
    ledger: Ledger = field(default_factory=Ledger)
    approvals: dict[CallId, ApprovalChange] = field(default_factory=dict[CallId, ApprovalChange])
    said: list[tuple[Seq, str, str]] = field(default_factory=list[tuple[Seq, str, str]])
    """(seq, kind, text) for the search index."""
    client_tools: tuple[ClientTool, ...] | None = None
    """Which the session has from here on."""
    activated: Job | None = None
    """Of the run that became active."""
    timers: dict[InputId, Timer] = field(default_factory=dict[InputId, Timer])
    """Messages that were scheduled, and are still to be said."""
    over: list[InputId] = field(default_factory=list[InputId])
    """Those that were scheduled before, and now were said or dropped."""


def project(
    key: Key,
    head: Head,
    facts: Sequence[Fact],
    *,
    at: float,
    fence: int | None,
    expected: Seq | None,
    mask: Mask | None = None,
) -> Projection:
    """Return what appending `facts` to a session with this `head` writes, without what `mask` knows.

    Raises:
        Fenced: `fence` is given and not the head's.
        Moved: `expected` is given and not the head's.
        Conflict: more runs would wait than may (`queue_full`).
    """
    if fence is not None and fence != head.fence:
        raise Fenced(f"{key.session}: claim {fence} was outbid by {head.fence}")
    if expected is not None and expected != head.seq:
        raise Moved(f"{key.session}: expected {expected}, the log ends at {head.seq}")
    done = Projection([], head)
    for fact in facts:
        _take(done, key, at, fact, mask)
    if len(done.head.queue) > max(LONGEST_QUEUE, len(head.queue)):
        raise Conflict(f"{LONGEST_QUEUE} runs wait in {key.session} already", code="queue_full")
    if done.head.active is not None and done.head.active != head.active:
        done.activated = Job(RunKey(*key, done.head.active), priority=done.head.priority)
    return done


def _take(done: Projection, key: Key, at: float, fact: Fact, mask: Mask | None) -> None:
    before, seq, raw = done.head, Seq(done.head.seq + 1), codec.dump(fact)
    if mask is not None:
        fact, raw = mask.fact(fact, raw)  # all that follows is of the masked one
    done.events.append(Event(session=key.session, seq=seq, at=at, fact=fact, raw=raw))
    done.head = advance(before, seq, fact)
    if isinstance(fact, UserSpoke) and fact.client_tools is not None:
        done.client_tools = fact.client_tools
    text = said_in(fact)
    if text or isinstance(fact, UserSpoke):
        done.said.append((seq, KIND_OF[type(fact)], text))
    enter(done.ledger, before, seq, at, fact)
    _approvals(done, before, at, fact)
    _timers(done, seq, fact)


def _timers(done: Projection, seq: Seq, fact: Fact) -> None:
    if isinstance(fact, MessageScheduled):
        spoke = fact.message.input
        done.timers[spoke] = Timer(spoke, seq, fact.due_at.timestamp())
        return
    was_said = isinstance(fact, UserSpoke) and fact.scheduled is not None
    was_dropped = isinstance(fact, InputDropped) and fact.run is None
    if not isinstance(fact, UserSpoke | InputDropped) or not (was_said or was_dropped):
        return
    if done.timers.pop(fact.input, None) is None:
        done.over.append(fact.input)


def _approvals(done: Projection, before: Head, at: float, fact: Fact) -> None:
    if isinstance(fact, ApprovalAsked) and fact.run is not None:
        done.approvals[fact.call] = ApprovalChange(
            run=fact.run, status="open", asked=fact, asked_at=at
        )
    elif isinstance(fact, ApprovalGiven | ToolFinished) and fact.run is not None:
        if not any(wait.call == fact.call and wait.kind == "approval" for wait in before.waits):
            return
        change = done.approvals.setdefault(fact.call, ApprovalChange(run=fact.run, status="closed"))
        change.status, change.answered_at = "closed", at
        if isinstance(fact, ApprovalGiven):
            change.status = fact.decision
            change.principal, change.reason = fact.principal, fact.reason


def restored(
    key: Key, events: Sequence[Event], head: Head | None = None, *, mask: Mask | None = None
) -> Projection:
    """Return what a log writes that is there already, from `head` on.

    Rows are of the session's own runs alone, whatever its facts say of others.
    """
    done = Projection([], head or Head())
    for event in events:
        fact = event.fact
        if isinstance(fact, Unknown):
            done.head = replace(done.head, seq=event.seq)
            continue
        _take(done, key, event.at, fact, mask)
        if isinstance(fact, SessionForked):  # the runs so far are another session's
            done.ledger, done.approvals = Ledger(), {}
            done.timers, done.over = {}, []
    done.client_tools = None  # the row has them, masked and of the first line
    book = done.ledger
    book.models = {of: one for of, one in book.models.items() if of[0] in book.runs}
    book.tools = {of: one for of, one in book.tools.items() if of[0] in book.runs}
    book.ratings = {of: one for of, one in book.ratings.items() if of[0] in book.runs}
    return done


def imported(key: Key, events: Sequence[Event], mask: Mask | None) -> Projection:
    """Return what a log that was written elsewhere writes here.

    Raises:
        Conflict: more runs wait in it than may (`queue_full`).
    """
    done = restored(key, events, mask=mask)
    if len(done.head.queue) > LONGEST_QUEUE:
        raise Conflict(f"over {LONGEST_QUEUE} runs wait in {key.session}", code="queue_full")
    return done


def said_in(fact: Fact | Unknown) -> str:
    """Return what a fact put into the search index."""
    if isinstance(fact, UserSpoke):
        return plain(fact.content)
    if isinstance(fact, ConversationEdited) and not fact.taken:  # else it was said before
        return "\n".join(text for one in fact.said if (text := _words(one)))
    return fact.text if isinstance(fact, ModelReplied) else ""


def _words(said: Said) -> str:
    if isinstance(said, UserSaid):
        return plain(said.content)
    return said.text if isinstance(said, ModelSaid) else ""


WORD = re.compile(r"\w+")
AROUND = 60
"""Characters of context on either side of a hit."""


def words(query: str) -> list[str]:
    """Return the words that a search asks for."""
    return WORD.findall(query.casefold())


def snippet(text: str, wanted: Sequence[str]) -> str:
    """Return the surroundings of the first of the `wanted` words, each of them in **stars**."""
    hits = [m for m in WORD.finditer(text) if m.group().casefold() in wanted]
    if not hits:
        return text[: 2 * AROUND]
    start, end = max(0, hits[0].start() - AROUND), min(len(text), hits[0].end() + AROUND)
    marked = WORD.sub(
        lambda m: f"**{m.group()}**" if m.group().casefold() in wanted else m.group(),
        text[start:end],
    )
    return f"{'…' if start else ''}{marked}{'…' if end < len(text) else ''}"
