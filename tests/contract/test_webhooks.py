"""Every store keeps webhooks and deliveries alike, and writes these with the facts they tell."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.services import Database

from hostler.beside.webhooks import Webhooks
from hostler.core.errors import Unavailable
from hostler.core.store import Store
from hostler.stores.memory import MemoryStore
from hostler.stores.postgres_open import open_postgres
from hostler.stores.postgres_webhooks import PostgresWebhooks
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_file import connect, migrate
from hostler.stores.sqlite_rows import SQL
from hostler.stores.sqlite_webhooks import SqliteWebhooks
from hostler.testing.doubles import a_session
from hostler.testing.store_kit import Clock, a_run, spoke
from hostler.testing.webhook_suite import WEBHOOK_SUITE, Check, a_webhook, of
from hostler.testing.webhook_suite_shared import SHARED_WEBHOOK_SUITE, Kept
from hostler.testing.webhook_suite_shared import Check as SharedCheck

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def in_file(folder: Path, clock: Clock) -> AsyncGenerator[tuple[Store, Webhooks]]:
    store = SqliteStore.open(folder / "log.db", clock=clock)
    try:
        yield store, SqliteWebhooks(store)
    finally:
        store.close()


@pytest.mark.parametrize("check", WEBHOOK_SUITE, ids=lambda check: check.__name__)
async def test_memory_webhooks(check: Check) -> None:
    @asynccontextmanager
    async def make(clock: Clock) -> AsyncGenerator[tuple[Store, Webhooks]]:
        store = MemoryStore(clock=clock)
        yield store, store.webhooks

    await check(make)


@pytest.mark.parametrize("check", WEBHOOK_SUITE, ids=lambda check: check.__name__)
async def test_sqlite_webhooks(check: Check, tmp_path: Path) -> None:
    await check(lambda clock: in_file(tmp_path, clock))


@pytest.mark.parametrize("check", WEBHOOK_SUITE, ids=lambda check: check.__name__)
async def test_postgres_webhooks(check: Check, postgres: Database) -> None:
    @asynccontextmanager
    async def make(clock: Clock) -> AsyncGenerator[tuple[Store, Webhooks]]:
        async with open_postgres(postgres.url, clock=clock) as store:
            yield store, PostgresWebhooks(store)

    await check(make)


@pytest.mark.parametrize("check", SHARED_WEBHOOK_SUITE, ids=lambda check: check.__name__)
async def test_postgres_webhooks_of_two_processes(check: SharedCheck, postgres: Database) -> None:
    @asynccontextmanager
    async def make(clock: Clock) -> AsyncGenerator[tuple[Kept, Kept]]:
        async with (
            open_postgres(postgres.url, clock=clock) as one,
            open_postgres(postgres.url, clock=clock) as two,
        ):
            yield (one, PostgresWebhooks(one)), (two, PostgresWebhooks(two))

    await check(make)


async def test_a_file_that_is_opened_again_knows_its_webhooks(tmp_path: Path) -> None:
    async with in_file(tmp_path, Clock()) as (_, hooks):
        await hooks.add(a_webhook(), most=1)
    async with in_file(tmp_path, Clock()) as (store, hooks):
        key = await a_session(store)
        await store.append(key, [spoke("run_1"), *a_run("run_1", "well", claim=1)])

        assert [one.type for one in await of(hooks)] == ["run.completed"]


async def test_a_tenant_without_a_webhook_writes_nothing_and_asks_nothing(tmp_path: Path) -> None:
    asked = list[str]()
    store = SqliteStore.open(tmp_path / "log.db")
    store._writer.db.set_trace_callback(asked.append)  # pyright: ignore[reportPrivateUsage]
    try:
        key = await a_session(store)
        await store.append(key, [spoke("run_1"), *a_run("run_1", "well", claim=1)])
    finally:
        store.close()

    assert any("agent_runs" in one for one in asked)
    assert [one for one in asked if "webhooks" in one or "deliveries" in one] == []


def without_deliveries(action: int, table: str | None, *_: object) -> int:
    is_one = (action, table) == (sqlite3.SQLITE_INSERT, "deliveries")
    return sqlite3.SQLITE_DENY if is_one else sqlite3.SQLITE_OK


async def test_a_commit_that_fails_is_told_to_nobody(tmp_path: Path) -> None:
    async with in_file(tmp_path, Clock()) as (store, hooks):
        assert isinstance(store, SqliteStore)
        await hooks.add(a_webhook(), most=1)
        key, rung = await a_session(store), list[int]()
        hooks.listen(lambda: rung.append(1))
        db = store._writer.db  # pyright: ignore[reportPrivateUsage]
        db.set_authorizer(without_deliveries)
        facts = [spoke("run_1"), *a_run("run_1", "well", claim=1)]
        with pytest.raises(Unavailable):
            await store.append(key, facts)
        db.set_authorizer(None)

        assert (await store.head(key)).seq == 0
        assert (await of(hooks), rung) == ([], [])
        await store.append(key, facts)
        assert (len(await of(hooks)), len(rung)) == (1, 1)


def test_what_is_due_is_found_without_looking_at_all_that_waits(tmp_path: Path) -> None:
    db = connect(tmp_path / "log.db")
    migrate(db, tmp_path / "log.db")
    asked = {"now": 1, "each": 1}

    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {SQL['due_deliveries']}", asked)]
    soonest = db.execute(f"EXPLAIN QUERY PLAN {SQL['next_delivery']}", (1,)).fetchall()

    assert any("deliveries_due (tenant=? AND webhook=? AND next_at<?)" in one for one in plan)
    assert {one for one in plan if one.startswith("SCAN")} == {"SCAN w"}
    assert "deliveries_next (next_at>?)" in soonest[0][3]
    db.close()
