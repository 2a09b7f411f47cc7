"""What every store promises of runs that wait for somebody, and of writes that happen once."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from hostler.core.errors import Moved, NotFound, Repeated
from hostler.core.events import (
    CallId,
    CancelRequested,
    Key,
    PrincipalId,
    RunId,
    RunKey,
    Seq,
    TenantId,
)
from hostler.core.ports import Job
from hostler.core.records import Approval, Kept, Session
from hostler.core.store import Store
from hostler.testing.doubles import a_session
from hostler.testing.store_kit import (
    Check,
    Clock,
    Open,
    a_new_session,
    a_run,
    a_step,
    asked,
    ended,
    finished,
    given,
    once,
    refused,
    spoke,
    started,
)

DAY_S = 24 * 3600.0


async def an_approval_s_row_follows_its_log(make: Open) -> None:
    clock = Clock(1000.5)
    async with make(clock=clock) as store:
        key = await a_session(store)
        calls = ("call_1", "call_2", "call_3")
        await store.append(key, [spoke("run_1"), *a_step("run_1", *calls)])
        await store.append(key, [asked("run_1", call, expires_at=2000.25) for call in calls])
        assert await _approval(store, key, "call_1") == Approval(
            tenant=key.tenant,
            session=key.session,
            run=RunId("run_1"),
            call=CallId("call_1"),
            name="tool",
            arguments={"a": [1, None]},
            digest=asked("run_1", "call_1").digest,
            asked_at=1000.5,
            expires_at=2000.25,
        )

        clock.now = 1001.5
        await store.append(key, [given("run_1", "call_1", "allow")])
        await store.append(key, [given("run_1", "call_2", "deny", "too dear")])
        await store.append(key, [started("run_1", "call_1"), finished("run_1", "call_1")])
        await store.append(key, [finished("run_1", "call_2"), finished("run_1", "call_3")])

        rows = [await _approval(store, key, call) for call in calls]
        assert [(row.status, row.principal, row.reason, row.answered_at) for row in rows] == [
            ("allow", "boss", None, 1001.5),
            ("deny", "boss", "too dear", 1001.5),
            ("closed", None, None, 1001.5),
        ]
        assert rows[1].arguments == {"a": [1, None]}


async def an_approval_that_is_asked_and_answered_in_one_commit_is_kept_whole(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        step = [spoke("run_1"), *a_step("run_1", "call_1")]
        await store.append(
            key, [*step, asked("run_1", "call_1"), given("run_1", "call_1", "allow", "fine")]
        )

        row = await _approval(store, key, "call_1")
        assert (row.status, row.name, row.reason) == ("allow", "tool", "fine")


async def a_second_answer_changes_no_row(make: Open) -> None:
    async with make() as store:
        key = await _asking(store, "run_1", "call_1")
        await store.append(key, [given("run_1", "call_1", "allow", "first")])
        await store.append(key, [given("run_1", "call_1", "deny", "second")])

        row = await _approval(store, key, "call_1")
        assert (row.status, row.reason) == ("allow", "first")


async def approvals_are_listed_oldest_first_by_session_and_status(make: Open) -> None:
    async with make() as store:
        one = await _asking(store, "run_1", "call_1", "call_4")
        two = await _asking(store, "run_2", "call_2")
        await _asking(store, "run_3", "call_3", tenant="other")
        await store.append(two, [given("run_2", "call_2", "deny")])

        async def listed(session: str | None, status: str | None, after: str = "") -> list[str]:
            found = await store.approvals(
                one.tenant, session=session, status=status, after=after, limit=2
            )
            return [row.call for row in found]

        assert await listed(None, None) == ["call_1", "call_2"]
        assert await listed(None, None, after="call_2") == ["call_4"]
        assert await listed(None, "open") == ["call_1", "call_4"]
        assert await listed(None, "deny") == ["call_2"]
        assert await listed(one.session, None) == ["call_1", "call_4"]


async def approvals_belong_to_their_session_and_go_with_it(make: Open) -> None:
    async with make() as store:
        key, other = await _asking(store, "run_1", "call_1"), await a_session(store)
        await refused(NotFound, _approval(store, other, "call_1"))
        await refused(NotFound, _approval(store, key, "call_2"))

        await store.delete(key)

        await refused(NotFound, _approval(store, key, "call_1"))
        found = await store.approvals(key.tenant, session=None, status=None, after="", limit=9)
        assert list(found) == []


async def a_parked_run_rests_until_the_first_of_its_waits_is_over(make: Open) -> None:
    clock = Clock(1000.0)
    async with make(clock=clock) as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1"), *a_step("run_1", "call_1", "call_2")])
        await store.append(key, [asked("run_1", "call_1", expires_at=5000.0)])
        run = [Job(RunKey(*key, RunId("run_1")))]
        assert await store.unfinished() == run, "call_2 can go on"
        assert (await store.head(key)).status == "running"

        await store.append(key, [started("run_1", "call_2", expires_at=3000.0)])
        assert (await store.head(key)).status == "waiting"
        clock.now = 2999.0
        assert await store.unfinished() == []
        assert [one.id for one in await _waiting(store, key.tenant)] == [key.session]

        clock.now = 3000.0
        assert await store.unfinished() == run


async def an_answer_or_a_cancel_makes_a_parked_run_go_on(make: Open) -> None:
    async with make() as store:
        answered, cancelled = (
            await _asking(store, "run_1", "call_1"),
            await _asking(store, "run_2", "call_2"),
        )
        assert await store.unfinished() == []

        await store.append(answered, [given("run_1", "call_1", "deny")])
        assert await store.unfinished() == [Job(RunKey(*answered, RunId("run_1")))]
        await store.append(answered, [finished("run_1", "call_1"), ended("run_1")])
        cancel = CancelRequested(run=RunId("run_2"), principal=PrincipalId("p"), reason=None)
        await store.append(cancelled, [cancel])
        assert await store.unfinished() == [Job(RunKey(*cancelled, RunId("run_2")))]
        await store.append(cancelled, [finished("run_2", "call_2"), ended("run_2")])
        assert await store.unfinished() == []
        assert (await _approval(store, cancelled, "call_2")).status == "closed"


async def a_message_to_a_parked_run_leaves_it_parked(make: Open) -> None:
    async with make() as store:
        key = await _asking(store, "run_1", "call_1")

        await store.append(key, [spoke("run_1", policy="steer"), spoke("run_2")])

        assert await store.unfinished() == []
        assert (await store.head(key)).queue == ("run_2",)


async def a_write_that_happens_once_is_kept_with_its_answer(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        assert await store.kept(key.tenant, "s") is None

        await store.append(key, [spoke("run_1")], once=once("s"))

        assert await store.kept(key.tenant, "s") == Kept("d", b"kept 1")
        await refused(Repeated, store.append(key, [spoke("run_2")], once=once("s", digest="e")))
        assert (await store.head(key)).seq == 1
        assert await store.kept(key.tenant, "s") == Kept("d", b"kept 1")
        assert await store.kept(TenantId("other"), "s") is None
        await store.append(key, [spoke("run_2")], once=once("another"))


async def a_refused_write_keeps_no_answer(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)

        await refused(Moved, store.append(key, [], expected=Seq(7), once=once("s")))
        absent = Key(key.tenant, a_new_session().id)
        await refused(NotFound, store.append(absent, [spoke("run_1")], once=once("s")))

        assert await store.kept(key.tenant, "s") is None
        await store.append(key, [spoke("run_1")], once=once("s"))


async def a_write_of_nothing_can_happen_once(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)

        appended = await store.append(key, [], once=once("s"))

        assert (list(appended.events), appended.head.seq) == ([], 0)
        assert await store.kept(key.tenant, "s") == Kept("d", b"kept 0")
        await refused(Repeated, store.append(key, [], once=once("s")))


async def equal_writes_at_once_happen_once(make: Open) -> None:
    async with make() as store:
        keys = [await a_session(store) for _ in range(20)]
        told: list[str] = []

        async def write(key: Key) -> None:
            try:
                await store.append(key, [spoke("run_1")], once=once("s"))
            except Repeated:
                told.append("repeated")
            else:
                told.append("written")

        async with anyio.create_task_group() as tasks:
            for key in keys:
                tasks.start_soon(write, key)

        assert sorted(told) == ["repeated"] * 19 + ["written"]
        assert sum([(await store.head(key)).seq for key in keys]) == 1


async def a_session_can_be_made_once(make: Open) -> None:
    async with make() as store:
        first, second = a_new_session(), a_new_session()

        assert await store.create(first, once=once("s", "made"))

        assert await store.kept(first.tenant, "s") == Kept("d", b"made 0")
        await refused(Repeated, store.create(second, once=once("s")))
        await refused(NotFound, store.head(Key(second.tenant, second.id)))
        assert not await store.create(first, once=once("t"))
        assert await store.kept(first.tenant, "t") is None


async def an_answer_is_kept_for_a_day(make: Open) -> None:
    clock = Clock(1_000_000.0)
    async with make(clock=clock) as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1")], once=once("s"))

        clock.now += DAY_S - 1
        assert await store.kept(key.tenant, "s") == Kept("d", b"kept 1")
        await refused(Repeated, store.append(key, [spoke("run_2")], once=once("s")))
        clock.now += 1
        assert await store.kept(key.tenant, "s") is None

        await store.append(key, [spoke("run_2")], once=once("s", digest="e"))
        assert await store.kept(key.tenant, "s") == Kept("e", b"kept 2")


async def an_answer_outlives_the_session_it_is_about(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1"), *a_run("run_1", "x", claim=1)], once=once("s"))

        await store.delete(key)

        assert await store.kept(key.tenant, "s") == Kept("d", b"kept 6")


WAITS: Sequence[Check] = (
    an_approval_s_row_follows_its_log,
    an_approval_that_is_asked_and_answered_in_one_commit_is_kept_whole,
    a_second_answer_changes_no_row,
    approvals_are_listed_oldest_first_by_session_and_status,
    approvals_belong_to_their_session_and_go_with_it,
    a_parked_run_rests_until_the_first_of_its_waits_is_over,
    an_answer_or_a_cancel_makes_a_parked_run_go_on,
    a_message_to_a_parked_run_leaves_it_parked,
    a_write_that_happens_once_is_kept_with_its_answer,
    a_refused_write_keeps_no_answer,
    a_write_of_nothing_can_happen_once,
    equal_writes_at_once_happen_once,
    a_session_can_be_made_once,
    an_answer_is_kept_for_a_day,
    an_answer_outlives_the_session_it_is_about,
)


async def _asking(store: Store, run: str, *calls: str, tenant: str = "default") -> Key:
    """Make a session whose run waits for approvals of these calls."""
    key = await a_session(store, tenant=tenant)
    requests = [asked(run, call) for call in calls]
    await store.append(key, [spoke(run), *a_step(run, *calls), *requests])
    return key


async def _approval(store: Store, key: Key, call: str) -> Approval:
    return await store.approval(key.tenant, key.session, CallId(call))


async def _waiting(store: Store, tenant: TenantId) -> Sequence[Session]:
    return await store.sessions(tenant, agent=None, status="waiting", after="", limit=9)
