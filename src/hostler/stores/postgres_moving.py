"""A PostgreSQL database as rows, to be moved out of or into.

All of it is one transaction: a snapshot that is read, or what is written, checked, and then kept.
Meanwhile the lock of those who change the schema is held, so that no server starts.

Invariant: nobody sees a part of what is written.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from hostler.core.errors import SetupError, Unavailable
from hostler.core.events import TenantId
from hostler.stores.log_rows import read_head_json
from hostler.stores.moving import AT_ONCE, MADE_ANEW, ORDERS, OWN_COLUMNS, TABLES, Row
from hostler.stores.postgres_schema import look, migrate, take_lock
from hostler.stores.postgres_wire import HOUSE, SCHEMA, Lost, Wire, connect
from hostler.stores.search_words import digests

PATIENCE_S = 5.0
"""How long another process may be changing the schema."""
SENT_AS = {"numeric": ("text", "numeric"), "boolean": ("int", "boolean")}
"""Types that SQLite has not: sent as what it has, written as what they are."""
READ_AS = {"numeric": "::text", "boolean": "::int"}
IN_USE = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 8420 AND objsubid = 2
    AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""Processes that live: see `hold`."""
WRITE_SAID = """
WITH picked AS (
    SELECT nextval('said_ids') AS id, r.tenant, r.session, r.seq, r.words
    FROM (
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) WITH ORDINALITY
            AS a (tenant, session, seq, words, place) ORDER BY place
    ) r
), words AS (
    INSERT INTO said_words (id, words)
    SELECT id, array_to_tsvector(string_to_array(words, ' ')) FROM picked
)
INSERT INTO said (id, tenant, session, seq) SELECT id, tenant, session, seq FROM picked
"""
SAID = """
SELECT s.tenant, s.session, s.seq, e.fact FROM said s
JOIN events e ON e.tenant = s.tenant AND e.session = s.session AND e.seq = s.seq ORDER BY s.id
"""


class PostgresTables:
    """A transaction, as `stores.moving.Target`."""

    def __init__(self, wire: Wire, types: dict[str, dict[str, str]], *, is_empty: bool) -> None:
        self._wire, self._types, self.is_empty = wire, types, is_empty

    async def columns(self, table: str) -> Sequence[str]:
        return [one for one in self._types[table] if (table, one) not in OWN_COLUMNS]

    async def rows(self, table: str, columns: Sequence[str]) -> AsyncGenerator[Sequence[Row], None]:
        types = self._types[table]
        named = ", ".join(f'"{one}"{READ_AS.get(types[one], "")}' for one in columns)
        order = f" ORDER BY {ORDERS[table]}" if table in ORDERS else ""
        asked = f"SELECT {named} FROM {table}{order}"  # noqa: S608  names of ours
        async with aclosing(self._read(f"moved_{table}", asked)) as read:
            async for rows in read:
                yield rows

    async def said(self) -> AsyncGenerator[Sequence[Row], None]:
        async with aclosing(self._read("moved_said", SAID)) as read:
            async for rows in read:
                yield rows

    async def _read(self, cursor: str, asked: str) -> AsyncGenerator[Sequence[Row], None]:
        await self._wire.execute(f"DECLARE {cursor} NO SCROLL CURSOR FOR {asked}")
        while rows := await self._wire.fetched(f"FETCH {AT_ONCE} FROM {cursor}"):
            yield rows
        await self._wire.execute(f"CLOSE {cursor}")

    async def write(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        if not rows:
            return
        values = [list(column) for column in zip(*rows, strict=True)]
        columns = list(columns)
        if table == "heads":  # see postgres_0001.sql
            heads = [read_head_json(str(one)) for one in values[columns.index("head")]]
            columns += ["made", "seq"]
            values += [[secrets.randbits(62) for _ in heads], [head.seq for head in heads]]
        elif table == "direct_calls":
            columns.append("holder")
            values.append([0] * len(rows))  # which is nobody
        types = [self._types[table][one] for one in columns]
        sent = [SENT_AS.get(one, (one, None)) for one in types]
        arrays = ", ".join(f"${at}::{kind}[]" for at, (kind, _) in enumerate(sent, 1))
        named = ", ".join(f'"{one}"' for one in columns)
        cast_to = (
            f'r."{one}"' + (f"::{kind}" if kind else "")
            for one, (_, kind) in zip(columns, sent, strict=True)
        )
        await self._wire.fetched(
            f"INSERT INTO {table} ({named}) SELECT {', '.join(cast_to)} "  # noqa: S608  names of ours
            f"FROM unnest({arrays}) AS r ({named})",
            *values,
        )

    async def index(self, said: Sequence[tuple[str, str, int, str]]) -> None:
        found = [
            (tenant, session, seq, " ".join(words))
            for tenant, session, seq, text in said
            if (words := digests(TenantId(tenant), text))
        ]
        if found:
            await self._wire.fetched(WRITE_SAID, *map(list, zip(*found, strict=True)))

    async def commit(self) -> None:
        await _check_is_free(self._wire)  # one may have started before we had the lock
        await self._wire.execute("COMMIT")


@asynccontextmanager
async def reading(url: str, *, alone: bool) -> AsyncGenerator[PostgresTables]:
    """Open a snapshot of a database.

    `alone`: of one that no server has.

    Raises:
        SetupError: a server has it, or its schema is not today's.
        Unavailable: it cannot be reached, or was lost.
    """
    _, _, left = await look(url)
    if left:
        raise SetupError("the schema of the database is not this build's: `hostler migrate` first")
    async with _connected(url) as wire:
        if alone:
            await take_lock(wire, PATIENCE_S)
            await _check_is_free(wire)
        await wire.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield PostgresTables(wire, await _types(wire), is_empty=False)


@asynccontextmanager
async def writing(url: str) -> AsyncGenerator[PostgresTables]:
    """Open a database that no server has, to be written if nothing is in it.  Raises as `reading`."""
    await migrate(url)
    async with _connected(url) as wire:
        await take_lock(wire, PATIENCE_S)
        await _check_is_free(wire)
        await wire.execute("BEGIN")
        is_empty = await _is_empty(wire)
        if is_empty:
            await wire.execute("DELETE FROM tenants")
        yield PostgresTables(wire, await _types(wire), is_empty=is_empty)


@asynccontextmanager
async def _connected(url: str) -> AsyncGenerator[Wire]:
    wire = await connect(url)
    try:
        await wire.show(HOUSE)
        await wire.execute("SET idle_in_transaction_session_timeout = 0")
        yield wire
    except Lost as error:
        raise Unavailable(
            f"the connection to the database was lost: do this again, and it will tell what was "
            f"done ({error})"
        ) from error
    except asyncpg.PostgresError as error:
        raise SetupError(f"PostgreSQL refuses: {error}") from error
    finally:
        wire.db.terminate()  # which undoes what was not committed


async def _check_is_free(wire: Wire) -> None:
    ((processes,),) = await wire.fetch(IN_USE)
    if processes:
        raise SetupError(
            f"{processes} process(es) of Hostler have this database open: stop the servers first"
        )


async def _is_empty(wire: Wire) -> bool:
    """Whether nothing is in it but the tenant that every store begins with."""
    for table in (*TABLES, *MADE_ANEW):
        but = " WHERE tenant <> 'default' OR title IS NOT NULL" if table == "tenants" else ""
        if await wire.fetch(f"SELECT 1 FROM {table}{but} LIMIT 1"):  # noqa: S608  names of ours
            return False
    return True


async def _types(wire: Wire) -> dict[str, dict[str, str]]:
    """Return the type of each column that can be written, by table."""
    rows = await wire.fetch(TYPES, SCHEMA)
    found = dict[str, dict[str, str]]()
    for table, column, kind in cast("Sequence[tuple[str, str, str]]", rows):
        found.setdefault(table, {})[column] = kind
    return found


TYPES = """
SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns
WHERE table_schema = $1 AND is_generated = 'NEVER' ORDER BY table_name, ordinal_position
"""
