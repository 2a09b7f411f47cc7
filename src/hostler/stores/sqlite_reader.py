"""A connection that reads: what is asked at once is answered one after the other.

Invariant: each read is one transaction, so it sees one state of the database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeAlias

from hostler.stores.sqlite_file import unavailable

Read: TypeAlias = Callable[[sqlite3.Connection], object]


class Reader:
    """A reading connection; each read is one transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def work(self, reads: Sequence[Read]) -> Sequence[object]:
        return [self._one(read) for read in reads]

    def _one(self, read: Read) -> object:
        try:
            self._db.execute("BEGIN")
            return read(self._db)
        except Exception as error:  # noqa: BLE001 # a row that cannot be read must not end everybody's reads
            return unavailable(error) if isinstance(error, sqlite3.Error) else error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
