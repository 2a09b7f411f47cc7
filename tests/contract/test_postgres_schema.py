"""The schema in PostgreSQL changes in steps: one process at a time, each whole, beside older servers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from tests.services import Database

from hostler.core.errors import SetupError
from hostler.stores.postgres_open import open_postgres
from hostler.stores.postgres_schema import LOCK, SCHEMA, Step, look, migrate, read_step, steps
from hostler.stores.postgres_sql import _PARTS, NAMES, asking, combined
from hostler.stores.postgres_wire import connect
from hostler.testing.doubles import a_session, whole_log
from hostler.testing.store_kit import a_run, spoke

pytestmark = pytest.mark.anyio
PATIENCE_S = 20.0
OLDER = Path(__file__).parents[1] / "logs" / "statements"
"""What builds of older schemas say to the database, a file each, a blank line between statements."""


async def without_schema(postgres: Database) -> None:
    await postgres.run(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")


def a_step(number: int, text: str, *, phase: str = "expand", concurrent: bool = False) -> Step:
    first = f"-- phase: {phase}{', concurrent' if concurrent else ''}\n"
    return read_step(number, f"{first}{text}")


async def done(database: Database) -> list[object]:
    rows = await database.run("SELECT number FROM migrations ORDER BY number")
    return [number for (number,) in rows]


async def is_there(database: Database, name: str) -> bool:
    ((found,),) = await database.run(f"SELECT to_regclass('{SCHEMA}.{name}')::text")
    return found is not None


def next_number() -> int:
    return steps()[-1].number + 1


async def test_steps_are_taken_once_and_in_order(postgres: Database) -> None:
    await without_schema(postgres)

    taken = await migrate(postgres.url)

    assert taken == [step.number for step in steps()]
    assert taken == sorted(taken)
    assert await migrate(postgres.url) == []
    assert await done(postgres) == taken


async def test_what_is_to_be_done_can_be_looked_at_and_nothing_is(postgres: Database) -> None:
    await without_schema(postgres)

    version, is_guarded, left = await look(postgres.url)

    assert version
    assert is_guarded
    assert left == [step.number for step in steps()]
    assert not await is_there(postgres, "migrations")
    await migrate(postgres.url)
    assert (await look(postgres.url))[2] == []


async def test_many_processes_that_start_at_once_take_each_step_once(postgres: Database) -> None:
    await without_schema(postgres)
    taken = list[int]()

    async def start() -> None:
        taken.extend(await migrate(postgres.url))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(start)

    assert taken == [step.number for step in steps()]


async def test_who_waits_too_long_for_another_process_is_told(postgres: Database) -> None:
    other = await connect(postgres.url)
    await other.execute("SELECT pg_advisory_lock($1)", LOCK)

    with pytest.raises(SetupError, match="another process"):
        await migrate(postgres.url, patience_s=0.1)

    other.db.terminate()


async def test_a_step_that_fails_is_undone_and_told(postgres: Database) -> None:
    await migrate(postgres.url)
    bad = a_step(next_number(), "CREATE TABLE half (x int); SELECT 1 / 0")

    with pytest.raises(SetupError, match=f"step {bad.number} .* undone"):
        await migrate(postgres.url, known=[*steps(), bad])

    assert not await is_there(postgres, "half")
    assert bad.number not in await done(postgres)
    good = a_step(next_number(), "CREATE TABLE half (x int)")
    assert await migrate(postgres.url, known=[*steps(), good]) == [good.number]


KILLED = """
import anyio, sys
from hostler.stores.postgres_schema import migrate, read_step, steps
text = sys.argv[2]
anyio.run(lambda: migrate(sys.argv[1], known=[*steps(), read_step(steps()[-1].number + 1, text)]))
"""
UNDER_WAY = f"""
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE '%wait_here%' AND state = 'active'
    AND pid <> pg_backend_pid() -- {SCHEMA}
"""


@pytest.mark.parametrize("is_concurrent", [False, True], ids=["whole", "concurrent"])
async def test_a_step_that_was_killed_is_done_again(
    postgres: Database,
    is_concurrent: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    await migrate(postgres.url)
    first = "-- phase: expand, concurrent\n" if is_concurrent else "-- phase: expand\n"
    await postgres.run(
        "CREATE OR REPLACE FUNCTION wait_here(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS "
        "$$ BEGIN PERFORM pg_sleep(100); RETURN x; END $$",
        "CREATE TABLE IF NOT EXISTS waited (x int)",
        "INSERT INTO waited VALUES (1)",
        f"ALTER TABLE waited OWNER TO {postgres.url.rpartition('/')[2]}",
        f"GRANT ALL ON FUNCTION wait_here TO {postgres.url.rpartition('/')[2]}",
    )
    text = "CREATE TABLE made (x int); CREATE INDEX waited_index ON waited (wait_here(x))"
    if is_concurrent:
        text = "CREATE INDEX CONCURRENTLY waited_index ON waited (wait_here(x))"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), postgres.url, f"{first}{text}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        with anyio.fail_after(PATIENCE_S):
            while (await postgres.run(UNDER_WAY))[0][0] == 0:
                assert process.poll() is None
                await anyio.lowlevel.checkpoint()
        process.send_signal(signal.SIGKILL)

    again = read_step(next_number(), first + text.replace("wait_here(x)", "x"))
    assert next_number() not in await done(postgres)
    assert await migrate(postgres.url, known=[*steps(), again]) == [again.number]

    assert await is_there(postgres, "waited_index")
    assert await is_there(postgres, "made") is not is_concurrent
    ((valid,),) = await postgres.run(
        f"SELECT indisvalid FROM pg_index WHERE indexrelid = '{SCHEMA}.waited_index'::regclass"
    )
    assert valid


async def test_what_contracts_waits_until_it_is_asked_for(postgres: Database) -> None:
    await migrate(postgres.url)
    number = next_number()
    known = [
        *steps(),
        a_step(number, "CREATE TABLE early (x int)"),
        a_step(number + 1, "CREATE TABLE late (x int)", phase="contract"),
        a_step(number + 2, "CREATE TABLE last (x int)"),
    ]

    assert await migrate(postgres.url, known=known) == [number]
    assert await migrate(postgres.url, known=known, contract=True) == [number + 1, number + 2]

    with pytest.raises(SetupError, match="newer build"):
        await migrate(postgres.url)


async def test_a_step_waits_for_a_table_only_so_long_that_others_can_bear_it(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hostler.stores.postgres_schema.STEP_LOCK_S", 0.05)
    await migrate(postgres.url)
    busy = await connect(postgres.url)
    await busy.execute("BEGIN")
    await busy.execute("LOCK TABLE sessions IN SHARE MODE")
    step = a_step(next_number(), "ALTER TABLE sessions ADD COLUMN later int")

    with pytest.raises(SetupError, match="lock timeout"):
        await migrate(postgres.url, known=[*steps(), step])

    await busy.execute("ROLLBACK")
    assert await migrate(postgres.url, known=[*steps(), step]) == [step.number]
    busy.db.terminate()


async def test_this_build_works_on_what_the_next_one_has_expanded(postgres: Database) -> None:
    await migrate(postgres.url)
    tables = await postgres.run(f"SELECT tablename FROM pg_tables WHERE schemaname = '{SCHEMA}'")
    columns = [
        f"ALTER TABLE {table} ADD COLUMN of_the_next text DEFAULT 'x'" for (table,) in tables
    ]
    step = a_step(next_number(), ";".join(columns))
    await migrate(postgres.url, known=[*steps(), step])

    async with open_postgres(postgres.url) as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1", "said"), *a_run("run_1", "told", claim=1)])
        assert [event.seq for event in await whole_log(store, key)] == [1, 2, 3, 4, 5, 6]
        assert len(await store.search(key.tenant, "said", limit=9)) == 1
        runs = await store.runs(key.tenant, session=None, status="done", after="", limit=9)
        assert len(runs) == 1
        await store.ledger.rebuild()
        await store.delete(key)


@pytest.mark.parametrize("older", sorted(OLDER.glob("*.sql")), ids=lambda path: path.stem)
async def test_statements_of_older_builds_can_be_said_to_this_schema(
    postgres: Database, older: Path
) -> None:
    await migrate(postgres.url)
    wire = await connect(postgres.url)
    texts = (await anyio.Path(older).read_text(encoding="utf-8")).split("\n\n")

    for place, text in enumerate(texts):
        await wire.execute(f"PREPARE older_{place} AS {text}")

    await wire.db.close()


async def test_every_statement_of_this_build_can_be_said(postgres: Database) -> None:
    await migrate(postgres.url)
    wire = await connect(postgres.url)

    for place, text in enumerate(said_by_this_build()):
        await wire.execute(f"PREPARE said_{place} AS {text}")

    await wire.db.close()


def said_by_this_build() -> list[str]:
    """Return every statement, with all of its lines, and each part of a commit by itself."""
    from_parts = [
        combined((name, "write_commit")).text
        for name in NAMES
        if name.startswith(("make_", "write_")) and name not in ("write_commit", *PICKED)
    ]
    picked = combined(("pick_said", *PICKED)).text
    return [re.sub(r"\n+", "\n", one) for one in (*whole_statements(), *from_parts, picked)]


PICKED = ("write_said", "write_said_words")


def whole_statements() -> list[str]:
    parts = ("make_", "write_", "pick_")
    filled = (("groups", "c.tenant"), ("past", ""))
    return [
        asking(name, tuple(re.findall(r"-- if (\w+)", _PARTS[name].body)), filled).text
        for name in NAMES
        if not name.startswith(parts)
    ]
