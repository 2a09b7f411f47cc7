"""The audit log of a PostgreSQL store, for those who read it and for what is written by itself.

Invariant: a tenant's chain is locked while it grows or is cut.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from hostler.core.audited import CUT, AuditRow, ChainHead, Entry, Wanted, stamp
from hostler.core.errors import SetupError
from hostler.core.events import TenantId
from hostler.stores.audit_rows import CUTTER
from hostler.stores.beside_rows import to_audit
from hostler.stores.postgres import PostgresStore
from hostler.stores.postgres_audit_rows import read_end, record
from hostler.stores.postgres_wire import HOUSE, Wire, connect
from hostler.stores.times import to_us


@dataclass(frozen=True, slots=True)
class PostgresAudits:
    """`core.audited.Audits`, beside the store whose database it is in."""

    store: PostgresStore

    async def write(self, entry: Entry) -> AuditRow:
        at_us = self.store.now_us()

        async def write(wire: Wire) -> AuditRow:
            return await record(wire, entry, at_us)

        return await self.store.writing(entry.tenant, write)

    async def head(self, tenant: TenantId) -> ChainHead:
        async def read(wire: Wire) -> ChainHead:
            return await read_end(wire, tenant)

        return await self.store.reading(tenant, read)

    async def newest(self, tenant: TenantId, wanted: Wanted, *, limit: int) -> Sequence[AuditRow]:
        found = await self.store.finding(
            tenant,
            "audit_newest",
            tenant=tenant,
            after=wanted.after,
            since=to_us(wanted.since),
            until=to_us(wanted.until),
            action=wanted.action,
            principal=wanted.principal,
            limit=limit,
        )
        return [to_audit(row) for row in found]

    async def rows(self, tenant: TenantId, *, after: int, limit: int) -> Sequence[AuditRow]:
        found = await self.store.finding(
            tenant, "audit_rows", tenant=tenant, after=after, limit=limit
        )
        return [to_audit(row) for row in found]

    async def cut(self, before: float, *, worth_s: float) -> int:
        before_us, at_us = to_us(before), self.store.now_us()
        worth_before = before_us - to_us(worth_s)

        async def write(wire: Wire) -> int:
            found = await wire.rows("audit_old", before=worth_before)
            old = [cast("TenantId", tenant) for tenant, is_old in found if is_old]
            return sum([await _cut(wire, tenant, before_us, at_us) for tenant in old])

        return await self.store.writing(HOUSE, write)


async def _cut(wire: Wire, tenant: TenantId, before_us: int, at_us: int) -> int:
    await wire.rows("lock_chain", tenant=tenant)
    ((kept,),) = await wire.rows("audit_first_kept", tenant=tenant, before=before_us)
    end = await read_end(wire, tenant)
    through = end.seq if kept is None else cast("int", kept) - 1
    last = await wire.row("audit_hash", tenant=tenant, seq=through)
    if last is None:
        return 0  # another process was quicker
    entry = Entry(
        tenant=tenant,
        action=CUT,
        principal=CUTTER,
        details={
            "through": through,
            "hash": cast("str", last[0]),
            "before": stamp(before_us),
        },
    )
    await record(wire, entry, at_us)
    return await wire.run("delete_audit", tenant=tenant, through=through)


@dataclass(frozen=True, slots=True)
class Chains:
    """The audit log of a database, for who checks it: of any build's, and nothing is written."""

    wire: Wire

    async def tenants(self) -> Sequence[TenantId]:
        """Return those that have a chain.  Raises SetupError: there is no audit log."""
        try:
            found = await self.wire.rows("audit_tenants")
        except asyncpg.UndefinedTableError as error:
            raise SetupError("this database has no audit log") from error
        return [cast("TenantId", tenant) for (tenant,) in found]

    async def rows(self, tenant: TenantId, after: int, limit: int) -> Sequence[AuditRow]:
        """Return rows as they stand in a chain, past one."""
        found = await self.wire.rows("audit_rows", tenant=tenant, after=after, limit=limit)
        return [to_audit(row) for row in found]


@asynccontextmanager
async def open_chains(url: str) -> AsyncGenerator[Chains]:
    """Open a database to check its audit log.

    Raises:
        SetupError: the URL is wrong.
        Unavailable: it cannot be reached.
    """
    wire = await connect(url)
    try:
        await wire.show(HOUSE)
        yield Chains(wire)
    finally:
        wire.db.terminate()
