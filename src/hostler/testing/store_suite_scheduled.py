"""What every store promises of messages that are said later."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from hostler.core.errors import Moved
from hostler.core.events import START, InputDropped, MessageScheduled, RunId, RunKey, Seq, UserSpoke
from hostler.core.ports import Job
from hostler.core.records import Timer
from hostler.core.store import AHEAD_S
from hostler.testing.doubles import a_session
from hostler.testing.store_kit import (
    Check,
    Clock,
    Open,
    a_fork,
    a_new_session,
    a_run,
    refused,
    spoke,
)

LATER = 1_000_000.0


async def a_scheduled_message_is_kept_until_it_is_said(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        first, then = scheduled(LATER + 60, run="run_1"), scheduled(LATER + 30, run="run_2")
        await store.append(key, [first, then])
        assert await store.scheduled(key) == [timer(then, 2), timer(first, 1)]

        await store.append(key, [said(then, 2), *a_run("run_2", "well", claim=1, after=3)])

        assert await store.scheduled(key) == [timer(first, 1)]
        assert (await store.run(key.tenant, RunId("run_2"))).status == "done"


async def a_scheduled_message_can_be_dropped_without_a_run(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        one, other = scheduled(LATER), scheduled(LATER)
        await store.append(key, [one, other])

        await store.append(key, [dropped(one)])

        assert await store.scheduled(key) == [timer(other, 2)]
        assert (await store.head(key)).status == "idle"


async def what_is_scheduled_and_dropped_in_one_commit_leaves_no_row(make: Open) -> None:
    async with make() as store:
        key, one = await a_session(store), scheduled(LATER)

        await store.append(key, [one, dropped(one)])

        assert await store.scheduled(key) == []


async def a_message_is_rung_for_from_a_little_before_its_time_until_it_is_said(make: Open) -> None:
    clock = Clock(LATER)
    async with make(clock=clock) as store:
        key, one = await a_session(store), scheduled(LATER + 3600)
        await store.append(key, [one])
        due = Job(RunKey(*key, RunId(one.message.input)))
        assert await store.unfinished() == []

        clock.now = LATER + 3600 - AHEAD_S
        assert await store.unfinished() == [due]
        clock.now = LATER + 1_000_000
        assert await store.unfinished() == [due]

        run = one.message.run
        assert run is not None
        await store.append(key, [said(one, 1)])
        assert await store.unfinished() == [Job(RunKey(*key, run))]


async def a_message_that_was_scheduled_is_no_run_and_holds_none_up(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1"), scheduled(LATER)])

        head = await store.head(key)

        assert (head.active, head.queue) == (RunId("run_1"), ())
        recall = await store.recall(key)
        assert [event.kind for event in recall.events][-1] == "message_scheduled"


async def a_refused_append_schedules_nothing(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [scheduled(LATER)])

        await refused(Moved, store.append(key, [scheduled(LATER)], expected=START))

        assert len(await store.scheduled(key)) == 1


async def what_is_scheduled_goes_with_its_session_and_belongs_to_it(make: Open) -> None:
    async with make() as store:
        key, other = await a_session(store), await a_session(store, tenant="other")
        await store.append(key, [scheduled(LATER)])
        assert await store.scheduled(other) == []

        await store.delete(key)

        assert await store.scheduled(key) == []
        assert await store.unfinished() == []


async def a_fork_says_nothing_that_its_parent_has_scheduled(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [scheduled(LATER), spoke("run_1"), *a_run("run_1", "x", claim=1)])

        fork = await a_fork(store, key.tenant, (key.session, 7))

        assert await store.scheduled(fork) == []
        assert len(await store.scheduled(key)) == 1


async def a_log_that_was_written_elsewhere_has_what_is_still_to_be_said(make: Open) -> None:
    async with make() as store:
        one, other = scheduled(LATER), scheduled(LATER)
        there = await a_session(store)
        events = (await store.append(there, [one, other, dropped(one)])).events
        session = a_new_session("other")
        here = [replace(event, session=session.id) for event in events]

        assert await store.restore(session, here)

        key = there._replace(tenant=session.tenant, session=session.id)
        assert await store.scheduled(key) == [timer(other, 2)]


SCHEDULED: Sequence[Check] = (
    a_scheduled_message_is_kept_until_it_is_said,
    a_scheduled_message_can_be_dropped_without_a_run,
    what_is_scheduled_and_dropped_in_one_commit_leaves_no_row,
    a_message_is_rung_for_from_a_little_before_its_time_until_it_is_said,
    a_message_that_was_scheduled_is_no_run_and_holds_none_up,
    a_refused_append_schedules_nothing,
    what_is_scheduled_goes_with_its_session_and_belongs_to_it,
    a_fork_says_nothing_that_its_parent_has_scheduled,
    a_log_that_was_written_elsewhere_has_what_is_still_to_be_said,
)


def scheduled(at: float, *, run: str = "run_9") -> MessageScheduled:
    due_at = datetime.fromtimestamp(at, UTC)
    return MessageScheduled(run=None, message=spoke(run), due_at=due_at)


def said(one: MessageScheduled, seq: int) -> UserSpoke:
    return replace(one.message, scheduled=Seq(seq))


def dropped(one: MessageScheduled) -> InputDropped:
    return InputDropped(run=None, input=one.message.input, reason="withdrawn")


def timer(one: MessageScheduled, seq: int) -> Timer:
    return Timer(one.message.input, Seq(seq), one.due_at.timestamp())
