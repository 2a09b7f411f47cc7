"""The log in PostgreSQL: the store of a fleet, and of whoever has a server already.

Writes go through `postgres_writer`, reads are one statement each, on connections beside it.  Many
processes may have one database open; what another process wrote is seen by the next read.

Invariant: a statement is sent on a connection that shows the rows of the tenant that asks, or those
of all where that is the task (`HOUSE`); see `postgres_wire`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TypeVar, cast

from hostler.core.audited import DEED
from hostler.core.errors import NotFound
from hostler.core.events import (
    CallId,
    Event,
    Fact,
    Key,
    PrincipalId,
    RunId,
    RunKey,
    Seq,
    SessionId,
    TenantId,
)
from hostler.core.head import Head
from hostler.core.ledger import ANY_RUN, RunFilter
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
from hostler.core.store import AHEAD_S, LARGEST_READ, Outbox
from hostler.stores import postgres_rows as rows
from hostler.stores.ledger_rows import to_run
from hostler.stores.log_rows import Row, to_approval, to_session, to_share, to_timer, wanted_of
from hostler.stores.postgres_batch import ANSWERS_KEPT_US
from hostler.stores.postgres_changes import forget, relabel
from hostler.stores.postgres_ledger import PostgresLedger
from hostler.stores.postgres_orders import (
    Append,
    Audited,
    Create,
    Do,
    Enter,
    Plain,
    Restore,
    Written,
)
from hostler.stores.postgres_wire import HOUSE, Wire, Wires
from hostler.stores.postgres_writer import Writer
from hostler.stores.times import to_us

log = logging.getLogger(__name__)

T = TypeVar("T")
COMMITS_KEPT_US = 3600 * 1_000_000
"""Far longer than anybody asks whether a commit happened."""


class PostgresStore:
    """A `core.store.Store` in a database.  `postgres_open.open_postgres` opens it."""

    def __init__(self, writer: Writer, reads: Wires, outbox: Outbox | None) -> None:
        self._writer, self._reads, self._outbox = writer, reads, outbox
        self.tell_changed: Callable[[str], None] = lambda _: None
        """Told what was changed of what other processes remember."""

    async def create(
        self, session: Session, facts: Sequence[Fact] = (), *, once: Once | None = None
    ) -> bool:
        order = Create(session, facts, once)
        made = cast("Written | None", await self._ask(session.tenant, order))
        if made is not None:
            await self._hand_over(made)
        return made is not None

    async def restore(self, session: Session, events: Sequence[Event]) -> bool:
        return bool(await self._ask(session.tenant, Restore(session, events)))

    async def session(self, key: Key) -> Session:
        async def read(wire: Wire) -> Session:
            row = await wire.row("session", tenant=key.tenant, session=key.session)
            if row is None:
                raise NotFound(f"no session {key.session}")
            return to_session(key.tenant, row)

        return await self.reading(key.tenant, read)

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
        wanted = wanted_of(tenant, after, limit, seen_by, agent=agent, status=status)
        found = await self.finding(tenant, "sessions", **wanted)
        return [to_session(tenant, row) for row in found]

    async def relabel(self, key: Key, labels: Labels) -> Session:
        return await self.writing(key.tenant, relabel(key, labels, self.now_us()))

    async def delete(self, key: Key, *, idle_since: float | None = None) -> Sequence[SessionId]:
        return await self.writing(key.tenant, forget(key, to_us(idle_since)))

    async def tidy(self) -> None:
        now_us = self.now_us()

        async def write(wire: Wire) -> None:
            await wire.run("delete_old_answers", since=now_us - ANSWERS_KEPT_US)
            await wire.run("delete_old_shares", now=now_us)
            await wire.run("delete_old_commits", since=now_us - COMMITS_KEPT_US)

        await self.writing(HOUSE, write)

    async def count(self, tenant: TenantId, *, active: bool = False) -> int:
        name = "count_active" if active else "count_sessions"
        ((number,),) = await self.finding(tenant, name, tenant=tenant)
        return cast("int", number)

    async def forgettable(
        self,
        *,
        before: float,
        keep: int,
        limit: int,
        of: TenantId | None = None,
        but: Collection[TenantId] = (),
    ) -> Sequence[Key]:
        read = partial(rows.read_forgettable, to_us(before), keep, limit, of, sorted(but))
        return await self.reading(of, read)

    async def storage(
        self, tenant: TenantId, *, limit: int, seen_by: PrincipalId | None = None
    ) -> Storage:
        return await self.reading(tenant, partial(rows.read_storage, tenant, limit, seen_by))

    async def append(
        self,
        key: Key,
        facts: Sequence[Fact],
        *,
        fence: int | None = None,
        expected: Seq | None = None,
        once: Once | None = None,
    ) -> Appended:
        order = Append(key, facts, fence, expected, once)
        written = cast("Written", await self._ask(key.tenant, order))
        await self._hand_over(written)
        return written.appended

    async def head(self, key: Key) -> Head:
        return await self.reading(key.tenant, partial(rows.read_head, key))

    async def kept(self, tenant: TenantId, scope: str) -> Kept | None:
        since = self.now_us() - ANSWERS_KEPT_US
        found = await self.finding(tenant, "answer", tenant=tenant, scope=scope, since=since)
        return Kept(*cast("tuple[str, bytes]", found[0])) if found else None

    async def read(self, key: Key, *, after: Seq, limit: int) -> Sequence[Event]:
        # The log has no holes, so a number of events is a range of positions.
        upto = Seq(after + limit)
        return await self.reading(
            key.tenant, partial(rows.read_log, key, after, upto, LARGEST_READ)
        )

    async def recall(self, key: Key) -> Recall:
        return await self.reading(key.tenant, partial(rows.read_recall, key))

    async def unfinished(self) -> Sequence[Job]:
        now = self.now_us()
        found = await self.finding(HOUSE, "unfinished", now=now, soon=now + to_us(AHEAD_S))
        rows = cast("Sequence[tuple[TenantId, SessionId, RunId, bool]]", found)
        return [
            Job(RunKey(tenant, session, run), priority=-is_low)
            for tenant, session, run, is_low in rows
        ]

    async def scheduled(self, key: Key) -> Sequence[Timer]:
        found = await self.finding(key.tenant, "scheduled", tenant=key.tenant, session=key.session)
        return [to_timer(row) for row in found]

    @property
    def ledger(self) -> PostgresLedger:
        return PostgresLedger(self)

    async def run(self, tenant: TenantId, run: RunId) -> RunRow:
        found = await self.finding(tenant, "run", tenant=tenant, run=run)
        if not found:
            raise NotFound(f"no run {run}")
        return to_run(found[0])

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
        wanted = wanted_of(tenant, after, limit, only.seen_by, session=session, status=status)
        found = await self.finding(
            tenant,
            "runs",
            **wanted,
            agent=only.agent,
            principal=only.principal,
            purpose=only.purpose,
            since=to_us(only.since),
            before=to_us(only.before),
        )
        return [to_run(row) for row in found]

    async def approval(self, tenant: TenantId, session: SessionId, call: CallId) -> Approval:
        found = await self.finding(tenant, "approval", tenant=tenant, session=session, call=call)
        if not found:
            raise NotFound(f"no approval {call}")
        return to_approval(found[0])

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
        wanted = wanted_of(tenant, after, limit, seen_by, session=session, status=status)
        found = await self.finding(tenant, "approvals", **wanted)
        return [to_approval(row) for row in found]

    async def share(self, share: Share) -> None:
        async def write(wire: Wire) -> None:
            await rows.read_head(Key(share.tenant, share.session), wire)
            await wire.run(
                "create_share",
                digest=share.digest,
                tenant=share.tenant,
                id=share.id,
                session=share.session,
                principal=share.principal,
                created_at=to_us(share.created_at),
                expires_at=to_us(share.expires_at),
            )

        await self.writing(share.tenant, write)

    async def shares(self, key: Key) -> Sequence[Share]:
        found = await self.finding(key.tenant, "shares", tenant=key.tenant, session=key.session)
        return [to_share(row) for row in found]

    async def unshare(self, key: Key, share: str) -> None:
        tenant, session = key
        await self.running(tenant, "unshare", tenant=tenant, session=session, share=share)

    async def shared(self, digest: str) -> Share | None:
        found = await self.finding(HOUSE, "shared", digest=digest, now=self.now_us())
        return to_share(found[0]) if found else None

    async def search(
        self, tenant: TenantId, query: str, *, limit: int, seen_by: PrincipalId | None = None
    ) -> Sequence[Hit]:
        return await self.reading(tenant, partial(rows.read_hits, tenant, query, limit, seen_by))

    def now_us(self) -> int:
        """Return the time, as rows have it."""
        return self._writer.now_us()

    def listen(self, ring: Callable[[], None]) -> None:
        """Have `ring` called after each commit after which something may be due elsewhere."""
        self._writer.ring = ring

    def ring(self) -> None:
        self._writer.ring()

    async def _hand_over(self, written: Written) -> None:
        if written.activated is not None and self._outbox is not None:
            await self._outbox(written.activated)

    # -- for what is kept beside the log, too ------------------------------------------------

    async def reading(self, whose: TenantId | None, read: Callable[[Wire], Awaitable[T]]) -> T:
        """Return what `read` finds among the rows of a tenant, or of all."""
        return await self._reads.reading(whose, read)

    async def finding(
        self, whose: TenantId | None, name: str, /, **given: object
    ) -> Sequence[tuple[object, ...]]:
        """Return what one statement finds."""
        return await self._reads.reading(whose, partial(_found, name, given))

    async def writing(self, whose: TenantId | None, write: Callable[[Wire], Awaitable[T]]) -> T:
        """Return what `write` answers, once it is committed; what it raises undoes it.

        It may be called again, when others wrote first or the connection was lost.
        """
        return cast("T", await self._ask(whose, Do(write)))

    async def running(self, whose: TenantId | None, name: str, /, **given: object) -> int:
        """Return how many rows one statement changed, once that is committed."""
        return await self.writing(whose, partial(_ran, name, given))

    async def changing(self, whose: TenantId | None, name: str, /, **given: object) -> bool:
        """Return whether one statement changed anything; if not, nothing was done."""
        return await self.writing(whose, partial(_changed, name, given))

    async def entering(self, part: str, row: Row) -> None:
        """Write a row beside the log, in place of what was under its id, in a commit with others."""
        await self._ask(TenantId(str(row[0])), Enter(part, str(row[1]), row))

    async def _ask(self, whose: TenantId | None, order: Plain) -> object:
        """Have an order carried out, in one commit with the entry of the current deed."""
        deed = DEED.get()
        if deed is None or deed.is_taken:
            return await self._writer.ask(whose, order)
        with deed.taking() as entry:
            answer = await self._writer.ask(whose, Audited(order, entry))
        deed.is_taken = answer is not False
        return answer


async def _found(name: str, given: dict[str, object], wire: Wire) -> list[tuple[object, ...]]:
    return await wire.asked(name, given)


async def _changed(name: str, given: dict[str, object], wire: Wire) -> bool:
    return await wire.run(name, **given) > 0


async def _ran(name: str, given: dict[str, object], wire: Wire) -> int:
    return await wire.run(name, **given)
