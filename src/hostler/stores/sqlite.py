"""The log in one SQLite file: one writer thread with group commit, readers beside it.

WAL with `synchronous=FULL`: a commit is on disk before anybody hears of it.  One process per
file, held by a lock, which is also what lets the writer trust the heads that it remembers.

Invariant: no transaction is open while the event loop waits for anything.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar, cast

import msgspec

from hostler.core import codec
from hostler.core.errors import HostlerError, NotFound
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
from hostler.stores.lanes import Lane
from hostler.stores.projection import said_in, snippet, words
from hostler.stores.sqlite_file import FileLock, connect, migrate, unavailable
from hostler.stores.sqlite_rows import (
    SQL,
    read_head,
    read_list,
    read_log,
    read_recall,
    to_approval,
    to_run,
    to_session,
    to_share,
)
from hostler.stores.sqlite_writer import (
    ANSWERS_KEPT_US,
    Append,
    Create,
    Do,
    Order,
    Restore,
    Writer,
    Written,
    forget,
)

T = TypeVar("T")
Read: TypeAlias = Callable[[sqlite3.Connection], object]


class SqliteStore:
    """A `core.ports.Store` in a file.  Make it with `open`, end it with `close`."""

    def __init__(
        self, path: Path, writer: Writer, lock: FileLock, outbox: Outbox | None, readers: int
    ) -> None:
        self._lock, self._writer, self._outbox = lock, writer, outbox
        self._write: Lane[Order, object] = Lane("hostler-writer", writer.work, writer.deliver)
        self._connections = [connect(path, read_only=True) for _ in range(readers)]
        self._reads: list[Lane[Read, object]] = [
            Lane(f"hostler-reader-{i}", _Reader(db).work) for i, db in enumerate(self._connections)
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
    ) -> SqliteStore:
        """Open or make the file, and bring its schema up to date.  Needs a running event loop.

        Raises:
            SetupError: another process has it, a newer build made it, or it cannot be used.
        """
        lock = FileLock(path)
        try:
            db = connect(path)
            migrate(db, path)
            return cls(path, Writer(db, observer, clock), lock, outbox, readers)
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
        made = cast("Written | None", await self._write.ask(Create(session, facts, once)))
        if made is not None:
            await self._hand_over(made)
        return made is not None

    async def restore(self, session: Session, events: Sequence[Event]) -> bool:
        return bool(await self._write.ask(Restore(session, events)))

    async def session(self, key: Key) -> Session:
        def read(db: sqlite3.Connection) -> Session:
            row = db.execute(SQL["session"], key).fetchone()
            if row is None:
                raise NotFound(f"no session {key.session}")
            return to_session(key.tenant, row)

        return await self._read(read)

    async def sessions(
        self, tenant: TenantId, *, agent: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[Session]:
        wanted = {
            "tenant": tenant,
            "agent": agent,
            "status": status,
            "after": after or None,
            "limit": limit,
        }
        name = "sessions" if status in (None, "idle") else "busy_sessions"
        return await self._read(
            lambda db: [to_session(tenant, row) for row in read_list(db, name, wanted)]
        )

    async def relabel(self, key: Key, *, title: str | None, metadata: JsonObject) -> Session:
        labels, at_us = msgspec.json.encode(metadata).decode(), self._writer.now_us()

        def write(db: sqlite3.Connection) -> Session:
            if not db.execute(SQL["relabel"], (title, labels, *key)).rowcount:
                raise NotFound(f"no session {key.session}")
            db.execute(SQL["touch"], (at_us, *key))
            return to_session(key.tenant, db.execute(SQL["session"], key).fetchone())

        return cast("Session", await self._write.ask(Do(write)))

    async def delete(self, key: Key, *, idle_since: float | None = None) -> Sequence[SessionId]:
        since_us = None if idle_since is None else round(idle_since * 1_000_000)

        def write(db: sqlite3.Connection) -> Sequence[SessionId]:
            if since_us is not None and not db.execute(SQL["is_idle"], (*key, since_us)).fetchone():
                return ()
            return forget(db, key)

        return cast("Sequence[SessionId]", await self._write.ask(Do(write)))

    async def tidy(self) -> None:
        now_us = self._writer.now_us()

        def write(db: sqlite3.Connection) -> None:
            db.execute(SQL["delete_old_answers"], (now_us - ANSWERS_KEPT_US,))
            db.execute(SQL["delete_old_shares"], (now_us,))

        await self._write.ask(Do(write))

    async def count(self, tenant: TenantId) -> int:
        def read(db: sqlite3.Connection) -> int:
            (found,) = db.execute(SQL["count_sessions"], (tenant,)).fetchone()
            return int(found)

        return await self._read(read)

    async def forgettable(self, *, before: float, keep: int, limit: int) -> Sequence[Key]:
        def read(db: sqlite3.Connection) -> list[Key]:
            old = db.execute(SQL["idle_since"], (round(before * 1_000_000), limit)).fetchall()
            for tenant, over in db.execute(SQL["crowded"], (keep, keep)).fetchall():
                old += db.execute(SQL["idle_of"], (tenant, min(over, limit))).fetchall()
            return [Key(tenant, session) for _, tenant, session in sorted(set(old))][:limit]

        return await self._read(read)

    async def storage(self, tenant: TenantId, *, limit: int) -> Storage:
        def read(db: sqlite3.Connection) -> Storage:
            (sessions,) = db.execute(SQL["count_sessions"], (tenant,)).fetchone()
            rows = db.execute(SQL["storage"], (tenant,)).fetchall()
            (database_bytes,) = db.execute(SQL["database_bytes"]).fetchone()
            return Storage(
                sessions=sessions,
                events=sum(row[1] for row in rows),
                fact_bytes=sum(row[2] for row in rows),
                largest=tuple(rows[:limit]),
                database_bytes=database_bytes,
            )

        return await self._read(read)

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
        written = cast("Written", await self._write.ask(order))
        await self._hand_over(written)
        return written.appended

    async def head(self, key: Key) -> Head:
        return await self._read(lambda db: read_head(db, key))

    async def kept(self, tenant: TenantId, scope: str) -> Kept | None:
        since = self._writer.now_us() - ANSWERS_KEPT_US

        def read(db: sqlite3.Connection) -> Kept | None:
            row = db.execute(SQL["answer"], (tenant, scope, since)).fetchone()
            return None if row is None else Kept(*row)

        return await self._read(read)

    async def read(self, key: Key, *, after: Seq, limit: int) -> Sequence[Event]:
        def read(db: sqlite3.Connection) -> list[Event]:
            # The log has no holes, so a number of events is a range of positions.
            events = read_log(db, key, after, Seq(after + limit))
            if not events:
                read_head(db, key)
            return events

        return await self._read(read)

    async def recall(self, key: Key) -> Recall:
        return await self._read(lambda db: read_recall(db, key))

    async def unfinished(self) -> Sequence[RunKey]:
        now = (self._writer.now_us(),)
        return await self._read(
            lambda db: [RunKey(*row) for row in db.execute(SQL["unfinished"], now)]
        )

    async def run(self, tenant: TenantId, run: RunId) -> RunRow:
        def read(db: sqlite3.Connection) -> RunRow:
            row = db.execute(SQL["run"], (tenant, run)).fetchone()
            if row is None:
                raise NotFound(f"no run {run}")
            return to_run(row)

        return await self._read(read)

    async def runs(
        self, tenant: TenantId, *, session: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[RunRow]:
        wanted = {
            "tenant": tenant,
            "session": session,
            "status": status,
            "after": after or None,
            "limit": limit,
        }
        return await self._read(lambda db: [to_run(row) for row in read_list(db, "runs", wanted)])

    async def approval(self, tenant: TenantId, session: SessionId, call: CallId) -> Approval:
        def read(db: sqlite3.Connection) -> Approval:
            row = db.execute(SQL["approval"], (tenant, session, call)).fetchone()
            if row is None:
                raise NotFound(f"no approval {call}")
            return to_approval(row)

        return await self._read(read)

    async def approvals(
        self, tenant: TenantId, *, session: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[Approval]:
        wanted = {
            "tenant": tenant,
            "session": session,
            "status": status,
            "after": after or None,
            "limit": limit,
        }
        return await self._read(
            lambda db: [to_approval(row) for row in read_list(db, "approvals", wanted)]
        )

    async def share(self, share: Share) -> None:
        times = (round(share.created_at * 1_000_000), round(share.expires_at * 1_000_000))
        row = (share.digest, share.tenant, share.id, share.session, share.principal, *times)

        def write(db: sqlite3.Connection) -> None:
            read_head(db, Key(share.tenant, share.session))
            db.execute(SQL["create_share"], row)

        await self._write.ask(Do(write))

    async def shares(self, key: Key) -> Sequence[Share]:
        return await self._read(
            lambda db: [to_share(row) for row in db.execute(SQL["shares"], key)]
        )

    async def unshare(self, key: Key, share: str) -> None:
        await self._write.ask(Do(lambda db: db.execute(SQL["unshare"], (*key, share))))

    async def shared(self, digest: str) -> Share | None:
        now = self._writer.now_us()

        def read(db: sqlite3.Connection) -> Share | None:
            row = db.execute(SQL["shared"], (digest, now)).fetchone()
            return None if row is None else to_share(row)

        return await self._read(read)

    async def search(self, tenant: TenantId, query: str, *, limit: int) -> Sequence[Hit]:
        asked = words(query)
        match = " ".join(f'"{word}"' for word in asked)

        def read(db: sqlite3.Connection) -> list[Hit]:
            rows = db.execute(SQL["search"], (match, tenant, limit)) if asked else ()
            return [
                Hit(SessionId(session), Seq(seq), kind, snippet(said_in(codec.load(fact)), asked))
                for session, seq, kind, fact in rows
            ]

        return await self._read(read)

    async def _hand_over(self, written: Written) -> None:
        if written.activated is not None and self._outbox is not None:
            await self._outbox(RunKey(*written.key, written.activated))

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return cast("T", await next(self._turns).ask(read))


class _Reader:
    """A reading connection; each read is one transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def work(self, reads: Sequence[Read]) -> Sequence[object]:
        return [self._one(read) for read in reads]

    def _one(self, read: Read) -> object:
        try:
            self._db.execute("BEGIN")
            return read(self._db)
        except sqlite3.Error as error:
            return unavailable(error)
        except (HostlerError, codec.CorruptFact) as error:
            return error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
