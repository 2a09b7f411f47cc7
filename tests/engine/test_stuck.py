"""A main loop that is busy loses no run; one that is stuck does, and stops what it was doing."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

import anyio
import pytest
from tests.fleets import a_redis
from tests.services import Database

from hostler.core.events import RunKey
from hostler.core.ports import Engine, Job
from hostler.engine.docket import DocketEngine
from hostler.engine.docket_queue import Queue
from hostler.engine.postgres import PostgresEngine
from hostler.stores.postgres_jobs import PostgresJobs
from hostler.testing.engine_suite import Recorder, a_key, idle, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
Make: TypeAlias = Callable[[float], Engine]
"""Makes a node, with so many seconds of a lease."""


def block(seconds: float) -> None:
    """Let the loop of this thread do nothing else for so long."""
    threading.Event().wait(seconds)


@pytest.fixture(params=["postgres", "redis"])
async def make(
    request: pytest.FixtureRequest, postgres: Database, tmp_path: Path
) -> AsyncGenerator[Make]:
    if request.param == "postgres":
        yield lambda lease_s: PostgresEngine(
            partial(PostgresJobs, postgres.url, answer_s=lease_s), lease_s=lease_s
        )
        return
    async with a_redis(tmp_path) as redis:
        yield lambda lease_s: DocketEngine(
            partial(Queue, redis.url, "test", answer_s=lease_s), lease_s=lease_s
        )


@asynccontextmanager
async def two_nodes(
    make: Make, here: Recorder, there: Recorder, lease_s: float
) -> AsyncGenerator[tuple[Engine, Engine]]:
    """Serve with two nodes; the first one alone has room, until it is drained."""
    first, second = make(lease_s), make(lease_s)
    async with serving(first, here):
        await first.enqueue(Job(a_key("run_1")))
        await here.until(1)
        async with serving(second, there):
            first.drain()
            await second.enqueue(Job(a_key("run_awake")))
            await there.until(1)
            yield first, second


async def test_a_loop_that_is_busy_for_longer_than_a_lease_loses_no_run(make: Make) -> None:
    here, there = Recorder(holds=lambda _: True), Recorder()
    async with two_nodes(make, here, there, 2.0) as (first, _):
        block(3.0)
        here.release.set()
        await idle(first, a_key("run_1"))
    assert here.handled == [a_key("run_1")]
    assert (here.cancelled, there.handled) == ([], [a_key("run_awake")])


async def test_a_loop_that_is_stuck_gives_up_its_runs_and_cancels_them_when_it_comes_round(
    make: Make,
) -> None:
    here, there = Recorder(holds=lambda _: True), Recorder()
    async with two_nodes(make, here, there, 0.5):
        block(2.5)
        await there.until(2)
    assert here.cancelled == here.handled == [a_key("run_1")]
    assert there.handled == [a_key("run_awake"), a_key("run_1")]


async def test_a_thousand_delayed_jobs_hold_no_slot_and_are_in_nobodys_way(make: Make) -> None:
    waits, recorder = [a_key(f"run_{number}") for number in range(1000)], Recorder()

    async def handler(key: RunKey) -> float | None:
        await recorder(key)
        return 4_000_000_000.0 if key in waiting else None

    waiting = set(waits)
    engine = make(2.0)
    async with serving(engine, handler, slots=10):
        async with anyio.create_task_group() as tasks:
            for key in waits:
                tasks.start_soon(engine.enqueue, Job(key))
        await recorder.until(1000)
        await engine.enqueue(Job(a_key("run_last")))
        await recorder.until(1001)
        await idle(engine, a_key("run_last"))

        assert engine.live == 0
        assert await engine.idle(waits) == []
