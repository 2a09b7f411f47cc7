"""Copies of a SQLite file, made while a server has it, and read back.

Invariant: a copy has its name once it is whole, on disk and looked through; no file is overwritten.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from hostler.core.errors import SetupError
from hostler.stores.sqlite_file import FileLock, connect, migrations, moved_mark
from hostler.stores.sqlite_moving import finish, remove

NOT_WHOLE = """
SELECT h.session FROM heads h JOIN sessions s ON s.tenant = h.tenant AND s.id = h.session
LEFT JOIN (SELECT tenant, session, max(seq) AS seq FROM events GROUP BY 1, 2) e
    ON e.tenant = h.tenant AND e.session = h.session
WHERE coalesce(json_extract(h.head, '$.seq'), 0) <> coalesce(e.seq, 0)
    AND NOT (e.seq IS NULL AND s.lineage IS NOT NULL)
LIMIT 1
"""
"""A session whose head says that it ends elsewhere than its log does."""


class Copied(NamedTuple):
    sessions: int
    facts: int


def back_up(path: Path, file: Path) -> Copied:
    """Copy a store, as it is at one moment, to a new file, and look it through.

    Whoever writes goes on meanwhile.

    Raises:
        SetupError: there is nothing to copy, the file is there already, or the copy is not whole.
    """
    if not path.exists():
        raise SetupError(f"there is no file {path}")
    with closing(connect(path, read_only=True)) as live:
        return _copied(live, path, file)


def restore(file: Path, path: Path) -> Copied:
    """Make a store of a copy, where there is none.

    Raises:
        SetupError: there is one, another process makes one, or the copy is none of ours.
    """
    lock = FileLock(path, even_moved=True)
    try:
        with opened(file) as copy:
            done = _copied(copy, file, path)
        moved_mark(path).unlink(missing_ok=True)
    finally:
        lock.release()
    return done


@contextmanager
def opened(file: Path) -> Generator[sqlite3.Connection]:
    """Open a copy, which stays as it is.  Raises SetupError: it is no copy, or a newer build's."""
    if not file.is_file():
        raise SetupError(f"there is no file {file}")
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as copy:
            (version,) = copy.execute("PRAGMA user_version").fetchone()
            copy.execute("SELECT 1 FROM sessions LIMIT 1")
            if version > len(migrations()):
                raise SetupError(f"{file} was made by a newer build: restore it with that")
            yield copy
    except sqlite3.Error as error:
        raise SetupError(f"{file} cannot be read as a copy of a store: {error}") from error


def check_is_new(file: Path) -> None:
    """Return if a file can be made.  Raises SetupError."""
    if file.exists():
        raise SetupError(f"{file} is there already: nothing is overwritten")


def _copied(live: sqlite3.Connection, whose: Path, file: Path) -> Copied:
    check_is_new(file)
    part = file.with_name(f"{file.name}.part")
    remove(part)  # of one that was killed
    try:
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(part, isolation_level=None)) as copy:
            live.backup(copy)
            done = looked_through(copy, whose)
            finish(copy, part, file)
    except (sqlite3.Error, OSError) as error:
        raise SetupError(f"{whose} could not be copied to {file}: {error}") from error
    finally:
        remove(part)
    return done


def looked_through(copy: sqlite3.Connection, whose: Path | str) -> Copied:
    """Return what is in a copy.  Raises SetupError: it is damaged."""
    (found,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise SetupError(f"the copy of {whose} is damaged: {found}")
    if (cut := copy.execute(NOT_WHOLE).fetchone()) is not None:
        raise SetupError(f"the copy of {whose} is not whole: {cut[0]} lacks facts")
    (sessions,) = copy.execute("SELECT count(*) FROM sessions").fetchone()
    (facts,) = copy.execute("SELECT count(*) FROM events").fetchone()
    return Copied(sessions, facts)
