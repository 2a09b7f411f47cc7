"""The SQLite file itself: who may open it, how, and in which shape its schema is.

Invariant: a migration and the note that it was done are one transaction, so a migration that was
cut short has not happened.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sqlite3
from importlib import resources
from pathlib import Path

from hostler.core.errors import SetupError, Unavailable
from hostler.faults import fault_point

log = logging.getLogger(__name__)

OLDEST_SQLITE = (3, 37, 0)
"""STRICT tables; what Debian 11's successors and every supported Python brings is newer."""
BUSY_S = 10.0
FSYNC_ERRORS = frozenset({"SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC"})
EXIT_IO_ERROR = 74
MIGRATION = r"sqlite_\d+\.sql"
NOT_OURS = rf"{MIGRATION}|postgres.*"
"""EX_IOERR of sysexits.h."""


class FileLock:
    """Held by the one process that may open a file; freed by the kernel when that dies."""

    def __init__(self, path: Path, *, even_moved: bool = False) -> None:
        """Take the lock.

        Raises:
            SetupError: somebody has it, or the sessions were moved elsewhere; says what to do.
        """
        if not even_moved:
            _check_is_here(path)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = os.open(lock_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise SetupError(
                f"{path} is in use by process {holder}.  One process may open a SQLite file: talk "
                "to the running server (`hostler chat`, `--url`), stop it first, or give this one "
                "another folder with --data."
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)


def lock_of(path: Path) -> Path:
    """Return the file that is locked by whoever has another one open."""
    return path.with_name(f"{path.name}.lock")


def moved_mark(path: Path) -> Path:
    """Return the file that says that what is in another one was moved away."""
    return path.with_name(f"{path.name}.moved")


def _check_is_here(path: Path) -> None:
    """Return unless two servers would drive the same runs."""
    if (mark := moved_mark(path)).exists():
        where = mark.read_text(encoding="utf-8").strip()
        raise SetupError(
            f"what is in {path} was moved to {where}: use that database.  To go back to this file, "
            f"as it was then, remove {mark}"
        )


def holder(path: Path) -> str | None:
    """Return the process that has a file open, None when nobody has."""
    try:
        fd = os.open(lock_of(path), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(fd)
    return None


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Return a connection in autocommit mode, to be used by one thread at a time.

    Raises:
        SetupError: the file cannot be opened as a database, or this SQLite is too old.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise SetupError(f"SQLite {needed} or newer is needed, this is {sqlite3.sqlite_version}")
    try:
        # Conversations are their owner's alone; SQLite gives its other files the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")  # costs nothing that can be measured here
        db.execute(f"PRAGMA query_only = {int(read_only)}")
    except (sqlite3.Error, OSError) as error:
        raise SetupError(f"{path} cannot be opened as a SQLite database: {error}") from error
    return db


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the schema to this build's version, one migration at a time.

    Raises:
        SetupError: a newer build made the file, or a migration failed (it was undone).
    """
    steps = migrations()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        raise SetupError(
            f"{path} has schema version {version}; this build knows versions up to {len(steps)}.  "
            "Use the newer build, or another folder with --data."
        )
    for number, script in enumerate(steps[version:], start=version + 1):
        fault_point("before a migration of SQLite")
        try:
            db.executescript(
                f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;"
            )
            fault_point("after a migration of SQLite")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise SetupError(
                f"{path}: migration {number} failed and was undone: {error}"
            ) from error


def migrations() -> list[str]:
    """Return the migrations, first to last."""
    folder = resources.files("hostler.stores") / "sql"
    names = sorted(f.name for f in folder.iterdir() if re.fullmatch(MIGRATION, f.name))
    return [(folder / name).read_text(encoding="utf-8") for name in names]


def queries() -> dict[str, str]:
    """Return the named statements of `sql/`: of every file that is no migration, and SQLite's."""
    folder, found = resources.files("hostler.stores") / "sql", dict[str, str]()
    for file in folder.iterdir():
        if file.name.endswith(".sql") and not re.fullmatch(NOT_OURS, file.name):
            text = file.read_text(encoding="utf-8")
            parts = re.split(r"^-- name: (\w+).*$", text, flags=re.MULTILINE)[1:]
            found |= {
                name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)
            }
    return found


def unavailable(error: sqlite3.Error) -> Unavailable:
    """Return what to tell callers; after a failed fsync, end the process instead.

    The kernel may have dropped the pages that it could not write and report success next time, so
    nothing that this process believes to be on disk can be trusted ("fsyncgate", 2018).
    """
    name = getattr(error, "sqlite_errorname", "")
    if name in FSYNC_ERRORS:
        log.critical("the disk failed to store a commit (%s): ending this process", name)
        logging.shutdown()
        os._exit(EXIT_IO_ERROR)
    return Unavailable(f"the database cannot serve now: {error}")
