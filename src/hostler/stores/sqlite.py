"""The log in one SQLite file: one writer thread with group commit, readers beside it.

WAL with `synchronous=FULL`: a commit is on disk before anybody hears of it.  One process per
file, held by a lock, which is also what lets the writer trust the heads that it remembers.

Invariant: no transaction is open while the event loop waits for anything.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar, cast

import msgspec

from hostler.core import codec
from hostler.core.errors import HostlerError, NotFound
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
    Unknown,
    Usage,
)
from hostler.core.ports import Appended, Hit, Observer, Outbox, Recall, RunRow, Session
from hostler.core.state import SPOKEN, Head
from hostler.stores.lanes import Lane
from hostler.stores.projection import said_in, snippet, words
from hostler.stores.sqlite_file import FileLock, connect, migrate, unavailable
from hostler.stores.sqlite_writer import SQL, Append, Create, Do, Order, Writer, Written

_head = msgspec.json.Decoder(Head)
_object: msgspec.json.Decoder[JsonObject] = msgspec.json.Decoder(dict[str, object])
_usage = msgspec.json.Decoder(Usage)
_known: msgspec.json.Decoder[list[Fact]] = msgspec.json.Decoder(list[Fact])
_raws = msgspec.json.Decoder(list[msgspec.Raw])

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

    async def create(self, session: Session) -> bool:
        return cast("bool", await self._write.ask(Create(session)))

    async def session(self, key: Key) -> Session:
        def read(db: sqlite3.Connection) -> Session:
            row = db.execute(SQL["session"], key).fetchone()
            if row is None:
                raise NotFound(f"no session {key.session}")
            return _session(key.tenant, row)

        return await self._read(read)

    async def sessions(
        self, tenant: TenantId, *, agent: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[Session]:
        wanted = {
            "tenant": tenant,
            "agent": agent,
            "status": status,
            "after": after,
            "limit": limit,
        }
        return await self._read(
            lambda db: [_session(tenant, row) for row in db.execute(SQL["sessions"], wanted)]
        )

    async def relabel(self, key: Key, *, title: str | None, metadata: JsonObject) -> Session:
        labels, at_us = msgspec.json.encode(metadata).decode(), self._writer.now_us()

        def write(db: sqlite3.Connection) -> Session:
            if not db.execute(SQL["relabel"], (title, labels, *key)).rowcount:
                raise NotFound(f"no session {key.session}")
            db.execute(SQL["touch"], (at_us, *key))
            return _session(key.tenant, db.execute(SQL["session"], key).fetchone())

        return cast("Session", await self._write.ask(Do(write)))

    async def delete(self, key: Key) -> None:
        def write(db: sqlite3.Connection) -> None:
            for said, fact in db.execute(SQL["said_of_session"], key).fetchall():
                db.execute(SQL["unsay"], (said, said_in(codec.load(fact))))
            for table in ("said", "events", "runs", "head", "session"):
                db.execute(SQL[f"delete_{table}"], key)

        await self._write.ask(Do(write))

    async def append(
        self,
        key: Key,
        facts: Sequence[Fact],
        *,
        fence: int | None = None,
        expected: Seq | None = None,
    ) -> Appended:
        written = cast("Written", await self._write.ask(Append(key, facts, fence, expected)))
        if written.activated is not None and self._outbox is not None:
            await self._outbox(RunKey(*key, written.activated))
        return written.appended

    async def head(self, key: Key) -> Head:
        return await self._read(lambda db: _read_head(db, key))

    async def read(self, key: Key, *, after: Seq, limit: int) -> Sequence[Event]:
        def read(db: sqlite3.Connection) -> list[Event]:
            # The log has no holes, so a number of events is a range of positions.
            row = db.execute(SQL["read"], (*key, after, after + limit)).fetchone()
            if row[0] is None:
                _read_head(db, key)
                return []
            return _events(key.session, row, raw=True)

        return await self._read(read)

    async def recall(self, key: Key) -> Recall:
        def read(db: sqlite3.Connection) -> Recall:
            found = db.execute(SQL["head_and_agent"], key).fetchone()
            if found is None:
                raise NotFound(f"no session {key.session}")
            head = _head.decode(found[0])
            past = db.execute(SQL["past"], (*key, head.base, *SPOKEN)).fetchone()
            rest = db.execute(SQL["read"], (*key, head.base - 1, head.seq)).fetchone()
            return Recall(
                head,
                found[1],
                [] if past[0] is None else list(zip(_seqs(past[0]), _facts(past[1]), strict=True)),
                [] if rest[0] is None else _events(key.session, rest, raw=False),
            )

        return await self._read(read)

    async def unfinished(self) -> Sequence[RunKey]:
        return await self._read(lambda db: [RunKey(*row) for row in db.execute(SQL["unfinished"])])

    async def run(self, tenant: TenantId, run: RunId) -> RunRow:
        def read(db: sqlite3.Connection) -> RunRow:
            row = db.execute(SQL["run"], (tenant, run)).fetchone()
            if row is None:
                raise NotFound(f"no run {run}")
            return _run(row)

        return await self._read(read)

    async def runs(
        self, tenant: TenantId, *, session: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[RunRow]:
        wanted = {
            "tenant": tenant,
            "session": session,
            "status": status,
            "after": after,
            "limit": limit,
        }
        return await self._read(lambda db: [_run(row) for row in db.execute(SQL["runs"], wanted)])

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


def _read_head(db: sqlite3.Connection, key: Key) -> Head:
    row = db.execute(SQL["head"], key).fetchone()
    if row is None:
        raise NotFound(f"no session {key.session}")
    return _head.decode(row[0])


def _events(session: SessionId, row: Sequence[str], *, raw: bool) -> list[Event]:
    """Return events from three lists: positions, times, facts.  `raw` costs a second pass."""
    times, facts = row[1].split(","), _facts(row[2])
    raws = [bytes(one) for one in _raws.decode(f"[{row[2]}]")] if raw else [b""] * len(facts)
    return [
        Event(session=session, seq=seq, at=int(at) / 1_000_000, fact=fact, raw=one)
        for seq, at, fact, one in zip(_seqs(row[0]), times, facts, raws, strict=True)
    ]


def _seqs(joined: str) -> Iterable[Seq]:
    return cast("Iterable[Seq]", map(int, joined.split(",")))


def _facts(joined: str) -> Sequence[Fact | Unknown]:
    try:
        return _known.decode(f"[{joined}]")
    except msgspec.ValidationError:  # a kind or a form that is not today's: one by one
        return [codec.load(bytes(one)) for one in _raws.decode(f"[{joined}]")]


def _session(tenant: TenantId, row: Sequence[object]) -> Session:
    session, agent, principal, title, metadata, created_at, updated_at, head = row
    return msgspec.convert(
        {
            "tenant": tenant,
            "id": session,
            "agent": agent,
            "principal": principal,
            "title": title,
            "metadata": _object.decode(str(metadata)),
            "created_at": _seconds(created_at),
            "updated_at": _seconds(updated_at),
            "head": _head.decode(str(head)),
        },
        Session,
        from_attributes=True,
    )


def _run(row: Sequence[object]) -> RunRow:
    names = ("tenant", "id", "session", "status", "agent", "input", "first_seq", "last_seq")
    values: dict[str, object] = dict(zip(names, row, strict=False))
    created_at, started_at, ended_at, reason, usage = row[len(names) :]
    values |= {
        "created_at": _seconds(created_at),
        "started_at": _seconds(started_at),
        "ended_at": _seconds(ended_at),
        "reason": reason,
        "usage": None if usage is None else _usage.decode(str(usage)),
    }
    return msgspec.convert(values, RunRow, from_attributes=True)


def _seconds(us: object) -> float | None:
    return us / 1_000_000 if isinstance(us, int) else None
