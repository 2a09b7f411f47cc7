"""The embedded engine: PgQueuer with its in-memory adapter, in the server's own process.

PgQueuer delivers and delays.  What it delivers is a ring: it is done with a job as soon as the
handler has begun, because each dequeue looks at all jobs that it is not done with, and runs that
wait for a model are many.  So what is kept here is which key is live.

Invariant: losing everything in here loses nothing; the reconciler rings again from the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import anyio
import msgspec
from pgqueuer import InMemoryQueries, PgQueuer
from pgqueuer.models import Job as QueuedJob

from hostler.core.events import RunKey
from hostler.core.ports import Handler, Job

log = logging.getLogger(__name__)

ENTRYPOINT = "run"
BATCH = 100
NO_LEASE = timedelta(days=1)
"""One process is the only worker: its jobs die with it, so no lease is needed to notice."""
POLL = timedelta(seconds=30)
CLEAR_EVERY = 1000
"""Jobs after which PgQueuer's in-memory log is emptied; it keeps about 1 KB a job for ever."""

_key = msgspec.json.Decoder(RunKey)


@dataclass(slots=True)
class _Live:
    due: float
    """When the job that is queued for this key will be delivered; older ones are stale."""
    since: float = 0.0
    """When it was enqueued, or due if that is later."""
    running: bool = False
    again: float | None = None
    """Rung while running: when to run once more."""


class EmbeddedEngine:
    """A `core.ports.Engine` for one process."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._queuer = PgQueuer.in_memory()
        assert isinstance(self._queuer.queries, InMemoryQueries)
        self._queries = self._queuer.queries
        self._live: dict[RunKey, _Live] = {}
        self._handled, self._drains, self._is_served = 0, False, False

    async def enqueue(self, job: Job) -> None:
        live = self._live.get(job.key)
        if live is None:
            self._live[job.key] = _Live(job.not_before, max(job.not_before, self._clock()))
            await self._put(job)
        elif live.running:
            live.again = min(job.not_before, live.again or job.not_before)
        elif job.not_before < live.due:
            live.due = job.not_before
            live.since = max(job.not_before, self._clock())
            await self._put(job)

    @property
    def live(self) -> int:
        """Return how many keys have a job."""
        return len(self._live)

    def waiting(self) -> tuple[int, float]:
        """Return how many keys are due and wait for a worker, and for how many seconds the oldest."""
        now = self._clock()
        since = [one.since for one in self._live.values() if not one.running and one.since <= now]
        return len(since), now - min(since, default=now)

    async def idle(self, keys: Sequence[RunKey]) -> Sequence[RunKey]:
        return [key for key in keys if key not in self._live]

    def drain(self) -> None:
        self._drains = True

    @property
    def serves(self) -> bool:
        return self._is_served and not self._drains

    async def serve(self, handler: Handler, *, slots: int) -> None:
        self._is_served = True
        free, leaving = anyio.Semaphore(slots), False

        async def handle(key: RunKey) -> None:
            nonlocal leaving
            try:
                await self._handle(key, handler)
            except Exception:
                log.exception("handling run %s failed", key.run)
            except BaseException:  # cancelled: whoever waits for this slot must not begin
                leaving = True
                raise
            finally:
                free.release()

        async def entry(queued: QueuedJob) -> None:
            await free.acquire()
            if not (leaving or self._drains):
                tasks.start_soon(handle, _key.decode(queued.payload or b""))

        async with anyio.create_task_group() as tasks:
            self._queuer.entrypoint(ENTRYPOINT)(entry)
            await self._queuer.qm.run(
                batch_size=BATCH,
                max_concurrent_tasks=2 * BATCH,
                dequeue_timeout=POLL,
                heartbeat_timeout=NO_LEASE,
                log_aggregation_interval=timedelta(0),
            )

    async def _put(self, job: Job) -> None:
        delay_s = job.not_before - self._clock()
        await self._queries.enqueue(
            ENTRYPOINT,
            msgspec.json.encode(job.key),
            execute_after=timedelta(seconds=delay_s) if delay_s > 0 else None,
        )

    async def _handle(self, key: RunKey, handler: Handler) -> None:
        live = self._live.get(key)
        if live is None or live.running or live.due > self._clock():
            return  # a ring that another one has overtaken
        live.running = True
        try:
            next_at = await self._run(key, live, handler)
        finally:
            del self._live[key]
        if next_at is not None:
            await self.enqueue(Job(key, next_at))
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
