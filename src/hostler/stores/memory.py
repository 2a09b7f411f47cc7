"""A store in dicts: for tests and for embedding, and the reference the others must agree with.

It keeps every promise of the port but durability.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from msgspec.structs import replace

from hostler.core import codec
from hostler.core.codec import SPOKEN
from hostler.core.errors import Conflict, NotFound, Repeated
from hostler.core.events import (
    CallId,
    Event,
    Fact,
    JsonObject,
    Key,
    RunId,
    RunKey,
    Seq,
    SessionId,
    TenantId,
)
from hostler.core.head import Head
from hostler.core.memory import Past
from hostler.core.ports import Observer, Outbox
from hostler.core.records import (
    Appended,
    Approval,
    Hit,
    Kept,
    Once,
    Recall,
    RunRow,
    Session,
    Share,
    Storage,
)
from hostler.stores.memory_rows import new_approval, new_row, set_given
from hostler.stores.projection import (
    Projection,
    project,
    restored,
    said_in,
    snippet,
    words,
)

ANSWERS_KEPT_S = 24 * 3600.0


@dataclass(slots=True)
class _Kept:
    session: Session
    log: list[Event] = field(default_factory=list[Event])
    """From the first event on, of a fork with those of its lineage."""


class MemoryStore:
    """Keeps everything in this process."""

    def __init__(
        self,
        *,
        observer: Observer = lambda _key, _events: None,
        outbox: Outbox | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._observer, self._outbox, self._clock = observer, outbox, clock
        self._kept: dict[Key, _Kept] = {}
        self._runs: dict[tuple[TenantId, RunId], RunRow] = {}
        self._approvals: dict[tuple[Key, CallId], Approval] = {}
        self._shares: dict[str, Share] = {}
        self._answers: dict[tuple[TenantId, str], tuple[Kept, float]] = {}

    def close(self) -> None:
        """Let go of nothing: what is in memory goes with the process."""

    async def create(
        self, session: Session, facts: Sequence[Fact] = (), *, once: Once | None = None
    ) -> bool:
        key = Key(session.tenant, session.id)
        self._refuse_repeated(key.tenant, once)
        if key in self._kept:
            return False
        self._refuse_read_by_forks(key)
        self._kept[key] = _Kept(session, self._history(session))
        appended = await self.append(key, facts)
        self._keep_answer(key.tenant, once, appended)
        return True

    async def restore(self, session: Session, events: Sequence[Event]) -> bool:
        key = Key(session.tenant, session.id)
        if key in self._kept:
            return False
        self._refuse_read_by_forks(key)
        done = restored(key, events)
        for run in done.runs:
            if (key.tenant, run) in self._runs:
                raise Conflict(f"{run} is here already, in another session", code="exists")
        session.head = done.head
        self._kept[key] = _Kept(session, done.events)
        self._change_rows(key, session, done)
        return True

    async def session(self, key: Key) -> Session:
        return replace(self._get(key).session)

    async def sessions(
        self, tenant: TenantId, *, agent: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[Session]:
        wanted = [
            kept.session
            for key, kept in self._kept.items()
            if key.tenant == tenant
            and agent in (None, kept.session.agent)
            and status in (None, kept.session.head.status)
        ]
        wanted.sort(key=lambda s: (s.created_at, s.id), reverse=True)
        if after:
            mark = self._get(Key(tenant, SessionId(after))).session
            past = (mark.created_at, mark.id)
            wanted = [s for s in wanted if (s.created_at, s.id) < past]
        return [replace(s) for s in wanted[:limit]]

    async def relabel(self, key: Key, *, title: str | None, metadata: JsonObject) -> Session:
        session = self._get(key).session
        session.title, session.metadata = title, metadata
        session.updated_at = self._clock()
        return replace(session)

    async def delete(self, key: Key, *, idle_since: float | None = None) -> Sequence[SessionId]:
        there = self._kept.get(key)
        if idle_since is not None and (there is None or not _is_idle(there, idle_since)):
            return ()
        self._kept.pop(key, None)
        for one in [k for k, run in self._runs.items() if (k[0], run.session) == key]:
            del self._runs[one]
        for approval in [k for k in self._approvals if k[0] == key]:
            del self._approvals[approval]
        for digest in [d for d, s in self._shares.items() if (s.tenant, s.session) == key]:
            del self._shares[digest]
        read = [] if there is None else [segment.session for segment in there.session.lineage]
        return [one for one in (key.session, *read) if not self._is_left(Key(key.tenant, one))]

    async def tidy(self) -> None:
        now = self._clock()
        for digest in [d for d, share in self._shares.items() if share.expires_at <= now]:
            del self._shares[digest]
        for old in [one for one in self._answers if self._is_old(one, now)]:
            del self._answers[old]

    async def count(self, tenant: TenantId) -> int:
        return sum(key.tenant == tenant for key in self._kept)

    async def forgettable(self, *, before: float, keep: int, limit: int) -> Sequence[Key]:
        idle = [
            (kept.session.updated_at, key)
            for key, kept in self._kept.items()
            if kept.session.head.active is None
        ]
        idle.sort()
        over = {
            tenant: max(0, count - keep)
            for tenant, count in Counter(key.tenant for key in self._kept).items()
        }
        chosen: list[Key] = []
        for at, key in idle:
            over[key.tenant] -= 1
            if at < before or over[key.tenant] >= 0:
                chosen.append(key)
        return chosen[:limit]

    async def storage(self, tenant: TenantId, *, limit: int) -> Storage:
        mine = [kept for key, kept in self._kept.items() if key.tenant == tenant]
        stored = {(event.session, event.seq): event for kept in mine for event in kept.log}
        events, fact_bytes = Counter[SessionId](), Counter[SessionId]()
        for event in stored.values():
            events[event.session] += 1
            fact_bytes[event.session] += len(event.raw)
        sizes = [(session, events[session], fact_bytes[session]) for session in events]
        sizes.sort(key=lambda one: (-one[2], one[0]))
        return Storage(
            sessions=len(mine),
            events=sum(one[1] for one in sizes),
            fact_bytes=sum(one[2] for one in sizes),
            largest=tuple(sizes[:limit]),
        )

    async def append(
        self,
        key: Key,
        facts: Sequence[Fact],
        *,
        fence: int | None = None,
        expected: Seq | None = None,
        once: Once | None = None,
    ) -> Appended:
        self._refuse_repeated(key.tenant, once)
        kept, at = self._get(key), self._clock()
        done = project(key, kept.session.head, facts, at=at, fence=fence, expected=expected)
        appended = Appended(done.events, done.head)
        if done.events:
            kept.log.extend(done.events)
            kept.session.head, kept.session.updated_at = done.head, at
            self._change_rows(key, kept.session, done)
        self._keep_answer(key.tenant, once, appended)
        if done.events:
            self._observer(key, done.events)
        if done.activated is not None and self._outbox is not None:
            await self._outbox(RunKey(*key, done.activated))
        return appended

    async def kept(self, tenant: TenantId, scope: str) -> Kept | None:
        found = self._answers.get((tenant, scope))
        if found is None or found[1] <= self._clock() - ANSWERS_KEPT_S:
            return None
        return found[0]

    async def head(self, key: Key) -> Head:
        return self._get(key).session.head

    async def read(self, key: Key, *, after: Seq, limit: int) -> Sequence[Event]:
        return self._get(key).log[after : after + limit]

    async def recall(self, key: Key) -> Recall:
        kept = self._get(key)
        base = kept.session.head.base
        said = [event for event in kept.log[: max(base - 1, 0)] if event.kind in SPOKEN]
        spoken = codec.load_spoken(b",".join(event.raw for event in said))
        past = Past([event.seq for event in said], spoken)
        events = kept.log[max(base - 1, 0) :]
        session = kept.session
        return Recall(session.head, session.agent, session.client_tools, past, events)

    async def unfinished(self) -> Sequence[RunKey]:
        now = self._clock()
        heads = [(key, kept.session.head) for key, kept in self._kept.items()]
        return [
            RunKey(*key, head.active)
            for key, head in heads
            if head.active is not None and (head.due or 0) <= now
        ]

    async def run(self, tenant: TenantId, run: RunId) -> RunRow:
        row = self._runs.get((tenant, run))
        if row is None:
            raise NotFound(f"no run {run}")
        return replace(row)

    async def runs(
        self, tenant: TenantId, *, session: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[RunRow]:
        wanted = [
            run
            for (of, _), run in self._runs.items()
            if of == tenant and session in (None, run.session) and status in (None, run.status)
        ]
        wanted.sort(key=lambda run: run.id, reverse=True)
        return [replace(run) for run in wanted if not after or run.id < after][:limit]

    async def approval(self, tenant: TenantId, session: SessionId, call: CallId) -> Approval:
        found = self._approvals.get((Key(tenant, session), call))
        if found is None:
            raise NotFound(f"no approval {call}")
        return replace(found)

    async def approvals(
        self, tenant: TenantId, *, session: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[Approval]:
        wanted = [
            one
            for (key, call), one in self._approvals.items()
            if key.tenant == tenant
            and call > after
            and session in (None, key.session)
            and status in (None, one.status)
        ]
        wanted.sort(key=lambda one: one.call)
        return [replace(one) for one in wanted[:limit]]

    async def share(self, share: Share) -> None:
        self._get(Key(share.tenant, share.session))
        self._shares[share.digest] = share

    async def shares(self, key: Key) -> Sequence[Share]:
        found = [one for one in self._shares.values() if (one.tenant, one.session) == key]
        return sorted(found, key=lambda one: one.id)

    async def unshare(self, key: Key, share: str) -> None:
        for one in await self.shares(key):
            if one.id == share:
                del self._shares[one.digest]

    async def shared(self, digest: str) -> Share | None:
        found = self._shares.get(digest)
        return found if found is not None and found.expires_at > self._clock() else None

    async def search(self, tenant: TenantId, query: str, *, limit: int) -> Sequence[Hit]:
        asked = words(query)
        said = [
            (event, said_in(event.fact))
            for key, kept in self._kept.items()
            if key.tenant == tenant
            for event in kept.log
            if event.session == key.session
        ]
        said.sort(key=lambda one: (one[0].at, one[0].seq), reverse=True)
        found = [one for one in said if asked and set(asked) <= set(words(one[1]))]
        return [Hit(e.session, e.seq, e.kind, snippet(text, asked)) for e, text in found[:limit]]

    def _get(self, key: Key) -> _Kept:
        kept = self._kept.get(key)
        if kept is None:
            raise NotFound(f"no session {key.session}")
        return kept

    def _history(self, session: Session) -> list[Event]:
        """Return what a fork begins with, from those who said it or other forks that read it."""
        if not session.lineage:
            return []
        origin, upto = session.lineage[-1]
        for key, kept in self._kept.items():
            last = kept.log[upto - 1 : upto]
            if key.tenant == session.tenant and last and last[0].session == origin:
                return kept.log[:upto]
        raise NotFound(f"what {session.id} begins with is gone")

    def _is_left(self, key: Key) -> bool:
        """Whether a session is there, or forks read what it had said."""
        return key in self._kept or any(
            origin == key.session
            for other, kept in self._kept.items()
            if other.tenant == key.tenant
            for origin, _ in kept.session.lineage
        )

    def _refuse_read_by_forks(self, key: Key) -> None:
        if self._is_left(key):
            raise Conflict(f"forks still read what {key.session} had said", code="exists")

    def _refuse_repeated(self, tenant: TenantId, once: Once | None) -> None:
        if once is None:
            return
        found = self._answers.get((tenant, once.scope))
        if found is not None and found[1] > self._clock() - ANSWERS_KEPT_S:
            raise Repeated(once.scope)

    def _keep_answer(self, tenant: TenantId, once: Once | None, appended: Appended) -> None:
        if once is None:
            return
        now, kept = self._clock(), Kept(once.digest, once.answer(appended))
        self._answers.pop((tenant, once.scope), None)
        self._answers[tenant, once.scope] = kept, now
        for old in list(takewhile(lambda k: self._is_old(k, now), self._answers)):
            del self._answers[old]

    def _is_old(self, key: tuple[TenantId, str], now: float) -> bool:
        return self._answers[key][1] <= now - ANSWERS_KEPT_S

    def _change_rows(self, key: Key, session: Session, done: Projection) -> None:
        for run, change in done.runs.items():
            row = self._runs.get((key.tenant, run))
            if row is None:
                row = self._runs[key.tenant, run] = new_row(key, session, run, change)
            row.status = change.status
            set_given(row, change, "reason", "started_at", "ended_at", "last_seq", "usage")
        for call, change in done.approvals.items():
            if change.asked is not None:
                self._approvals[key, call] = new_approval(key, change, change.asked)
            approval = self._approvals[key, call]
            approval.status = change.status
            set_given(approval, change, "principal", "reason", "answered_at")


def _is_idle(kept: _Kept, since: float) -> bool:
    return kept.session.head.active is None and kept.session.updated_at < since
