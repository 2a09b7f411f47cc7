"""Every engine keeps the promises of the suites."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.fleets import a_name, a_redis
from tests.services import Database

from hostler.core.ports import Engine
from hostler.engine.docket import DocketEngine
from hostler.engine.docket_queue import Queue
from hostler.engine.postgres import PostgresEngine
from hostler.engine.queuer import EmbeddedEngine
from hostler.stores.postgres_jobs import PostgresJobs
from hostler.testing.engine_suite import (
    ENGINE_SUITE,
    FAIR_SUITE,
    FLEET_SUITE,
    Check,
    Node,
    of_one_tenant_and_priority_the_first_goes_first,
)

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
LEASE_S = 2.0


@asynccontextmanager
async def embedded() -> AsyncGenerator[Node]:
    engine = EmbeddedEngine()
    yield lambda: engine


@asynccontextmanager
async def on_postgres(url: str) -> AsyncGenerator[Node]:
    made = list[PostgresJobs]()

    def jobs() -> PostgresJobs:
        made.append(PostgresJobs(url, answer_s=LEASE_S))
        return made[-1]

    def node() -> Engine:
        return PostgresEngine(jobs, lease_s=LEASE_S)

    yield node
    for one in made:
        one.close()


@asynccontextmanager
async def on_redis(url: str) -> AsyncGenerator[Node]:
    made, fleet = list[Queue](), a_name()

    def queue() -> Queue:
        made.append(Queue(url, fleet, answer_s=LEASE_S))
        return made[-1]

    yield lambda: DocketEngine(queue, lease_s=LEASE_S)
    for one in made:
        await one.close()


@pytest.mark.parametrize("check", [*ENGINE_SUITE, *FAIR_SUITE], ids=lambda check: check.__name__)
async def test_the_embedded_engine(check: Check) -> None:
    await check(embedded)


@pytest.mark.parametrize(
    "check", [*ENGINE_SUITE, *FLEET_SUITE, *FAIR_SUITE], ids=lambda check: check.__name__
)
async def test_pgqueuer_on_postgresql(postgres: Database, check: Check) -> None:
    def make() -> AbstractAsyncContextManager[Node]:
        return partial(on_postgres, postgres.url)()

    await check(make)


@pytest.mark.parametrize(
    "check",
    [*ENGINE_SUITE, *FLEET_SUITE, of_one_tenant_and_priority_the_first_goes_first],
    ids=lambda check: check.__name__,
)
async def test_docket_on_redis(tmp_path: Path, check: Check) -> None:
    async with a_redis(tmp_path) as redis:
        await check(lambda: on_redis(redis.url))
