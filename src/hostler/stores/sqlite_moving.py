"""A SQLite file as rows, to be moved out of or into.

A target is written under another name, in one transaction, and gets its own when it is whole.

Invariant: what is named `hostler.db` is a whole store at any time, or is not there.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from hostler.core.errors import SetupError
from hostler.stores.moving import AT_ONCE, ORDERS, Row
from hostler.stores.sqlite_entries import recover
from hostler.stores.sqlite_file import FileLock, connect, migrate, moved_mark
from hostler.stores.times import to_us


class SqliteTables:
    """A file that is open, as `stores.moving.Target`.  Nothing else may run on this loop meanwhile."""

    def __init__(self, db: sqlite3.Connection, path: Path, part: Path | None) -> None:
        """`part`: what becomes `path` in the end, None for a file that is only read."""
        self._db, self._path, self._part, self._said = db, path, part, 0
        self.is_empty = part is not None

    async def columns(self, table: str) -> Sequence[str]:
        rows = self._db.execute(f"PRAGMA table_xinfo({table})")
        return [str(name) for _, name, _, _, _, _, hidden in rows if hidden == 0]

    async def rows(self, table: str, columns: Sequence[str]) -> AsyncGenerator[Sequence[Row], None]:
        order = f" ORDER BY {ORDERS[table]}" if table in ORDERS else ""
        asked = f"SELECT {_named(columns)} FROM {table}{order}"  # noqa: S608  names of ours
        with closing(self._db.execute(asked)) as found:
            while rows := found.fetchmany(AT_ONCE):
                yield rows

    async def said(self) -> AsyncGenerator[Sequence[Row], None]:
        with closing(self._db.execute(SAID)) as found:
            while rows := found.fetchmany(AT_ONCE):
                yield rows

    async def write(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        places = ", ".join("?" * len(columns))
        told = f"INSERT INTO {table} ({_named(columns)}) VALUES ({places})"  # noqa: S608
        self._db.executemany(told, rows)

    async def index(self, said: Sequence[tuple[str, str, int, str]]) -> None:
        for tenant, session, seq, text in said:
            self._said += 1
            self._db.execute(
                "INSERT INTO said VALUES (?, ?, ?, ?)", (self._said, tenant, session, seq)
            )
            self._db.execute(
                "INSERT INTO said_words (rowid, text) VALUES (?, ?)", (self._said, text)
            )

    async def commit(self) -> None:
        assert self._part is not None
        self._db.execute("COMMIT")
        finish(self._db, self._part, self._path)
        moved_mark(self._path).unlink(missing_ok=True)


SAID = """
SELECT s.tenant, s.session, s.seq, e.fact FROM said s
JOIN events e ON e.tenant = s.tenant AND e.session = s.session AND e.seq = s.seq ORDER BY s.id
"""


def _named(columns: Sequence[str]) -> str:
    return ", ".join(f'"{one}"' for one in columns)


@contextmanager
def reading(path: Path) -> Generator[SqliteTables]:
    """Open a file that nobody else has, as it is today.  Raises SetupError."""
    if not path.exists():
        raise SetupError(f"there is no file {path}")
    lock = FileLock(path, even_moved=True)
    try:
        with closing(connect(path)) as db:
            migrate(db, path)
            recover(db, to_us(time.time()))
            db.execute("BEGIN")
            yield SqliteTables(db, path, None)
    finally:
        lock.release()


@contextmanager
def writing(path: Path) -> Generator[SqliteTables]:
    """Open what is to be a new file; one that is there is only read.  Raises SetupError."""
    if path.exists():
        with reading(path) as there:
            yield there
        return
    lock, part = FileLock(path, even_moved=True), path.with_name(f"{path.name}.part")
    try:
        remove(part)  # of one that was killed
        with closing(connect(part)) as db:
            migrate(db, part)
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM tenants")
            yield SqliteTables(db, path, part)
    finally:
        remove(part)
        lock.release()


def finish(db: sqlite3.Connection, part: Path, path: Path) -> None:
    """Give a file its name, with all of it on disk and in this one file."""
    db.execute("PRAGMA journal_mode = DELETE")
    db.close()
    for one in (part, part.parent):
        fd = os.open(one, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    try:
        os.link(part, path)  # which overwrites nothing, as renaming would
    except FileExistsError:
        raise SetupError(f"{path} is there already") from None
    part.unlink()
    fd = os.open(path.parent, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def remove(part: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        part.with_name(part.name + end).unlink(missing_ok=True)
