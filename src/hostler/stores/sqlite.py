"""The log in one SQLite file: one writer thread with group commit, readers beside it.

WAL with `synchronous=FULL`: a commit is on disk before anybody hears of it.  One process per
file, held by a lock, which is also what lets the writer trust the heads that it remembers.

Invariant: no transaction is open while the event loop waits for anything.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
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
from hostler.core.sealed import Mask
from hostler.core.store import LARGEST_READ, Observer, Outbox
from hostler.stores.audit_rows import record
from hostler.stores.lanes import Lane, Timed
from hostler.stores.ledger_rows import to_run
from hostler.stores.log_rows import Row, to_approval, to_session, to_share, wanted_of
from hostler.stores.sqlite_entries import read_runs, recover
from hostler.stores.sqlite_file import FileLock, connect, migrate
from hostler.stores.sqlite_ledger import SqliteLedger
from hostler.stores.sqlite_notices import Notices
from hostler.stores.sqlite_orders import (
    Append,
    Audited,
    Create,
    Do,
    Enter,
    Order,
    Plain,
    Restore,
    Written,
)
from hostler.stores.sqlite_reader import Read, Reader
from hostler.stores.sqlite_rows import (
    SQL,
    read_forgettable,
    read_head,
    read_hits,
    read_list,
    read_log,
    read_recall,
    read_storage,
    read_timers,
    read_unfinished,
)
from hostler.stores.sqlite_writer import ANSWERS_KEPT_US, Writer, forget, relabel
from hostler.stores.times import to_us

T = TypeVar("T")


class SqliteStore:
    """A `core.store.Store` in a file.  Make it with `open`, end it with `close`."""

    def __init__(
        self,
        path: Path,
        writer: Writer,
        lock: FileLock,
        outbox: Outbox | None,
        *,
        readers: int,
        timed: Timed | None,
    ) -> None:
        self._lock, self._writer, self._outbox = lock, writer, outbox
        self._write: Lane[Order, object] = Lane(
            "hostler-writer", writer.work, writer.deliver, timed=timed
        )
        self._connections = [connect(path, read_only=True) for _ in range(readers)]
        self._reads: list[Lane[Read, object]] = [
            Lane(f"hostler-reader-{i}", Reader(db).work) for i, db in enumerate(self._connections)
        ]
        self._turns = itertools.cycle(self._reads)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        observer: Observer = lambda _key, _events: None,
        outbox: Outbox | None = None,
        clock: Callable[[], float] = time.time,
        readers: int = 2,
        timed: Timed | None = None,
        mask: Callable[[TenantId], Mask | None] = lambda _: None,
    ) -> SqliteStore:
        """Open or make the file, and bring its schema up to date.  Needs a running event loop.

        `timed` is told of each commit; `mask`: what is kept out of what a tenant writes.

        Raises:
            SetupError: another process has it, a newer build made it, or it cannot be used.
        """
        lock = FileLock(path)
        try:
            db = connect(path)
            migrate(db, path)
            recover(db, to_us(clock()))
            writer = Writer(db, observer, clock, mask)
            return cls(path, writer, lock, outbox, readers=readers, timed=timed)
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Finish what was asked for and let go of the file."""
        for lane in (self._write, *self._reads):
            lane.close()
        for db in (*self._connections, self._writer.db):
            db.close()
        self._lock.release()

    async def create(
        self, session: Session, facts: Sequence[Fact] = (), *, once: Once | None = None
    ) -> bool:
        made = cast("Written | None", await self._ask(Create(session, facts, once)))
        if made is not None:
            await self._hand_over(made)
        return made is not None

    async def restore(self, session: Session, events: Sequence[Event]) -> bool:
        return bool(await self._ask(Restore(session, events)))

    async def session(self, key: Key) -> Session:
        def read(db: sqlite3.Connection) -> Session:
            row = db.execute(SQL["session"], key).fetchone()
            if row is None:
                raise NotFound(f"no session {key.session}")
            return to_session(key.tenant, row)

        return await self.reading(read)

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
        name = "sessions" if status in (None, "idle") else "busy_sessions"
        return await self.reading(
            lambda db: [to_session(tenant, row) for row in read_list(db, name, wanted)]
        )

    async def relabel(self, key: Key, labels: Labels) -> Session:
        at_us = self._writer.now_us()

        def write(db: sqlite3.Connection) -> Session:
            relabel(db, key, labels)
            db.execute(SQL["touch"], (at_us, *key))
            return to_session(key.tenant, db.execute(SQL["session"], key).fetchone())

        return await self.writing(write)

    async def delete(self, key: Key, *, idle_since: float | None = None) -> Sequence[SessionId]:
        since_us = to_us(idle_since)

        def write(db: sqlite3.Connection) -> Sequence[SessionId]:
            if since_us is not None and not db.execute(SQL["is_idle"], (*key, since_us)).fetchone():
                return ()
            return forget(db, key)

        return await self.writing(write)

    async def tidy(self) -> None:
        now_us = self._writer.now_us()

        def write(db: sqlite3.Connection) -> None:
            db.execute(SQL["delete_old_answers"], (now_us - ANSWERS_KEPT_US,))
            db.execute(SQL["delete_old_shares"], (now_us,))

        await self.writing(write)

    async def count(self, tenant: TenantId, *, active: bool = False) -> int:
        name = "count_active" if active else "count_sessions"
        return await self.reading(lambda db: int(db.execute(SQL[name], (tenant,)).fetchone()[0]))

    async def forgettable(
        self,
        *,
        before: float,
        keep: int,
        limit: int,
        of: TenantId | None = None,
        but: Collection[TenantId] = (),
    ) -> Sequence[Key]:
        before_us = to_us(before)
        return await self.reading(
            lambda db: read_forgettable(db, before_us, keep, limit, (of, but))
        )

    async def storage(
        self, tenant: TenantId, *, limit: int, seen_by: PrincipalId | None = None
    ) -> Storage:
        return await self.reading(lambda db: read_storage(db, tenant, limit, seen_by))

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
        written = cast("Written", await self._ask(order))
        await self._hand_over(written)
        return written.appended

    async def head(self, key: Key) -> Head:
        return await self.reading(lambda db: read_head(db, key))

    async def kept(self, tenant: TenantId, scope: str) -> Kept | None:
        since = self._writer.now_us() - ANSWERS_KEPT_US

        def read(db: sqlite3.Connection) -> Kept | None:
            row = db.execute(SQL["answer"], (tenant, scope, since)).fetchone()
            return None if row is None else Kept(*row)

        return await self.reading(read)

    async def read(self, key: Key, *, after: Seq, limit: int) -> Sequence[Event]:
        def read(db: sqlite3.Connection) -> list[Event]:
            # The log has no holes, so a number of events is a range of positions.
            events = read_log(db, key, after, Seq(after + limit), LARGEST_READ)
            if not events:
                read_head(db, key)
            return events

        return await self.reading(read)

    async def recall(self, key: Key) -> Recall:
        return await self.reading(lambda db: read_recall(db, key))

    async def unfinished(self) -> Sequence[Job]:
        return await self.reading(partial(read_unfinished, now_us=self._writer.now_us()))

    async def scheduled(self, key: Key) -> Sequence[Timer]:
        return await self.reading(partial(read_timers, key=key))

    @property
    def ledger(self) -> SqliteLedger:
        return SqliteLedger(self)

    async def run(self, tenant: TenantId, run: RunId) -> RunRow:
        def read(db: sqlite3.Connection) -> RunRow:
            row = db.execute(SQL["run"], (tenant, run)).fetchone()
            if row is None:
                raise NotFound(f"no run {run}")
            return to_run(row)

        return await self.reading(read)

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
        page = {"session": session, "status": status, "after": after or None, "limit": limit}
        return await self.reading(lambda db: read_runs(db, tenant, page, only))

    async def approval(self, tenant: TenantId, session: SessionId, call: CallId) -> Approval:
        def read(db: sqlite3.Connection) -> Approval:
            row = db.execute(SQL["approval"], (tenant, session, call)).fetchone()
            if row is None:
                raise NotFound(f"no approval {call}")
            return to_approval(row)

        return await self.reading(read)

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
        return await self.reading(
            lambda db: [to_approval(row) for row in read_list(db, "approvals", wanted)]
        )

    async def share(self, share: Share) -> None:
        times = (to_us(share.created_at), to_us(share.expires_at))
        row = (share.digest, share.tenant, share.id, share.session, share.principal, *times)

        def write(db: sqlite3.Connection) -> None:
            read_head(db, Key(share.tenant, share.session))
            db.execute(SQL["create_share"], row)

        await self.writing(write)

    async def shares(self, key: Key) -> Sequence[Share]:
        return await self.reading(
            lambda db: [to_share(row) for row in db.execute(SQL["shares"], key)]
        )

    async def unshare(self, key: Key, share: str) -> None:
        await self.writing(lambda db: db.execute(SQL["unshare"], (*key, share)).rowcount)

    async def shared(self, digest: str) -> Share | None:
        now = self._writer.now_us()

        def read(db: sqlite3.Connection) -> Share | None:
            row = db.execute(SQL["shared"], (digest, now)).fetchone()
            return None if row is None else to_share(row)

        return await self.reading(read)

    async def search(
        self, tenant: TenantId, query: str, *, limit: int, seen_by: PrincipalId | None = None
    ) -> Sequence[Hit]:
        return await self.reading(lambda db: read_hits(db, tenant, query, limit, seen_by))

    def now_us(self) -> int:
        """Return the time, as rows have it."""
        return self._writer.now_us()

    @property
    def notices(self) -> Notices:
        return self._writer.notices

    async def _hand_over(self, written: Written) -> None:
        if written.activated is not None and self._outbox is not None:
            await self._outbox(written.activated)

    async def reading(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `read` finds, in one consistent view; for tables beside the log, too."""
        return cast("T", await next(self._turns).ask(read))

    async def writing(self, write: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `write` answers, once it is committed.  It must not leave half of its work.

        It shares its commit with others, so an exception undoes nothing: check first, then write.
        """
        return cast("T", await self._ask(Do(write)))

    async def entering(self, statement: str, row: Row) -> None:
        """Write a row beside the log, by a statement for many; it is committed when this returns."""
        await self._ask(Enter(statement, row))

    async def _ask(self, order: Plain) -> object:
        """Have an order carried out, in one commit with the entry of the current deed."""
        deed = DEED.get()
        if deed is None or deed.is_taken:
            return await self._write.ask(order)
        with deed.taking() as entry:
            answer = await self._write.ask(Audited(order, partial(record, entry)))
        deed.is_taken = answer is not False
        return answer
