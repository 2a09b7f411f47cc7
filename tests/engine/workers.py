"""Processes that drive runs of one database, and what they are given to do."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL

import anyio
import anyio.abc
from tests.fleets import PrivateRedis, a_redis
from tests.services import Database

from hostler.app.engines import OnRedis, outbox_of
from hostler.core.events import Event, Key, RunClaimed
from hostler.engine.docket import DocketEngine
from hostler.engine.docket_queue import Queue
from hostler.stores.postgres import PostgresStore
from hostler.stores.postgres_open import open_postgres
from hostler.testing.doubles import a_session
from hostler.testing.store_kit import spoke

PATIENCE_S = 60.0


@dataclass
class Worker:
    """One process."""

    process: anyio.abc.Process
    asked: int = 0
    """Questions that its model was asked."""
    _news: anyio.Event = field(default_factory=anyio.Event)
    is_ready: bool = False

    def send(self, what: signal.Signals) -> None:
        os.kill(self.process.pid, what)

    async def listen(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        async for piece in self.process.stdout:
            *lines, rest = (rest + piece).split(b"\n")
            self.is_ready |= b"ready" in lines
            self.asked += lines.count(b"asked")
            self._news.set()
            self._news = anyio.Event()

    async def until(self, asked: int) -> None:
        """Wait until it has begun, and its model was asked so often."""
        with anyio.fail_after(PATIENCE_S):
            while not self.is_ready or self.asked < asked:
                await self._news.wait()


@dataclass(frozen=True, slots=True)
class Fleet:
    """What workers share."""

    database: Database
    store: PostgresStore
    """By which they are given what to do."""
    queue: OnRedis | None = None
    """Where it is, if it is not in the database."""
    redis: PrivateRedis | None = None


@asynccontextmanager
async def a_fleet(database: Database, folder: Path, engine: str) -> AsyncGenerator[Fleet]:
    """Yield what workers with this engine share: `postgres` or `redis`."""
    if engine == "postgres":
        async with open_postgres(database.url, enlists=True) as store:
            yield Fleet(database, store)
        return
    async with a_redis(folder) as redis:
        where = OnRedis(redis.url, "test")
        rings = Queue(*where, answer_s=1.0)
        outbox = outbox_of(DocketEngine(lambda: rings), database.url, where)
        async with open_postgres(database.url, outbox=outbox) as store:
            yield Fleet(database, store, where, redis)
        await rings.close()


@asynccontextmanager
async def a_worker(fleet: Fleet, lease_s: float, *, speed: float = 1.0) -> AsyncGenerator[Worker]:
    """Run a worker; in the end it is killed, whatever became of it."""
    said = (fleet.database.url, str(lease_s), str(speed), *(fleet.queue or ()))
    argv = (sys.executable, "-m", "tests.engine.worker", *said)
    async with await anyio.open_process(argv, stdin=DEVNULL, stderr=None) as process:
        worker = Worker(process)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(worker.listen)
                await worker.until(0)
                yield worker
                tasks.cancel_scope.cancel()
        finally:
            if process.returncode is None:
                process.kill()


async def ask_all(store: PostgresStore, count: int, seconds: float) -> Sequence[Key]:
    """Begin runs, each in a session of its own, whose answer takes so long."""
    keys = [await a_session(store) for _ in range(count)]
    for number, key in enumerate(keys):
        await store.append(key, [spoke(f"run_{key.session}_{number}", str(seconds))])
    return keys


def drivers(log: Sequence[Event]) -> list[str]:
    """Return who claimed the run, one after the other."""
    return [event.fact.worker for event in log if isinstance(event.fact, RunClaimed)]
