"""A worker may die, freeze or lose its database: its runs go on elsewhere, and it writes nothing."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.engine.workers import Fleet, Worker, a_fleet, a_worker, ask_all, drivers
from tests.services import Database

from hostler.core.events import Key, RunClaimed
from hostler.testing.doubles import whole_log
from hostler.testing.engine_suite import all_ended

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]
LEASE_S = 1.5
LATE_S = 6.0
"""More than it takes on a machine that does much else: what it takes on one that does not is in bench."""


@pytest.fixture(params=["postgres", "redis"])
async def fleet(
    request: pytest.FixtureRequest, postgres: Database, tmp_path: Path
) -> AsyncGenerator[Fleet]:
    async with a_fleet(postgres, tmp_path, request.param) as one:
        yield one


async def test_what_a_killed_worker_drove_goes_on_elsewhere(
    fleet: Fleet,
) -> None:
    async with a_worker(fleet, LEASE_S) as dead:
        keys = await ask_all(fleet.store, 10, 60.0)
        await dead.until(10)
        async with a_worker(fleet, LEASE_S, speed=100) as other:
            dead.send(signal.SIGKILL)
            killed_at = time.time()
            await other.until(10)
            logs = await all_ended(fleet.store, keys)
    claims = [[event.at for event in log if isinstance(event.fact, RunClaimed)] for log in logs]
    assert {len(one) for one in claims} == {2}
    assert max(one[1] for one in claims) - killed_at < LEASE_S + LATE_S


async def test_a_worker_that_was_frozen_writes_nothing_more_and_then_works_again(
    fleet: Fleet,
) -> None:
    async with a_worker(fleet, LEASE_S) as frozen:
        keys = await ask_all(fleet.store, 5, 60.0)
        await frozen.until(5)
        frozen.send(signal.SIGSTOP)
        async with a_worker(fleet, LEASE_S, speed=100) as other:
            await other.until(5)
            logs = await all_ended(fleet.store, keys)
        assert all(len(set(drivers(log))) == 2 for log in logs)
        frozen.send(signal.SIGCONT)
        more = await ask_all(fleet.store, 5, 0.1)
        await all_ended(fleet.store, more)

        assert [await whole_log(fleet.store, key) for key in keys] == logs


async def test_random_kills_lose_no_run_and_no_history(
    fleet: Fleet,
) -> None:
    chance = random.Random(7)
    async with AsyncExitStack() as stack:
        workers = list[Worker]()
        for _ in range(2):
            workers.append(await stack.enter_async_context(a_worker(fleet, LEASE_S)))
        keys = list[Key]()
        for _ in range(5):
            keys += await ask_all(fleet.store, chance.randint(2, 20), chance.uniform(0.1, 2.0))
            workers.pop(chance.randrange(2)).send(signal.SIGKILL)
            workers.append(await stack.enter_async_context(a_worker(fleet, LEASE_S)))
        await all_ended(fleet.store, keys)


async def test_runs_outlive_the_connections_to_their_database(
    fleet: Fleet,
) -> None:
    async with a_worker(fleet, LEASE_S) as one, a_worker(fleet, LEASE_S):
        keys = await ask_all(fleet.store, 20, 1.0)
        for asked in (1, 3, 5):
            await one.until(asked)
            await fleet.database.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await all_ended(fleet.store, keys)


async def test_runs_outlive_a_redis_that_begins_again_with_nothing(
    postgres: Database, tmp_path: Path
) -> None:
    async with (
        a_fleet(postgres, tmp_path, "redis") as fleet,
        a_worker(fleet, LEASE_S) as one,
        a_worker(fleet, LEASE_S),
    ):
        assert fleet.redis is not None
        keys = await ask_all(fleet.store, 20, 1.0)
        for asked in (1, 3):
            await one.until(asked)
            fleet.redis.kill()
            keys = [*keys, *await ask_all(fleet.store, 5, 0.5)]
            await fleet.redis.start()
        await all_ended(fleet.store, keys)
