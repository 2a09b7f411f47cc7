"""The audit log in PostgreSQL: a tenant's chain is locked while a row is put at its end.

Invariant: a row is in the commit of its deed, right after the row that it seals.
"""

from __future__ import annotations

from typing import cast

from hostler.core.audited import FIRST, AuditRow, ChainHead, Entry, seal
from hostler.core.events import TenantId
from hostler.stores.beside_rows import audit_row
from hostler.stores.postgres_wire import Wire

COLUMNS = (
    *("tenant", "seq", "at", "action", "principal", "user", "kind", "object", "outcome", "status"),
    *("request", "address", "details", "previous", "hash"),
)


async def record(wire: Wire, entry: Entry, at_us: int) -> AuditRow:
    """Put an entry at the end of its tenant's chain.  In a transaction."""
    await wire.rows("lock_chain", tenant=entry.tenant)
    head = await read_end(wire, entry.tenant)
    row = seal(entry, seq=head.seq + 1, at_us=at_us, previous=head.hash)
    await wire.run("insert_audit", **dict(zip(COLUMNS, audit_row(row, at_us), strict=True)))
    return row


async def read_end(wire: Wire, tenant: TenantId) -> ChainHead:
    found = await wire.row("audit_head", tenant=tenant)
    seq, last = cast("tuple[int, str]", found or (0, FIRST))
    return ChainHead(tenant=tenant, seq=seq, hash=last)
