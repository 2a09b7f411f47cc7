"""Sealed secrets in the SQLite file, beside the log.

Invariant: only sealed values come here; what is read is what was written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio.to_thread
import msgspec

from hostler.core.errors import Unavailable
from hostler.core.events import TenantId
from hostler.core.sealed import DataKey, Mask, Scrubbed, SealedSecret
from hostler.stores.beside_rows import secret_row, to_secret
from hostler.stores.masking_rows import FREE_TEXT, Facts, Rows, first_of
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_entries import rebuild_some
from hostler.stores.sqlite_file import BUSY_S, connect
from hostler.stores.sqlite_rows import SQL
from hostler.stores.sqlite_scrub import scrub_facts, scrub_rows
from hostler.stores.times import to_us

REBUILT_AT_ONCE = 5
"""Sessions in one commit: their logs may be long."""
_json = msgspec.json.Encoder()


class SqliteSealed:
    """A `core.sealed.SealedRows` in the file of a store."""

    def __init__(self, store: SqliteStore, file: Path, *, patience_s: float = BUSY_S) -> None:
        """`patience_s`: how long the end of a scrub waits for others that read the file."""
        self._store, self._file, self._patience_s = store, file, patience_s

    async def secrets(self) -> Sequence[SealedSecret]:
        return await self._store.reading(
            lambda db: [to_secret(row) for row in db.execute(SQL["secrets"])]
        )

    async def data_keys(self) -> Sequence[DataKey]:
        return await self._store.reading(
            lambda db: [
                DataKey(tenant=row[0], id=row[1], wrapped=row[2], wrapped_by=row[3])
                for row in db.execute(SQL["data_keys"])
            ]
        )

    async def put(self, secret: SealedSecret, key: DataKey | None) -> None:
        row = secret_row(secret)

        def write(db: sqlite3.Connection) -> None:
            if key is not None:
                wrapped = (key.tenant, key.id, key.wrapped, key.wrapped_by)
                db.execute(SQL["put_data_key"], wrapped)
            db.execute(SQL["put_secret"], row)

        await self._store.writing(write)

    async def drop(self, tenant: TenantId, name: str) -> bool:
        def write(db: sqlite3.Connection) -> bool:
            return bool(db.execute(SQL["drop_secret"], (tenant, name)).rowcount)

        return await self._store.writing(write)

    async def rewrap(self, keys: Sequence[DataKey]) -> None:
        rows = [(one.wrapped, one.wrapped_by, one.tenant, one.id) for one in keys]

        def write(db: sqlite3.Connection) -> None:
            db.executemany(SQL["rewrap_data_key"], rows)

        await self._store.writing(write)

    async def scrub(self, tenant: TenantId, mask: Mask, done: Scrubbed) -> Scrubbed:
        sessions = dict[str, None]()
        step = Facts([], 0, ("", 0), more=True)
        facts = unread = 0
        while step.more:
            step = await self._store.writing(scrub_facts(tenant, mask, step.after))
            facts, unread = facts + len(step.changed), unread + step.unread
            sessions |= dict.fromkeys(step.changed)
        while await self._store.writing(partial(rebuild_some, most=REBUILT_AT_ONCE)):
            pass
        rows = sum([await self._scrub_rows(table, tenant, mask) for table in FREE_TEXT])
        record = msgspec.structs.replace(
            done, facts=facts, rows=rows, unread=unread, sessions=tuple(sessions)[:1000]
        )
        row = (tenant, record.id, to_us(record.at), _json.encode(record).decode())

        def write(db: sqlite3.Connection) -> None:
            db.execute(SQL["scrub_index"])
            db.execute(SQL["put_scrub"], row)

        await self._store.writing(write)
        await anyio.to_thread.run_sync(_truncate, self._file, self._patience_s)
        return record

    async def _scrub_rows(self, table: str, tenant: TenantId, mask: Mask) -> int:
        changed, step = 0, Rows(0, first_of(table), more=True)
        while step.more:
            step = await self._store.writing(scrub_rows(table, tenant, mask, step.after))
            changed += step.changed
        return changed


def _truncate(file: Path, patience_s: float) -> None:
    """Take what is no more out of the write-ahead log.

    Raises:
        Unavailable: somebody reads the file for longer than that.
    """
    db = connect(file)
    try:
        db.execute(f"PRAGMA busy_timeout = {round(patience_s * 1000)}")
        (is_busy, *_) = db.execute(SQL["scrub_log"]).fetchone()
    finally:
        db.close()
    if is_busy:
        raise Unavailable(
            "all is masked, but old text is still in the file's write-ahead log, because another "
            "program reads the file: end it, then scrub again"
        )
