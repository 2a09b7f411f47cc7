"""The places at which the lab ends a process do nothing without it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace
from tests.services import Database

from hostler import faults
from hostler.core.events import InputDropped, MessageScheduled, Seq
from hostler.core.store import Store
from hostler.faults import DIES_AT, KILLED, TOLD, fault_point, made
from hostler.stores.postgres_open import open_postgres
from hostler.stores.sqlite import SqliteStore
from hostler.testing.doubles import a_session
from hostler.testing.store_kit import spoke

PASSES = "from hostler.faults import fault_point\nfor one in 'abcde': fault_point(one); print(one, flush=True)"


def test_a_process_that_the_lab_did_not_start_passes_by(tmp_path: Path) -> None:
    passes = made({TOLD: str(tmp_path / "told"), "HOSTLER_PORT": "1"})

    passes("before a write")

    assert [*tmp_path.iterdir()] == []
    assert fault_point.__code__ is faults.made({}).__code__, "nor does the one that runs this"


def test_a_process_dies_at_the_place_that_it_was_told(tmp_path: Path) -> None:
    told = tmp_path / "told"
    done = subprocess.run(
        [sys.executable, "-c", PASSES],
        env={DIES_AT: "3", TOLD: str(told), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode == KILLED, done.stderr
    assert done.stdout == "a\nb\n"
    assert told.read_text() == "a\nb\nc\n"


def test_the_places_of_a_run_without_a_death_are_told(tmp_path: Path) -> None:
    passes = made({DIES_AT: "0", TOLD: str(tmp_path / "told")})

    for place in ("before a write", "after a write"):
        passes(place)

    assert (tmp_path / "told").read_text() == "before a write\nafter a write\n"


def schedules(where: str) -> None:
    """In a process of its own: schedule two messages, say one and drop the other."""

    async def writes(store: Store) -> None:
        key, due_at = await a_session(store), datetime.now(UTC)
        soon, never = spoke("run_1"), spoke("run_2")
        for message in (soon, never):
            await store.append(key, [MessageScheduled(run=None, message=message, due_at=due_at)])
        await store.append(key, [replace(soon, scheduled=Seq(1))])
        await store.append(key, [InputDropped(run=None, input=never.input, reason="withdrawn")])
        assert await store.scheduled(key) == []

    async def opens() -> None:
        if where.startswith("postgresql://"):
            async with open_postgres(where) as store:
                await writes(store)
            return
        with closing(SqliteStore.open(Path(where))) as store:
            await writes(store)

    anyio.run(opens)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_each_write_of_a_scheduled_message_stands_between_two_places(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    told, where = tmp_path / "told", str(tmp_path / "log.db")
    if kind == "postgres":
        database: Database = request.getfixturevalue("postgres")
        where = database.url
    runs = "import sys; from tests.crash.test_faults import schedules; schedules(sys.argv[1])"

    done = subprocess.run(
        [sys.executable, "-c", runs, where],
        env={DIES_AT: "0", TOLD: str(told), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    places = [one for one in told.read_text().splitlines() if "migration" not in one]
    when, what = zip(*(one.split(" ", 1) for one in places if "schema" not in one), strict=True)
    assert when == ("before", "after") * 5, "a session is made, and four times is written to it"
    assert what[::2] == what[1::2]
