"""A build looks at a database before it is exchanged for the one that runs, and says what it finds."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio.to_thread
import pytest
from tests.moved import a_whole_house
from tests.services import Database
from tests.terminals import Home

from hostler.app.moving import move
from hostler.app.terminal.checks import Check
from hostler.app.terminal.upgrading import checks
from hostler.faces.http.endpoint import VERSION
from hostler.stores.postgres_schema import steps
from hostler.stores.sqlite_file import migrations
from hostler.stores.survey import Survey

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


def looked(home: Home, *arguments: str) -> tuple[int, dict[str, Check]]:
    """Return the exit status, and what was found, by name."""
    done = home.run("upgrade", "--check", "--json", *arguments)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {line["name"]: Check(**line) for line in lines}


def change(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        for statement in statements:
            db.execute(statement)


FOREIGN = "UPDATE events SET kind = 'moon_rose' WHERE kind = 'user_spoke' AND session = '{}'"


async def test_a_file_that_this_build_can_use_is_well(tmp_path: Path) -> None:
    home, file = Home(tmp_path), tmp_path / "data" / "hostler.db"
    await a_whole_house(file)
    before = file.read_bytes()

    status, found = looked(home)

    assert status == 0
    assert {one.health for one in found.values()} == {"ok"}
    assert found["schema"].found == "as this build wants it"
    assert "MiB free" in found["room"].found
    assert file.read_bytes() == before


async def test_steps_that_are_to_be_taken_and_who_has_the_file_are_told(tmp_path: Path) -> None:
    home, file = Home(tmp_path), tmp_path / "data" / "hostler.db"
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as db:
        for script in migrations()[:-1]:
            db.executescript(script)
        db.execute(f"PRAGMA user_version = {len(migrations()) - 1}")
    older, told = looked(home)
    with home.server("scripted:demo"):
        running, held = looked(home)

    assert (older, running) == (0, 0)
    assert f"step {len(migrations())} is taken" in told["schema"].found
    assert held["processes"].health == "warn"
    assert "process " in held["processes"].found


async def test_a_file_of_a_newer_build_has_to_be_opened_by_that(tmp_path: Path) -> None:
    home, file = Home(tmp_path), tmp_path / "data" / "hostler.db"
    await a_whole_house(file)
    change(file, "PRAGMA user_version = 999")

    status, found = looked(home)

    assert status == 1
    assert found["schema"].health == "fail"


async def test_kinds_that_this_build_does_not_know_are_told(tmp_path: Path) -> None:
    home, file = Home(tmp_path), tmp_path / "data" / "hostler.db"
    whole = await a_whole_house(file)
    change(file, FOREIGN.format(whole.fork))
    rests, at_rest = looked(home)
    change(file, FOREIGN.format(whole.waiting))
    goes_on, going = looked(home)

    assert (rests, at_rest["facts"].health) == (0, "warn")
    assert "moon_rose" in at_rest["facts"].found
    assert (goes_on, going["facts"].health) == (1, "fail")
    assert "1 sessions" in going["facts"].found


async def test_of_postgresql_steps_processes_and_kinds_are_told(
    postgres: Database, tmp_path: Path
) -> None:
    home = Home(tmp_path, {"HOSTLER_DATABASE": postgres.url})
    whole = await a_whole_house(tmp_path / "hostler.db")
    await move(whole.file, postgres.url)
    async with whole.served(postgres.url, is_quick=False):
        well, found = await anyio.to_thread.run_sync(partial(looked, home))
    nobody, _ = looked(home)
    await postgres.run("SET hostler.house = 'on'", FOREIGN.format(whole.waiting))
    foreign, kinds = looked(home)
    await postgres.run("INSERT INTO migrations VALUES (900, 'expand')")
    _, newer = looked(home)
    await postgres.run("INSERT INTO migrations VALUES (901, 'contract')")
    contracted, gone = looked(home)
    await postgres.run("DROP SCHEMA hostler CASCADE")
    new, empty = looked(home)

    assert (well, nobody, foreign, contracted, new) == (0, 0, 1, 1, 0)
    assert found["processes"].found.startswith(f"hostler {VERSION} ")
    assert "moon_rose" in kinds["facts"].found
    assert "does not mind" in newer["schema"].found
    assert gone["schema"].health == "fail"
    assert f"step {', '.join(str(step.number) for step in steps())}" in empty["schema"].found


def test_steps_that_remove_something_wait_and_a_full_disk_is_told() -> None:
    found = Survey(server="a database", expand=[3], contract=[4], size=2 << 20, free=1 << 20)

    told = {one.name: one for one in checks(found, is_file=True)}

    assert (told["removals"].health, told["room"].health) == ("warn", "fail")
    assert "--contract" in str(told["removals"].advice)


async def test_a_database_that_is_absent_is_told_in_words(tmp_path: Path) -> None:
    absent, plain = Home(tmp_path).run("upgrade", "--check"), Home(tmp_path).run("upgrade")

    assert (absent.returncode, plain.returncode) == (2, 2)
    assert "no file" in absent.stderr
    assert "--check" in plain.stderr
