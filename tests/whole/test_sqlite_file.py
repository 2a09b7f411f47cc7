"""What the SQLite store does when its file, its disk or its neighbours misbehave."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from hostler.core.codec import CorruptFact
from hostler.core.errors import SetupError, Unavailable
from hostler.core.events import Key, RunId, Seq, SessionId, TenantId, Unknown
from hostler.core.head import LONGEST_QUEUE
from hostler.core.state import State, fold
from hostler.stores import sqlite_file
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_rows import asking
from hostler.testing.doubles import a_session, whole_log
from hostler.testing.store_kit import Clock, once, spoke

pytestmark = pytest.mark.anyio


@contextmanager
def opened(file: Path) -> Generator[SqliteStore]:
    store = SqliteStore.open(file)
    try:
        yield store
    finally:
        store.close()


async def test_what_was_written_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    with opened(tmp_path / "log.db") as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1")])

    with opened(tmp_path / "log.db") as store:
        assert [event.kind for event in await whole_log(store, key)] == ["user_spoke"]
        assert (await store.append(key, [spoke("run_2")])).head.queue == ("run_2",)


async def test_what_is_kept_is_its_owner_s_alone_whatever_the_folder(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)  # noqa: PTH101  as with others' folders
    with opened(tmp_path / "log.db") as store:
        await a_session(store)

        modes = {file.name: file.stat().st_mode & 0o777 for file in os.scandir(tmp_path)}

    assert set(modes) >= {"log.db", "log.db-wal", "log.db-shm", "log.db.lock"}
    assert set(modes.values()) == {0o600}


async def test_a_second_process_is_told_who_has_the_file_and_what_to_do(tmp_path: Path) -> None:
    with opened(tmp_path / "log.db"):
        code = (
            "import asyncio, pathlib, sys\n"
            "from hostler.stores.sqlite import SqliteStore\n"
            "async def main():\n"
            "    SqliteStore.open(pathlib.Path(sys.argv[1]))\n"
            "asyncio.run(main())\n"
        )
        other = await anyio.run_process(
            [sys.executable, "-c", code, str(tmp_path / "log.db")], check=False
        )

    told = other.stderr.decode()
    assert other.returncode != 0
    assert f"in use by process {os.getpid()}" in told
    assert "--data" in told


async def test_a_file_of_a_newer_build_is_refused_untouched(tmp_path: Path) -> None:
    with opened(tmp_path / "log.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        db.execute("PRAGMA user_version = 99")

    with pytest.raises(SetupError, match="schema version 99"):
        SqliteStore.open(tmp_path / "log.db")

    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)


async def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    file.write_text("these are my notes, not a database\n" * 100)

    with pytest.raises(SetupError, match="cannot be opened"):
        SqliteStore.open(file)

    assert file.read_text().startswith("these are my notes")


async def test_a_migration_that_fails_is_undone_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = sqlite_file.migrations()
    with monkeypatch.context() as patch:
        broken = [*good, "CREATE TABLE half (a); INSERT INTO nowhere VALUES (1);"]
        patch.setattr(sqlite_file, "migrations", lambda: broken)
        with pytest.raises(SetupError, match=f"migration {len(broken)} failed and was undone"):
            SqliteStore.open(tmp_path / "log.db")
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(good),)
        assert db.execute("SELECT 1 FROM sqlite_master WHERE name = 'half'").fetchone() is None

    with opened(tmp_path / "log.db") as store:
        await a_session(store)


async def test_answers_that_are_kept_no_longer_leave_the_file(tmp_path: Path) -> None:
    clock = Clock()
    store = SqliteStore.open(tmp_path / "log.db", clock=clock)
    with closing(store):
        key = await a_session(store)
        for day in range(3):
            clock.now = 1_000_000.0 + 86_400.0 * day
            for i in range(5):
                await store.append(key, [], once=once(f"{day} {i}"))

        count = store._writer.db.execute("SELECT count(*) FROM answers").fetchone()

    assert count == (5,)


async def test_a_full_disk_refuses_writes_serves_reads_and_recovers(tmp_path: Path) -> None:
    with opened(tmp_path / "log.db") as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1")])
        (pages,) = store._writer.db.execute("PRAGMA page_count").fetchone()
        store._writer.db.execute(f"PRAGMA max_page_count = {pages}")

        with pytest.raises(Unavailable, match="full"):
            await store.append(key, [spoke("run_2", "x" * 100_000)])
        assert len(await whole_log(store, key)) == 1

        store._writer.db.execute("PRAGMA max_page_count = 1000000")
        assert (await store.append(key, [spoke("run_2")])).events[0].seq == 2


async def test_a_write_that_cannot_be_made_does_not_fail_those_in_its_commit(
    tmp_path: Path,
) -> None:
    with opened(tmp_path / "log.db") as store:
        keys = [await a_session(store) for _ in range(4)]
        (pages,) = store._writer.db.execute("PRAGMA page_count").fetchone()
        store._writer.db.execute(f"PRAGMA max_page_count = {pages + 4}")
        outcomes: list[str] = []

        async def write(key: Key, size: int) -> None:
            try:
                await store.append(key, [spoke("run_1", "x" * size)])
            except Unavailable:
                outcomes.append("refused")
            else:
                outcomes.append("written")

        async with anyio.create_task_group() as tasks:
            for place, key in enumerate(keys):
                tasks.start_soon(write, key, 1_000_000 if place == 1 else 1)

        assert sorted(outcomes) == ["refused", "written", "written", "written"]


async def test_a_bug_in_one_order_is_told_to_who_gave_it_and_harms_nobody_else(
    tmp_path: Path,
) -> None:
    def bug(_: sqlite3.Connection) -> None:
        raise OverflowError("a bug")

    with opened(tmp_path / "log.db") as store, anyio.fail_after(10):
        key = await a_session(store)

        async def gone_wrong(ask: Callable[[], Awaitable[None]]) -> None:
            with pytest.raises(OverflowError):
                await ask()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gone_wrong, lambda: store.writing(bug))
            tasks.start_soon(store.append, key, [spoke("run_1")])
            tasks.start_soon(gone_wrong, lambda: store.reading(bug))
            tasks.start_soon(gone_wrong, lambda: store.reading(bug))

        assert len(await whole_log(store, key)) == 1
        assert (await store.append(key, [spoke("run_2")])).events[0].seq == 2


async def test_a_file_with_a_session_that_makes_no_rows_opens_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    with opened(file) as store:
        crowded, odd, fine = [await a_session(store) for _ in range(3)]
        for at, key in enumerate((crowded, odd, fine)):
            await store.append(key, [spoke(f"run_{at}")])
    with closing(sqlite3.connect(file)) as db:  # as older builds left them
        first = "INSERT INTO events SELECT tenant, session, seq + ?, at, kind, replace(fact, ?, ?)"
        for more in range(1, LONGEST_QUEUE + 2):
            db.execute(
                f"{first} FROM events WHERE session = ? AND seq = 1",
                (more, "run_0", f"run_0_{more}", crowded.session),
            )
        db.execute("UPDATE events SET at = ? WHERE session = ?", (2**63 - 1, odd.session))
        db.execute("INSERT OR IGNORE INTO stale SELECT tenant, id FROM sessions")
        db.commit()

    with opened(file) as store:
        runs = await store.runs(fine.tenant, session=fine.session, status=None, after="", limit=9)
        assert [run.id for run in runs] == ["run_2"]
        assert (
            len(
                await store.runs(
                    fine.tenant, session=crowded.session, status=None, after="", limit=999
                )
            )
            == LONGEST_QUEUE + 2
        )


FSYNC_FAILS = """
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int fails(void) { return access(getenv("FAIL_WHEN"), F_OK) == 0; }
int fsync(int fd) { if (fails()) { errno = EIO; return -1; } return 0; }
int fdatasync(int fd) { if (fails()) { errno = EIO; return -1; } return 0; }
"""

WRITES_UNTIL_TOLD = """
import asyncio, pathlib, sys
from hostler.stores.sqlite import SqliteStore
from hostler.testing.doubles import a_session
from hostler.testing.store_suite import spoke

async def main():
    store = SqliteStore.open(pathlib.Path(sys.argv[1]))
    key = await a_session(store)
    for i in range(1_000_000):
        await store.append(key, [spoke(f"run_{i}")])
        print(key.session, i + 1, flush=True)

asyncio.run(main())
"""


async def test_a_failed_fsync_ends_the_process_instead_of_pretending(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "this test builds a small library: install a C compiler"
    (tmp_path / "fails.c").write_text(FSYNC_FAILS)
    library = tmp_path / "fails.so"
    await anyio.run_process([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "fails.c"])
    env = {**os.environ, "LD_PRELOAD": str(library), "FAIL_WHEN": str(tmp_path / "now")}
    command = [sys.executable, "-c", WRITES_UNTIL_TOLD, str(tmp_path / "log.db")]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        session, acknowledged = writer.stdout.readline().split()
        (tmp_path / "now").touch()
        with anyio.fail_after(10):
            told, complaint = await anyio.to_thread.run_sync(writer.communicate)

    assert writer.returncode == sqlite_file.EXIT_IO_ERROR, complaint
    last = told.split()[-1] if told else acknowledged
    with opened(tmp_path / "log.db") as store:
        log = await whole_log(store, Key(TenantId("default"), SessionId(session)))
    assert len(log) >= int(last)


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITES_UNTIL_TOLD, str(tmp_path / "log.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        session, acknowledged = writer.stdout.readline().split()
        for _ in range(50):
            acknowledged = writer.stdout.readline().split()[1]
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split("\n")
        complete = [line for line in rest if len(line.split()) == 2]
        acknowledged = complete[-1].split()[1] if complete else acknowledged

    with opened(tmp_path / "log.db") as store:
        log = await whole_log(store, Key(TenantId("default"), SessionId(session)))
    assert len(log) >= int(acknowledged)
    assert [event.seq for event in log] == list(range(1, len(log) + 1))


async def put_raw(file: Path, key: Key, seq: int, fact: str) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(
            "INSERT INTO events VALUES (?, ?, ?, 0, 'from_the_future', ?)", (*key, seq, fact)
        )
        db.execute(
            "UPDATE heads SET head = json_set(head, '$.seq', ?) WHERE tenant = ? AND session = ?",
            (seq, *key),
        )


async def test_a_fact_of_a_newer_build_is_passed_on_as_it_is(tmp_path: Path) -> None:
    with opened(tmp_path / "log.db") as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1")])
        raw = '{"kind":"from_the_future","run":"run_1","more":[1]}'
        await put_raw(tmp_path / "log.db", key, 2, raw)

        _, event = await store.read(key, after=Seq(0), limit=10)
        recalled = await store.recall(key)

        assert event.fact == Unknown(run=RunId("run_1"), kind="from_the_future")
        assert (event.kind, event.raw) == ("from_the_future", raw.encode())
        assert fold(State(), recalled.events).foreign


async def test_damage_in_one_session_is_reported_and_does_not_spread(tmp_path: Path) -> None:
    with opened(tmp_path / "log.db") as store:
        damaged, whole = await a_session(store), await a_session(store)
        await put_raw(tmp_path / "log.db", damaged, 1, '{"kind":"user_spoke","run":7}')
        await store.append(whole, [spoke("run_1")])

        with pytest.raises(CorruptFact, match="user_spoke"):
            await store.read(damaged, after=Seq(0), limit=10)

        assert len(await whole_log(store, whole)) == 1


@pytest.mark.parametrize(
    ("name", "given", "index"),
    [
        ("sessions", [], "sessions_newest (tenant=?)"),
        ("sessions", ["status"], "sessions_newest (tenant=?)"),
        ("sessions", ["after"], "sessions_newest (tenant=? AND created_at<?)"),
        ("sessions", ["agent"], "sessions_of_agent (tenant=? AND agent=?)"),
        (
            "sessions",
            ["agent", "status", "after"],
            "sessions_of_agent (tenant=? AND agent=? AND created_at<?)",
        ),
        ("busy_sessions", ["status"], "heads_busy (tenant=? AND status=?)"),
        ("busy_sessions", ["agent", "status", "after"], "heads_busy (tenant=? AND status=?)"),
        ("approvals", ["status"], "approvals_open (tenant=? AND status=?)"),
        ("approvals", ["status", "after"], "approvals_open (tenant=? AND status=? AND call>?)"),
    ],
)
async def test_a_list_is_read_from_an_index_that_begins_where_it_does(
    tmp_path: Path, name: str, given: list[str], index: str
) -> None:
    names = ["tenant", "agent", "status", "after", "session", "limit"]
    wanted = dict.fromkeys(names, "")
    with opened(tmp_path / "log.db"), closing(sqlite_file.connect(tmp_path / "log.db")) as db:
        plan = db.execute(f"EXPLAIN QUERY PLAN {asking(name, *given)}", wanted).fetchall()

    assert index in plan[0][3]


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    with opened(tmp_path / "log.db") as store:
        key = await a_session(store)

    with pytest.raises(Unavailable, match="closed"):
        await store.append(key, [spoke("run_1")])
