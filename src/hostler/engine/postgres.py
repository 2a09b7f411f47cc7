"""The engine of a fleet: PgQueuer on the database that has the logs.

PgQueuer delivers, delays, orders and notices who died.  Jobs are written and ended by statements
of our own (`hostler.stores.postgres_jobs`), so that a ring is never lost: neither while its key is
handled, nor as that ends.

Invariant: losing the whole queue loses nothing; the reconciler rings again from the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Protocol, cast
from uuid import UUID

import anyio
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.models import Job as QueuedJob
from pgqueuer.domain.models import TableChangedEvent, TracebackRecord, utc_now
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import JOB_STATUS, Channel, JobId, QueueEntrypoint, QueueManagerId
from pgqueuer.ports.driver import Driver
from pgqueuer.ports.repository import EntrypointExecutionParameter
from pgqueuer.queries import Queries

from hostler.core.errors import Unavailable
from hostler.core.events import RunId, RunKey, SessionId, TenantId
from hostler.core.ports import Handler, Job
from hostler.engine.desk import Claim, Counts, Desk

log = logging.getLogger(__name__)

LEASE_S = 5.0
"""A worker that gave no sign of life for so long has lost its runs."""
BATCH = 50
"""Jobs that are taken by one statement."""
POLLS = 5
"""In one lease: how often it is looked whether somebody died."""
LONGEST_POLL_S, SHORTEST_POLL_S = 1.0, 0.2
COUNTED_S = 2.0
"""How often those who wait are counted."""
FULL_S = 0.05
"""Before it is looked again whether there is room."""
BROKEN_S = 1.0
"""Before a key is handled again whose claim broke off."""
END_TRIES, END_AGAIN_S = 5, 0.3
"""For jobs that could not be ended; then PgQueuer tells of it, and they are tried again."""
ENTRYPOINT = "run"
CHANNEL = Channel("ch_pgqueuer")


class Jobs(Protocol):
    """The queue's tables, by a connection of their own: `hostler.stores.postgres_jobs`."""

    async def write(self, job: Job, delay_s: float) -> None: ...
    async def idle(self, keys: Sequence[RunKey]) -> Sequence[RunKey]: ...
    async def rows(self, name: str, /, **given: object) -> Sequence[tuple[object, ...]]: ...
    def close(self) -> None: ...


class PostgresEngine:
    """A `core.ports.Engine` for as many processes as have one database."""

    def __init__(
        self,
        jobs: Callable[[], Jobs],
        *,
        lease_s: float = LEASE_S,
        ahead: Callable[[], int] = lambda: BATCH,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`ahead`: how many more runs may be taken, as far as this process's line of them goes."""
        self._open, self._clock = jobs, clock
        self._jobs: Jobs | None = None
        self._counts = Counts()
        self._desk = Desk(lease_s=lease_s, ahead=ahead)

    async def enqueue(self, job: Job) -> None:
        try:
            await self._queue().write(job, max(0.0, job.not_before - self._clock()))
        except Unavailable as error:
            log.warning("run %s is rung for later: %s", job.key.run, error)

    async def idle(self, keys: Sequence[RunKey]) -> Sequence[RunKey]:
        return await self._queue().idle(keys)

    async def aclose(self) -> None:
        jobs, self._jobs = self._jobs, None
        if jobs is not None:
            jobs.close()

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
        post = partial(_Post, self._open, self._counts, self._clock)
        await self._desk.serve(handler, post, slots=slots)

    def _queue(self) -> Jobs:
        if self._jobs is None:
            self._jobs = self._open()
        return self._jobs


class _Post:
    """A `desk.Post`: PgQueuer's queue manager, on its thread."""

    def __init__(
        self, jobs: Callable[[], Jobs], counts: Counts, clock: Callable[[], float]
    ) -> None:
        self._jobs, self._counts, self._clock = jobs(), counts, clock
        self._manager: QueueManager | None = None
        self._is_stopped = False

    async def work(self, desk: Desk) -> None:
        queries = _Queries(cast("Driver", self._jobs), self._jobs, desk, self._clock)
        self._manager = manager = QueueManager(queries, channel=CHANNEL)
        manager.min_dequeue_poll_interval = timedelta(seconds=FULL_S)
        manager.entrypoint(ENTRYPOINT)(queries.handle)
        poll_s = max(SHORTEST_POLL_S, min(LONGEST_POLL_S, desk.lease_s / POLLS))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(desk.watch)
                tasks.start_soon(self._count)
                if not self._is_stopped:
                    await manager.run(
                        batch_size=BATCH,
                        dequeue_timeout=timedelta(seconds=poll_s),
                        heartbeat_timeout=timedelta(seconds=desk.lease_s),
                        log_aggregation_interval=timedelta(0),
                    )
                tasks.cancel_scope.cancel()
        finally:
            self._jobs.close()

    def stop(self) -> None:
        self._is_stopped = True
        if self._manager is not None:
            self._manager.shutdown.set()

    async def _count(self) -> None:
        while True:
            with suppress(Unavailable):
                ((number, oldest_s),) = await self._jobs.rows("waiting_jobs")
                self._counts.waiting = cast("tuple[int, float]", (number, oldest_s))
            await anyio.sleep(COUNTED_S)


class _Queries(Queries):
    """PgQueuer's statements, but for those by which rings could be lost, or that can be spared.

    None of them raises what would end PgQueuer's loop: a database that is away is waited for.
    """

    def __init__(self, driver: Driver, jobs: Jobs, desk: Desk, clock: Callable[[], float]) -> None:
        settings = DBSettings(prefix="", db_schema=None, channel=CHANNEL)
        super().__init__(driver)
        self.qbe.settings = self.qbq.settings = self.qbs.settings = settings
        self._jobs, self._desk, self._clock = jobs, desk, clock
        self._worker = QueueManagerId(UUID(int=0))
        self._held: dict[JobId, Claim] = {}
        self._again: dict[JobId, float | None] = {}
        """When what is over is to be handled again."""
        self._is_dry = False
        self._next_s: float | None = None

    async def handle(self, job: QueuedJob) -> None:
        """Have a job handled: PgQueuer's entry point."""
        claim = self._desk.hand_over(_key_of(job))
        self._held[job.id] = claim
        self._again[job.id] = self._broken()
        try:
            self._again[job.id] = await claim.outcome
        finally:
            del self._held[job.id]

    def _broken(self) -> float:
        return self._clock() + BROKEN_S

    async def dequeue(
        self,
        batch_size: int,
        entrypoints: dict[QueueEntrypoint, EntrypointExecutionParameter],
        queue_manager_id: QueueManagerId,
        global_concurrency_limit: int | None,
        heartbeat_timeout: timedelta,
    ) -> list[QueuedJob]:
        self._worker = queue_manager_id
        await asyncio.sleep(0)  # what was just taken is handed over, and counts
        room = min(batch_size, self._desk.room())
        if room == 0 or self._is_dry:  # it asks until it is given nothing
            self._is_dry = False
            return []
        try:
            jobs = await super().dequeue(
                room, entrypoints, queue_manager_id, global_concurrency_limit, heartbeat_timeout
            )
        except Unavailable as error:
            log.warning("jobs cannot be taken now: %s", error)
            return []
        self._desk.looked()
        self._is_dry = 0 < len(jobs) < room
        return jobs

    async def eligible_queued_work(self, entrypoints: list[QueueEntrypoint]) -> int:  # noqa: ARG002
        """Look once for the three questions that PgQueuer asks before it sleeps."""
        self._next_s = None
        if not self._desk.takes:
            return 0
        if self._desk.room() == 0:
            return 1
        try:
            ((is_due, next_s),) = await self._jobs.rows("look_at_jobs")
        except Unavailable:
            return 0
        self._desk.looked()
        self._next_s = cast("float | None", next_s)
        return int(bool(is_due))

    async def next_deferred_eta(self, entrypoints: list[QueueEntrypoint]) -> timedelta | None:  # noqa: ARG002
        return None if self._next_s is None else timedelta(seconds=self._next_s)

    async def queued_work(self, entrypoints: list[QueueEntrypoint]) -> int:  # noqa: ARG002  PgQueuer's
        return 0

    async def log_jobs(
        self, job_status: list[tuple[QueuedJob, JOB_STATUS, TracebackRecord | None]]
    ) -> None:
        """End jobs; what this raises, PgQueuer tries again."""
        ended = {job.id: self._again.pop(job.id, self._broken()) for job, _, _ in job_status}
        tries = 0
        while True:
            tries += 1
            try:
                await self._end(ended)
            except Unavailable:
                if tries == END_TRIES:
                    self._again.update(ended)
                    raise
                await asyncio.sleep(END_AGAIN_S)
            except BaseException:
                self._again.update(ended)
                raise
            else:
                return

    async def _end(self, ended: Mapping[JobId, float | None]) -> None:
        now = self._clock()
        await self._jobs.rows(
            "end_jobs",
            ids=[*ended],
            delays=[None if at is None else max(0.0, at - now) for at in ended.values()],
            worker=self._worker,
            channel=CHANNEL,
            news=_news(),
            soon=LONGEST_POLL_S,
        )

    async def update_heartbeat(self, job_ids: list[JobId]) -> None:
        """Keep jobs; what others have taken over, this worker does not go on with."""
        held = {one: self._held[one] for one in job_ids if one in self._held}
        if not held:
            return
        try:
            found = await self._jobs.rows("beat_jobs", ids=[*held], worker=self._worker)
        except Unavailable:
            return  # that is told where jobs are taken; the next beat may get through
        ours = {cast("JobId", one) for (one,) in found}
        for one in held.keys() - ours:
            self._desk.lose(held[one])


def _key_of(job: QueuedJob) -> RunKey:
    tenant, session, run = (job.payload or b"").decode().split("/")
    return RunKey(TenantId(tenant), SessionId(session), RunId(run))


def _news() -> str:
    """Return what PgQueuer's workers take for "look"."""
    return TableChangedEvent(
        channel=CHANNEL,
        operation="update",
        sent_at=utc_now(),
        table="pgqueuer",
        type="table_changed_event",
    ).model_dump_json()
