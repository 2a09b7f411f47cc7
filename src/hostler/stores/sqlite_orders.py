"""What the thread that writes can be ordered to do, and what it says when it has.

Invariant: data alone; `sqlite_writer` carries orders out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hostler.core.events import Event, Fact, Key, Seq
from hostler.core.ports import Job
from hostler.core.records import Appended, Once, Session
from hostler.stores.log_rows import Row


@dataclass(slots=True)
class Create:
    session: Session
    facts: Sequence[Fact] = ()
    once: Once | None = None


@dataclass(slots=True)
class Append:
    key: Key
    facts: Sequence[Fact]
    fence: int | None
    expected: Seq | None
    once: Once | None = None


@dataclass(slots=True)
class Restore:
    session: Session
    events: Sequence[Event]


@dataclass(slots=True)
class Enter:
    """A row beside the log; goes into one statement with others of its kind."""

    statement: str
    row: Row


@dataclass(slots=True)
class Do:
    """Anything rarer; sees all that was ordered before it."""

    work: Callable[[sqlite3.Connection], object]


@dataclass(slots=True)
class Audited:
    """Another order, and what is written with it unless it answers False: nothing was done."""

    order: Plain
    write: Callable[[sqlite3.Connection, int], object]


Plain: TypeAlias = Create | Append | Restore | Enter | Do
Order: TypeAlias = Plain | Audited


@dataclass(slots=True)
class Written:
    key: Key
    appended: Appended
    activated: Job | None
