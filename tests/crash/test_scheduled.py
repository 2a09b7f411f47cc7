"""A message that is said later is said once, wherever somebody dies and whoever else tries."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias, cast

import anyio
import pytest
from msgspec.structs import replace
from tests.services import Database

from hostler.core.events import (
    Event,
    Fact,
    InputDropped,
    Key,
    MessageScheduled,
    Policy,
    Principal,
    PrincipalId,
    RunId,
    RunKey,
    Seq,
    TenantId,
    UserSpoke,
)
from hostler.core.ports import World
from hostler.core.records import Appended, Once
from hostler.core.store import AHEAD_S, Store
from hostler.service.inbox import Inbox, Message
from hostler.service.schedule import AGAIN_S, InTime, Schedule, ScheduledReceipt
from hostler.stores.memory import MemoryStore
from hostler.stores.postgres_open import open_postgres
from hostler.stores.sqlite import SqliteStore
from hostler.testing.crashing import NoEngine, every_death
from hostler.testing.doubles import Append, Crash, a_session, whole_log
from hostler.testing.store_kit import Clock, a_run, ended, spoke

pytestmark = pytest.mark.anyio
ME = Principal(id=PrincipalId("p"), tenant=TenantId("default"))
LATER_S = 3600.0
Making: TypeAlias = Callable[[pytest.FixtureRequest, Clock], AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def in_memory(request: pytest.FixtureRequest, clock: Clock) -> AsyncGenerator[Store]:
    del request
    yield MemoryStore(clock=clock)


@asynccontextmanager
async def on_sqlite(request: pytest.FixtureRequest, clock: Clock) -> AsyncGenerator[Store]:
    folder = cast("Path", request.getfixturevalue("tmp_path"))
    store = SqliteStore.open(folder / "log.db", clock=clock)
    yield store
    store.close()


@asynccontextmanager
async def on_postgres(request: pytest.FixtureRequest, clock: Clock) -> AsyncGenerator[Store]:
    database = cast("Database", request.getfixturevalue("postgres"))
    async with open_postgres(database.url, clock=clock) as store:
        yield store


class Node:
    """One of those who say what is to be said; runs are driven by nobody here."""

    def __init__(self, store: Store, clock: Clock) -> None:
        world = World("node", clock=clock)
        self.store, self.clock = store, clock
        self.schedule = Schedule(inbox=Inbox(store=store, engine=NoEngine(), world=world))
        self.rung = list[RunKey]()
        self.handle = InTime(self.schedule, self._drive)

    async def _drive(self, key: RunKey) -> None:
        self.rung.append(key)

    async def later(
        self, key: Key, text: str = "hello", *, policy: Policy = "queue", in_s: float = LATER_S
    ) -> ScheduledReceipt:
        at = datetime.fromtimestamp(self.clock.now + in_s, UTC)
        message = Message(content=text, policy=policy, metadata={})
        return await self.schedule.speak(ME, key.session, message, at)

    async def round(self) -> list[float | None]:
        """Handle all that the store says can go on."""
        return [await self.handle(job.key) for job in await self.store.unfinished()]


def dying_unfenced(append: Append, *, at: int, after: bool) -> Append:
    """Return an `append` whose `at`-th call ends in a crash, before it writes or after that."""
    left = at

    async def wrapped(
        key: Key,
        facts: Sequence[Fact],
        *,
        fence: int | None = None,
        expected: Seq | None = None,
        once: Once | None = None,
    ) -> Appended:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            raise Crash
        appended = await append(key, facts, fence=fence, expected=expected, once=once)
        if left == 0:
            raise Crash
        return appended

    return wrapped


def said(log: list[Event]) -> list[UserSpoke]:
    return [event.fact for event in log if isinstance(event.fact, UserSpoke)]


def dropped(log: list[Event]) -> list[InputDropped]:
    return [event.fact for event in log if isinstance(event.fact, InputDropped)]


@pytest.mark.parametrize("make", [in_memory, on_sqlite, on_postgres])
@pytest.mark.parametrize("policy", ["queue", "interrupt", "steer", "replace", "coalesce"])
async def test_wherever_a_node_dies_a_scheduled_message_is_said_once(
    make: Making, policy: Policy, request: pytest.FixtureRequest
) -> None:
    clock = Clock()
    async with make(request, clock) as store:

        async def play(n: int, after: bool) -> bool:  # noqa: FBT001
            key, crashes = await a_session(store), 0
            await store.append(key, [spoke("run_going"), spoke("run_next")])
            receipt = await Node(store, clock).later(key, policy=policy)
            clock.now += LATER_S
            whole = store.append
            store.append = dying_unfenced(whole, at=n, after=after)  # type: ignore[method-assign]
            try:
                while await store.scheduled(key):
                    try:
                        await Node(store, clock).handle(RunKey(*key, RunId(receipt.input)))
                    except Crash:
                        crashes += 1
            finally:
                store.append = whole  # type: ignore[method-assign]
            log = await whole_log(store, key)
            ours = [one for one in said(log) if one.input == receipt.input]
            assert [one.scheduled for one in ours] == [receipt.seq]
            await store.append(key, [ended("run_going")])
            return crashes > 0

        deaths = [death async for death in every_death(play)]

        assert len(deaths) >= 2


@pytest.mark.parametrize("make", [in_memory, on_sqlite, on_postgres])
async def test_several_nodes_at_once_say_it_once(
    make: Making, request: pytest.FixtureRequest
) -> None:
    clock = Clock()
    async with make(request, clock) as store:
        key = await a_session(store)
        receipts = [await Node(store, clock).later(key) for _ in range(5)]
        clock.now += LATER_S

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(Node(store, clock).round)

        log = await whole_log(store, key)
        assert sorted(one.input for one in said(log)) == sorted(one.input for one in receipts)


async def test_one_that_is_rung_for_early_is_said_at_its_time() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    key, node = await a_session(store), Node(store, clock)
    due = clock.now + LATER_S
    await node.later(key)

    clock.now = due - AHEAD_S
    assert await node.round() == [due]
    assert said(await whole_log(store, key)) == []

    clock.now = due
    assert await node.round() == [None]
    assert len(said(await whole_log(store, key))) == 1


async def test_one_whose_time_came_while_nobody_was_up_is_said_late() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    key = await a_session(store)
    await Node(store, clock).later(key)

    clock.now += 30 * LATER_S
    await Node(store, clock).round()

    assert len(said(await whole_log(store, key))) == 1


async def test_it_holds_up_nothing_that_is_said_before() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    key, node = await a_session(store), Node(store, clock)
    await node.later(key, "later")

    await store.append(key, [spoke("run_1", "now")])
    clock.now += LATER_S
    await node.round()

    assert [one.content for one in said(await whole_log(store, key))] == ["now", "later"]
    assert node.rung == [RunKey(*key, RunId("run_1"))]


async def test_its_policy_is_that_of_the_time_at_which_it_is_said() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    key, node = await a_session(store), Node(store, clock)
    await node.later(key, policy="steer")
    await store.append(key, [spoke("run_1")])

    clock.now += LATER_S
    await node.round()

    assert [one.run for one in said(await whole_log(store, key))] == ["run_1", "run_1"]


async def test_one_that_its_policy_refuses_then_is_dropped_and_says_why() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    key, node = await a_session(store), Node(store, clock)
    receipt = await node.later(key, policy="reject")
    await store.append(key, [spoke("run_1")])

    clock.now += LATER_S
    await node.round()

    log = await whole_log(store, key)
    assert [(one.input, one.reason) for one in dropped(log)] == [(receipt.input, "busy")]
    assert await store.scheduled(key) == []


async def test_one_that_finds_the_queue_full_is_said_when_there_is_room() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    key, node = await a_session(store), Node(store, clock)
    receipt = await node.later(key)
    await store.append(key, [spoke(f"run_{n}") for n in range(101)])

    clock.now += LATER_S
    due = RunKey(*key, RunId(receipt.input))
    assert await node.handle(due) == clock.now + AGAIN_S
    await store.append(key, a_run("run_0", "well", claim=1, after=102))

    assert await node.handle(due) is None
    assert [one.scheduled for one in said(await whole_log(store, key))][-1] == receipt.seq


async def test_one_that_is_withdrawn_while_it_is_said_ends_in_one_way() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    key, node = await a_session(store), Node(store, clock)
    receipt = await node.later(key)
    clock.now += LATER_S
    whole = store.head

    async def overtaken(of: Key) -> object:
        store.head = whole  # type: ignore[method-assign]
        head = await whole(of)
        await node.schedule.withdraw(ME, key.session, receipt.input)
        return head

    store.head = overtaken  # type: ignore[assignment,method-assign]
    await node.round()

    log = await whole_log(store, key)
    assert said(log) == []
    assert [one.principal for one in dropped(log)] == ["p"]


async def test_one_of_a_session_that_is_gone_is_forgotten() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    key, node = await a_session(store), Node(store, clock)
    receipt = await node.later(key)
    await store.delete(key)

    clock.now += LATER_S

    assert await node.handle(RunKey(*key, RunId(receipt.input))) is None


async def test_what_is_said_is_what_was_scheduled() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    key, node = await a_session(store), Node(store, clock)
    receipt = await node.later(key)
    clock.now += LATER_S
    await node.round()

    log = await whole_log(store, key)

    (scheduled,) = (one.fact for one in log if isinstance(one.fact, MessageScheduled))
    assert said(log) == [replace(scheduled.message, scheduled=receipt.seq)]
