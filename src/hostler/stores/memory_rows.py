"""Rows of approvals in memory, from the changes that an append makes.

Invariant: a row is made by the first change of its id, which has what a row needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from msgspec import UNSET, Struct
from msgspec.structs import replace

from hostler.core.errors import Repeated
from hostler.core.events import (
    ApprovalAsked,
    CallId,
    Event,
    InputId,
    Key,
    RunId,
    RunKey,
    SessionId,
    TenantId,
    Unknown,
)
from hostler.core.head import Head
from hostler.core.ports import Job
from hostler.core.records import (
    Appended,
    Approval,
    Hit,
    Kept,
    Labels,
    Once,
    Session,
    Storage,
    Timer,
)
from hostler.core.sealed import Mask, Scrubbed
from hostler.core.store import AHEAD_S
from hostler.stores.masking import masked_answer, masked_row
from hostler.stores.projection import ApprovalChange, Projection, said_in, snippet, words

ANSWERS_KEPT_S = 24 * 3600.0


@dataclass(slots=True)
class Answers:
    """Answers to writes that must happen once, oldest first."""

    clock: Callable[[], float]
    _kept: dict[tuple[TenantId, str], tuple[Kept, float]] = field(
        default_factory=dict[tuple[TenantId, str], tuple[Kept, float]]
    )

    def get(self, tenant: TenantId, scope: str) -> Kept | None:
        found = self._kept.get((tenant, scope))
        return None if found is None or self._is_old(found[1]) else found[0]

    def refuse_repeated(self, tenant: TenantId, once: Once | None) -> None:
        if once is not None and self.get(tenant, once.scope) is not None:
            raise Repeated(once.scope)

    def keep(self, tenant: TenantId, once: Once | None, appended: Appended) -> None:
        if once is None:
            return
        self._kept.pop((tenant, once.scope), None)
        self._kept[tenant, once.scope] = Kept(once.digest, once.answer(appended)), self.clock()
        self.tidy()

    def tidy(self) -> None:
        for old in [*takewhile(lambda one: self._is_old(self._kept[one][1]), self._kept)]:
            del self._kept[old]

    def scrub(self, tenant: TenantId, mask: Mask) -> int:
        """Mask what is kept of a tenant; return how many were changed."""
        changed = 0
        for place, (kept, at) in self._kept.items():
            masked = masked_answer(mask, kept.answer) if place[0] == tenant else kept.answer
            if masked != kept.answer:
                self._kept[place] = Kept(kept.digest, masked), at
                changed += 1
        return changed

    def _is_old(self, at: float) -> bool:
        return at <= self.clock() - ANSWERS_KEPT_S


def may_go(
    idle: Sequence[tuple[float, Key]], sizes: Mapping[TenantId, int], *, before: float, keep: int
) -> list[Key]:
    """Return those that were not touched since `before`, or are too many of their tenant's."""
    over = {tenant: max(0, size - keep) for tenant, size in sizes.items()}
    chosen: list[Key] = []
    for at, key in sorted(idle):
        over[key.tenant] -= 1
        if at < before or over[key.tenant] >= 0:
            chosen.append(key)
    return chosen


def set_given(row: object, change: object, *names: str) -> None:
    """Set the named columns, but for those that the change leaves as they are."""
    for name in names:
        value = getattr(change, name)
        if value is not None:
            setattr(row, name, value)


def change_approvals(rows: dict[tuple[Key, CallId], Approval], key: Key, done: Projection) -> None:
    """Take in what an append changes of approvals."""
    for call, change in done.approvals.items():
        if change.asked is not None:
            rows[key, call] = _new_approval(key, change, change.asked)
        approval = rows[key, call]
        approval.status = change.status
        set_given(approval, change, "principal", "reason", "answered_at")


def change_timers(rows: dict[Key, dict[InputId, Timer]], key: Key, done: Projection) -> None:
    """Take in what an append changes of scheduled messages."""
    if done.timers or done.over:
        there = rows.setdefault(key, {})
        there.update(done.timers)
        for one in done.over:
            there.pop(one, None)


def unfinished(
    heads: Iterable[tuple[Key, Head]],
    timers: Mapping[Key, Mapping[InputId, Timer]],
    now: float,
) -> list[Job]:
    """Return what `Store.unfinished` does."""
    found = [
        Job(RunKey(*key, head.active), priority=head.priority)
        for key, head in heads
        if head.active is not None and (head.due or 0) <= now
    ]
    for key, there in timers.items():
        soon = [one.input for one in there.values() if one.at <= now + AHEAD_S]
        found += [Job(RunKey(*key, RunId(one))) for one in soon]
    return found


def _new_approval(key: Key, change: ApprovalChange, asked: ApprovalAsked) -> Approval:
    assert change.asked_at is not None
    return Approval(
        tenant=key.tenant,
        session=key.session,
        run=change.run,
        call=asked.call,
        name=asked.name,
        arguments=asked.arguments,
        digest=asked.digest,
        asked_at=change.asked_at,
        expires_at=asked.expires_at.timestamp(),
    )


def hits(events: Iterable[Event], query: str) -> list[Hit]:
    """Return those that say all words of a search, newest first."""
    asked = words(query)
    said = [(event, said_in(event.fact)) for event in events]
    said.sort(key=lambda one: (one[0].at, one[0].seq), reverse=True)
    found = [one for one in said if asked and set(asked) <= set(words(one[1]))]
    return [Hit(e.session, e.seq, e.kind, snippet(text, asked)) for e, text in found]


def sizes_of(logs: Mapping[SessionId, Sequence[Event]], limit: int, *, own: bool) -> Storage:
    """Return what these logs take, each event once; `own`: what they began with does not count."""
    stored = {
        (event.session, event.seq): event
        for session, log in logs.items()
        for event in log
        if not own or event.session == session
    }
    events, fact_bytes = Counter[SessionId](), Counter[SessionId]()
    for event in stored.values():
        events[event.session] += 1
        fact_bytes[event.session] += len(event.raw)
    sizes = [(session, events[session], fact_bytes[session]) for session in events]
    sizes.sort(key=lambda one: (-one[2], one[0]))
    return Storage(
        sessions=len(logs),
        events=sum(one[1] for one in sizes),
        fact_bytes=sum(one[2] for one in sizes),
        largest=tuple(sizes[:limit]),
    )


def scrub(
    mask: Mask, done: Scrubbed, events: Iterable[Event], rows: Iterable[Struct], answers: Answers
) -> Scrubbed:
    """Mask facts, rows and answers in their places; return `done` with its counts."""
    changed, unread = _scrub_events(events, mask)
    return replace(
        done,
        facts=len(changed),
        rows=sum(_scrub_row(row, mask) for row in rows) + answers.scrub(done.tenant, mask),
        unread=unread,
        sessions=tuple(dict.fromkeys(changed))[:1000],
    )


def _scrub_events(events: Iterable[Event], mask: Mask) -> tuple[list[SessionId], int]:
    """Mask facts in their places; return whose were changed, and how many cannot be read."""
    changed, unread = list[SessionId](), 0
    for event in events:
        if isinstance(event.fact, Unknown):
            unread += 1
            continue
        before = event.raw
        event.fact, event.raw = mask.fact(event.fact, before)
        if event.raw != before:
            event.wire = event.text = None
            changed.append(event.session)
    return changed, unread


def _scrub_row(row: Struct, mask: Mask) -> bool:
    """Mask what is written in a row, in its place; return whether it changed."""
    masked = masked_row(mask, row)
    for name in row.__struct_fields__:
        setattr(row, name, getattr(masked, name))
    return masked is not row


def is_idle(session: Session, since: float) -> bool:
    """Whether nothing goes on in a session, and nobody touched it since."""
    return session.head.active is None and session.updated_at < since


def relabel(session: Session, labels: Labels) -> None:
    """Set the labels that are named."""
    if labels.title is not UNSET:
        session.title = labels.title
    if labels.metadata is not UNSET:
        session.metadata = labels.metadata


def up_to(most: int, events: Sequence[Event]) -> Sequence[Event]:
    """Return events as far as that with which they have so many bytes."""
    size = 0
    for count, event in enumerate(events, start=1):
        size += len(event.raw)
        if size >= most:
            return events[:count]
    return events
