"""A store in dicts: for tests and for embedding, and the reference the others must agree with.

It keeps every promise of the port but durability.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from hostler.core.errors import NotFound
from hostler.core.events import (
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
from hostler.core.ports import (
    Appended,
    Hit,
    Observer,
    Outbox,
    Recall,
    RunRow,
    Session,
)
from hostler.core.state import SPOKEN, Head
from hostler.stores.projection import Projection, RunChange, project, said_in, snippet, words


@dataclass(slots=True)
class _Kept:
    session: Session
    log: list[Event] = field(default_factory=list[Event])


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

    async def create(self, session: Session) -> bool:
        key = Key(session.tenant, session.id)
        if key in self._kept:
            return False
        self._kept[key] = _Kept(session)
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

    async def delete(self, key: Key) -> None:
        self._kept.pop(key, None)
        for one in [k for k, run in self._runs.items() if (k[0], run.session) == key]:
            del self._runs[one]

    async def append(
        self,
        key: Key,
        facts: Sequence[Fact],
        *,
        fence: int | None = None,
        expected: Seq | None = None,
    ) -> Appended:
        kept, at = self._get(key), self._clock()
        done = project(key, kept.session.head, facts, at=at, fence=fence, expected=expected)
        kept.log.extend(done.events)
        kept.session.head, kept.session.updated_at = done.head, at
        self._change_runs(key, kept.session, done)
        self._observer(key, done.events)
        if done.activated is not None and self._outbox is not None:
            await self._outbox(RunKey(*key, done.activated))
        return Appended(done.events, done.head)

    async def head(self, key: Key) -> Head:
        return self._get(key).session.head

    async def read(self, key: Key, *, after: Seq, limit: int) -> Sequence[Event]:
        return self._get(key).log[after : after + limit]

    async def recall(self, key: Key) -> Recall:
        kept = self._get(key)
        base = kept.session.head.base
        past = [(e.seq, e.fact) for e in kept.log[: max(base - 1, 0)] if e.kind in SPOKEN]
        events = kept.log[max(base - 1, 0) :]
        return Recall(kept.session.head, kept.session.agent, past, events)

    async def unfinished(self) -> Sequence[RunKey]:
        heads = [(key, kept.session.head) for key, kept in self._kept.items()]
        return [RunKey(*key, head.active) for key, head in heads if head.active is not None]

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

    async def search(self, tenant: TenantId, query: str, *, limit: int) -> Sequence[Hit]:
        asked = words(query)
        said = [
            (event, said_in(event.fact))
            for key, kept in self._kept.items()
            if key.tenant == tenant
            for event in kept.log
        ]
        said.sort(key=lambda one: one[0].at, reverse=True)
        found = [one for one in said if asked and set(asked) <= set(words(one[1]))]
        return [Hit(e.session, e.seq, e.kind, snippet(text, asked)) for e, text in found[:limit]]

    def _get(self, key: Key) -> _Kept:
        kept = self._kept.get(key)
        if kept is None:
            raise NotFound(f"no session {key.session}")
        return kept

    def _change_runs(self, key: Key, session: Session, done: Projection) -> None:
        for run, change in done.runs.items():
            row = self._runs.get((key.tenant, run))
            if row is None:
                row = self._runs[key.tenant, run] = _new_row(key, session, run, change)
            row.status = change.status
            for name in ("reason", "started_at", "ended_at", "last_seq", "usage"):
                value = getattr(change, name)
                if value is not None:
                    setattr(row, name, value)


def _new_row(key: Key, session: Session, run: RunId, change: RunChange) -> RunRow:
    assert change.input is not None
    assert change.first_seq is not None
    assert change.created_at is not None
    return RunRow(
        tenant=key.tenant,
        session=key.session,
        id=run,
        input=change.input,
        agent=session.agent,
        status="queued",
        created_at=change.created_at,
        first_seq=change.first_seq,
    )
