"""A worker dies at each of its writes while people answer, and runs are cancelled at each event."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import cast

import anyio
import pytest
from tests.services import Database

from hostler.core.errors import Conflict
from hostler.core.events import (
    ApprovalAsked,
    CancelRequested,
    Event,
    Key,
    ModelAsked,
    Principal,
    PrincipalId,
    RunEnded,
    TenantId,
    ToolFinished,
    ToolStarted,
)
from hostler.core.head import Head, Wait
from hostler.core.ports import AgentSpec, Reply, Request, World
from hostler.core.records import Appended
from hostler.core.said import ToolSaid
from hostler.core.store import Store
from hostler.service.admission import Admission
from hostler.service.inbox import Inbox, Message
from hostler.service.waits import Decision, Waits
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.stores.postgres_open import open_postgres
from hostler.stores.sqlite import SqliteStore
from hostler.testing.crashing import NoEngine, Workers, check_log, every_death
from hostler.testing.doubles import (
    ModelDouble,
    ToolboxDouble,
    a_call,
    a_session,
    a_tool,
    an_agent,
    dying,
    whole_log,
)

pytestmark = pytest.mark.anyio
ME = Principal(id=PrincipalId("me"), tenant=TenantId("default"))
Making = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[tuple[Store, LocalSignals]]]


@asynccontextmanager
async def in_memory(*_: object) -> AsyncGenerator[tuple[Store, LocalSignals]]:
    signals = LocalSignals()
    yield MemoryStore(observer=signals.publish), signals


@asynccontextmanager
async def on_sqlite(request: pytest.FixtureRequest) -> AsyncGenerator[tuple[Store, LocalSignals]]:
    signals, folder = LocalSignals(), cast("Path", request.getfixturevalue("tmp_path"))
    store = SqliteStore.open(folder / "log.db", observer=signals.publish)
    yield store, signals
    store.close()


@asynccontextmanager
async def on_postgres(
    request: pytest.FixtureRequest,
) -> AsyncGenerator[tuple[Store, LocalSignals]]:
    signals, database = LocalSignals(), cast("Database", request.getfixturevalue("postgres"))
    async with open_postgres(database.url, observer=signals.publish) as store:
        yield store, signals


TOOLS = {
    spec.name: spec
    for spec in (
        a_tool("gated", approval=True),
        a_tool("client", client=True, timeout_s=1000.0),
        a_tool("plain"),
    )
}


def three_calls_twice(request: Request) -> Reply:
    if sum(isinstance(said, ToolSaid) for said in request.transcript) >= 6:
        return Reply(text="done", stop="end")
    return Reply(text="", stop="tools", calls=tuple(a_call(name) for name in TOOLS))


class People:
    """Answers what a run waits for, through the service, in one of some ways."""

    def __init__(self, store: Store, agent: AgentSpec) -> None:
        engine, world = NoEngine(), World("people")
        self.inbox = Inbox(store=store, engine=engine, world=world, admission=Admission())
        self.waits = Waits(store=store, engine=engine, agents={agent.name: agent}, world=world)
        self.refused: list[str] = []

    async def begin(self, key: Key) -> None:
        said = Message(content="go", policy="queue", metadata={})
        await self.inbox.speak(ME, key.session, said)

    async def answer(self, key: Key, wait: Wait, decision: Decision) -> None:
        try:
            if wait.kind == "approval":
                await self.waits.approve(ME, key.session, wait.call, decision)
            else:
                await self.waits.answer(ME, key.session, wait.call, output="x", is_error=False)
        except Conflict as error:
            self.refused.append(error.code)

    async def allow(self, key: Key, head: Head) -> None:
        await self.answer(key, head.waits[0], Decision(verdict="allow"))

    async def deny(self, key: Key, head: Head) -> None:
        await self.answer(key, head.waits[-1], Decision(verdict="deny", reason="no"))

    async def edit(self, key: Key, head: Head) -> None:
        await self.answer(key, head.waits[0], Decision(verdict="allow", arguments={"to": "b"}))

    async def remember(self, key: Key, head: Head) -> None:
        await self.answer(key, head.waits[0], Decision(verdict="allow", remember=True))

    async def cancel(self, key: Key, head: Head) -> None:
        del head
        await self.inbox.cancel(ME, key.session, "enough")

    async def cancel_twice(self, key: Key, head: Head) -> None:
        await self.cancel(key, head)
        await self.cancel(key, head)

    async def everything_at_once(self, key: Key, head: Head) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.allow, key, head)
            tasks.start_soon(self.cancel, key, head)
            tasks.start_soon(self.deny, key, head)
            tasks.start_soon(self.cancel, key, head)

    async def steer_then_allow(self, key: Key, head: Head) -> None:
        said = Message(content="hurry", policy="steer", metadata={})
        await self.inbox.speak(ME, key.session, said)
        await self.allow(key, head)


WAYS: dict[str, Callable[[People, Key, Head], Awaitable[None]]] = {
    "allow": People.allow,
    "deny": People.deny,
    "edit": People.edit,
    "remember": People.remember,
    "cancel": People.cancel,
    "cancel twice": People.cancel_twice,
    "everything at once": People.everything_at_once,
    "steer, then allow": People.steer_then_allow,
}


@pytest.mark.parametrize("make", [in_memory, on_sqlite, on_postgres])
@pytest.mark.parametrize("way", WAYS)
async def test_wherever_the_worker_dies_what_people_answered_holds(
    make: Making, way: str, request: pytest.FixtureRequest
) -> None:
    async with make(request) as (store, signals):

        async def play(n: int, after: bool) -> bool:  # noqa: FBT001
            tools = ToolboxDouble(TOOLS)
            agent = an_agent(ModelDouble(three_calls_twice), tools=tools)
            people = People(store, agent)
            key = await a_session(store)

            async def outside(key: Key, head: Head) -> None:
                await WAYS[way](people, key, head)

            workers = Workers(store, agent, signals, outside=outside)
            await people.begin(key)
            whole = store.append
            store.append = dying(whole, at=n, after=after)  # type: ignore[method-assign]
            try:
                log = await workers.work_until_rest(key)
            finally:
                store.append = whole  # type: ignore[method-assign]
            check_log(log)
            check_ends(log, cancelled=way not in ("allow", "deny", "edit", "remember"))
            calls = [call for _, call in tools.done]
            assert len(calls) == len(set(calls)), "an unsafe effect happened twice"
            return workers.crashes > 0

        deaths = [death async for death in every_death(play)]

        assert len(deaths) > 4


def check_ends(log: Sequence[Event], *, cancelled: bool) -> None:
    """Assert that there is one end, and that nothing was begun after a cancel."""
    (end,) = [event.fact for event in log if isinstance(event.fact, RunEnded)]
    said = [event.fact for event in log]
    at = next((i for i, fact in enumerate(said) if isinstance(fact, CancelRequested)), None)
    if at is not None:
        assert end.status == "cancelled"
        begun = (ModelAsked, ToolStarted, ApprovalAsked)
        assert not [fact for fact in said[at:] if isinstance(fact, begun)]
    else:
        assert not cancelled or "hurry" in str(said)
        assert end.status == "done"
    asked = {call.id for event in log for call in getattr(event.fact, "calls", ())}
    assert {fact.call for fact in said if isinstance(fact, ToolFinished)} == asked


class Cancelling(MemoryStore):
    """Cancels, so many times, as soon as the log has so many events."""

    def __init__(self, signals: LocalSignals, *, at: int, times: int) -> None:
        super().__init__(observer=signals.publish)
        self.at, self.times = at, times
        self.inbox = Inbox(
            store=self, engine=NoEngine(), world=World("client"), admission=Admission()
        )

    async def append(self, key: Key, *args: object, **kwargs: object) -> Appended:
        done = await super().append(key, *args, **kwargs)  # type: ignore[arg-type]
        if done.head.seq >= self.at and self.times:
            times, self.times = self.times, 0
            for _ in range(times):
                await self.inbox.cancel(ME, key.session, "enough")
        return done


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancel_at_every_event_of_a_run_ends_it_once_and_begins_nothing_more(
    times: int,
) -> None:
    async def play(at: int) -> list[Event]:
        signals = LocalSignals()
        store = Cancelling(signals, at=at, times=times)
        agent = an_agent(ModelDouble(three_calls_twice), tools=ToolboxDouble(TOOLS))
        people = People(store, agent)
        key = await a_session(store)
        await people.begin(key)
        workers = Workers(store, agent, signals, outside=people.allow)
        return await workers.work_until_rest(key)

    recorded = await play(10_000)
    ends = list[str]()
    for at in range(1, len(recorded) + 1):
        log = await play(at)
        check_log(log)
        check_ends(log, cancelled=False)
        ends.append(cast("RunEnded", log[-1].fact).status)

    assert len(recorded) > 25
    in_time = ends.index("done")  # the last commit holds the end as well
    assert set(ends[:in_time]) == {"cancelled"}
    assert set(ends[in_time:]) == {"done"}
    assert len(ends) - in_time <= 3


@pytest.mark.parametrize("make", [in_memory, on_sqlite, on_postgres])
async def test_a_cancel_against_an_approval_ends_the_run_once_whichever_came_first(
    make: Making, request: pytest.FixtureRequest
) -> None:
    async with make(request) as (store, signals):
        for shift in range(8):
            agent = an_agent(ModelDouble(three_calls_twice), tools=ToolboxDouble(TOOLS))
            people = People(store, agent)
            key = await a_session(store)
            await people.begin(key)

            async def outside(
                key: Key, head: Head, *, people: People = people, shift: int = shift
            ) -> None:
                async def late(doing: Callable[[Key, Head], Awaitable[None]], turns: int) -> None:
                    for _ in range(turns):
                        await anyio.lowlevel.checkpoint()
                    await doing(key, head)

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(late, people.allow, shift)
                    tasks.start_soon(late, people.cancel, 8 - shift)

            workers = Workers(store, agent, signals, outside=outside)
            log = await workers.work_until_rest(key)

            check_log(log)
            check_ends(log, cancelled=True)
            assert await whole_log(store, key) == log
