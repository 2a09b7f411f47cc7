"""The audit log of a SQLite store, for those who read it and for what is written by itself.

Invariant: all writes are the store's one writer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hostler.core.audited import AuditRow, ChainHead, Entry, Wanted
from hostler.core.events import TenantId
from hostler.stores import audit_rows
from hostler.stores.sqlite import SqliteStore
from hostler.stores.times import to_us


@dataclass(frozen=True, slots=True)
class SqliteAudits:
    """`core.audited.Audits`, beside the store whose file it is in."""

    store: SqliteStore

    async def write(self, entry: Entry) -> AuditRow:
        at_us = self.store.now_us()
        return await self.store.writing(lambda db: audit_rows.record(entry, db, at_us))

    async def head(self, tenant: TenantId) -> ChainHead:
        return await self.store.reading(lambda db: audit_rows.read_end(db, tenant))

    async def newest(self, tenant: TenantId, wanted: Wanted, *, limit: int) -> Sequence[AuditRow]:
        return await self.store.reading(
            lambda db: audit_rows.read_newest(db, tenant, wanted, limit)
        )

    async def rows(self, tenant: TenantId, *, after: int, limit: int) -> Sequence[AuditRow]:
        return await self.store.reading(lambda db: audit_rows.read_chain(db, tenant, after, limit))

    async def cut(self, before: float, *, worth_s: float) -> int:
        before_us, worth_us, at_us = to_us(before), to_us(worth_s), self.store.now_us()
        return await self.store.writing(lambda db: audit_rows.cut(db, before_us, worth_us, at_us))
