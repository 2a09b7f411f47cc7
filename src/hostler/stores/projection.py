"""What an append changes besides the log: shared by all stores, so that they cannot disagree.

Invariant: pure.  Everything in here could be rebuilt from the logs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias

from hostler.core import codec
from hostler.core.errors import Conflict, Fenced, Moved
from hostler.core.events import (
    ApprovalAsked,
    ApprovalGiven,
    CallId,
    Content,
    Event,
    Fact,
    InputId,
    Key,
    ModelReplied,
    PrincipalId,
    RunEnded,
    RunId,
    RunStarted,
    RunStatus,
    Seq,
    SessionForked,
    TextPart,
    ToolFinished,
    Unknown,
    Usage,
    UserSpoke,
)
from hostler.core.head import LONGEST_QUEUE, Head, advance

ApprovalStatus: TypeAlias = Literal["open", "allow", "deny", "closed"]


@dataclass(slots=True, kw_only=True)
class RunChange:
    """Columns of a run's row to set; None leaves one as it is."""

    status: Literal["queued", "running"] | RunStatus
    input: InputId | None = None
    first_seq: Seq | None = None
    created_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    last_seq: Seq | None = None
    reason: str | None = None
    usage: Usage | None = None


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
    runs: dict[RunId, RunChange] = field(default_factory=dict[RunId, RunChange])
    approvals: dict[CallId, ApprovalChange] = field(default_factory=dict[CallId, ApprovalChange])
    said: list[tuple[Seq, str, str]] = field(default_factory=list[tuple[Seq, str, str]])
    """(seq, kind, text) for the search index."""
    activated: RunId | None = None
    """The run that became active, and so needs a job."""


def project(
    key: Key,
    head: Head,
    facts: Sequence[Fact],
    *,
    at: float,
    fence: int | None,
    expected: Seq | None,
) -> Projection:
    """Return what appending `facts` to a session with this `head` writes.

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
        before, seq = done.head, Seq(done.head.seq + 1)
        done.events.append(
            Event(session=key.session, seq=seq, at=at, fact=fact, raw=codec.dump(fact))
        )
        done.head = advance(before, seq, fact)
        _rows(done, before, seq, at, fact)
        _approvals(done, before, at, fact)
    if len(done.head.queue) > max(LONGEST_QUEUE, len(head.queue)):
        raise Conflict(f"{LONGEST_QUEUE} runs wait in {key.session} already", code="queue_full")
    if done.head.active != head.active:
        done.activated = done.head.active
    return done


def _rows(done: Projection, before: Head, seq: Seq, at: float, fact: Fact) -> None:
    run = fact.run
    if run is None:
        return
    match fact:
        case UserSpoke():
            done.said.append((seq, "user_spoke", plain(fact.content)))
            if run != before.active and run not in before.queue:
                done.runs[run] = RunChange(
                    status="queued", input=fact.input, first_seq=seq, created_at=at
                )
        case ModelReplied(text=text) if text:
            done.said.append((seq, "model_replied", text))
        case RunStarted():
            change = done.runs.setdefault(run, RunChange(status="running"))
            change.status, change.started_at = "running", at
        case RunEnded():
            change = done.runs.setdefault(run, RunChange(status=fact.status))
            change.status, change.reason, change.usage = fact.status, fact.reason, fact.usage
            change.ended_at, change.last_seq = at, seq
        case _:
            pass


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


def restored(key: Key, events: Sequence[Event]) -> Projection:
    """Return what a log that was written elsewhere writes here."""
    done = Projection([], Head())
    for event in events:
        fact = event.fact
        assert not isinstance(fact, Unknown)
        part = project(key, done.head, [fact], at=event.at, fence=None, expected=None)
        if isinstance(fact, SessionForked):  # the runs so far are another session's
            done.runs.clear()
            done.approvals.clear()
        done.events += part.events
        done.head = part.head
        done.said += part.said
        for run, change in part.runs.items():
            done.runs[run] = _later(done.runs[run], change) if run in done.runs else change
        for call, approval in part.approvals.items():
            before = done.approvals.get(call, approval)
            approval.asked, approval.asked_at = before.asked, before.asked_at
            done.approvals[call] = approval
    return done


def _later(before: RunChange, after: RunChange) -> RunChange:
    """Return both changes as one."""
    for one in fields(RunChange):
        if getattr(after, one.name) is None:
            setattr(after, one.name, getattr(before, one.name))
    return after


def plain(content: Content) -> str:
    """Return the words of a message."""
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content if isinstance(part, TextPart))


def said_in(fact: Fact | Unknown) -> str:
    """Return what a fact put into the search index."""
    if isinstance(fact, UserSpoke):
        return plain(fact.content)
    return fact.text if isinstance(fact, ModelReplied) else ""


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
