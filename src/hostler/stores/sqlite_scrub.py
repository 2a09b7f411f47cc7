"""Takes values out of what is stored already: facts keep their place and kind, texts are masked.

Invariant: a step is one commit, and leaves log, index and tables saying the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import NamedTuple, cast

import msgspec

from hostler.core import codec
from hostler.core.events import TenantId, Unknown
from hostler.core.sealed import Mask
from hostler.stores.projection import said_in
from hostler.stores.sqlite_rows import SQL

AT_ONCE = 500
"""Facts in one commit, so that nobody waits long behind a scrub."""
NOT_TEXT = frozenset({"events", "secrets", "data_keys", "scrubs", "audit"})
"""Facts have a way of their own; an audit log is chained, and never had a value in it."""

Facts = tuple[list[str], tuple[str, int], bool]


class Table(NamedTuple):
    name: str
    key: tuple[str, ...]
    texts: tuple[str, ...]


def scrub_facts(
    tenant: TenantId, mask: Mask, after: tuple[str, int]
) -> Callable[[sqlite3.Connection], Facts]:
    """Return a step: mask the next facts; it returns their sessions, how far it got, and if more."""

    def step(db: sqlite3.Connection) -> Facts:
        rows = db.execute(SQL["scrub_facts"], (tenant, *after, AT_ONCE)).fetchall()
        changed = list[str]()
        for session, seq, stored in rows:
            raw = stored.encode()
            before = codec.load(raw)
            if isinstance(before, Unknown):
                continue
            fact, masked = mask.fact(before, raw)
            if masked != raw:
                place = (tenant, session, seq)
                db.execute(SQL["scrub_fact"], (masked.decode(), *place))
                for (said,) in db.execute(SQL["scrub_said"], place).fetchall():
                    db.execute(SQL["unsay"], (said, said_in(before)))
                    insert = SQL["insert_said_words"].replace("{rows}", "(?, ?)")
                    db.execute(insert, (said, said_in(fact)))
                changed.append(session)
        return changed, (rows[-1][:2] if rows else after), len(rows) == AT_ONCE

    return step


def tables(db: sqlite3.Connection) -> list[Table]:
    """Return the tables with rows of tenants, and which of their columns hold text."""
    found = list[Table]()
    for (name,) in db.execute(SQL["scrub_tables"]).fetchall():
        columns = db.execute(SQL["scrub_columns"], (name,)).fetchall()
        key = tuple(column for column, _, pk in columns if pk)
        texts = tuple(column for column, kind, pk in columns if kind in ("TEXT", "BLOB") and not pk)
        has_tenant = any(column == "tenant" for column, *_ in columns)
        if name not in NOT_TEXT and has_tenant and texts:
            found.append(Table(name, key, texts))
    return found


def scrub_table(table: Table, tenant: TenantId, mask: Mask) -> Callable[[sqlite3.Connection], int]:
    """Return a step: mask all text that a table has of the tenant; it returns how many rows."""
    key, texts = ", ".join(table.key), ", ".join(table.texts)
    # The names are the schema's own.
    select = f"SELECT {key}, {texts} FROM {table.name} WHERE tenant = ?"  # noqa: S608
    sets = ", ".join(f"{column} = ?" for column in table.texts)
    where = " AND ".join(f"{column} = ?" for column in table.key)
    update = f"UPDATE {table.name} SET {sets} WHERE {where}"  # noqa: S608

    def step(db: sqlite3.Connection) -> int:
        changed = 0
        for row in db.execute(select, (tenant,)).fetchall():
            at, before = row[: len(table.key)], row[len(table.key) :]
            after = tuple(_masked(mask, one) for one in before)
            if after != before:
                db.execute(update, (*after, *at))
                changed += 1
        return changed

    return step


def _masked(mask: Mask, value: object) -> object:
    if isinstance(value, bytes):  # a kept answer: a status, then JSON
        status, space, body = value.partition(b" ")
        return status + space + mask.json(body) if _is_json(body) else value
    if not isinstance(value, str):
        return value
    if value[:1] in ("{", "[") and _is_json(value.encode()):
        return mask.json(value.encode()).decode()
    return mask.text(value)


def _is_json(raw: bytes) -> bool:
    try:
        cast("object", msgspec.json.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
