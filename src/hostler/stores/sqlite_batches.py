"""Many rows in one statement, for the reason that `sqlite_writer` gives.

Invariant: a name and a number of rows is one prepared statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from hostler.stores.log_rows import Row
from hostler.stores.sqlite_rows import SQL

LARGEST_INSERT = 64
"""Rows in one statement; powers of two up to here are used, so that few statements are prepared."""

_statements: dict[tuple[str, int], str] = {}


def insert(db: sqlite3.Connection, name: str, rows: Sequence[Row]) -> None:
    """Run a statement whose `{rows}` are these."""
    start = 0
    while start < len(rows):
        count = min(LARGEST_INSERT, 1 << ((len(rows) - start).bit_length() - 1))
        part = rows[start : start + count]
        db.execute(statement(name, count, len(part[0])), [v for row in part for v in row])
        start += count


def statement(name: str, rows: int, width: int) -> str:
    """Return a statement for a number of rows of so many columns."""
    made = _statements.get((name, rows))
    if made is None:
        row = f"({', '.join('?' * width)})"
        made = _statements[name, rows] = SQL[name].replace("{rows}", ", ".join([row] * rows))
    return made
