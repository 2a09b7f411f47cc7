"""Everything moves from one database to another, whole or not at all, and is compared there."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from tests.moved import ACME, Whole, a_whole_house, all_told, emptied_tables, kinds, made, names_in
from tests.services import Database
from tests.serving import Client
from tests.terminals import Home

from hostler.app.moving import compared, move
from hostler.core.errors import SetupError, Unavailable
from hostler.stores.moving import MADE_ANEW, OWN, OWN_COLUMNS, TABLES
from hostler.stores.postgres_wire import Wire, connect
from hostler.stores.sqlite_file import FileLock, moved_mark

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
INDEX = {"said_words_data", "said_words_idx", "said_words_docsize", "said_words_config"}
"""What SQLite keeps of a full-text index."""
TABLES_THERE = "SELECT tablename FROM pg_tables WHERE schemaname = 'hostler'"
WRITTEN = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = 'hostler' AND is_generated = 'NEVER'
"""
WAITERS = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'webhooks'::regclass"


async def told_of(whole: Whole, place: Path | str) -> object:
    async with whole.served(place, is_quick=False) as client:
        return await all_told(client, but=whole.going)


def rows_of(file: Path) -> dict[str, int]:
    with closing(sqlite3.connect(file)) as db:
        counted = ((name, f"SELECT count(*) FROM {name}") for name in TABLES)
        return {name: db.execute(asked).fetchone()[0] for name, asked in counted}


async def goes_on(whole: Whole, client: Client) -> None:
    """Approve what waits, and see both runs end."""
    path = f"/api/sessions/{whole.waiting}/approvals"
    listed = (await client.call("GET", "/api/approvals?status=open", headers=ACME))[1]
    (call,) = [one["call"] for one in listed["items"]]  # type: ignore[index, union-attr]
    await made(client, "POST", f"{path}/{call}", {"decision": "allow"})
    with anyio.fail_after(30):
        for session in (whole.waiting, whole.going):
            while "run_ended" not in await kinds(client, session):
                await anyio.lowlevel.checkpoint()


# -- all of it -------------------------------------------------------------------------------


async def test_each_table_of_both_databases_is_moved_or_said_not_to_be(
    postgres: Database, tmp_path: Path
) -> None:
    whole = await a_whole_house(tmp_path / "hostler.db")
    with closing(sqlite3.connect(whole.file)) as db:
        named = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        here = {name for (name,) in named} - INDEX
        columns = {(t, row[1]) for t in TABLES for row in db.execute(f"PRAGMA table_info({t})")}
    there = {str(name) for (name,) in await postgres.run(TABLES_THERE)}
    written = {(str(t), str(c)) for t, c in await postgres.run(WRITTEN) if t in TABLES}

    assert here == {*TABLES} | MADE_ANEW
    assert there == {*TABLES} | MADE_ANEW | OWN
    assert written == columns | OWN_COLUMNS
    assert emptied_tables(whole.file) - INDEX == {"stale"}


async def test_what_was_moved_is_told_in_the_same_words_by_its_new_server(
    postgres: Database, tmp_path: Path
) -> None:
    whole = await a_whole_house(tmp_path / "hostler.db")
    before = await told_of(whole, whole.file)

    moved = await move(whole.file, postgres.url)

    assert not moved.differences
    assert not moved.broken
    assert set(moved.chains) == {"acme", "default"}
    assert {name: tally.rows for name, tally in moved.there.tables.items()} == {
        name: rows for name, rows in rows_of(whole.file).items() if rows
    }
    assert await told_of(whole, postgres.url) == before


async def test_runs_that_waited_or_went_on_go_on_after_the_move(
    postgres: Database, tmp_path: Path
) -> None:
    whole = await a_whole_house(tmp_path / "hostler.db")
    await move(whole.file, postgres.url)

    async with whole.served(postgres.url) as client:
        await goes_on(whole, client)
        again = await client.call(
            "POST",
            f"/api/sessions/{whole.going}/messages",
            {"content": "think"},
            headers={**ACME, "Idempotency-Key": "once"},
        )

    assert again[0] == 202, "its answer was kept, so nothing is said twice"


async def test_it_goes_back_to_a_file_and_on_from_there(postgres: Database, tmp_path: Path) -> None:
    whole = await a_whole_house(tmp_path / "hostler.db")
    before = await told_of(whole, whole.file)
    await move(whole.file, postgres.url)
    back = tmp_path / "back" / "hostler.db"

    moved = await move(postgres.url, back)

    assert not moved.differences
    assert await told_of(whole, back) == before
    async with whole.served(back) as client:
        await goes_on(whole, client)


async def test_what_goes_on_there_is_found_by_its_words(postgres: Database, tmp_path: Path) -> None:
    whole = await a_whole_house(tmp_path / "hostler.db")
    await move(whole.file, postgres.url)

    async with whole.served(postgres.url) as client:
        path = f"/api/sessions/{whole.fork}/messages"
        await made(client, "POST", path, {"content": "brandnew word"}, Prefer="wait=10")
        _, found = await client.call("GET", "/api/search?q=brandnew", headers=ACME)
        _, old = await client.call("GET", "/api/search?q=hello", headers=ACME)

    assert len(found["items"]) == len(old["items"]) == 1  # type: ignore[arg-type]


# -- nothing, or all of it -------------------------------------------------------------------


async def is_empty(postgres: Database) -> bool:
    sessions = await postgres.run("SELECT 1 FROM sessions UNION ALL SELECT 1 FROM events")
    tenants = await postgres.run("SELECT tenant FROM tenants")
    return not sessions and [str(one) for (one,) in tenants] == ["default"]


@pytest.mark.parametrize("after", [1, 3, 9, 20, 40])
async def test_a_connection_that_is_lost_leaves_nothing_and_it_is_done_again(
    postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    whole = await a_whole_house(tmp_path / "hostler.db")
    fetched, left = Wire.fetched, [after]

    async def cut(wire: Wire, text: str, *args: object) -> list[tuple[object, ...]]:
        left[0] -= 1
        if left[0] == 0:
            wire.db.terminate()
        return await fetched(wire, text, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Wire, "fetched", cut)
        with pytest.raises(Unavailable, match="lost"):
            await move(whole.file, postgres.url)
    assert await is_empty(postgres)
    assert not moved_mark(whole.file).exists()

    assert not (await move(whole.file, postgres.url)).differences


async def test_a_move_that_is_killed_leaves_nothing_and_is_done_again(
    postgres: Database, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    await a_whole_house(tmp_path / "data" / "hostler.db")
    held = await connect(postgres.url)
    await held.execute("BEGIN")
    await held.execute("LOCK TABLE webhooks IN ROW EXCLUSIVE MODE")
    await held.execute("LOCK TABLE webhooks IN ACCESS EXCLUSIVE MODE")

    moving = home.start("move", "--to", postgres.url)
    with anyio.fail_after(30):
        while (await held.fetch(WAITERS))[0][0] == 0:
            await anyio.lowlevel.checkpoint()
    moving.send_signal(signal.SIGKILL)
    moving.communicate()
    held.db.terminate()
    assert await is_empty(postgres)
    again = home.run("move", "--to", postgres.url)

    assert again.returncode == 0, again.stderr
    assert "4 sessions with" in again.stdout


async def test_a_move_that_was_cut_after_its_end_says_so_when_it_is_done_again(
    postgres: Database, tmp_path: Path
) -> None:
    whole = await a_whole_house(tmp_path / "hostler.db")
    await move(whole.file, postgres.url)
    moved_mark(whole.file).unlink()  # it was killed before it could write that

    again = await move(whole.file, postgres.url)

    assert again.was_there
    assert moved_mark(whole.file).exists()


async def test_a_file_of_which_a_part_was_written_is_made_anew(
    postgres: Database, tmp_path: Path
) -> None:
    whole = await a_whole_house(tmp_path / "hostler.db")
    await move(whole.file, postgres.url)
    back = tmp_path / "back.db"
    (tmp_path / "back.db.part").write_bytes(b"of one that was killed")

    assert not (await move(postgres.url, back)).differences
    assert names_in(tmp_path, "back") == [
        "back.db",
        "back.db.lock",
    ]


# -- who is told no --------------------------------------------------------------------------


async def test_a_tampered_session_is_found_and_named(postgres: Database, tmp_path: Path) -> None:
    home = Home(tmp_path)
    whole = await a_whole_house(tmp_path / "data" / "hostler.db")
    await move(whole.file, postgres.url)
    same = home.run("move", "--check", "--to", postgres.url)
    await postgres.run("SET hostler.house = 'on'", TAMPERED.format(session=whole.waiting))

    other = home.run("move", "--check", "--to", postgres.url)

    assert same.returncode == 0, same.stderr
    assert other.returncode == 1
    assert f"session {whole.waiting} of acme: its facts are not the same" in other.stderr
    assert whole.fork not in other.stderr


TAMPERED = "UPDATE events SET fact = replace(fact, 'pay', 'pry') WHERE session = '{session}'"


async def test_a_copy_that_is_not_the_same_is_not_kept(
    postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await a_whole_house(tmp_path / "hostler.db")
    fetched = Wire.fetched

    async def bent(wire: Wire, text: str, *args: object) -> list[tuple[object, ...]]:
        done = await fetched(wire, text, *args)
        if text.startswith("INSERT INTO events"):
            await wire.execute(TAMPERED.format(session=whole.waiting))
        return done

    monkeypatch.setattr(Wire, "fetched", bent)
    moved = await move(whole.file, postgres.url)

    assert moved.differences
    assert whole.waiting in moved.differences[0]
    assert await is_empty(postgres)
    assert not moved_mark(whole.file).exists()


async def test_an_audit_log_that_was_changed_before_is_moved_and_told(
    postgres: Database, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    whole = await a_whole_house(tmp_path / "data" / "hostler.db")
    with closing(sqlite3.connect(whole.file)) as db, db:
        db.execute("UPDATE audit SET principal = 'nobody' WHERE tenant = 'acme' AND seq = 2")

    done = home.run("move", "--to", postgres.url)

    assert done.returncode == 0, done.stderr
    assert "the audit log of acme breaks at row 2" in done.stderr


async def test_a_target_that_holds_something_else_is_refused_and_stays(
    postgres: Database, tmp_path: Path
) -> None:
    first = await a_whole_house(tmp_path / "hostler.db")
    second = await a_whole_house(tmp_path / "second.db")
    await move(first.file, postgres.url)

    with pytest.raises(SetupError, match="not empty"):
        await move(second.file, postgres.url)

    assert not (await compared(first.file, postgres.url)).differences
    with pytest.raises(SetupError, match="not empty"):
        await move(postgres.url, second.file)


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
async def test_a_file_is_not_moved_to_itself_by_another_name(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    whole, other = await a_whole_house(tmp_path / "hostler.db"), tmp_path / "other.db"
    link(other, whole.file)

    for target in (whole.file, other):
        with pytest.raises(SetupError, match="the same database"):
            await move(whole.file, target)

    assert not moved_mark(whole.file).exists(), "or no server would open the only one there is"


async def test_a_source_or_a_target_that_a_server_has_is_refused(
    postgres: Database, tmp_path: Path
) -> None:
    home, there = Home(tmp_path), f"sqlite://{tmp_path / 'other.db'}"
    whole = await a_whole_house(tmp_path / "data" / "hostler.db")

    async def told(*arguments: str) -> str:
        done = await anyio.to_thread.run_sync(partial(home.run, "move", *arguments))
        assert done.returncode == 2
        return done.stderr

    lock = FileLock(whole.file)
    assert "in use by process" in await told("--to", postgres.url)
    lock.release()
    async with whole.served(postgres.url):
        assert "stop the servers" in await told("--to", postgres.url)
        assert "stop the servers" in await told("--from", postgres.url, "--to", there)
    assert await is_empty(postgres)
    assert not (tmp_path / "other.db").exists()


async def test_no_server_opens_a_file_that_was_moved(postgres: Database, tmp_path: Path) -> None:
    home = Home(tmp_path)
    whole = await a_whole_house(tmp_path / "data" / "hostler.db")

    done = home.run("move", "--to", postgres.url)
    refused = home.run("serve", "--port", "0", "--model", "scripted:demo")

    assert "stays as it is" in done.stdout
    assert refused.returncode == 2
    assert "was moved to postgresql://127.0.0.1" in refused.stderr
    assert "@" not in refused.stderr
    assert whole.file.exists()


async def test_nothing_is_moved_out_of_nowhere_or_onto_itself(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="there is no file"):
        await move(tmp_path / "absent.db", tmp_path / "new.db")
    with pytest.raises(SetupError, match="the same database"):
        await move(tmp_path / "absent.db", tmp_path / "absent.db")
    assert names_in(tmp_path) == []


def test_a_move_names_its_target(tmp_path: Path) -> None:
    done: subprocess.CompletedProcess[str] = Home(tmp_path).run("move")

    assert done.returncode == 2
    assert "--to" in done.stderr
