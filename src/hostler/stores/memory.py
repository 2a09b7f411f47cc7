"""A store in dicts: for tests and for embedding, and the reference the others must agree with.

It keeps every promise of the port but durability.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from hostler.core import codec
from hostler.core.codec import SPOKEN
from hostler.core.directory import Grant
from hostler.core.errors import Conflict, NotFound
from hostler.core.events import (
    CallId,
    Event,
    Fact,
    InputId,
    Key,
    PrincipalId,
    RunId,
    Seq,
    SessionId,
    TenantId,
)
from hostler.core.head import Head
from hostler.core.ledger import ANY_RUN, RunFilter
from hostler.core.memory import Past
from hostler.core.ports import Job
from hostler.core.records import (
    Appended,
    Approval,
    Hit,
    Kept,
    Labels,
    Once,
    Recall,
    RunRow,
    Session,
    Share,
    Storage,
    Timer,
)
from hostler.core.sealed import Mask, Scrubbed
from hostler.core.store import LARGEST_READ, Observer, Outbox
from hostler.stores.memory_ledger import MemoryLedger, MemoryRows
from hostler.stores.memory_rows import (
    Answers,
    change_approvals,
    change_timers,
    hits,
    is_idle,
    may_go,
    relabel,
    scrub,
    sizes_of,
    unfinished,
    up_to,
)
from hostler.stores.memory_webhooks import MemoryWebhooks
from hostler.stores.projection import Projection, imported, project


@dataclass(slots=True)
class _Kept:
    session: Session
    log: list[Event] = field(default_factory=list[Event])
    """From the first event on, of a fork with those of its lineage."""


class MemoryStore:
    """Keeps all in this process."""

    def __init__(
        self,
        *,
        observer: Observer = lambda _key, _events: None,
        outbox: Outbox | None = None,
        clock: Callable[[], float] = time.time,
        mask: Callable[[TenantId], Mask | None] = lambda _: None,
    ) -> None:
        self._observer, self._outbox, self._clock, self._mask = observer, outbox, clock, mask
        self._kept: dict[Key, _Kept] = {}
        self.rows = MemoryRows()
        self._approvals: dict[tuple[Key, CallId], Approval] = {}
        self._timers: dict[Key, dict[InputId, Timer]] = {}
        self._shares: dict[str, Share] = {}
        self._answers = Answers(clock)
        self.webhooks = MemoryWebhooks()
        self.grants: dict[Key, dict[PrincipalId, Grant]] = {}
        """Kept by `memory_directory`."""

    def close(self) -> None:
        """Let go of nothing."""

    async def create(
        self, session: Session, facts: Sequence[Fact] = (), *, once: Once | None = None
    ) -> bool:
        key = Key(session.tenant, session.id)
        self._answers.refuse_repeated(key.tenant, once)
        # What is refused has written nothing.
        project(key, session.head, facts, at=0.0, fence=None, expected=None)
        if key in self._kept:
            return False
        self._refuse_left(key)
        self._kept[key] = _Kept(session, self._history(session))
        appended = await self.append(key, facts)
        self._answers.keep(key.tenant, once, appended)
        return True

    async def restore(self, session: Session, events: Sequence[Event]) -> bool:
        key = Key(session.tenant, session.id)
        if key in self._kept:
            return False
        self._refuse_left(key)
        done = imported(key, events, self._mask(key.tenant))
        for run in done.ledger.runs:
            if (key.tenant, run) in self.rows.runs:
                raise Conflict(f"{run} is here already, in another session", code="exists")
        session.head = done.head
        self._kept[key] = _Kept(session, done.events)
        self._change_rows(key, session, done)
        return True

    async def session(self, key: Key) -> Session:
        return replace(self._get(key).session)

    async def sessions(
        self,
        tenant: TenantId,
        *,
        agent: str | None,
        status: str | None,
        after: str,
        limit: int,
        seen_by: PrincipalId | None = None,
    ) -> Sequence[Session]:
        wanted = [
            kept.session
            for key, kept in self._kept.items()
            if key.tenant == tenant
            and self.is_seen(key, seen_by)
            and agent in (None, kept.session.agent)
            and status in (None, kept.session.head.status)
        ]
        wanted.sort(key=lambda s: (s.created_at, s.id), reverse=True)
        if after:
            mark = self._get(Key(tenant, SessionId(after))).session
            past = (mark.created_at, mark.id)
            wanted = [s for s in wanted if (s.created_at, s.id) < past]
        return [replace(s) for s in wanted[:limit]]

    async def relabel(self, key: Key, labels: Labels) -> Session:
        session = self._get(key).session
        relabel(session, labels)
        session.updated_at = self._clock()
        return replace(session)

    async def delete(self, key: Key, *, idle_since: float | None = None) -> Sequence[SessionId]:
        there = self._kept.get(key)
        if idle_since is not None and (there is None or not is_idle(there.session, idle_since)):
            return ()
        self._kept.pop(key, None)
        self.grants.pop(key, None)
        self._timers.pop(key, None)
        self.rows.erase(key)
        self._approvals = {k: one for k, one in self._approvals.items() if k[0] != key}
        self._shares = {d: s for d, s in self._shares.items() if (s.tenant, s.session) != key}
        read = [] if there is None else [segment.session for segment in there.session.lineage]
        return [one for one in (key.session, *read) if not self._is_left(Key(key.tenant, one))]

    async def tidy(self) -> None:
        now = self._clock()
        self._shares = {d: share for d, share in self._shares.items() if share.expires_at > now}
        self._answers.tidy()

    async def count(self, tenant: TenantId, *, active: bool = False) -> int:
        mine = [one.session.head.status for key, one in self._kept.items() if key[0] == tenant]
        return sum(status in ("queued", "running") for status in mine) if active else len(mine)

    async def forgettable(
        self,
        *,
        before: float,
        keep: int,
        limit: int,
        of: TenantId | None = None,
        but: Collection[TenantId] = (),
    ) -> Sequence[Key]:
        idle = [
            (kept.session.updated_at, key)
            for key, kept in self._kept.items()
            if kept.session.head.active is None and of in (None, key[0]) and key[0] not in but
        ]
        sizes = Counter(key.tenant for key in self._kept)
        return may_go(idle, sizes, before=before, keep=keep)[:limit]

    async def storage(
        self, tenant: TenantId, *, limit: int, seen_by: PrincipalId | None = None
    ) -> Storage:
        mine = {
            key.session: kept.log
            for key, kept in self._kept.items()
            if key.tenant == tenant and self.is_seen(key, seen_by)
        }
        return sizes_of(mine, limit, own=seen_by is not None)

    async def append(
        self,
        key: Key,
        facts: Sequence[Fact],
        *,
        fence: int | None = None,
        expected: Seq | None = None,
        once: Once | None = None,
    ) -> Appended:
        self._answers.refuse_repeated(key.tenant, once)
        kept, at = self._get(key), self._clock()
        head, mask = kept.session.head, self._mask(key.tenant)
        done = project(key, head, facts, at=at, fence=fence, expected=expected, mask=mask)
        appended = Appended(done.events, done.head)
        self._answers.keep(key.tenant, once, appended)
        if done.events:
            kept.log.extend(done.events)
            kept.session.head, kept.session.updated_at = done.head, at
            self._change_rows(key, kept.session, done)
            self.webhooks.note(key, kept.session.agent, head, kept.log, done.events)
            self._observer(key, done.events)
        if done.activated is not None and self._outbox is not None:
            await self._outbox(done.activated)
        return appended

    async def kept(self, tenant: TenantId, scope: str) -> Kept | None:
        return self._answers.get(tenant, scope)

    async def head(self, key: Key) -> Head:
        return self._get(key).session.head

    async def read(self, key: Key, *, after: Seq, limit: int) -> Sequence[Event]:
        return up_to(LARGEST_READ, self._get(key).log[after : after + limit])

    async def recall(self, key: Key) -> Recall:
        kept = self._get(key)
        session, base = kept.session, kept.session.head.base
        said = [event for event in kept.log[: max(base - 1, 0)] if event.kind in SPOKEN]
        spoken = codec.load_spoken(b",".join(event.raw for event in said))
        past = Past([event.seq for event in said], spoken)
        events = kept.log[max(base - 1, 0) :]
        return Recall(session.head, session.agent, session.client_tools, past, events)

    async def unfinished(self) -> Sequence[Job]:
        heads = ((key, kept.session.head) for key, kept in self._kept.items())
        return unfinished(heads, self._timers, self._clock())

    async def scheduled(self, key: Key) -> Sequence[Timer]:
        return sorted(self._timers.get(key, {}).values(), key=lambda one: (one.at, one.input))

    @property
    def ledger(self) -> MemoryLedger:
        return MemoryLedger(self.rows, self.is_seen)

    async def run(self, tenant: TenantId, run: RunId) -> RunRow:
        row = self.rows.runs.get((tenant, run))
        if row is None:
            raise NotFound(f"no run {run}")
        return replace(row)

    async def runs(
        self,
        tenant: TenantId,
        *,
        session: str | None,
        status: str | None,
        after: str,
        limit: int,
        only: RunFilter = ANY_RUN,
    ) -> Sequence[RunRow]:
        wanted = [
            run
            for run in self.rows.chosen(tenant, session, status, only)
            if self.is_seen(Key(tenant, run.session), only.seen_by)
        ]
        return [replace(run) for run in self.rows.past(tenant, after, wanted)][:limit]

    async def approval(self, tenant: TenantId, session: SessionId, call: CallId) -> Approval:
        found = self._approvals.get((Key(tenant, session), call))
        if found is None:
            raise NotFound(f"no approval {call}")
        return replace(found)

    async def approvals(
        self,
        tenant: TenantId,
        *,
        session: str | None,
        status: str | None,
        after: str,
        limit: int,
        seen_by: PrincipalId | None = None,
    ) -> Sequence[Approval]:
        wanted = [
            one
            for (key, call), one in self._approvals.items()
            if key.tenant == tenant
            and self.is_seen(key, seen_by)
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

    async def search(
        self, tenant: TenantId, query: str, *, limit: int, seen_by: PrincipalId | None = None
    ) -> Sequence[Hit]:
        said = (
            event
            for key, kept in self._kept.items()
            if key.tenant == tenant and self.is_seen(key, seen_by)
            for event in kept.log
            if event.session == key.session
        )
        return hits(said, query)[:limit]

    def scrub(self, mask: Mask, done: Scrubbed) -> Scrubbed:
        """Mask all that is here of a tenant."""
        kept = [one for key, one in self._kept.items() if key.tenant == done.tenant]
        asked = [row for (key, _), row in self._approvals.items() if key.tenant == done.tenant]
        events = {id(event): event for one in kept for event in one.log}.values()
        direct = [row for (of, _), row in self.rows.direct.items() if of == done.tenant]
        told = self.webhooks.rows(done.tenant)
        rows = [*(one.session for one in kept), *asked, *direct, *told]
        done = scrub(mask, done, events, rows, self._answers)
        for one in kept:
            self.rows.rebuild(one.session, one.log)
        return done

    def _get(self, key: Key) -> _Kept:
        kept = self._kept.get(key)
        if kept is None:
            raise NotFound(f"no session {key.session}")
        return kept

    def is_seen(self, key: Key, by: PrincipalId | None) -> bool:
        return by is None or by == self.owner(key) or by in self.grants.get(key, ())

    def owner(self, key: Key) -> PrincipalId | None:
        """Return who made a session; None for an absent one."""
        kept = self._kept.get(key)
        return None if kept is None else kept.session.principal

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
        logs = [kept.session for of, kept in self._kept.items() if of.tenant == key.tenant]
        return key in self._kept or any(key.session in dict(one.lineage) for one in logs)

    def _refuse_left(self, key: Key) -> None:
        if self._is_left(key):
            raise Conflict(f"forks still read what {key.session} had said", code="exists")

    def _change_rows(self, key: Key, session: Session, done: Projection) -> None:
        self.rows.enter(key, session, done.ledger)
        if done.client_tools is not None:
            session.client_tools = done.client_tools
        change_approvals(self._approvals, key, done)
        change_timers(self._timers, key, done)
