"""The audit log in the SQLite file: written by the writer, with what it tells of.

Invariant: a row is in the commit of its deed, right after the row that it seals.
"""

from __future__ import annotations

import sqlite3

from hostler.core.audited import (
    CUT,
    FIRST,
    AuditRow,
    ChainHead,
    Entry,
    Wanted,
    seal,
    stamp,
)
from hostler.core.events import PrincipalId, TenantId
from hostler.stores.beside_rows import audit_row, to_audit
from hostler.stores.sqlite_rows import SQL, read_list
from hostler.stores.times import to_us

CUTTER = PrincipalId("retention")


def record(entry: Entry, db: sqlite3.Connection, at_us: int) -> AuditRow:
    """Put an entry at the end of its tenant's chain."""
    head = read_end(db, entry.tenant)
    row = seal(entry, seq=head.seq + 1, at_us=at_us, previous=head.hash)
    db.execute(SQL["insert_audit"], audit_row(row, at_us))
    return row


def read_end(db: sqlite3.Connection, tenant: TenantId) -> ChainHead:
    found = db.execute(SQL["audit_head"], (tenant,)).fetchone()
    seq, last = found or (0, FIRST)
    return ChainHead(tenant=tenant, seq=seq, hash=last)


def read_tenants(db: sqlite3.Connection) -> list[TenantId]:
    """Return the tenants that have a chain."""
    return [TenantId(tenant) for (tenant,) in db.execute(SQL["audit_tenants"])]


def read_newest(
    db: sqlite3.Connection, tenant: TenantId, wanted: Wanted, limit: int
) -> list[AuditRow]:
    asked = {
        "tenant": tenant,
        "after": wanted.after,
        "since": to_us(wanted.since),
        "until": to_us(wanted.until),
        "action": wanted.action,
        "principal": wanted.principal,
        "limit": limit,
    }
    return [to_audit(one) for one in read_list(db, "audit_newest", asked)]


def read_chain(db: sqlite3.Connection, tenant: TenantId, after: int, limit: int) -> list[AuditRow]:
    found = db.execute(SQL["audit_rows"], (tenant, after, limit)).fetchall()
    return [to_audit(one) for one in found]


def cut(db: sqlite3.Connection, before_us: int, worth_us: int, at_us: int) -> int:
    """Remove the rows that are older than `before_us`; see `Audits.cut`."""
    gone = 0
    for (tenant,) in db.execute(SQL["audit_old"], (before_us - worth_us,)).fetchall():
        (kept,) = db.execute(SQL["audit_first_kept"], (tenant, before_us)).fetchone()
        through = read_end(db, tenant).seq if kept is None else int(kept) - 1
        (last,) = db.execute(SQL["audit_hash"], (tenant, through)).fetchone()
        entry = Entry(
            tenant=tenant,
            action=CUT,
            principal=CUTTER,
            details={"through": through, "hash": last, "before": stamp(before_us)},
        )
        record(entry, db, at_us)
        gone += db.execute(SQL["delete_audit"], (tenant, through)).rowcount
    return gone
