"""Copies are made while servers run, read back, and made stores of again, whole or not at all."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import anyio.to_thread
import pytest
from tests.moved import a_whole_house, names_in
from tests.services import Database
from tests.terminals import Home, script

from hostler.app.moving import compared
from hostler.stores.sqlite_backup import NOT_WHOLE

pytestmark = pytest.mark.timeout(120)
WRITE = """
INSERT INTO tenants (tenant, title, created_at, settings) VALUES ('busy', NULL, 1, '{}')
ON CONFLICT (tenant) DO UPDATE SET created_at = created_at + 1
"""


@contextmanager
def somebody_writes(file: Path) -> Generator[None]:
    """Commit to a file again and again, as a server that has much to do."""
    end, began = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as db:
            while not end.is_set():
                db.execute(WRITE)
                began.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert began.wait(10)
    try:
        yield
    finally:
        end.set()
        thread.join()


async def same(one: Path | str, other: Path | str) -> bool:
    return not (await compared(one, other)).differences


def listed(home: Home) -> str:
    done = home.run("sessions")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_copy_of_a_running_server_is_made_a_store_of_elsewhere(tmp_path: Path) -> None:
    home, other = Home(tmp_path), Home(tmp_path / "other")
    other.folder.mkdir()
    with home.server(script(tmp_path, {"text": "well said"})):
        said = home.run("run", "keep this")
        copied = home.run("backup", "copy.db")
        again = home.run("backup", "copy.db")

    restored = other.run("restore", str(tmp_path / "copy.db"))

    assert said.returncode == 0, said.stderr
    assert "1 sessions with" in copied.stdout, copied.stderr
    assert "master-key" in copied.stdout
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    assert restored.returncode == 0, restored.stderr
    assert listed(other) == listed(home) != ""
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    assert names_in(tmp_path, "copy.db") == ["copy.db"]


@pytest.mark.anyio
async def test_a_copy_is_of_one_moment_while_somebody_writes(tmp_path: Path) -> None:
    home, file = Home(tmp_path), tmp_path / "data" / "hostler.db"
    await a_whole_house(file)
    with somebody_writes(file):
        done = await anyio.to_thread.run_sync(partial(home.run, "backup", "copy.db"))
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("DELETE FROM tenants WHERE tenant = 'busy'")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as db, db:
        db.execute("DELETE FROM tenants WHERE tenant = 'busy'")

    assert done.returncode == 0, done.stderr
    assert await same(file, tmp_path / "copy.db")


@pytest.mark.anyio
async def test_a_copy_that_is_not_whole_is_not_kept(tmp_path: Path) -> None:
    home, file = Home(tmp_path), tmp_path / "data" / "hostler.db"
    await a_whole_house(file)
    with closing(sqlite3.connect(file)) as db, db:
        assert db.execute(NOT_WHOLE).fetchone() is None
        db.execute(
            "DELETE FROM events WHERE (session, seq) IN (SELECT session, max(seq) FROM events)"
        )

    done = home.run("backup", "copy.db")

    assert done.returncode == 2
    assert "not whole" in done.stderr
    assert names_in(tmp_path, "copy.db") == []


@pytest.mark.anyio
async def test_postgresql_is_copied_while_a_server_runs_and_restored_to_either(
    postgres: Database, tmp_path: Path
) -> None:
    home, file = Home(tmp_path), tmp_path / "whole.db"
    whole = await a_whole_house(file)
    first = home.run("restore", str(file), "--database", postgres.url)
    async with whole.served(postgres.url, is_quick=False):
        copied = await anyio.to_thread.run_sync(
            partial(home.run, "backup", "copy.db", "--database", postgres.url)
        )
    back = home.run("restore", "copy.db")
    await postgres.run("DELETE FROM sessions")
    refused = home.run("restore", "copy.db", "--database", postgres.url)

    assert first.returncode == 0, first.stderr
    assert copied.returncode == 0, copied.stderr
    assert "4 sessions with" in copied.stdout
    assert back.returncode == 0, back.stderr
    assert await same(tmp_path / "copy.db", tmp_path / "data" / "hostler.db")
    assert (refused.returncode, "not empty" in refused.stderr) == (2, True)
    assert names_in(tmp_path, "copy.db") == ["copy.db", "copy.db.lock"]


def test_what_is_no_copy_of_a_store_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (tmp_path / "text").write_text("no database")
    with closing(sqlite3.connect(tmp_path / "newer.db")) as db:
        db.executescript("CREATE TABLE sessions (id); PRAGMA user_version = 999")

    told = [home.run("restore", name) for name in ("absent", "text", "newer.db")]

    assert [one.returncode for one in told] == [2, 2, 2]
    assert "no file" in told[0].stderr
    assert "cannot be read" in told[1].stderr
    assert "newer build" in told[2].stderr
    assert not (tmp_path / "data" / "hostler.db").exists()


def test_nothing_is_restored_over_a_store_that_is_there(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.server("scripted:demo"):
        home.run("backup", "copy.db")
        used = home.run("restore", "copy.db")
    there = home.run("restore", "copy.db")

    assert (used.returncode, "in use" in used.stderr) == (2, True)
    assert (there.returncode, "nothing is overwritten" in there.stderr) == (2, True)
