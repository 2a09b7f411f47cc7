"""Every directory keeps the promises of the port, and every list of a store what it shows to whom."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.services import Database

from hostler.core.directory import Directory
from hostler.core.store import Store
from hostler.stores.memory import MemoryStore
from hostler.stores.memory_directory import MemoryDirectory
from hostler.stores.postgres_directory import PostgresDirectory
from hostler.stores.postgres_open import open_postgres
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_directory import SqliteDirectory
from hostler.stores.sqlite_entries import INDEXES
from hostler.stores.sqlite_file import connect, migrate
from hostler.stores.sqlite_rows import asking
from hostler.testing.directory_suite import DIRECTORY_SUITE, Check

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("check", DIRECTORY_SUITE, ids=lambda check: check.__name__)
async def test_memory_directory(check: Check) -> None:
    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[Store, Directory]]:
        store = MemoryStore()
        yield store, MemoryDirectory(store)

    await check(make)


@pytest.mark.parametrize("check", DIRECTORY_SUITE, ids=lambda check: check.__name__)
async def test_sqlite_directory(check: Check, tmp_path: Path) -> None:
    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[Store, Directory]]:
        store = SqliteStore.open(tmp_path / "log.db")
        try:
            yield store, SqliteDirectory(store)
        finally:
            store.close()

    await check(make)


@pytest.mark.parametrize("check", DIRECTORY_SUITE, ids=lambda check: check.__name__)
async def test_postgres_directory(check: Check, postgres: Database) -> None:
    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[Store, Directory]]:
        async with open_postgres(postgres.url) as store:
            yield store, PostgresDirectory(store)

    await check(make)


LISTS = {
    "sessions": ("seen_by",),
    "busy_sessions": ("seen_by", "status"),
    "runs": ("seen_by", "by_session"),
    "approvals": ("seen_by", "status"),
    "storage": ("seen_by",),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_member_s_list_costs_what_the_member_has_and_not_what_the_tenant_has(
    name: str, tmp_path: Path
) -> None:
    db = connect(tmp_path / "log.db")
    migrate(db, tmp_path / "log.db")
    wanted = dict.fromkeys(("tenant", "seen_by", "status", "session", "after", "agent"), "x")
    statement = f"EXPLAIN QUERY PLAN {asking(name, *LISTS[name])}"
    statement = statement.replace("{index}", INDEXES["seen_by"])

    plan = [str(row[3]) for row in db.execute(statement, {**wanted, "limit": 1})]

    assert any("sessions_of_principal (tenant=? AND principal=?)" in step for step in plan)
    assert any("grants_of (tenant=? AND user=?)" in step for step in plan)
    assert {step for step in plan if step.startswith("SCAN")} <= {"SCAN seen", "SCAN m"}
    assert not [step for step in plan if step.startswith("SEARCH") and step.endswith("(tenant=?)")]
    db.close()
