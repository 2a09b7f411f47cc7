"""Every store keeps the promises of the port."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.services import Database

from hostler.core.store import Observer, Outbox, Store
from hostler.stores.memory import MemoryStore
from hostler.stores.postgres_open import open_postgres
from hostler.stores.sqlite import SqliteStore
from hostler.testing.store_kit import Check, Clock
from hostler.testing.store_suite import STORE_SUITE

pytestmark = pytest.mark.anyio
NOW = Clock()


def nobody(*_: object) -> None:
    """Observe nothing."""


@pytest.mark.parametrize("check", STORE_SUITE, ids=lambda check: check.__name__)
async def test_memory_store(check: Check) -> None:
    @asynccontextmanager
    async def make(
        *, observer: Observer = nobody, outbox: Outbox | None = None, clock: Clock = NOW
    ) -> AsyncGenerator[Store]:
        yield MemoryStore(observer=observer, outbox=outbox, clock=clock)

    await check(make)


@pytest.mark.parametrize("check", STORE_SUITE, ids=lambda check: check.__name__)
async def test_sqlite_store(check: Check, tmp_path: Path) -> None:
    @asynccontextmanager
    async def make(
        *, observer: Observer = nobody, outbox: Outbox | None = None, clock: Clock = NOW
    ) -> AsyncGenerator[Store]:
        store = SqliteStore.open(tmp_path / "log.db", observer=observer, outbox=outbox, clock=clock)
        try:
            yield store
        finally:
            store.close()

    await check(make)


@pytest.mark.parametrize("check", STORE_SUITE, ids=lambda check: check.__name__)
async def test_postgres_store(check: Check, postgres: Database) -> None:
    @asynccontextmanager
    async def make(
        *, observer: Observer = nobody, outbox: Outbox | None = None, clock: Clock = NOW
    ) -> AsyncGenerator[Store]:
        async with open_postgres(
            postgres.url, observer=observer, outbox=outbox, clock=clock
        ) as store:
            yield store

    await check(make)
