"""The audit log in lists: the twin of `sqlite_audit` for stores in memory.

Invariant: the same entries make the same chain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hostler.core.audited import CUT, FIRST, AuditRow, ChainHead, Entry, Wanted, seal, stamp
from hostler.core.events import TenantId
from hostler.stores.audit_rows import CUTTER
from hostler.stores.times import to_us


@dataclass(frozen=True, slots=True)
class MemoryAudits:
    """`core.audited.Audits`, as long as the process lives."""

    clock: Callable[[], float] = time.time
    _chains: dict[TenantId, list[AuditRow]] = field(default_factory=dict[TenantId, list[AuditRow]])

    async def write(self, entry: Entry) -> AuditRow:
        chain = self._chains.setdefault(entry.tenant, [])
        seq, last = (chain[-1].seq, chain[-1].hash) if chain else (0, FIRST)
        row = seal(entry, seq=seq + 1, at_us=to_us(self.clock()), previous=last)
        chain.append(row)
        return row

    async def head(self, tenant: TenantId) -> ChainHead:
        chain = self._chains.get(tenant, [])
        seq, last = (chain[-1].seq, chain[-1].hash) if chain else (0, FIRST)
        return ChainHead(tenant=tenant, seq=seq, hash=last)

    async def newest(self, tenant: TenantId, wanted: Wanted, *, limit: int) -> Sequence[AuditRow]:
        found = [row for row in reversed(self._chains.get(tenant, [])) if _is_wanted(row, wanted)]
        return found[:limit]

    async def rows(self, tenant: TenantId, *, after: int, limit: int) -> Sequence[AuditRow]:
        return [row for row in self._chains.get(tenant, []) if row.seq > after][:limit]

    async def cut(self, before: float, *, worth_s: float) -> int:
        mark, worth, gone = stamp(to_us(before)), stamp(to_us(before - worth_s)), 0
        for tenant, chain in self._chains.items():
            if not chain or chain[0].at >= worth:
                continue
            kept = next((i for i, row in enumerate(chain) if row.at >= mark), len(chain))
            last = chain[kept - 1]
            details = {"through": last.seq, "hash": last.hash, "before": mark}
            entry = Entry(tenant=tenant, action=CUT, principal=CUTTER, details=details)
            await self.write(entry)
            del chain[:kept]
            gone += kept
        return gone


def _is_wanted(row: AuditRow, wanted: Wanted) -> bool:
    return (
        (wanted.after is None or row.seq < wanted.after)
        and (wanted.since is None or row.at >= stamp(to_us(wanted.since)))
        and (wanted.until is None or row.at < stamp(to_us(wanted.until)))
        and wanted.action in (None, row.action)
        and wanted.principal in (None, row.principal)
    )
