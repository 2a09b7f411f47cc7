"""Whole stores as rows that any database can be given: what is moved, and whether it arrived.

What has the same name in both databases is the same there, but for costs and flags, which travel as
SQLite has them.  Rows are compared by sums of digests, so in whatever order they are read.

Invariant: what is moved is what was written; what can be made of it anew (words of the search index)
is made anew, and what is of one database alone stays there.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol, TypeAlias, cast

import msgspec

from hostler.core.codec import CorruptFact, load
from hostler.stores.projection import said_in

Row: TypeAlias = tuple[object, ...]
TABLES = (
    *("tenants", "keys", "grants", "endpoints", "data_keys", "secrets", "scrubs"),
    *(
        "sessions",
        "heads",
        "events",
        "forks",
        "approvals",
        "scheduled",
        "answers",
        "shares",
        "stale",
    ),
    *("agent_runs", "llm_calls", "tool_runs", "feedback", "direct_calls"),
    *("webhooks", "deliveries", "audit"),
)
"""All that is moved."""
MADE_ANEW = frozenset({"said", "said_words"})
"""The search index: of facts, with the words of each database."""
OWN = frozenset(
    {
        *("commits", "migrations", "changes", "tickets"),
        *("pgqueuer", "pgqueuer_log", "pgqueuer_schedules", "pgqueuer_statistics"),
    }
)
"""Of one database, and of no use in another: jobs are keys, and runs are rung for anew."""
OWN_COLUMNS = frozenset(
    {
        *(("heads", "made"), ("heads", "seq"), ("direct_calls", "holder")),
        *(("deliveries", "taken_by"), ("deliveries", "taken_until")),
    }
)
"""Likewise, in PostgreSQL."""
ORDERS = {"audit": "tenant, seq"}
"""Tables that are read in order: chains."""
AT_ONCE = 100
"""Rows: the largest fact has some megabytes."""

_row = msgspec.msgpack.Encoder()


class Tables(Protocol):
    """A database, as rows; what is written to it is there for others after `commit`, all of it."""

    async def columns(self, table: str) -> Sequence[str]:
        """Return the columns that can be written."""
        ...

    def rows(self, table: str, columns: Sequence[str]) -> AsyncGenerator[Sequence[Row], None]:
        """Yield all rows, some at a time, as SQLite has them."""
        ...

    def said(self) -> AsyncGenerator[Sequence[Row], None]:
        """Yield tenant, session, position and fact of all that is in the search index, oldest first."""
        ...


class Target(Tables, Protocol):
    """A database that is written to."""

    is_empty: bool
    """Nothing is in it but what every store begins with."""

    async def write(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None: ...

    async def index(self, said: Sequence[tuple[str, str, int, str]]) -> None:
        """Put texts into the search index: tenant, session, position, text."""
        ...

    async def commit(self) -> None:
        """Keep what was written; without it, nothing is.  Raises SetupError, Unavailable."""
        ...


@dataclass(slots=True)
class Tally:
    """How many rows there are, and the sum of their digests."""

    rows: int = 0
    digest: int = 0

    def add(self, row: Row) -> None:
        self.rows += 1
        self.digest += int.from_bytes(hashlib.sha256(_row.encode(row)).digest(), "big")


@dataclass(slots=True)
class Census:
    """What is in a database: by table, and the facts of each session by themselves."""

    tables: dict[str, Tally] = field(default_factory=dict[str, Tally])
    sessions: dict[tuple[str, str], Tally] = field(default_factory=dict[tuple[str, str], Tally])

    def take(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        whole = self.tables.setdefault(table, Tally())
        cost = columns.index("cost") if "cost" in columns else None
        for row in rows:
            told = row if cost is None else (*row[:cost], _plain(row[cost]), *row[cost + 1 :])
            whole.add(told)
            if table == "events":
                where = cast("tuple[str, str]", row[:2])
                self.sessions.setdefault(where, Tally()).add(told)

    def count(self, table: str) -> int:
        return self.tables.get(table, Tally()).rows


def _plain(cost: object) -> object:
    """Return a cost in one form: 0.10 is 0.1."""
    return None if cost is None else f"{Decimal(str(cost)).normalize():f}"


async def shared(first: Tables, second: Tables) -> dict[str, Sequence[str]]:
    """Return the columns that both have, by table; `tenant` and `session` first, if there are such."""
    found = dict[str, Sequence[str]]()
    for table in TABLES:
        theirs = set(await second.columns(table))
        found[table] = [one for one in await first.columns(table) if one in theirs]
    return found


async def census(there: Tables, columns: dict[str, Sequence[str]]) -> Census:
    """Return what is in a database, of these columns."""
    found = Census()
    for table in TABLES:
        async with aclosing(there.rows(table, columns[table])) as read:
            async for rows in read:
                found.take(table, columns[table], rows)
    return found


async def copy(source: Tables, target: Target) -> Census:
    """Write to an empty target what is in a source, and return that."""
    columns, found = await shared(source, target), Census()
    for table in TABLES:
        async with aclosing(source.rows(table, columns[table])) as read:
            async for rows in read:
                found.take(table, columns[table], rows)
                await target.write(table, columns[table], rows)
    async with aclosing(source.said()) as spoken:
        async for rows in spoken:
            await target.index([_text(row) for row in rows])
    return found


def _text(row: Row) -> tuple[str, str, int, str]:
    tenant, session, seq, fact = cast("tuple[str, str, int, str]", row)
    try:
        return tenant, session, seq, said_in(load(fact))
    except CorruptFact:  # what cannot be read cannot be found
        return tenant, session, seq, ""


def differences(here: Census, there: Census) -> Sequence[str]:
    """Return in words where two databases are not the same; sessions first."""
    found = [
        f"session {session} of {tenant}: its facts are not the same"
        for tenant, session in sorted({*here.sessions, *there.sessions})
        if here.sessions.get((tenant, session)) != there.sessions.get((tenant, session))
    ]
    for table in TABLES:
        one, other = here.tables.get(table, Tally()), there.tables.get(table, Tally())
        if one.rows != other.rows:
            found.append(f"{table}: {one.rows} rows here, {other.rows} there")
        elif one != other:
            found.append(f"{table}: {one.rows} rows on both sides, which are not the same")
    return found
