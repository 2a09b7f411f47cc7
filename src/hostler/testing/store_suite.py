"""What every store promises, one check per promise: run them on yours.

@pytest.mark.parametrize("check", STORE_SUITE, ids=lambda check: check.__name__)
async def test_store(check, tmp_path):
await check(lambda **options: open_my_store(tmp_path, **options))
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import anyio
from msgspec.structs import replace

from hostler.core.errors import Fenced, Moved, NotFound
from hostler.core.events import (
    Event,
    JsonObject,
    Key,
    RunClaimed,
    RunId,
    RunKey,
    RunStarted,
    Seq,
    SessionId,
    TenantId,
    Usage,
    UserSpoke,
)
from hostler.core.memory import remember
from hostler.core.ports import Job
from hostler.core.records import Labels
from hostler.core.state import State, fold
from hostler.core.store import Store
from hostler.testing.doubles import a_session, whole_log
from hostler.testing.store_kit import Check, Open, a_new_session, a_run, ended, refused, spoke
from hostler.testing.store_suite_absurd import ABSURDITIES
from hostler.testing.store_suite_direct import DIRECT
from hostler.testing.store_suite_forks import FORKS
from hostler.testing.store_suite_records import RECORDS
from hostler.testing.store_suite_scheduled import SCHEDULED
from hostler.testing.store_suite_turns import TURNS
from hostler.testing.store_suite_waits import WAITS


async def what_is_appended_is_read_back_in_order_and_without_holes(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        facts = [spoke("run_1", "one"), spoke("run_2", "two"), spoke("run_3", "three")]

        first = await store.append(key, facts[:2])
        second = await store.append(key, facts[2:])

        log = await whole_log(store, key)
        assert [event.fact for event in log] == facts
        assert [event.seq for event in log] == [1, 2, 3]
        assert [*first.events, *second.events] == log
        assert second.head.seq == 3
        assert await store.head(key) == second.head


async def a_page_starts_past_its_cursor_and_keeps_its_limit(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [spoke(f"run_{i}") for i in range(10)])

        page = await store.read(key, after=Seq(4), limit=3)

        assert [event.seq for event in page] == [5, 6, 7]
        assert await store.read(key, after=Seq(10), limit=3) == []


async def a_recall_folds_to_the_same_conversation_as_the_whole_log(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1", "one"), spoke("run_2", "two")])
        steer = spoke("run_1", "and this", policy="steer")
        first = a_run("run_1", "first", claim=1, after=2)
        await store.append(key, [*first[:3], steer, *first[3:]])
        await store.append(key, a_run("run_2", "second", claim=2, after=8)[:3])

        head, agent, _, past, events = await store.recall(key)

        whole = fold(State(), await whole_log(store, key))
        recalled = fold(remember(past), events)
        assert recalled.transcript == whole.transcript
        assert recalled.run == whole.run
        assert (head.seq, head.fence, agent) == (11, 2, "double")
        assert [type(fact).__name__ for fact in past.spoken] == [
            "UserSpoke",
            "UserSpoke",
            "RunStarted",
            "UserSpoke",
            "Replied",
        ]


async def a_stale_fence_writes_nothing(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1")])
        await store.append(key, [RunClaimed(run=RunId("run_1"), claim=1, worker="a")], fence=0)
        await store.append(key, [RunClaimed(run=RunId("run_1"), claim=2, worker="b")], fence=1)

        await refused(Fenced, store.append(key, [RunStarted(run=RunId("run_1"))], fence=1))

        assert (await store.head(key)).seq == 3
        await store.append(key, [RunStarted(run=RunId("run_1"))], fence=2)


async def anybody_may_append_without_a_fence(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [RunClaimed(run=RunId("run_1"), claim=7, worker="a")], fence=0)

        await store.append(key, [spoke("run_2")])

        assert (await store.head(key)).seq == 2


async def an_append_that_expects_an_older_head_writes_nothing(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1")], expected=Seq(0))

        await refused(Moved, store.append(key, [spoke("run_2")], expected=Seq(0)))

        assert (await store.head(key)).seq == 1


async def a_refused_append_does_not_fail_those_beside_it(make: Open) -> None:
    async with make() as store:
        keys = [await a_session(store) for _ in range(20)]
        outcomes: dict[int, str] = {}

        async def one(place: int) -> None:
            expected = Seq(0) if place % 2 else Seq(5)
            try:
                await store.append(keys[place], [spoke("run_1")], expected=expected)
            except Moved:
                outcomes[place] = "moved"
            else:
                outcomes[place] = "written"

        async with anyio.create_task_group() as tasks:
            for place in range(20):
                tasks.start_soon(one, place)

        assert outcomes == {i: "written" if i % 2 else "moved" for i in range(20)}
        assert [(await store.head(key)).seq for key in keys] == [0, 1] * 10


async def appends_at_once_to_one_session_leave_no_hole(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        async with anyio.create_task_group() as tasks:
            for i in range(100):
                tasks.start_soon(store.append, key, [spoke(f"run_{i}"), spoke(f"run_{i}")])

        log = await whole_log(store, key)
        assert [event.seq for event in log] == list(range(1, 201))
        pairs = [(log[i].fact.run, log[i + 1].fact.run) for i in range(0, 200, 2)]
        assert all(a == b for a, b in pairs), "an append was torn apart"


async def the_observer_is_told_in_order_and_before_the_append_returns(make: Open) -> None:
    told: list[Event] = []
    async with make(observer=lambda _, events: told.extend(events)) as store:
        key = await a_session(store)
        for i in range(5):
            appended = await store.append(key, [spoke(f"run_{i}")])
            assert told[-1:] == list(appended.events)

        assert [event.seq for event in told] == [1, 2, 3, 4, 5]


async def a_run_that_becomes_active_is_handed_to_the_outbox(make: Open) -> None:
    handed: list[Job] = []

    async def outbox(job: Job) -> None:
        handed.append(job)

    async with make(outbox=outbox) as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1"), spoke("run_2"), spoke("run_1")])
        assert [one.key.run for one in handed] == ["run_1"]

        await store.append(key, a_run("run_1", "x", claim=1))
        assert [one.key.run for one in handed] == ["run_1", "run_2"]

        await store.append(key, a_run("run_2", "x", claim=2))
        assert len(handed) == 2


async def unfinished_runs_are_those_that_are_active(make: Open) -> None:
    async with make() as store:
        resting, going = await a_session(store), await a_session(store, tenant="other")
        await store.append(resting, [spoke("run_1"), *a_run("run_1", "x", claim=1)])
        await store.append(going, [spoke("run_2"), spoke("run_3")])

        assert await store.unfinished() == [Job(RunKey(*going, RunId("run_2")))]


async def a_run_keeps_its_priority_whenever_it_is_rung_for(make: Open) -> None:
    handed: list[Job] = []

    async def outbox(job: Job) -> None:
        handed.append(job)

    low = [replace(spoke(run), priority="low") for run in ("run_1", "run_3", "run_4")]
    async with make(outbox=outbox) as store:
        key = await a_session(store)
        await store.append(key, [low[0], spoke("run_2"), *low[1:], spoke("run_4")])
        first = Job(RunKey(*key, RunId("run_1")), priority=-1)
        assert await store.unfinished() == handed == [first]

        await store.append(key, a_run("run_1", "x", claim=1))
        second = Job(RunKey(*key, RunId("run_2")))
        assert await store.unfinished() == handed[1:] == [second]

        await store.append(key, [ended("run_3"), *a_run("run_2", "x", claim=2)])
        third = Job(RunKey(*key, RunId("run_4")), priority=-1)
        assert await store.unfinished() == handed[2:] == [third]
        assert (await store.head(key)).low == ("run_4",)


async def a_run_s_row_follows_its_log(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1")])
        assert (await store.run(key.tenant, RunId("run_1"))).status == "queued"

        await store.append(key, a_run("run_1", "x", claim=1)[:2])
        assert (await store.run(key.tenant, RunId("run_1"))).status == "running"

        await store.append(key, a_run("run_1", "x", claim=1)[2:])
        row = await store.run(key.tenant, RunId("run_1"))
        assert (row.status, row.first_seq, row.last_seq) == ("done", 1, 6)
        assert row.usage == Usage(input_tokens=3)
        assert row.started_at is not None
        assert row.ended_at is not None


async def runs_are_listed_newest_first_and_by_session_and_status(make: Open) -> None:
    async with make() as store:
        one, two = await a_session(store), await a_session(store)
        await store.append(one, [spoke("run_1"), spoke("run_2")])
        await store.append(one, a_run("run_1", "x", claim=1))
        await store.append(two, [spoke("run_3")])

        async def listed(session: str | None, status: str | None, after: str = "") -> list[str]:
            rows = await store.runs(
                one.tenant, session=session, status=status, after=after, limit=10
            )
            return [row.id for row in rows]

        assert await listed(None, None) == ["run_3", "run_2", "run_1"]
        assert await listed(one.session, None) == ["run_2", "run_1"]
        assert await listed(None, "done") == ["run_1"]
        assert await listed(None, None, after="run_2") == ["run_1"]


async def an_id_is_taken_once(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        there = await store.session(key)
        there.title = "another"

        assert not await store.create(there)
        assert (await store.session(key)).title is None


async def sessions_are_listed_newest_first_and_every_one_once(make: Open) -> None:
    async with make() as store:
        made = [await _session_at(store, at) for at in (3.0, 1.0, 2.0, 2.0)]
        seen: list[str] = []
        after = ""
        while page := await store.sessions(
            TenantId("default"), agent=None, status=None, after=after, limit=2
        ):
            seen += [session.id for session in page]
            after = page[-1].id

        assert seen[0] == made[0].session
        assert seen[-1] == made[1].session
        assert sorted(seen) == sorted(key.session for key in made)


async def sessions_are_listed_by_agent_and_status(make: Open) -> None:
    async with make() as store:
        idle, queued = await a_session(store, agent="a"), await a_session(store, agent="b")
        await store.append(queued, [spoke("run_1")])

        async def listed(agent: str | None, status: str | None) -> list[SessionId]:
            found = await store.sessions(
                idle.tenant, agent=agent, status=status, after="", limit=10
            )
            return [session.id for session in found]

        assert await listed("a", None) == [idle.session]
        assert await listed(None, "queued") == [queued.session]
        assert await listed("a", "queued") == []


async def labels_can_be_changed_and_nothing_else_changes(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1")])

        changed = await store.relabel(key, Labels(title="T", metadata={"a": [1, None]}))

        assert (changed.title, changed.metadata) == ("T", {"a": [1, None]})
        assert changed.head == await store.head(key)
        assert (await store.session(key)).metadata == {"a": [1, None]}


async def labels_that_are_not_named_stay_as_they_are_at_that_moment(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await asyncio.gather(
            store.relabel(key, Labels(title="T")), store.relabel(key, Labels(metadata={"a": 1}))
        )
        assert await told(store, key) == ("T", {"a": 1})

        await store.relabel(key, Labels(title=None))
        assert await told(store, key) == (None, {"a": 1})
        changed = await store.relabel(key, Labels())
        assert (changed.title, changed.metadata) == (None, {"a": 1})


async def told(store: Store, key: Key) -> tuple[str | None, JsonObject]:
    session = await store.session(key)
    return session.title, session.metadata


async def what_was_said_is_found_newest_first(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1", "the Quick brown fox")])
        await store.append(key, a_run("run_1", "a quick answer, brown and dry", claim=1))
        await store.append(key, [spoke("run_2", "nothing of the sort")])

        hits = await store.search(key.tenant, "brown QUICK", limit=10)

        assert [(hit.session, hit.seq, hit.kind) for hit in hits] == [
            (key.session, 5, "model_replied"),
            (key.session, 1, "user_spoke"),
        ]
        assert hits[1].snippet == "the **Quick** **brown** fox"
        assert await store.search(key.tenant, "quick brown cow", limit=10) == []
        assert len(await store.search(key.tenant, "quick", limit=1)) == 1


async def a_search_may_hold_anything(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1", 'he said "NEAR(a b)" AND -left*')])

        for query in ('"', "AND", "NEAR(a b)", "-left*", "' OR 1=1 --", "a^2 {b} c:d", "", "\x00"):
            await store.search(key.tenant, query, limit=10)

        assert len(await store.search(key.tenant, "near left", limit=10)) == 1


async def a_deleted_session_is_gone_with_all_that_was_kept_of_it(make: Open) -> None:
    async with make() as store:
        key, other = await a_session(store), await a_session(store)
        await store.append(key, [spoke("run_1", "secret words")])
        await store.append(other, [spoke("run_2", "secret words")])

        await store.delete(key)
        await store.delete(key)

        await refused(NotFound, store.session(key))
        await refused(NotFound, store.append(key, [spoke("run_1")]))
        await refused(NotFound, store.run(key.tenant, RunId("run_1")))
        assert await store.unfinished() == [Job(RunKey(*other, RunId("run_2")))]
        hits = await store.search(key.tenant, "secret", limit=10)
        assert [hit.session for hit in hits] == [other.session]


async def a_deleted_id_can_be_made_again_and_starts_empty(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        labels = await store.session(key)
        await store.append(key, [spoke("run_1")])
        await store.delete(key)

        labels.head = type(labels.head)()
        assert await store.create(labels)

        assert (await store.append(key, [spoke("run_1")])).events[0].seq == 1


async def what_is_absent_is_not_found(make: Open) -> None:
    async with make() as store:
        key = Key(TenantId("default"), SessionId("ses_absent00"))
        await refused(NotFound, store.session(key))
        await refused(NotFound, store.head(key))
        await refused(NotFound, store.read(key, after=Seq(0), limit=1))
        await refused(NotFound, store.recall(key))
        await refused(NotFound, store.append(key, [spoke("run_1")]))
        await refused(NotFound, store.relabel(key, Labels(title="x")))
        await refused(NotFound, store.run(key.tenant, RunId("run_absent")))


async def tenants_share_nothing_but_the_storage(make: Open) -> None:
    async with make() as store:
        mine = await a_session(store, tenant="mine")
        theirs = Key(TenantId("theirs"), mine.session)
        labels = await store.session(mine)
        labels.tenant, labels.title = theirs.tenant, "theirs"
        await refused(NotFound, store.head(theirs))
        assert await store.create(labels)
        await store.append(mine, [spoke("run_1", "my words")])
        await store.append(theirs, [spoke("run_1", "their words"), spoke("run_2", "their words")])

        assert (await store.head(mine)).seq == 1
        assert (await store.session(mine)).title is None
        assert len(await store.search(mine.tenant, "words", limit=10)) == 1
        rows = await store.runs(mine.tenant, session=None, status=None, after="", limit=10)
        assert [row.id for row in rows] == ["run_1"]
        await refused(NotFound, store.run(mine.tenant, RunId("run_2")))

        await store.delete(theirs)
        assert (await store.head(mine)).seq == 1


async def hostile_text_comes_back_as_it_was(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        text = "\x00 \u2028 \U0001f40e '; DROP TABLE events; -- \\u0000 " + "x" * 100_000
        await store.append(key, [spoke("run_1", text)])

        (event,) = await store.read(key, after=Seq(0), limit=1)

        assert isinstance(event.fact, UserSpoke)
        assert event.fact.content == text


STORE_SUITE: Sequence[Check] = (
    what_is_appended_is_read_back_in_order_and_without_holes,
    a_page_starts_past_its_cursor_and_keeps_its_limit,
    a_recall_folds_to_the_same_conversation_as_the_whole_log,
    a_stale_fence_writes_nothing,
    anybody_may_append_without_a_fence,
    an_append_that_expects_an_older_head_writes_nothing,
    a_refused_append_does_not_fail_those_beside_it,
    appends_at_once_to_one_session_leave_no_hole,
    the_observer_is_told_in_order_and_before_the_append_returns,
    a_run_that_becomes_active_is_handed_to_the_outbox,
    a_run_keeps_its_priority_whenever_it_is_rung_for,
    unfinished_runs_are_those_that_are_active,
    a_run_s_row_follows_its_log,
    runs_are_listed_newest_first_and_by_session_and_status,
    an_id_is_taken_once,
    sessions_are_listed_newest_first_and_every_one_once,
    sessions_are_listed_by_agent_and_status,
    labels_can_be_changed_and_nothing_else_changes,
    labels_that_are_not_named_stay_as_they_are_at_that_moment,
    what_was_said_is_found_newest_first,
    a_search_may_hold_anything,
    a_deleted_session_is_gone_with_all_that_was_kept_of_it,
    a_deleted_id_can_be_made_again_and_starts_empty,
    what_is_absent_is_not_found,
    tenants_share_nothing_but_the_storage,
    hostile_text_comes_back_as_it_was,
    *ABSURDITIES,
    *WAITS,
    *SCHEDULED,
    *FORKS,
    *RECORDS,
    *TURNS,
    *DIRECT,
)


async def _session_at(store: Store, at: float) -> Key:
    session = a_new_session(at=at)
    assert await store.create(session)
    return Key(session.tenant, session.id)
