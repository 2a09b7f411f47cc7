"""What every store promises of forks, and of logs that were written elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from hostler.core.codec import SPOKEN, load_spoken
from hostler.core.errors import Conflict, NotFound
from hostler.core.events import (
    START,
    Event,
    Fact,
    Key,
    PrincipalId,
    RunId,
    RunKey,
    RunRated,
    Seq,
    SessionForked,
    SessionId,
)
from hostler.core.memory import remember
from hostler.core.ports import Job
from hostler.core.records import Segment
from hostler.core.state import State, fold
from hostler.core.store import LARGEST_READ, Store
from hostler.testing.doubles import a_session, whole_log
from hostler.testing.store_kit import (
    Check,
    Clock,
    Open,
    a_fork,
    a_new_session,
    a_run,
    a_step,
    asked,
    ended,
    finished,
    refused,
    spoke,
    started,
)


async def a_fork_reads_its_parent_s_history_under_its_ids(make: Open) -> None:
    async with make() as store:
        parent = await _a_talk(store, "run_1", "run_2")
        fork = await a_fork(store, parent.tenant, (parent.session, 6))
        await store.append(fork, [spoke("run_3")])
        await store.append(parent, [spoke("run_4")])

        log, before = await whole_log(store, fork), await whole_log(store, parent)
        assert log[:6] == before[:6]
        assert [(event.session, event.seq) for event in log[6:]] == [
            (fork.session, 7),
            (fork.session, 8),
        ]
        assert isinstance(log[6].fact, SessionForked)
        assert (await store.session(fork)).lineage == (Segment(parent.session, Seq(6)),)
        assert (await store.head(fork)).seq == 8


async def pages_of_a_fork_fit_together(make: Open) -> None:
    async with make() as store:
        parent = await _a_talk(store, "run_1", "run_2")
        fork = await a_fork(store, parent.tenant, (parent.session, 9))
        await store.append(fork, [spoke("run_3"), spoke("run_4")])
        whole = await whole_log(store, fork)

        for limit in range(1, len(whole) + 2):
            for after in range(len(whole) + 1):
                page = await store.read(fork, after=Seq(after), limit=limit)
                assert list(page) == whole[after : after + limit]


async def a_page_of_large_facts_ends_with_the_one_that_is_too_much(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        for number in range(6):
            facts = [spoke(f"run_{number}_{i}") for i in range(3)]
            await store.append(
                key, [*facts, spoke(f"run_{number}", text="x" * (LARGEST_READ // 2))]
            )
        fork = await _forked(store, key, (key.session, 10))
        await store.append(fork, [spoke(f"run_f{i}", text="x" * LARGEST_READ) for i in range(2)])

        pages = await _pages(store, key)
        assert [len(page) for page in pages] == [8, 8, 8]
        assert await _pages(store, fork) == [pages[0], [9, 10, 11, 12], [13]]
        few = await store.read(key, after=Seq(4), limit=3)
        assert [event.seq for event in few] == [5, 6, 7]


async def _pages(store: Store, key: Key) -> list[list[int]]:
    """Return the positions that each of a log's pages has, read to its end."""
    pages, after = list[list[int]](), START
    while page := await store.read(key, after=after, limit=1000):
        pages.append([event.seq for event in page])
        after = page[-1].seq
    return pages


async def a_fork_recalls_the_same_conversation_as_its_whole_log(make: Open) -> None:
    async with make() as store:
        parent = await _a_talk(store, "run_1", "run_2")
        step = [spoke("run_3"), *a_step("run_3", "call_1", claim=3, after=13)]
        await store.append(parent, [*step, started("run_3", "call_1"), finished("run_3", "call_1")])
        for at in (0, 6, 12, 19):
            lineage = [(parent.session, at)] if at else [(parent.session, 1)]
            fork = await a_fork(store, parent.tenant, *lineage)
            end = (await store.head(fork)).seq
            await store.append(fork, [spoke("run_9"), *a_run("run_9", "well", claim=1, after=end)])

            recall, log = await store.recall(fork), await whole_log(store, fork)

            recalled = fold(remember(recall.past), recall.events)
            assert recalled.transcript == fold(State(), log).transcript
            assert recalled.seq == recall.head.seq == len(log)
            said = [event for event in log[: recall.head.base - 1] if event.kind in SPOKEN]
            assert recall.past.seqs == [event.seq for event in said]
            assert recall.past.spoken == load_spoken(b",".join(event.raw for event in said))


async def a_fork_s_runs_are_its_own(make: Open) -> None:
    async with make() as store:
        parent = await _a_talk(store, "run_1")
        fork = await a_fork(store, parent.tenant, (parent.session, 6))
        assert await store.unfinished() == []

        await store.append(fork, [spoke("run_2", "hello")])

        rows = await store.runs(fork.tenant, session=fork.session, status=None, after="", limit=10)
        assert [row.id for row in rows] == ["run_2"]
        assert await store.unfinished() == [Job(RunKey(*fork, RunId("run_2")))]
        hits = await store.search(fork.tenant, "answer", limit=10)
        assert [hit.session for hit in hits] == [parent.session], "what was said is found once"


async def a_fork_of_a_fork_reads_both(make: Open) -> None:
    async with make() as store:
        first = await _a_talk(store, "run_1")
        second = await a_fork(store, first.tenant, (first.session, 6))
        await store.append(second, [spoke("run_2"), *a_run("run_2", "two", claim=1, after=8)])
        third = await a_fork(store, first.tenant, (first.session, 6), (second.session, 13))
        await store.append(third, [spoke("run_3")])

        log = await whole_log(store, third)

        assert [event.seq for event in log] == list(range(1, 16))
        assert [event.session for event in log] == [
            *[first.session] * 6,
            *[second.session] * 7,
            *[third.session] * 2,
        ]
        assert log[:13] == (await whole_log(store, second))[:13]
        recall = await store.recall(third)
        said = fold(remember(recall.past), recall.events)
        assert said.transcript == fold(State(), log).transcript


async def what_forks_read_outlives_the_session_that_said_it(make: Open) -> None:
    async with make() as store:
        parent = await _a_talk(store, "run_1", "run_2")
        fork = await a_fork(store, parent.tenant, (parent.session, 6))
        longer = await a_fork(store, parent.tenant, (parent.session, 8))
        before = [await whole_log(store, one) for one in (fork, longer)]

        await store.delete(parent)

        await refused(NotFound, store.head(parent))
        await refused(NotFound, store.read(parent, after=Seq(0), limit=9))
        assert [await whole_log(store, one) for one in (fork, longer)] == before
        assert await store.search(parent.tenant, "answer", limit=9) == []
        kept = await store.storage(parent.tenant, limit=9)
        assert (kept.sessions, kept.events) == (2, 8 + 2)

        await store.delete(longer)
        assert await whole_log(store, fork) == before[0]
        assert (await store.storage(parent.tenant, limit=9)).events == 6 + 1

        await store.delete(fork)
        assert (await store.storage(parent.tenant, limit=9)).events == 0


async def a_deleted_fork_keeps_what_its_own_forks_read(make: Open) -> None:
    async with make() as store:
        first = await _a_talk(store, "run_1")
        second = await a_fork(store, first.tenant, (first.session, 6))
        await store.append(second, [spoke("run_2"), spoke("run_3")])
        third = await a_fork(store, first.tenant, (first.session, 6), (second.session, 8))
        before = await whole_log(store, third)

        await store.delete(second)
        await store.delete(first)

        assert await whole_log(store, third) == before
        assert (await store.storage(first.tenant, limit=9)).events == 6 + 2 + 1
        await store.delete(third)
        assert (await store.storage(first.tenant, limit=9)).events == 0


async def an_id_whose_history_is_read_cannot_be_made_again(make: Open) -> None:
    async with make() as store:
        parent = await _a_talk(store, "run_1")
        fork = await a_fork(store, parent.tenant, (parent.session, 6))
        again = a_new_session()
        again.id = parent.session
        await store.delete(parent)

        await refused(Conflict, store.create(again))
        await refused(Conflict, store.restore(again, []))
        elsewhere = a_new_session("other")
        elsewhere.id = parent.session
        assert await store.create(elsewhere)

        await store.delete(fork)
        assert await store.create(again)
        assert (await store.append(parent, [spoke("run_1")])).events[0].seq == 1


async def a_history_that_is_gone_begins_no_fork(make: Open) -> None:
    async with make() as store:
        parent = await _a_talk(store, "run_1")
        fork = await a_fork(store, parent.tenant, (parent.session, 3))
        await store.delete(parent)

        for gone in ((parent.session, 4), (SessionId("ses_absent00"), 1), (fork.session, 5)):
            await refused(NotFound, _forked(store, fork, gone))
        again = await a_fork(store, parent.tenant, (parent.session, 2))

        assert await whole_log(store, again) == [
            *(await whole_log(store, fork))[:2],
            *await store.read(again, after=Seq(2), limit=1),
        ]
        assert (await store.storage(parent.tenant, limit=9)).sessions == 2


async def a_log_from_elsewhere_is_restored_with_its_times(make: Open) -> None:
    clock = Clock(9_000_000.0)
    async with make(clock=clock) as store:
        session = a_new_session(at=5000.0)
        session.title, session.updated_at = "moved", 6000.0
        facts: list[Fact] = [
            spoke("run_1", "blue words"),
            *a_step("run_1", "call_1"),
            asked("run_1", "call_1", expires_at=7000.0),
            finished("run_1", "call_1"),
            ended("run_1"),
        ]
        events = _events(session.id, facts, at=5000.0)

        assert await store.restore(session, events)

        key = Key(session.tenant, session.id)
        assert [(e.fact, e.at) for e in await whole_log(store, key)] == [
            (fact, 5000.0 + place) for place, fact in enumerate(facts)
        ]
        there = await store.session(key)
        assert (there.title, there.created_at, there.updated_at) == ("moved", 5000.0, 6000.0)
        assert (there.head.seq, there.head.status) == (8, "idle")
        run = await store.run(key.tenant, RunId("run_1"))
        assert (run.status, run.created_at, run.ended_at) == ("done", 5000.0, 5007.0)
        (approval,) = await store.approvals(
            key.tenant, session=None, status="closed", after="", limit=9
        )
        assert (approval.asked_at, approval.answered_at) == (5005.0, 5006.0)
        assert [hit.seq for hit in await store.search(key.tenant, "blue", limit=9)] == [1]
        assert (await store.append(key, [spoke("run_2")])).events[0].at == 9_000_000.0


async def a_log_is_restored_only_where_its_ids_are_free(make: Open) -> None:
    async with make() as store:
        there = await _a_talk(store, "run_1")
        session = a_new_session()
        taken = a_new_session()
        taken.id = there.session

        assert not await store.restore(taken, _events(taken.id, [spoke("run_2")]))
        assert not await store.restore(taken, _events(taken.id, [spoke("run_1")]))
        events = _events(session.id, [spoke("run_5"), spoke("run_1")])
        await refused(Conflict, store.restore(session, events))

        await refused(NotFound, store.head(Key(session.tenant, session.id)))
        await refused(NotFound, store.run(session.tenant, RunId("run_5")))
        assert (await store.head(there)).seq == 6
        assert await store.restore(session, _events(session.id, [spoke("run_5")]))


async def an_imported_log_says_nothing_of_runs_of_others(make: Open) -> None:
    async with make() as store:
        victim = await _a_talk(store, "run_1")
        mine = RunRated(run=RunId("run_1"), principal=PrincipalId("p"), score=1)
        await store.append(victim, [mine])
        session = a_new_session()
        facts: list[Fact] = [
            spoke("run_1"),
            ended("run_1"),
            SessionForked(run=None, origin=victim.session, at=Seq(2), principal=PrincipalId("p")),
            replace(mine, score=0),
        ]
        events = [
            Event(session=session.id, seq=Seq(at), at=1.0, fact=fact, raw=b"")
            for at, fact in enumerate(facts, start=1)
        ]

        assert await store.restore(session, events)

        (rating,) = await store.ledger.ratings(victim.tenant, RunId("run_1"))
        assert rating.score == 1
        assert (await store.run(victim.tenant, RunId("run_1"))).session == victim.session


FORKS: Sequence[Check] = (
    a_fork_reads_its_parent_s_history_under_its_ids,
    pages_of_a_fork_fit_together,
    a_page_of_large_facts_ends_with_the_one_that_is_too_much,
    a_fork_recalls_the_same_conversation_as_its_whole_log,
    a_fork_s_runs_are_its_own,
    a_fork_of_a_fork_reads_both,
    what_forks_read_outlives_the_session_that_said_it,
    a_deleted_fork_keeps_what_its_own_forks_read,
    an_id_whose_history_is_read_cannot_be_made_again,
    a_history_that_is_gone_begins_no_fork,
    a_log_from_elsewhere_is_restored_with_its_times,
    a_log_is_restored_only_where_its_ids_are_free,
    an_imported_log_says_nothing_of_runs_of_others,
)


async def _a_talk(store: Store, *runs: str) -> Key:
    """Make a session in which each run took six facts."""
    key = await a_session(store)
    for place, run in enumerate(runs):
        said = [spoke(run), *a_run(run, f"answer {run}", claim=place + 1, after=6 * place + 1)]
        await store.append(key, said)
    return key


async def _forked(store: Store, beside: Key, *lineage: tuple[SessionId, int]) -> Key:
    return await a_fork(store, beside.tenant, *lineage)


def _events(session: SessionId, facts: Sequence[Fact], *, at: float = 0.0) -> list[Event]:
    return [
        Event(session=session, seq=Seq(place + 1), at=at + place, fact=fact, raw=b"")
        for place, fact in enumerate(facts)
    ]
