"""Rows of runs in PostgreSQL made anew from their logs, and what dead processes left open.

Invariant: `rebuild` of a session writes what its appends wrote.
"""

from __future__ import annotations

import logging
import secrets
from typing import cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from hostler.core.codec import CorruptFact, load
from hostler.core.events import Event, Key, Seq, SessionId, TenantId
from hostler.core.head import Head
from hostler.stores.log_rows import head_json
from hostler.stores.postgres_batch import Batch, Known, read_known
from hostler.stores.postgres_commits import new_commit
from hostler.stores.postgres_wire import Wire
from hostler.stores.projection import restored
from hostler.stores.times import to_seconds

log = logging.getLogger(__name__)

BATCH = 50
"""Sessions whose rows are made anew in one transaction: others may write between."""
UNMAKEABLE = (CorruptFact, ValueError, ArithmeticError, asyncpg.PostgresError)
"""What is wrong with one log, and not with the database."""


async def recover(wire: Wire, now_us: int) -> None:
    """End the direct calls of processes that live no more, and make stale rows anew."""
    await wire.run("drop_open_direct_calls", now=now_us)
    more = True
    while more:
        await wire.execute("BEGIN")
        more = await rebuild_some(wire)
        await wire.execute("COMMIT")


async def rebuild_some(wire: Wire, *, most: int = BATCH) -> bool:
    """Make the rows of some stale sessions anew; return whether there were any.  In a transaction."""
    rows = await wire.rows("stale", limit=most)
    for tenant, session in cast("list[tuple[TenantId, SessionId]]", rows):
        key = Key(tenant, session)
        await rebuild(wire, key)
        await wire.run("fresh", tenant=tenant, session=session)
    return bool(rows)


async def rebuild(wire: Wire, key: Key) -> None:
    """Make all rows of a session anew, from its log.  Of one that cannot be read there are none."""
    tenant, session = key
    await wire.rows("lock_head", tenant=tenant, session=session)
    known = (await read_known(wire, tenant, [session])).get(key)
    if known is None:
        return
    await wire.run("delete_ledger", tenant=tenant, session=session)
    await wire.execute("SAVEPOINT session")
    try:
        await _insert_anew(wire, key, known)
    except UNMAKEABLE:
        log.exception("the log of %s cannot be read: its runs are in no table", session)
        await wire.execute("ROLLBACK TO session")
    await wire.execute("RELEASE session")


async def _insert_anew(wire: Wire, key: Key, known: Known) -> None:
    rows = await wire.rows("log_rows", tenant=key.tenant, session=key.session)
    events = [_event(key.session, *cast("tuple[int, int, str]", row)) for row in rows]
    start = Head(seq=Seq(events[0].seq - 1)) if events else Head()
    done = restored(key, events, start)
    batch = Batch(key.tenant, 0, 0, enlists=False)
    batch.ledger(key, known, done)
    await batch.send(wire, new_commit())
    if done.head.active is not None:  # what goes on is continued from what the head counts
        await wire.run(
            "set_head",
            head=head_json(done.head),
            made=secrets.randbits(62),
            tenant=key.tenant,
            session=key.session,
        )


def _event(session: SessionId, seq: int, at: int, fact: str) -> Event:
    at_s = to_seconds(at)
    assert at_s is not None
    return Event(session=session, seq=Seq(seq), at=at_s, fact=load(fact), raw=b"")
