"""What the writer of a PostgreSQL store can be ordered to do, and what it says when it has.

Invariant: data alone; `postgres_writer` carries orders out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hostler.core.audited import Entry
from hostler.core.events import Event, Fact, Key, Seq
from hostler.core.ports import Job
from hostler.core.records import Appended, Once, Session
from hostler.stores.log_rows import Row
from hostler.stores.postgres_wire import Wire


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
    """A row beside the log, in place of what was under its id; others of its kind go with it."""

    part: str
    id: str
    row: Row


@dataclass(slots=True)
class Do:
    """Anything rarer: work in a transaction of its own, which an exception undoes."""

    work: Callable[[Wire], Awaitable[object]]


@dataclass(slots=True)
class Audited:
    """Another order, and what is written with it unless it answers False: nothing was done."""

    order: Plain
    entry: Entry


Plain: TypeAlias = Create | Append | Restore | Enter | Do
Order: TypeAlias = Plain | Audited
Shared: TypeAlias = Create | Append | Enter
"""What may share a commit with others of its tenant."""


@dataclass(slots=True)
class Written:
    key: Key
    appended: Appended
    activated: Job | None
