"""Rows of direct calls after a death and after a scrub."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.services import Database

from hostler.core.events import PrincipalId
from hostler.core.sealed import Scrubbed, SealedRows
from hostler.core.store import Store
from hostler.stores.memory import MemoryStore
from hostler.stores.memory_sealed import MemorySealed
from hostler.stores.postgres_open import open_postgres
from hostler.stores.postgres_sealed import PostgresSealed
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_sealed import SqliteSealed
from hostler.testing.store_kit import Clock
from hostler.testing.store_suite_direct import A, a_direct_call, replied, sums
from hostler.vault.masker import Masker

pytestmark = pytest.mark.anyio
VALUE = "sk-0123456789abcdef"


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def kept(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncGenerator[tuple[Store, SealedRows]]:
    if request.param == "memory":
        memory = MemoryStore()
        yield memory, MemorySealed(memory)
        return
    if request.param == "postgres":
        database: Database = request.getfixturevalue("postgres")
        async with open_postgres(database.url) as there:
            yield there, PostgresSealed(there)
        return
    store = SqliteStore.open(tmp_path / "log.db")
    yield store, SqliteSealed(store, tmp_path / "log.db")
    store.close()


async def test_what_was_open_when_its_process_died_is_dropped_and_of_unknown_cost(
    tmp_path: Path,
) -> None:
    file, clock = tmp_path / "log.db", Clock(2_000.0)
    store = SqliteStore.open(file, clock=clock)
    await store.ledger.keep_direct(a_direct_call("dir_1"))
    await store.ledger.keep_direct(replied(a_direct_call("dir_2")))
    await store.ledger.keep_direct(a_direct_call("dir_3", at=3_000.0))
    store.close()

    store = SqliteStore.open(file, clock=clock)
    (whole,) = await sums(store)
    store.close()

    assert (whole.calls, whole.unpriced_calls) == (3, 2)
    with closing(sqlite3.connect(file)) as db:
        rows = db.execute("SELECT status, unpriced, ended_at, latency_us FROM direct_calls")
        assert rows.fetchall() == [
            ("dropped", 1, 2_000_000_000, 1_000_000_000),
            ("replied", 0, 1_001_000_000, 1_000_000),
            ("dropped", 1, 3_000_000_000, 0),  # by a clock that went back
        ]


async def test_a_scrub_takes_a_value_out_of_direct_calls(kept: tuple[Store, SealedRows]) -> None:
    store, rows = kept
    call = replace(a_direct_call(), model=VALUE, purpose=VALUE)
    failed = replace(call, status="failed", error_type="server", error_message=f"no {VALUE}")
    await store.ledger.keep_direct(failed)
    await store.ledger.keep_direct(a_direct_call("dir_2"))

    done = Scrubbed(tenant=A, id="scr_1", at=1.0, principal=PrincipalId("p"), facts=0, rows=0)
    record = await rows.scrub(A, Masker([("key", VALUE)]), done)

    assert (record.facts, record.rows) == (0, 1)
    assert [one.by["model"] for one in await sums(store, ("model",))] == ["p:[secret:key]", "p:m"]
