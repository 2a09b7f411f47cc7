"""Takes values out of what is stored already: facts keep their place and kind, texts are masked.

Rows that tell what facts tell are made anew from the masked facts; of other rows, only the columns
are masked that hold what people and programs wrote, never a word of ours that a value may equal.

Invariant: a step is one short commit; cut anywhere and done again, it leaves nothing out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from hostler.core import codec
from hostler.core.events import TenantId, Unknown
from hostler.core.sealed import Mask
from hostler.stores.masking_rows import FREE_TEXT, Facts, Rows
from hostler.stores.projection import said_in
from hostler.stores.sqlite_rows import SQL

AT_ONCE = 500
"""Facts or rows in one commit, so that nobody waits long behind a scrub."""


def scrub_facts(
    tenant: TenantId, mask: Mask, after: tuple[str, int]
) -> Callable[[sqlite3.Connection], Facts]:
    """Return a step: mask the next facts; the rows of their sessions are to be made anew."""

    def step(db: sqlite3.Connection) -> Facts:
        rows = db.execute(SQL["scrub_facts"], (tenant, *after, AT_ONCE)).fetchall()
        changed, unread = list[str](), 0
        for session, seq, stored in rows:
            done = _scrub_fact(db, mask, (tenant, session, seq), stored.encode())
            unread += done is None
            if done:
                changed.append(session)
        for session in dict.fromkeys(changed):
            db.execute(SQL["mark_one_stale"], (tenant, session))
        return Facts(changed, unread, rows[-1][:2] if rows else after, len(rows) == AT_ONCE)

    return step


def _scrub_fact(
    db: sqlite3.Connection, mask: Mask, place: tuple[str, str, int], raw: bytes
) -> bool | None:
    """Return whether a fact was changed; None for one that cannot be read."""
    try:
        before = codec.load(raw)
    except codec.CorruptFact:
        return None
    if isinstance(before, Unknown):
        return None
    fact, masked = mask.fact(before, raw)
    if masked == raw:
        return False
    db.execute(SQL["scrub_fact"], (masked.decode(), *place))
    for (said,) in db.execute(SQL["scrub_said"], place).fetchall():
        db.execute(SQL["unsay"], (said, said_in(before)))
        db.execute(SQL["insert_said_words"].replace("{rows}", "(?, ?)"), (said, said_in(fact)))
    return True


def scrub_rows(
    table: str, tenant: TenantId, mask: Mask, after: tuple[object, ...]
) -> Callable[[sqlite3.Connection], Rows]:
    """Return a step: mask what is written in the next rows of a table."""
    key, columns = FREE_TEXT[table]
    names, marks = ", ".join(columns), ", ".join("?" * len(after))
    # The names are the schema's own.
    select = (
        f"SELECT {key}, {names} FROM {table} "  # noqa: S608
        f"WHERE tenant = ? AND ({key}) > ({marks}) ORDER BY {key} LIMIT ?"
    )
    sets = ", ".join(f"{name} = ?" for name in columns)
    update = f"UPDATE {table} SET {sets} WHERE tenant = ? AND ({key}) = ({marks})"  # noqa: S608

    def step(db: sqlite3.Connection) -> Rows:
        rows = db.execute(select, (tenant, *after, AT_ONCE)).fetchall()
        changed = 0
        for row in rows:
            at, before = row[: len(after)], row[len(after) :]
            pairs = zip(columns.values(), before, strict=True)
            masked = tuple(None if one is None else of(mask, one) for of, one in pairs)
            if masked != before:
                db.execute(update, (*masked, tenant, *at))
                changed += 1
        return Rows(changed, rows[-1][: len(after)] if rows else after, len(rows) == AT_ONCE)

    return step
