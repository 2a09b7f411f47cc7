"""Every audit log keeps the promises of the port, and says when it is not what it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.services import Database

from hostler.core.audited import CUT, FIRST, AuditRow, Audits, Detail, hash_of, seal
from hostler.service.chain import Broken, check
from hostler.stores.memory_audit import MemoryAudits
from hostler.stores.postgres_audit import PostgresAudits
from hostler.stores.postgres_open import open_postgres
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_audit import SqliteAudits
from hostler.testing.audit_suite import AUDIT_SUITE, Check, an_entry
from hostler.testing.store_kit import Clock

NOW = Clock()


@pytest.mark.anyio
@pytest.mark.parametrize("check", AUDIT_SUITE, ids=lambda check: check.__name__)
async def test_memory_audits(check: Check) -> None:
    @asynccontextmanager
    async def make(*, clock: Clock = NOW) -> AsyncGenerator[Audits]:
        yield MemoryAudits(clock=clock)

    await check(make)


@pytest.mark.anyio
@pytest.mark.parametrize("check", AUDIT_SUITE, ids=lambda check: check.__name__)
async def test_sqlite_audits(check: Check, tmp_path: Path) -> None:
    @asynccontextmanager
    async def make(*, clock: Clock = NOW) -> AsyncGenerator[Audits]:
        store = SqliteStore.open(tmp_path / "log.db", clock=clock)
        try:
            yield SqliteAudits(store)
        finally:
            store.close()

    await check(make)


@pytest.mark.anyio
@pytest.mark.parametrize("check", AUDIT_SUITE, ids=lambda check: check.__name__)
async def test_postgres_audits(check: Check, postgres: Database) -> None:
    @asynccontextmanager
    async def make(*, clock: Clock = NOW) -> AsyncGenerator[Audits]:
        async with open_postgres(postgres.url, clock=clock) as store:
            yield PostgresAudits(store)

    await check(make)


def a_chain(length: int = 5) -> list[AuditRow]:
    rows: list[AuditRow] = []
    for number in range(length):
        previous = rows[-1].hash if rows else FIRST
        entry = an_entry(number=number)
        rows.append(seal(entry, seq=number + 1, at_us=number, previous=previous))
    return rows


def broken_at(rows: list[AuditRow], **more: object) -> int:
    found = check(rows, **more)  # type: ignore[arg-type]
    assert isinstance(found, Broken), found
    return found.seq


def test_a_row_that_was_changed_is_found() -> None:
    rows = a_chain()
    rows[2] = replace(rows[2], principal="somebody else")
    assert broken_at(rows) == 3


def test_a_row_that_was_changed_and_sealed_again_breaks_the_next_one() -> None:
    rows = a_chain()
    changed = replace(rows[2], principal="somebody else")
    rows[2] = replace(changed, hash=hash_of(changed))
    assert broken_at(rows) == 4


def test_a_row_that_was_removed_is_missed() -> None:
    rows = a_chain()
    assert broken_at(rows[:2] + rows[3:]) == 4


def test_rows_that_changed_places_are_found() -> None:
    rows = a_chain()
    assert broken_at([rows[0], rows[2], rows[1], *rows[3:]]) == 3


def test_a_beginning_that_was_removed_is_missed() -> None:
    assert broken_at(a_chain()[2:]) == 3


def test_a_cut_that_names_another_hash_accounts_for_nothing() -> None:
    rows = a_chain(4)
    entry = an_entry(CUT, through=2, hash="f" * 64)
    rows.append(seal(entry, seq=5, at_us=9, previous=rows[-1].hash))
    assert broken_at(rows[2:]) == 3


def test_an_end_that_was_removed_is_missed_against_a_head_that_was_kept() -> None:
    rows = a_chain()
    head = check(rows)
    assert not isinstance(check(rows[:4]), Broken)
    assert broken_at(rows[:4], head=head) == 5
    assert broken_at([], head=head) == 1


def test_a_chain_that_was_made_anew_is_found_against_a_head_that_was_kept() -> None:
    rows = a_chain()
    head = check(rows[:3])
    again = [seal(an_entry(number=9), seq=1, at_us=0, previous=FIRST)]
    for number in range(1, 5):
        entry = an_entry(number=number)
        again.append(seal(entry, seq=number + 1, at_us=0, previous=again[-1].hash))
    assert not isinstance(check(again), Broken)
    assert broken_at(again, head=head) == 3
    assert not isinstance(check(rows, head=head), Broken)  # type: ignore[arg-type]


TEXT = st.text(st.characters(codec=None), max_size=20)


@given(st.dictionaries(TEXT, st.one_of(TEXT, st.integers(-(2**60), 2**60), st.booleans())))
def test_a_row_can_be_checked_with_any_json_library(details: dict[str, Detail]) -> None:
    row = seal(
        replace(an_entry(), details=details), seq=1, at_us=1_700_000_000_123_456, previous=FIRST
    )

    read = json.loads(msgspec.json.encode(row))
    told = read.pop("hash")
    text = json.dumps(read, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == told


@pytest.mark.anyio
async def test_a_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    rows: Sequence[AuditRow] = ()
    for number in range(2):
        store = SqliteStore.open(tmp_path / "log.db")
        await SqliteAudits(store).write(an_entry(number=number))
        rows = await SqliteAudits(store).rows(an_entry().tenant, after=0, limit=9)
        store.close()

    assert [row.seq for row in rows] == [1, 2]
    assert not isinstance(check(rows), Broken)
