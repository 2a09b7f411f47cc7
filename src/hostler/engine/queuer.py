"""The embedded engine: PgQueuer with its in-memory adapter, in the server's own process.

PgQueuer delivers and delays.  What it delivers is a ring: it is done with a job as soon as its key
stands in line, because each dequeue looks at all jobs that it is not done with, and runs that wait
for a model are many.  So what is kept here is which key is live, and in which order they go.

Invariant: losing everything in here loses nothing; the reconciler rings again from the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import anyio
import msgspec
from anyio.abc import TaskGroup
from pgqueuer import InMemoryQueries, PgQueuer
from pgqueuer.models import Job as QueuedJob

from hostler.core.events import RunKey
from hostler.core.ports import Handler, Job
from hostler.engine.turns import Turns

log = logging.getLogger(__name__)

ENTRYPOINT = "run"
BATCH = 100
NO_LEASE = timedelta(days=1)
"""One process is the only worker: its jobs die with it, so no lease is needed to notice."""
POLL = timedelta(seconds=30)
FULL_S = 0.02
"""Before it is looked again whether there is room."""
CLEAR_EVERY = 1000
"""Jobs after which PgQueuer's in-memory log is emptied; it keeps about 1 KB a job for ever."""

_key = msgspec.json.Decoder(RunKey)


@dataclass(slots=True)
class _Live:
    due: float
    """When the job that is queued for this key will be delivered; older ones are stale."""
    since: float = 0.0
    """When it was enqueued, or due if that is later."""
    priority: int = 0
    rings: int = 0
    """On their way."""
    running: bool = False
    again: float | None = None
    """Rung while running: when to run once more."""


class EmbeddedEngine:
    """A `core.ports.Engine` for one process."""

    def __init__(
        self,
        *,
        ahead: Callable[[], int] = lambda: BATCH,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`ahead`: how many more runs may begin now, as far as the process goes."""
        self._ahead, self._clock = ahead, clock
        self._queuer = PgQueuer.in_memory()
        assert isinstance(self._queuer.queries, InMemoryQueries)
        self._queries = self._queuer.queries
        self._live: dict[RunKey, _Live] = {}
        self._line, self._waits = Turns(), dict[RunKey, float]()
        """Who is due, in order; since when, the first one first."""
        self._free = self._handled = 0
        self._drains = self._is_served = False
        self._changed = asyncio.Event()

    async def enqueue(self, job: Job) -> None:
        live = self._live.get(job.key)
        if live is None:
            since = max(job.not_before, self._clock())
            self._live[job.key] = _Live(job.not_before, since, job.priority)
            await self._put(job)
            return
        if live.running:
            live.again = min(job.not_before, live.again or job.not_before)
        elif job.not_before < live.due:
            live.due = job.not_before
            live.since = max(job.not_before, self._clock())
            await self._put(job)
        if job.priority > live.priority:
            live.priority = job.priority
            if job.key in self._waits:
                self._line.put(job.key, job.priority)  # twice: the first one counts

    @property
    def live(self) -> int:
        """Return how many keys have a job."""
        return len(self._live)

    def waiting(self) -> tuple[int, float]:
        """Return how many keys are due and wait for a worker, and for how many seconds the oldest."""
        now = self._clock()
        return len(self._waits), max(0.0, now - next(iter(self._waits.values()), now))

    async def idle(self, keys: Sequence[RunKey]) -> Sequence[RunKey]:
        return [key for key in keys if key not in self._live]

    async def aclose(self) -> None:
        """Do nothing: all of it is in memory."""

    def drain(self) -> None:
        self._drains = True

    @property
    def serves(self) -> bool:
        return self._is_served and not self._drains

    async def serve(self, handler: Handler, *, slots: int) -> None:
        self._free, self._is_served = slots, True
        self._queuer.entrypoint(ENTRYPOINT)(self._arrived)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._hand_out, tasks, handler)
            await self._queuer.qm.run(
                batch_size=BATCH,
                max_concurrent_tasks=2 * BATCH,
                dequeue_timeout=POLL,
                heartbeat_timeout=NO_LEASE,
                log_aggregation_interval=timedelta(0),
            )

    async def _put(self, job: Job) -> None:
        self._live[job.key].rings += 1
        delay_s = job.not_before - self._clock()
        await self._queries.enqueue(
            ENTRYPOINT,
            msgspec.json.encode(job.key),
            execute_after=timedelta(seconds=delay_s) if delay_s > 0 else None,
        )

    async def _arrived(self, queued: QueuedJob) -> None:
        key = _key.decode(queued.payload or b"")
        live = self._live.get(key)
        if live is None:
            return
        live.rings -= 1
        if live.running or key in self._waits:
            return  # a ring that another one has overtaken
        if live.due > self._clock():
            if live.rings <= 0:  # the clock was set back: nothing else would ring
                await self._put(Job(key, live.due))
            return
        self._waits[key] = live.since
        self._line.put(key, live.priority)
        self._changed.set()

    async def _hand_out(self, tasks: TaskGroup, handler: Handler) -> None:
        """Let those begin for whom there is room, and who they are, the order says."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            room = 0 if self._drains else min(self._free, self._ahead())
            while self._line and room > 0:
                key = self._line.take()
                if self._waits.pop(key, None) is not None:
                    self._live[key].running = True
                    self._free, room = self._free - 1, room - 1
                    tasks.start_soon(self._handle, handler, key)
            if self._line and self._free:
                await anyio.sleep(FULL_S)
                self._changed.set()

    async def _handle(self, handler: Handler, key: RunKey) -> None:
        try:
            await self._handled_by(handler, key)
        except Exception:
            log.exception("handling run %s failed", key.run)
        finally:
            self._free += 1
            self._changed.set()

    async def _handled_by(self, handler: Handler, key: RunKey) -> None:
        live = self._live[key]
        try:
            next_at = await self._run(key, live, handler)
        finally:
            del self._live[key]
        if next_at is not None:
            await self.enqueue(Job(key, next_at, live.priority))
        self._handled += 1
        if self._handled % CLEAR_EVERY == 0:
            await self._queries.clear_queue_log()

    async def _run(self, key: RunKey, live: _Live, handler: Handler) -> float | None:
        while True:
            live.again = None
            until = await handler(key)
            wanted = [at for at in (until, live.again) if at is not None]
            if self._drains or not wanted or min(wanted) > self._clock():
                return min(wanted, default=None)
