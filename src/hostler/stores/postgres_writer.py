"""Writes to PostgreSQL: what a tenant's callers ask for at one moment shares a commit.

While a commit of a tenant is on its way, what is asked for meanwhile gathers in its line; some
connections serve the lines, each tenant's one at a time.  A commit is one statement.  It is made of
heads as they are remembered and undoes itself if one of them is not what it was (`insist`), because
another process wrote: then each order is done alone, under a lock, from what is there.

Invariant: an order that is refused has written nothing and fails no other, and nobody is answered
before the commit, nor without knowing that it happened.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from hostler.core.errors import HostlerError, NotFound, Unavailable
from hostler.core.events import Key, SessionId, TenantId
from hostler.core.records import Appended
from hostler.core.sealed import Mask
from hostler.core.store import Observer
from hostler.faults import fault_point
from hostler.stores.lanes import CLOSED, Timed
from hostler.stores.postgres_alone import Alone, begun, committed
from hostler.stores.postgres_batch import Batch, Known, new_known, read_known
from hostler.stores.postgres_commits import new_commit, settled
from hostler.stores.postgres_orders import Append, Create, Enter, Order, Shared, Written
from hostler.stores.postgres_wire import Lost, Wire, Wires, unavailable
from hostler.stores.projection import project
from hostler.stores.times import to_us

log = logging.getLogger(__name__)

WRITERS = 4
"""Connections that write."""
LARGEST = 256
"""Orders in one commit."""
KEPT_HEADS = 4096
TRIES = 5
CONTESTED = (
    asyncpg.SerializationError,
    asyncpg.UniqueViolationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.CardinalityViolationError,
    asyncpg.LockNotAvailableError,
)
_Asked: TypeAlias = "tuple[Order, asyncio.Future[object]]"
Answer: TypeAlias = object
"""What an order asked for, or the exception that came instead."""


@dataclass(slots=True)
class _Line:
    """What waits to be written, of one tenant (None: by those who look after the house)."""

    whose: TenantId | None
    waiting: deque[_Asked] = field(default_factory=deque["_Asked"])

    def take(self) -> Sequence[_Asked]:
        """Return what goes into the next commit: one order per session, or one that goes alone."""
        taken, left, sessions = list[_Asked](), deque[_Asked](), set[SessionId]()
        while self.waiting and len(taken) < LARGEST:
            order, future = self.waiting.popleft()
            if not is_shared(order):
                (left if taken or left else taken).append((order, future))
                break
            session = session_of(cast("Shared", order))
            if session in sessions:
                left.append((order, future))
                continue
            if session is not None:
                sessions.add(session)
            taken.append((order, future))
        self.waiting.extendleft(reversed(left))
        return taken


def is_shared(order: Order) -> bool:
    """Whether an order may share its commit."""
    if isinstance(order, Create):
        return not order.session.lineage
    return isinstance(order, Append | Enter)


def session_of(order: Shared) -> SessionId | None:
    match order:
        case Create(session=session):
            return session.id
        case Append(key=key):
            return key.session
        case Enter():
            return None


@dataclass(slots=True)
class _Thought:
    """What is to be written of some orders, before it is."""

    batch: Batch
    answers: list[Answer]
    known: dict[Key, Known] = field(default_factory=dict[Key, Known])
    doubtful: list[int] = field(default_factory=list[int])
    """Places of orders that were refused by what is only remembered."""


class Writer:
    """Serves the lines; `work` has to run, as often as there are `WRITERS`."""

    def __init__(
        self,
        url: str,
        *,
        holder: int,
        observer: Observer,
        clock: Callable[[], float],
        mask: Callable[[TenantId], Mask | None],
        enlists: bool,
        timed: Timed | None,
    ) -> None:
        self._url, self._observer, self._clock, self._mask = url, observer, clock, mask
        self.holder, self._enlists, self._timed = holder, enlists, timed
        self.wires = Wires(url, most=WRITERS)
        self._lines: dict[TenantId | None, _Line] = {}
        self._ready: asyncio.Queue[_Line] = asyncio.Queue()
        self._known: dict[Key, Known] = {}
        self.ring: Callable[[], None] = _nobody
        """Called after a commit after which something may be due elsewhere."""
        self._has_ended = self._rings = False
        self._idle = asyncio.Event()
        self._idle.set()

    def now_us(self) -> int:
        return to_us(self._clock())

    async def ask(self, whose: TenantId | None, order: Order) -> Answer:
        """Return the answer to an order, or raise what came instead."""
        if self._has_ended:
            raise Unavailable(CLOSED)
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        line = self._lines.get(whose)
        if line is None:
            line = self._lines[whose] = _Line(whose)
            self._idle.clear()
            self._ready.put_nowait(line)
        line.waiting.append((order, future))
        return await future

    async def finish(self) -> None:
        """Take no more orders, and return when all are done."""
        self._has_ended = True
        await self._idle.wait()

    async def work(self) -> None:
        while True:
            line = await self._ready.get()
            await self._serve(line.whose, line.take())
            if line.waiting:
                self._ready.put_nowait(line)
                continue
            del self._lines[line.whose]
            if not self._lines:
                self._idle.set()

    async def _serve(self, whose: TenantId | None, asked: Sequence[_Asked]) -> None:
        answers: Sequence[Answer] = [Unavailable("the store failed")] * len(asked)
        began = time.perf_counter()
        try:
            answers = await self._carry_out(whose, [order for order, _ in asked])
            if self._timed is not None:
                self._timed(time.perf_counter() - began, len(asked))
            self._deliver(answers)
        finally:  # a bug ends this worker, and nobody waits
            for (_, future), answer in zip(asked, answers, strict=True):
                if future.done():
                    continue  # whoever asked was cancelled; what was written stays written
                if isinstance(answer, BaseException):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _deliver(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if isinstance(answer, Written) and answer.appended.events:
                self._observer(answer.key, answer.appended.events)
        if self._rings:
            self._rings = False
            self.ring()

    async def _carry_out(self, whose: TenantId | None, orders: Sequence[Order]) -> Sequence[Answer]:
        if whose is None or not is_shared(orders[0]):
            return [await self._alone(whose, order) for order in orders]
        try:
            return await self._together(whose, cast("Sequence[Shared]", orders))
        except CONTESTED as error:
            log.debug("%d orders are done one by one: %s", len(orders), error)
        except HostlerError as error:
            return [error] * len(orders)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, UnicodeError, ValueError) as error:
            log.debug("%d orders are done one by one: %s", len(orders), error)
        for order in orders:
            self._forget(whose, cast("Shared", order))
        return [await self._alone(whose, order) for order in orders]

    # -- together ----------------------------------------------------------------------------

    async def _together(self, tenant: TenantId, orders: Sequence[Shared]) -> Sequence[Answer]:
        """Commit orders in one statement.  What PostgreSQL raises means: nothing was written."""
        for _ in range(TRIES):
            thought = await self._try(tenant, orders)
            if thought is None:
                continue
            self._remember(thought.known)
            self._rings |= "write_notices" in thought.batch.rows
            for place in thought.doubtful:
                self._forget(tenant, orders[place])
                thought.answers[place] = await self._alone(tenant, orders[place])
            return thought.answers
        raise Unavailable("the connection to the database is lost again and again")

    async def _try(self, tenant: TenantId, orders: Sequence[Shared]) -> _Thought | None:
        """Return what was written; None for nothing, because the connection was lost."""
        commit, at_us, thought = new_commit(), self.now_us(), None
        wire = await self.wires.take(tenant)
        try:
            fresh = await self._know(wire, tenant, orders)
            thought = self._think(tenant, orders, at_us, fresh)
            if thought.batch.rows or thought.batch.said:
                fault_point("before a statement of PostgreSQL")
                await thought.batch.send(wire, commit)
                fault_point("after a statement of PostgreSQL")
        except Lost:
            if thought is None or not await settled(self._url, commit, at_us, wire.name):
                return None
        finally:
            self.wires.give(wire)
        return thought

    async def _know(
        self, wire: Wire, tenant: TenantId, orders: Sequence[Shared]
    ) -> dict[Key, Known]:
        """Read the heads that are not remembered."""
        keys = [order.key for order in orders if isinstance(order, Append)]
        unknown = [key.session for key in keys if key not in self._known]
        if not unknown:
            return {}
        return await read_known(wire, tenant, unknown)

    def _think(
        self, tenant: TenantId, orders: Sequence[Shared], at_us: int, fresh: dict[Key, Known]
    ) -> _Thought:
        """Put together what is written of orders, and what they are answered."""
        thought = _Thought(Batch(tenant, at_us, self.holder, self._enlists), [])
        entered = dict[tuple[str, str], Enter]()
        for place, order in enumerate(orders):
            try:
                match order:
                    case Enter():
                        entered[order.part, order.id] = order
                        thought.answers.append(None)
                    case Append():
                        thought.answers.append(self._append(thought, order, fresh))
                    case Create():
                        thought.answers.append(self._create(thought, order))
            except HostlerError as refusal:
                thought.answers.append(refusal)
                if isinstance(order, Append) and order.key not in fresh:
                    thought.doubtful.append(place)
        for (part, _), order in entered.items():
            thought.batch.add(part, order.row[1:])
        return thought

    def _append(self, thought: _Thought, order: Append, fresh: dict[Key, Known]) -> Written:
        known = fresh.get(order.key) or self._known.get(order.key)
        if known is None:
            raise NotFound(f"no session {order.key.session}")
        done = project(
            order.key,
            known.head,
            order.facts,
            at=thought.batch.at_us / 1_000_000,
            fence=order.fence,
            expected=order.expected,
            mask=self._mask(order.key.tenant),
        )
        thought.batch.append(order.key, known, done)
        appended = Appended(done.events, done.head)
        thought.batch.answer(order.once, appended)
        thought.known[order.key] = Known(done.head, known.agent, known.owner, known.made)
        return Written(order.key, appended, done.activated)

    def _create(self, thought: _Thought, order: Create) -> Written:
        key, known = new_known(order.session)
        done = project(
            key,
            known.head,
            order.facts,
            at=thought.batch.at_us / 1_000_000,
            fence=None,
            expected=None,
            mask=self._mask(key.tenant),
        )
        thought.batch.create(order.session, known, done)
        appended = Appended(done.events, done.head)
        thought.batch.answer(order.once, appended)
        thought.known[key] = Known(done.head, known.agent, known.owner, known.made)
        return Written(key, appended, done.activated)

    # -- alone -------------------------------------------------------------------------------

    async def _alone(self, whose: TenantId | None, order: Order) -> Answer:
        alone = Alone(self.now_us, self._mask, self.holder, self._enlists)
        try:
            for _ in range(TRIES):
                try:
                    answer = await self._once(whose, order, alone)
                except (*CONTESTED, Lost) as error:
                    log.debug("an order is done once more: %s", error)
                else:
                    self._rings |= bool(alone.told)
                    return answer
            return Unavailable("others write the same, again and again")
        except asyncpg.PostgresError as error:
            return unavailable(error)
        except Exception as error:  # noqa: BLE001 # a bug in one order must not be everybody's trouble
            return error

    async def _once(self, whose: TenantId | None, order: Order, alone: Alone) -> Answer:
        """Do an order in a transaction of its own.  Raises Lost: nothing was written."""
        commit, at_us, answer, is_sent = new_commit(), self.now_us(), None, False
        wire = await self.wires.take(whose)
        try:
            answer = await begun(wire, partial(alone.do, wire, whose, order, commit))
            is_sent = True
            await committed(wire)
        except Lost:
            if not is_sent or not await settled(self._url, commit, at_us, wire.name):
                raise
        finally:
            self.wires.give(wire)
        return answer

    # -- what is remembered ------------------------------------------------------------------

    def _remember(self, known: dict[Key, Known]) -> None:
        for key, one in known.items():
            self._known.pop(key, None)
            self._known[key] = one
        while len(self._known) > KEPT_HEADS:
            del self._known[next(iter(self._known))]

    def _forget(self, tenant: TenantId, order: Shared) -> None:
        if session := session_of(order):
            self._known.pop(Key(tenant, session), None)


def _nobody() -> None:
    """Nobody listens."""
