"""A scrub takes a value out of all that is kept, in every store, and breaks nothing of it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace
from tests.services import Database

from hostler.core.errors import Unavailable
from hostler.core.events import (
    CancelRequested,
    ClientTool,
    Key,
    PrincipalId,
    RunId,
    RunRated,
    Seq,
    SessionRewound,
    TenantId,
    UserSpoke,
)
from hostler.core.memory import remember
from hostler.core.sealed import Scrubbed, SealedRows
from hostler.core.state import fold
from hostler.core.store import Store
from hostler.stores.memory import MemoryStore
from hostler.stores.memory_sealed import MemorySealed
from hostler.stores.postgres_open import open_postgres
from hostler.stores.postgres_sealed import PostgresSealed
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_file import connect, migrate
from hostler.stores.sqlite_scrub import FREE_TEXT, scrub_facts
from hostler.stores.sqlite_sealed import SqliteSealed
from hostler.testing.doubles import whole_log
from hostler.testing.store_kit import (
    a_new_session,
    a_run,
    a_step,
    asked,
    ended,
    given,
    once,
    spoke,
    started,
)
from hostler.vault.masker import Masker

pytestmark = pytest.mark.anyio
A, B = TenantId("a"), TenantId("b")
VALUE = "sk-0123456789abcdef"
DONE = Scrubbed(tenant=A, id="scr_1", at=1.0, principal=PrincipalId("p"), facts=0, rows=0)
MASK = Masker([("github", VALUE)])


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


async def test_a_scrub_takes_a_value_out_and_leaves_the_log_as_long(
    kept: tuple[Store, SealedRows],
) -> None:
    store, rows = kept
    session, other = a_new_session("a"), a_new_session("b")
    session.title, session.metadata = f"about {VALUE}", {"key": [VALUE]}
    for one in (session, other):
        await store.create(one)
        key = Key(one.tenant, one.id)
        await store.append(key, [spoke("run_1", f"take {VALUE} now")])
        await store.append(key, a_run("run_1", f"I took {VALUE}", claim=1))
    key = Key(A, session.id)
    before = await store.read(key, after=Seq(0), limit=100)
    shape = [(one.seq, one.kind, one.at) for one in before]

    record = await rows.scrub(A, MASK, DONE)

    after = await store.read(key, after=Seq(0), limit=100)
    labels = await store.session(key)
    assert (record.facts, record.rows, record.sessions) == (2, 1, (session.id,))
    assert [(one.seq, one.kind, one.at) for one in after] == shape
    assert not any(VALUE.encode() in one.raw for one in after)
    assert (labels.title, labels.metadata) == (
        "about [secret:github]",
        {"key": ["[secret:github]"]},
    )
    assert await store.search(A, "0123456789abcdef", limit=9) == []
    assert len(await store.search(A, "github", limit=9)) == 2
    assert len(await store.search(B, "0123456789abcdef", limit=9)) == 2
    assert (await rows.scrub(A, MASK, replace(DONE, id="scr_2"))).facts == 0


async def a_busy_session(store: Store) -> Key:
    """Make a session in which everything waits, with a run that was cancelled before."""
    session = a_new_session("a")
    session.client_tools = (ClientTool(name="look", parameters={"type": "object"}),)
    await store.create(session)
    key = Key(A, session.id)
    await store.append(key, [spoke("run_1"), *a_step("run_1", "call_1")])
    principal = PrincipalId("p")
    cancel = CancelRequested(run=RunId("run_1"), principal=principal, reason=None)
    await store.append(key, [cancel, replace(ended("run_1"), status="cancelled")])
    await store.append(key, [spoke("run_2"), *a_step("run_2", "call_2", "call_3", claim=2)])
    await store.append(key, [asked("run_2", "call_2"), started("run_2", "call_3", expires_at=2e6)])
    await store.append(key, [spoke("run_3")], once=once("scope", '200 {"status":"queued"}'))
    return key


async def everything(store: Store, key: Key) -> Sequence[object]:
    runs = await store.runs(A, session=None, status=None, after="", limit=9)
    return [
        await store.head(key),
        await store.session(key),
        [(one.id, one.status) for one in runs],
        [await store.ledger.calls(A, run.id) for run in runs],
        [
            (one.call, one.status, one.digest)
            for one in await store.approvals(A, session=None, status=None, after="", limit=9)
        ],
        await store.unfinished(),
    ]


@pytest.mark.parametrize(
    "word", ["cancelled", "approval", "client_tool", "parameters", "waiting", "running", "queued"]
)
async def test_a_value_that_is_a_word_of_ours_breaks_nothing(
    kept: tuple[Store, SealedRows], word: str
) -> None:
    store, rows = kept
    key = await a_busy_session(store)
    before = await everything(store, key)

    with anyio.fail_after(20):
        await rows.scrub(A, Masker([("odd", word)]), DONE)

        assert await everything(store, key) == before
        assert await whole_log(store, key)
        done = await store.append(key, [given("run_2", "call_2", "allow")])
        assert len(done.head.waits) == 1


async def test_a_scrub_reaches_what_tells_of_runs_and_kept_answers(
    kept: tuple[Store, SealedRows],
) -> None:
    store, rows = kept
    session = a_new_session("a")
    await store.create(session)
    key, run = Key(A, session.id), RunId("run_1")
    facts = [spoke(run, f"take {VALUE}"), *a_run(run, f"took {VALUE}", claim=1)]
    await store.append(key, facts, once=once("scope", f'200 {{"said":"{VALUE}"}}'))
    rated = RunRated(run=run, principal=PrincipalId("p"), score=1, key=VALUE, comment=VALUE)
    await store.append(key, [rated])

    record = await rows.scrub(A, MASK, DONE)

    row = await store.run(A, run)
    (rating,) = await store.ledger.ratings(A, run)
    answer = await store.kept(A, "scope")
    assert answer is not None
    assert VALUE not in f"{row} {rating} {answer}"
    assert (row.status, row.output_summary) == ("done", "took [secret:github]")
    assert (rating.key, rating.comment) == ("[secret:github]", "[secret:github]")
    assert (record.facts, record.rows, record.unread) == (3, 1, 0)


async def test_a_scrub_reaches_tools_that_messages_brought_and_leaves_what_was_taken_back(
    kept: tuple[Store, SealedRows],
) -> None:
    store, rows = kept
    session, run = a_new_session("a"), RunId("run_0123456789")
    await store.create(session)
    key = Key(A, session.id)
    brings = replace(spoke(run), client_tools=(ClientTool(name="look", description=VALUE),))
    await store.append(key, [brings, *a_run(run, "well", claim=1)])
    await store.append(key, [SessionRewound(run=None, before=run, principal=PrincipalId("p"))])
    mask = Masker([("github", VALUE), ("odd", run)])

    record = await rows.scrub(A, mask, DONE)

    tools = (ClientTool(name="look", description="[secret:github]"),)
    log = await whole_log(store, key)
    assert [one.fact.client_tools for one in log if isinstance(one.fact, UserSpoke)] == [tools]
    assert (await store.session(key)).client_tools == tools
    recall = await store.recall(key)
    assert recall.client_tools == tools
    assert fold(remember(recall.past), recall.events).transcript == []
    assert (await store.run(A, run)).status == "done"
    assert (record.facts, record.rows) == (1, 1)


async def test_a_scrub_goes_on_to_the_last_row_and_leaves_other_tenants_alone(
    kept: tuple[Store, SealedRows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hostler.stores.sqlite_scrub.AT_ONCE", 2)
    monkeypatch.setattr("hostler.stores.postgres_sealed.AT_ONCE", 2)
    store, rows = kept
    for tenant in (A, A, A, A, A, B):
        session = a_new_session(tenant)
        session.title = VALUE
        await store.create(session, [spoke(f"run_{session.id}", VALUE)])

    record = await rows.scrub(A, MASK, DONE)

    assert (record.facts, record.rows) == (5, 5)
    for tenant, title in ((A, "[secret:github]"), (B, VALUE)):
        found = await store.sessions(tenant, agent=None, status=None, after="", limit=9)
        assert {one.title for one in found} == {title}


async def test_a_scrub_that_was_cut_is_finished_when_the_file_is_opened(tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    store = SqliteStore.open(file)
    session = a_new_session("a")
    await store.create(session, [spoke("run_1", VALUE)])
    await store.writing(scrub_facts(A, MASK, ("", 0)))
    store.close()

    store = SqliteStore.open(file)
    row = await store.run(A, RunId("run_1"))
    store.close()

    assert row.input_summary == "[secret:github]"


async def test_facts_that_cannot_be_read_are_left_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    store = SqliteStore.open(file)
    session = a_new_session("a")
    await store.create(session, [spoke("run_1"), spoke("run_2"), spoke("run_3", VALUE)])
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        for seq, fact in ((1, '{"kind":"song","run":null}'), (2, '{"kind":"user_spoke"}')):
            db.execute("UPDATE events SET fact = ? WHERE seq = ?", (fact, seq))

    record = await SqliteSealed(store, file).scrub(A, MASK, DONE)
    store.close()

    assert (record.facts, record.unread) == (1, 2)


async def test_old_text_that_another_reader_keeps_in_the_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    store = SqliteStore.open(file)
    await store.create(a_new_session("a"), [spoke("run_1", VALUE)])
    rows = SqliteSealed(store, file, patience_s=0)
    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        with pytest.raises(Unavailable, match="reads the file"):
            await rows.scrub(A, MASK, DONE)

    await rows.scrub(A, MASK, replace(DONE, id="scr_2"))

    store.close()
    assert VALUE.encode() not in file.read_bytes()


NOT_BY_COLUMN = {
    "agent_runs": "made anew from masked facts",
    "audit": "a chain, which never had a value in it",
    "data_keys": "sealed",
    "events": "fact by fact",
    "feedback": "made anew from masked facts",
    "llm_calls": "made anew from masked facts",
    "secrets": "sealed",
    "tool_runs": "made anew from masked facts",
}
OURS = {
    "approvals": "digest principal run status",
    "answers": "digest",
    "direct_calls": "cost error_type price_version principal provider status",
    "grants": "by_whom role",
    "heads": "active head status",
    "keys": "digest prefix role scopes user",
    "said": "session tenant",
    "scrubs": "record",
    "sessions": "agent lineage principal",
    "shares": "id principal session tenant",
    "tenants": "settings",
    "deliveries": "status type",
    "webhooks": "disabled_because events old_secret secret",
}
"""Columns beside the keys that hold ids and words of ours."""


def test_every_column_is_masked_or_known_to_hold_no_free_text(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "log.db")) as db:
        migrate(db, tmp_path / "log.db")
        tables = db.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'said_words%'"
        ).fetchall()
        columns = {
            table: {
                name
                for _, name, kind, _, _, in_key in db.execute(f"PRAGMA table_info({table})")
                if kind in ("TEXT", "BLOB") and not in_key
            }
            for (table,) in tables
            if table not in NOT_BY_COLUMN
        }

    masked = {table: set(FREE_TEXT.get(table, ("", {}))[1]) for table in columns}
    assert columns == {table: masked[table] | {*OURS.get(table, "").split()} for table in columns}
