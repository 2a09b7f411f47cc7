"""What is PostgreSQL's alone: the second wall between tenants, many processes, and its odd corners."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import anyio
import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import pytest
from msgspec.structs import replace
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries
from tests.services import Database

from hostler.core.audited import DEED, Deed
from hostler.core.directory import DEFAULT, Tenant
from hostler.core.errors import Fenced, Moved, Repeated
from hostler.core.events import Key, RunClaimed, RunId, Seq, TenantId, UserSpoke
from hostler.core.records import Labels
from hostler.stores.postgres_audit import PostgresAudits
from hostler.stores.postgres_directory import PostgresDirectory
from hostler.stores.postgres_open import open_postgres
from hostler.stores.postgres_sealed import PostgresSealed
from hostler.stores.postgres_wire import HOUSE, Wire, Wires, connect, heard, told
from hostler.stores.search_words import MOST_WORDS, digests
from hostler.testing.audit_suite import an_entry
from hostler.testing.doubles import a_session, whole_log
from hostler.testing.store_kit import a_new_session, a_run, once, refused, spoke
from hostler.testing.store_suite_direct import a_direct_call, replied, sums

pytestmark = pytest.mark.anyio
A, B = TenantId("a"), TenantId("b")
TABLES = """
SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'hostler' AND c.relkind = 'r'
"""
UNGUARDED = {"commits", "migrations", "said_words", "changes"}
"""Nothing in these says whose it is, or what anybody said."""
QUEUE = {"pgqueuer", "pgqueuer_log", "pgqueuer_schedules", "pgqueuer_statistics"}
"""Keys of runs of all tenants, which whoever drives them has to see."""


async def a_word_of_each(database: Database) -> None:
    async with open_postgres(database.url) as store:
        for tenant in (A, B):
            key = await a_session(store, tenant=tenant)
            await store.append(key, [spoke("run_1", f"words of {tenant}")])


# -- the second wall -------------------------------------------------------------------------


async def test_every_table_is_guarded_from_its_owner_too_or_known_to_name_nobody(
    postgres: Database,
) -> None:
    tables = await postgres.run(TABLES)

    guarded = {name for name, is_on, is_forced in tables if is_on and is_forced}
    assert {name for name, *_ in tables} - guarded == UNGUARDED | QUEUE
    assert len(guarded) > 15


@pytest.mark.parametrize("table", ["events", "heads", "sessions", "agent_runs", "said", "seen"])
async def test_a_statement_that_forgets_its_tenant_sees_only_whom_it_was_given_for(
    postgres: Database, table: str
) -> None:
    await a_word_of_each(postgres)
    wires = Wires(postgres.url, most=2)

    async def tenants(wire: Wire) -> set[object]:
        return {tenant for (tenant,) in await wire.fetch(f"SELECT tenant FROM {table}")}

    assert await wires.reading(A, tenants) == {"a"}
    assert await wires.reading(B, tenants) == {"b"}
    assert await wires.reading(TenantId("c"), tenants) == set()
    assert await wires.reading(HOUSE, tenants) == {"a", "b"}
    bare = await connect(postgres.url)
    assert await tenants(bare) == set()
    for wire in (bare, *wires._free):
        await wire.db.close()


async def test_a_row_of_another_tenant_cannot_be_written_or_changed(postgres: Database) -> None:
    await a_word_of_each(postgres)
    wires = Wires(postgres.url, most=1)

    async def write(wire: Wire) -> None:
        assert (
            await wire.execute("UPDATE sessions SET title = 'x' WHERE tenant = 'b'") == "UPDATE 0"
        )
        assert await wire.execute("DELETE FROM events WHERE tenant = 'b'") == "DELETE 0"
        with pytest.raises(Exception, match="row-level security"):
            await wire.execute("INSERT INTO stale VALUES ('b', 'ses')")

    await wires.reading(A, write)
    await wires.close()


async def test_a_connection_that_changed_its_tenant_shows_the_new_one_alone(
    postgres: Database,
) -> None:
    await a_word_of_each(postgres)
    wires = Wires(postgres.url, most=1)

    async def said(wire: Wire) -> Sequence[object]:
        return [fact for (fact,) in await wire.fetch("SELECT fact FROM events")]

    for tenant in (A, B, A):
        (fact,) = await wires.reading(tenant, said)
        assert f"words of {tenant}" in str(fact)
    await wires.close()


async def test_words_of_an_index_say_neither_what_nor_whose(postgres: Database) -> None:
    await a_word_of_each(postgres)

    indexed = await postgres.run("SELECT words::text FROM said_words")

    assert not {*digests(A, "words of a")} & {*digests(B, "words of a")}
    assert len(indexed) == 2
    assert "words" not in str([words for (words,) in indexed])


async def test_whoever_passes_the_wall_is_told(
    postgres: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_postgres(postgres.admin):
        pass
    assert "row-level security" in caplog.text
    caplog.clear()

    async with open_postgres(postgres.url):
        pass
    assert "row-level security" not in caplog.text


async def test_a_deed_in_one_tenant_is_told_in_the_chain_of_another_in_one_commit(
    postgres: Database,
) -> None:
    async with open_postgres(postgres.url) as store:
        directory, audits = PostgresDirectory(store), PostgresAudits(store)
        deed = Deed(an_entry("tenant.create", tenant=B))
        token = DEED.set(deed)
        made = await directory.create_tenant(Tenant(id=A, title=None, created_at=1.0))
        DEED.reset(token)

        assert made
        assert deed.is_taken
        assert [row.action for row in await audits.rows(B, after=0, limit=9)] == ["tenant.create"]
        assert (await directory.tenant(A)).id == A
        assert (await audits.head(A)).seq == 0


async def test_a_deed_that_changes_nothing_is_not_told_as_done(postgres: Database) -> None:
    async with open_postgres(postgres.url) as store:
        deed = Deed(an_entry("secret.remove"))
        token = DEED.set(deed)
        dropped = await PostgresSealed(store).drop(A, "absent")
        DEED.reset(token)

        assert not dropped
        assert not deed.is_taken
        assert (await PostgresAudits(store).head(A)).seq == 0


async def test_a_deed_that_was_undone_leaves_its_connection_with_the_tenant_it_had(
    postgres: Database,
) -> None:
    wires = Wires(postgres.url, most=1)
    await a_word_of_each(postgres)

    async def undone(wire: Wire) -> None:
        await wire.execute("BEGIN")
        await wire.show_till_the_end(B)
        assert await tenants_of(wire) == {"b"}
        await wire.execute("ROLLBACK")

    await wires.reading(A, undone)

    assert await wires.reading(A, tenants_of) == {"a"}
    await wires.close()


async def tenants_of(wire: Wire) -> set[object]:
    return {tenant for (tenant,) in await wire.fetch("SELECT tenant FROM events")}


# -- text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "\0", "a\0b", "\ufdd0", "\ufdd00", "\0\ufdd01\0", "\ufdd0\0\ufdd0", "\U0001f40e"]
)
def test_what_postgresql_cannot_hold_comes_back_as_it_was(text: str) -> None:
    sent = told(text)

    assert "\0" not in str(sent)
    assert heard(sent) == text


async def test_a_title_may_hold_anything(postgres: Database) -> None:
    async with open_postgres(postgres.url) as store:
        key = await a_session(store)
        title = "a\0b \ufdd00 '; DROP TABLE sessions; --"

        await store.relabel(key, Labels(title=title))

        assert (await store.session(key)).title == title


async def test_a_text_with_more_words_than_an_index_holds_is_kept_and_found_by_the_first(
    postgres: Database,
) -> None:
    async with open_postgres(postgres.url) as store:
        key = await a_session(store)
        words = " ".join(f"w{number}" for number in range(MOST_WORDS + 10))
        await store.append(key, [spoke("run_1", words)])

        assert len(await store.search(DEFAULT, "w1 w2000", limit=9)) == 1
        assert await store.search(DEFAULT, f"w{MOST_WORDS + 1}", limit=9) == []
        (event,) = await store.read(key, after=Seq(0), limit=9)
        assert isinstance(event.fact, UserSpoke)
        assert event.fact.content == words


async def test_accents_and_case_make_no_difference_to_a_search(postgres: Database) -> None:
    async with open_postgres(postgres.url) as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1", "Crème BRÛLÉE path/to/file.txt")])

        for query in ("creme", "brulée", "file", "TXT path"):
            assert len(await store.search(key.tenant, query, limit=9)) == 1, query


# -- many processes, many callers ------------------------------------------------------------


async def test_two_processes_write_one_session_without_hole_or_loss(postgres: Database) -> None:
    async with open_postgres(postgres.url) as one, open_postgres(postgres.url) as two:
        key = await a_session(one)

        async with anyio.create_task_group() as tasks:
            for number in range(30):
                store = one if number % 2 else two
                tasks.start_soon(store.append, key, [spoke(f"run_{number}")])

        log = await whole_log(two, key)
        assert [event.seq for event in log] == list(range(1, 31))
        assert {event.fact.run for event in log} == {f"run_{number}" for number in range(30)}


async def test_what_another_process_wrote_is_known_to_fence_and_position(
    postgres: Database,
) -> None:
    async with open_postgres(postgres.url) as one, open_postgres(postgres.url) as two:
        key = await a_session(one)
        await one.append(key, [spoke("run_1")])
        await two.append(key, [RunClaimed(run=RunId("run_1"), claim=1, worker="two")], fence=0)

        await refused(Fenced, one.append(key, [spoke("run_2")], fence=0))
        await refused(Moved, one.append(key, [spoke("run_2")], expected=Seq(1)))
        await one.append(key, [spoke("run_2")], fence=1, expected=Seq(2))

        assert [event.seq for event in await two.read(key, after=Seq(0), limit=9)] == [1, 2, 3]


async def test_of_two_processes_one_does_what_is_done_once(postgres: Database) -> None:
    async with open_postgres(postgres.url) as one, open_postgres(postgres.url) as two:
        key = await a_session(one)
        outcomes = list[str]()

        async def speak(number: int) -> None:
            store = one if number % 2 else two
            try:
                await store.append(key, [spoke(f"run_{number}")], once=once("scope"))
            except Repeated:
                outcomes.append("repeated")
            else:
                outcomes.append("done")

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(speak, number)

        assert sorted(outcomes) == ["done", *["repeated"] * 9]
        assert (await one.head(key)).seq == 1


async def test_of_two_processes_one_makes_a_session(postgres: Database) -> None:
    async with open_postgres(postgres.url) as one, open_postgres(postgres.url) as two:
        session, made = a_new_session(), list[bool]()

        async def make(number: int) -> None:
            store = one if number % 2 else two
            made.append(await store.create(replace(session), [spoke(f"run_{number}")]))

        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(make, number)

        assert sorted(made) == [False] * 5 + [True]
        assert (await one.head(Key(session.tenant, session.id))).seq == 1


async def test_a_session_that_was_made_again_elsewhere_is_not_taken_for_the_old_one(
    postgres: Database,
) -> None:
    async with open_postgres(postgres.url) as one, open_postgres(postgres.url) as two:
        session = a_new_session()
        key = Key(session.tenant, session.id)
        await one.create(replace(session), [spoke("run_1")])
        await two.delete(key)
        await two.create(replace(session), [spoke("run_2")])

        await one.append(key, [spoke("run_3")])

        head = await two.head(key)
        assert (head.active, head.queue) == ("run_2", ("run_3",))


async def test_what_is_asked_for_at_one_moment_shares_commits(postgres: Database) -> None:
    async with open_postgres(postgres.url) as store:
        keys = [await a_session(store) for _ in range(50)]
        before = await postgres.run("SELECT count(*) FROM commits")

        async with anyio.create_task_group() as tasks:
            for key in keys:
                tasks.start_soon(store.append, key, [spoke(f"run_of_{key.session}")])

        after = await postgres.run("SELECT count(*) FROM commits")
        assert int(str(after[0][0])) - int(str(before[0][0])) <= 2


async def test_an_order_that_postgresql_cannot_carry_out_fails_alone(postgres: Database) -> None:
    async with open_postgres(postgres.url) as store:
        keys = [await a_session(store) for _ in range(3)]
        outcomes = dict[int, str]()

        async def one(place: int, text: str) -> None:
            order = once(text)
            try:
                await store.append(keys[place], [spoke(f"run_{place}")], once=order)
            except asyncpg.DataError:
                outcomes[place] = "refused"
            else:
                outcomes[place] = "written"

        async with anyio.create_task_group() as tasks:
            for place, text in enumerate(("fine", "a lone \ud800", "fine, too")):
                tasks.start_soon(one, place, text)

        assert outcomes == {0: "written", 1: "refused", 2: "written"}


# -- jobs ------------------------------------------------------------------------------------


JOBS = "SELECT dedupe_key, entrypoint, status, priority, convert_from(payload, 'UTF8') FROM pgqueuer ORDER BY id"


async def test_a_job_is_committed_with_what_it_is_for_or_not_at_all(postgres: Database) -> None:
    async with open_postgres(postgres.url, enlists=True) as store:
        key, other = await a_session(store), await a_session(store)
        await store.append(key, [spoke("run_1"), spoke("run_2")])
        await store.append(key, a_run("run_1", "x", claim=1))
        with pytest.raises(Fenced):
            await store.append(
                other,
                [spoke("run_9"), RunClaimed(run=RunId("run_9"), claim=7, worker="w")],
                fence=6,
            )
        await store.append(other, [spoke("run_3")])

        ours, theirs = ("/".join(one) for one in (key, other))
        assert [row[0] for row in await postgres.run(JOBS)] == [
            f"{ours}/run_1",
            f"{ours}/run_2",
            f"{theirs}/run_3",
        ]


async def test_a_job_looks_as_if_pgqueuer_had_queued_it(postgres: Database) -> None:
    async with open_postgres(postgres.url, enlists=True) as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1")])
    wire = await connect(postgres.url)
    queue = Queries(AsyncpgDriver(wire.db))  # type: ignore[arg-type]
    ours = "/".join((*key, "run_1"))
    await queue.enqueue("run", ours.replace("run_1", "run_2").encode(), dedupe_key="another")

    one, other = await postgres.run("SELECT * FROM pgqueuer ORDER BY id")
    own = {"id", "dedupe_key", "payload", "created", "updated", "heartbeat", "execute_after"}
    differ = {name for name, value in dict(one).items() if value != dict(other)[name]}  # type: ignore[call-overload]
    assert differ - {"headers"} <= own
    assert dict(one)["payload"] == ours.encode()  # type: ignore[call-overload]
    await wire.db.close()


async def test_the_queue_is_what_this_pgqueuer_would_make(postgres: Database) -> None:
    wire = await connect(postgres.url)
    queue = Queries(AsyncpgDriver(wire.db))  # type: ignore[arg-type]

    plan = await queue.plan_upgrade()

    ours = ("TRIGGER", "pgqueuer_of_tenant")
    assert not [one for one in plan.statements if not any(word in one for word in ours)]
    await wire.db.close()


async def test_without_an_engine_in_the_database_no_job_is_queued(postgres: Database) -> None:
    async with open_postgres(postgres.url) as store:
        await store.append(await a_session(store), [spoke("run_1")])
    assert not await postgres.run(JOBS)


# -- direct calls ----------------------------------------------------------------------------


async def test_direct_calls_of_the_dead_are_dropped_and_those_of_the_living_go_on(
    postgres: Database,
) -> None:
    async with open_postgres(postgres.url) as living:
        async with open_postgres(postgres.url) as dead:
            await dead.ledger.keep_direct(a_direct_call("dir_1"))
            await dead.ledger.keep_direct(replied(a_direct_call("dir_2")))
        await living.ledger.keep_direct(a_direct_call("dir_3"))

        async with open_postgres(postgres.url) as store:
            (whole,) = await sums(store)

        statuses = await postgres.run("SELECT status FROM direct_calls ORDER BY id")
        assert [status for (status,) in statuses] == ["dropped", "replied", "open"]
        assert (whole.calls, whole.unpriced_calls) == (3, 1)


async def test_an_order_whose_caller_went_away_is_carried_out_all_the_same(
    postgres: Database,
) -> None:
    async with open_postgres(postgres.url) as store:
        key = await a_session(store)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(store.append, key, [spoke("run_1")]))
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        await store.append(key, [spoke("run_2")])

        assert (await store.head(key)).seq in (1, 2)
