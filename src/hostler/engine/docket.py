"""The second engine of a fleet: Docket on Redis.

Docket's worker takes, delays, and notices who died.  Jobs are written, kept and ended by scripts of
our own (`docket_queue`), so that a ring is never lost: neither while its key is handled, nor as that
ends.

Invariant: losing the whole of Redis loses nothing; the reconciler rings again from the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import cast

import anyio
from docket import Docket, Execution, Worker
from docket.strikelist import StrikeList
from redis.asyncio import Redis

from hostler.core.errors import Unavailable
from hostler.core.events import RunKey
from hostler.core.ports import Handler, Job
from hostler.engine.desk import Counts, Desk
from hostler.engine.docket_hands import Asked, Hands
from hostler.engine.docket_queue import TASK, TROUBLE, Queue

log = logging.getLogger(__name__)
logging.getLogger("docket").setLevel(logging.WARNING)  # it has a line for each job

LEASE_S = 5.0
"""A worker that gave no sign of life for so long has lost its runs."""
BATCH = 50
"""Jobs that are taken by one command."""
POLL_S = 0.25
"""How long a command waits for a job; how often delayed ones are looked at."""
COUNTED_S = 2.0
"""How often those who wait are counted."""


class DocketEngine:
    """A `core.ports.Engine` for as many processes as have one Redis.

    It keeps no order but that of time: priorities and tenants are not looked at.
    """

    def __init__(
        self,
        queue: Callable[[], Queue],
        *,
        lease_s: float = LEASE_S,
        ahead: Callable[[], int] = lambda: BATCH,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`ahead`: how many more runs may be taken, as far as this process's line of them goes."""
        self._open, self._clock = queue, clock
        self._opened: Queue | None = None
        self._counts = Counts()
        self._desk = Desk(lease_s=lease_s, ahead=ahead)

    async def enqueue(self, job: Job) -> None:
        try:
            async with asyncio.timeout(self._desk.lease_s):
                await self._queue().ring(job, self._clock())
        except TROUBLE as error:
            log.warning("run %s is rung for later: %s", job.key.run, error)

    async def idle(self, keys: Sequence[RunKey]) -> Sequence[RunKey]:
        try:
            async with asyncio.timeout(self._desk.lease_s):
                return await self._queue().idle(keys)
        except TROUBLE as error:
            raise Unavailable(f"the queue in Redis cannot be asked: {error}") from error

    async def aclose(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            with anyio.CancelScope(shield=True):
                await opened.close()

    def drain(self) -> None:
        self._desk.drain()

    @property
    def serves(self) -> bool:
        return self._desk.serves

    @property
    def live(self) -> int:
        return self._desk.live

    def waiting(self) -> tuple[int, float]:
        return self._counts.waiting

    async def serve(self, handler: Handler, *, slots: int) -> None:
        post = partial(_Post, self._open, self._counts, slots, self._clock)
        await self._desk.serve(handler, post, slots=slots)

    def _queue(self) -> Queue:
        if self._opened is None:
            self._opened = self._open()
        return self._opened


class _Post:
    """A `desk.Post`: Docket's worker, on its thread."""

    def __init__(
        self,
        queue: Callable[[], Queue],
        counts: Counts,
        slots: int,
        clock: Callable[[], float],
    ) -> None:
        self._queue, self._counts, self._slots, self._clock = queue(), counts, slots, clock
        self._stopped = asyncio.Event()

    async def work(self, desk: Desk) -> None:
        hands = Hands(self._queue, desk, self._clock, self._stopped)
        worker = _Worker(_Docket(self._queue), hands, self._slots)
        try:
            async with worker, anyio.create_task_group() as tasks:
                for one in (desk.watch, self._count, partial(self._end, worker)):
                    tasks.start_soon(one)
                await hands.begin()
                if not self._stopped.is_set():
                    await worker.run_forever()
                tasks.cancel_scope.cancel()
            if not self._stopped.is_set():
                raise Unavailable("Docket's worker has ended")
            with anyio.move_on_after(desk.lease_s):
                await hands.leave()
        finally:
            with anyio.CancelScope(shield=True):
                await self._queue.close()

    def stop(self) -> None:
        self._stopped.set()

    async def _end(self, worker: _Worker) -> None:
        await self._stopped.wait()
        worker.stop()

    async def _count(self) -> None:
        while True:
            try:
                self._counts.waiting = await self._queue.count(self._clock())
            except TROUBLE as error:
                log.debug("those who wait cannot be counted: %s", error)
            await anyio.sleep(COUNTED_S)


class _Docket(Docket):
    """Docket's names, over connections of ours.

    Its strikes and its results are not used: others could have things unpickled by them.
    """

    def __init__(self, queue: Queue) -> None:
        super().__init__(name=queue.name, url="redis://", execution_ttl=timedelta(0))
        self._own = queue.client
        self.strike_list = StrikeList(name=queue.name)
        self.tasks = {TASK.decode(): _nothing}

    @asynccontextmanager
    async def redis(self) -> AsyncGenerator[Redis]:  # pyright: ignore[reportIncompatibleMethodOverride]  a protocol of Docket's
        yield self._own


async def _nothing() -> None:
    """Be known to Docket: what is done is `Hands.handle`."""


class _Worker(Worker):
    """Docket's worker, but for what it does with a job, and what it says when Redis is in trouble."""

    def __init__(self, docket: _Docket, hands: Hands, slots: int) -> None:
        super().__init__(
            docket,
            name=hands.worker,
            concurrency=slots + BATCH,  # how much is taken, the desk says
            redelivery_timeout=timedelta(seconds=hands.lease_s),
            minimum_check_interval=timedelta(seconds=POLL_S),
            scheduling_resolution=timedelta(seconds=POLL_S),
            schedule_automatic_tasks=False,
            message_batch=BATCH,
        )
        self._hands = hands

    def stop(self) -> None:
        """Take nothing more, and return once all is told to Redis."""
        self._worker_stopping.set()

    async def _worker_loop(self, redis: Redis, forever: bool = False) -> None:  # noqa: FBT001, FBT002  Docket's
        del redis
        await super()._worker_loop(cast("Redis", Asked(self._hands)), forever)

    async def _execute(self, execution: Execution, session: object) -> None:
        del session
        await self._hands.handle(execution)

    async def _cancellation_listener(self) -> None:
        """Cancels come as facts; a connection that polls for others would be for nothing."""
        assert self._processing_session is not None
        self._processing_session.cancellation_ready.set()
        await self._processing_session.stopping.wait()

    async def _heartbeat(self) -> None:
        """Nobody asks which workers there are."""

    async def _remove_heartbeat(self) -> None: ...
