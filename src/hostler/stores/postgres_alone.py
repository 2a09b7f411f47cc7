"""An order in a transaction of its own: what is rare, or what others were quicker to write.

All that is decided from is locked first, or put in the way of others by what is written.

Invariant: what raises has written nothing, once its transaction is undone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from hostler.core.errors import Conflict, NotFound, Repeated
from hostler.core.events import Event, Key, Seq, SessionId, TenantId
from hostler.core.records import Appended, Once, Session
from hostler.core.sealed import Mask
from hostler.faults import fault_point
from hostler.stores.log_rows import Row
from hostler.stores.postgres_audit_rows import record
from hostler.stores.postgres_batch import ANSWERS_KEPT_US, Batch, Known, new_known, read_known
from hostler.stores.postgres_orders import (
    Append,
    Audited,
    Create,
    Do,
    Enter,
    Order,
    Plain,
    Restore,
    Written,
)
from hostler.stores.postgres_wire import Wire
from hostler.stores.projection import imported, project
from hostler.stores.times import to_us

Answer: TypeAlias = object


@dataclass(frozen=True, slots=True)
class Alone:
    """Does one order; whoever calls has begun a transaction, and ends it."""

    now_us: Callable[[], int]
    mask: Callable[[TenantId], Mask | None]
    holder: int
    enlists: bool
    told: list[Row] = field(default_factory=list[Row])
    """What was written that is to be told elsewhere."""

    async def do(self, wire: Wire, whose: TenantId | None, order: Order, commit: str) -> Answer:
        """Do an order, and write the row of its commit.  Raises what refuses it."""
        batch = Batch(whose or TenantId(""), self.now_us(), self.holder, self.enlists)
        inner = order.order if isinstance(order, Audited) else order
        answer = await self._do(wire, inner, batch)
        await batch.send(wire, commit)
        self.told.extend(batch.rows.get("write_notices", ()))
        if isinstance(order, Audited) and answer is not False:
            await wire.show_till_the_end(order.entry.tenant)  # it may be of another one's deed
            await record(wire, order.entry, batch.at_us)
        return answer

    async def _do(self, wire: Wire, order: Plain, batch: Batch) -> Answer:
        match order:
            case Append():
                return await self._append(wire, order, batch)
            case Create():
                return await self._create(wire, order, batch)
            case Restore(session=session):
                return await self._restore(wire, session, order.events, batch)
            case Enter():
                batch.add(order.part, order.row[1:])
                return None
            case Do(work=work):
                return await work(wire)

    async def _append(self, wire: Wire, order: Append, batch: Batch) -> Written:
        key = order.key
        await lock_head(wire, key)
        await _refuse_repeated(wire, key.tenant, order.once, batch.at_us)
        known = (await read_known(wire, key.tenant, [key.session]))[key]
        done = project(
            key,
            known.head,
            order.facts,
            at=batch.at_us / 1_000_000,
            fence=order.fence,
            expected=order.expected,
            mask=self.mask(key.tenant),
        )
        batch.append(key, known, done)
        appended = Appended(done.events, done.head)
        batch.answer(order.once, appended)
        return Written(key, appended, done.activated)

    async def _create(self, wire: Wire, order: Create, batch: Batch) -> Written | None:
        session = order.session
        key, known = new_known(session)
        await _refuse_repeated(wire, key.tenant, order.once, batch.at_us)
        done = project(
            key,
            known.head,
            order.facts,
            at=batch.at_us / 1_000_000,
            fence=None,
            expected=None,
            mask=self.mask(key.tenant),
        )
        if not await _may_be_made(wire, session):
            return None
        batch.create(session, known, done)
        appended = Appended(done.events, done.head)
        batch.answer(order.once, appended)
        return Written(key, appended, done.activated)

    async def _restore(
        self, wire: Wire, session: Session, events: Sequence[Event], batch: Batch
    ) -> bool:
        key, known = new_known(session)
        if await wire.row("is_there", tenant=key.tenant, session=key.session):
            return False
        done = imported(key, events, self.mask(key.tenant))
        runs = [*done.ledger.runs]
        taken = await wire.row("has_run", tenant=key.tenant, runs=runs) if runs else None
        if taken is not None:
            raise Conflict(f"{taken[0]} is here already, in another session", code="exists")
        if not await _may_be_made(wire, session):
            return False
        batch.restore(session, known, done, to_us(session.updated_at))
        return True


async def lock_head(wire: Wire, key: Key) -> None:
    """Let nobody else write to a session until this transaction ends.  Raises NotFound."""
    if await wire.row("lock_head", tenant=key.tenant, session=key.session) is None:
        raise NotFound(f"no session {key.session}")


async def lock_histories(wire: Wire, tenant: TenantId, sessions: Sequence[SessionId]) -> None:
    """Let nobody else begin or remove forks of these, until this transaction ends."""
    for session in sorted(set(sessions)):  # in one order, so that nobody waits for each other
        await wire.rows("lock_history", tenant=tenant, session=session)


async def _refuse_repeated(wire: Wire, tenant: TenantId, once: Once | None, at_us: int) -> None:
    if once is not None:
        since = at_us - ANSWERS_KEPT_US
        if await wire.row("answer", tenant=tenant, scope=once.scope, since=since):
            raise Repeated(once.scope)


async def _may_be_made(wire: Wire, session: Session) -> bool:
    """Whether the id is free.  Raises Conflict, or NotFound for a history that is gone."""
    tenant = session.tenant
    origins = [origin for origin, _ in session.lineage]
    await lock_histories(wire, tenant, [session.id, *origins])
    if await wire.row("is_there", tenant=tenant, session=session.id):
        return False
    if await forked_upto(wire, Key(tenant, session.id)):
        raise Conflict(f"forks still read what {session.id} had said", code="exists")
    known = await read_known(wire, tenant, origins) if origins else {}
    for origin, upto in session.lineage:
        there: Known | None = known.get(Key(tenant, origin))
        end = await forked_upto(wire, Key(tenant, origin)) if there is None else there.head.seq
        if end < upto:
            raise NotFound(f"what {session.id} begins with is gone")
    return True


async def forked_upto(wire: Wire, key: Key) -> Seq:
    """Return how far forks read a session."""
    ((upto,),) = await wire.rows("forked_upto", tenant=key.tenant, session=key.session)
    return cast("Seq", upto)


async def committed(wire: Wire) -> None:
    """End a transaction."""
    fault_point("before a commit of PostgreSQL")
    await wire.execute("COMMIT")
    fault_point("after a commit of PostgreSQL")


async def begun(wire: Wire, doing: Callable[[], Awaitable[Answer]]) -> Answer:
    """Do something in a transaction that is left open; what raises has undone it."""
    await wire.execute("BEGIN")
    try:
        return await doing()
    except BaseException:
        if not wire.db.is_closed():
            await wire.execute("ROLLBACK")
        raise
