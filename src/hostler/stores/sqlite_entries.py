"""Rows of runs, model calls, tool calls and ratings in SQLite: written, read, made anew.

Invariant: `rebuild` of a session writes what its appends wrote.  Rows of direct calls, of which no
log tells, are only written.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing

import msgspec
from msgspec import structs

from hostler.core.codec import CorruptFact, load
from hostler.core.events import Event, Key, Seq, SessionId, TenantId
from hostler.core.head import Head
from hostler.core.ledger import RunFilter
from hostler.core.records import RunRow
from hostler.stores.ledger_rows import ledger_rows, to_run
from hostler.stores.projection import restored
from hostler.stores.sqlite_batches import insert
from hostler.stores.sqlite_rows import SQL, asking
from hostler.stores.times import to_seconds, to_us

log = logging.getLogger(__name__)

_head = msgspec.json.Encoder(decimal_format="string")
BATCH = 50
"""Sessions whose rows are made anew in one transaction: others may write between."""
UNMAKEABLE = (
    *(CorruptFact, ValueError, ArithmeticError),
    *(sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError),
)
"""What is wrong with one log, and not with the file: it must not keep the others from opening."""
LEDGER = ("feedback", "tool_runs", "llm_calls", "agent_runs")


def erase_ledger(db: sqlite3.Connection, key: Key) -> None:
    """Remove all rows of a session."""
    for table in LEDGER:
        db.execute(SQL[f"delete_{table}"], key)


def mark_stale(db: sqlite3.Connection) -> None:
    """Have the rows of every session made anew by `rebuild_some`."""
    db.execute(SQL["mark_stale"])


def rebuild_some(db: sqlite3.Connection, *, most: int = BATCH) -> bool:
    """Make the rows of some stale sessions anew; return whether there were any.  In a transaction."""
    keys = [Key(*row) for row in db.execute(SQL["stale"], (most,)).fetchall()]
    for key in keys:
        rebuild(db, key)
        db.execute(SQL["fresh"], key)
    return bool(keys)


def recover(db: sqlite3.Connection, now_us: int) -> None:
    """End the direct calls of the process that had the file before, and make stale rows anew.

    Rows are stale after a migration that changed what is kept.
    """
    db.execute(SQL["drop_open_direct_calls"], (now_us,))
    more = True
    while more:
        db.execute("BEGIN IMMEDIATE")
        more = rebuild_some(db)
        db.execute("COMMIT")


def rebuild(db: sqlite3.Connection, key: Key) -> None:
    """Make all rows of a session anew, from its log.  Of one that cannot be read there are none."""
    found = db.execute(SQL["head_and_agent"], key).fetchone()
    if found is None:
        return
    erase_ledger(db, key)
    db.execute("SAVEPOINT session")
    try:
        _insert_anew(db, key, str(found[1]), str(found[4]))
    except UNMAKEABLE:
        log.exception("the log of %s cannot be read: its runs are in no table", key.session)
        db.execute("ROLLBACK TO session")
    db.execute("RELEASE session")


def _insert_anew(db: sqlite3.Connection, key: Key, agent: str, owner: str) -> None:
    with closing(db.execute(SQL["log_rows"], key)) as rows:
        events = [_event(key.session, row) for row in rows]
    start = Head(seq=Seq(events[0].seq - 1)) if events else Head()
    done = restored(key, events, start)
    for name, made in ledger_rows(key, agent, owner, done.ledger).items():
        insert(db, name, made)
    if done.head.active is not None:  # what goes on is continued from what the head counts
        db.execute(SQL["set_head"], (_head.encode(done.head).decode(), *key))


def _event(session: SessionId, row: Sequence[object]) -> Event:
    seq, at, fact = row
    assert isinstance(seq, int)
    at_s = to_seconds(at)
    assert at_s is not None
    return Event(session=session, seq=Seq(seq), at=at_s, fact=load(str(fact)), raw=b"")


INDEXES = {
    "seen_by": "agent_runs_of_session",
    "session": "agent_runs_of_session",
    "principal": "agent_runs_of_principal",
    "purpose": "agent_runs_by_purpose",
    "agent": "agent_runs_of_agent",
    "status": "agent_runs_by_status",
    "tenant": "agent_runs_by_time",
}
"""Which index finds runs by what; the first of those asked for is used: the rarest."""


def read_runs(
    db: sqlite3.Connection,
    tenant: TenantId,
    page: Mapping[str, str | int | None],
    only: RunFilter,
) -> list[RunRow]:
    """Return a page of runs."""
    wanted = {**structs.asdict(only), **page, "tenant": tenant}
    wanted |= {"since": to_us(only.since), "before": to_us(only.before)}
    given = [name for name, value in wanted.items() if value is not None]
    index = next(INDEXES[name] for name in INDEXES if name in given)
    asked = asking("runs", *given).replace("{index}", index)
    return [to_run(row) for row in db.execute(asked, wanted)]
