"""Whether an audit log is what it was: the check that anybody with the rows can make.

Invariant: needs the rows and nothing else; what was cut off at the end shows only against a head
that was kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hostler.core.audited import CUT, FIRST, AuditRow, ChainHead, hash_of
from hostler.core.events import TenantId


class Broken(NamedTuple):
    """Where a chain is not what it was."""

    seq: int
    """The first row that does not fit."""
    what: str


def check(rows: Iterable[AuditRow], *, head: ChainHead | None = None) -> Broken | ChainHead:
    """Return where the chain of one tenant breaks, or its end.

    `head`: as it was told by the server at some time; the chain must still hold it.
    """
    first, last, cuts = None, None, set[tuple[object, object]]()
    found = head is None or head.seq == 0
    for row in rows:
        if (what := _fault(row, last)) is not None:
            return Broken(row.seq, what)
        first, last = first or row, row
        if row.action == CUT:
            cuts.add((row.details.get("through"), row.details.get("hash")))
        found = found or (head is not None and (head.seq, head.hash) == (row.seq, row.hash))
    if first is None or last is None:
        return (
            ChainHead(tenant=TenantId(""), seq=0, hash=FIRST)
            if found
            else Broken(1, "there is no row, and the head that was kept names some")
        )
    if (first.seq, first.previous) != (1, FIRST) and (first.seq - 1, first.previous) not in cuts:
        return Broken(first.seq, "rows before it are missing, and no audit.cut accounts for them")
    if head is not None and not found:
        return _not_found(head, first.seq, last.seq)
    return ChainHead(tenant=last.tenant, seq=last.seq, hash=last.hash)


def _not_found(head: ChainHead, first: int, last: int) -> Broken:
    if head.seq < first:
        return Broken(
            first, f"row {head.seq} was cut off since its hash was kept: keep a newer one"
        )
    if head.seq > last:
        return Broken(last + 1, f"the end is missing: the head that was kept is row {head.seq}")
    return Broken(head.seq, "it has another hash than the head that was kept")


def _fault(row: AuditRow, before: AuditRow | None) -> str | None:
    if hash_of(row) != row.hash:
        return "it was changed: its hash is another"
    if before is None:
        return None
    if row.tenant != before.tenant:
        return f"it is of tenant {row.tenant}, the one before of {before.tenant}"
    if row.seq != before.seq + 1:
        return f"it follows row {before.seq}: rows were removed or moved"
    return None if row.previous == before.hash else "it does not follow the row before it"
