"""A worker dies at each of its writes in turn, on every store, while clients speak and cancel."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from tests.services import Database

from hostler.core.events import (
    Key,
    PartShown,
    Policy,
    Principal,
    PrincipalId,
    TenantId,
    ToolFinished,
    ToolStarted,
)
from hostler.core.ports import CallContext, Reply, Request, ToolSpec, World
from hostler.core.said import ToolSaid
from hostler.core.shown import DataPart
from hostler.core.store import Store
from hostler.service.admission import Admission
from hostler.service.inbox import Inbox, Message
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.stores.postgres import PostgresStore
from hostler.stores.postgres_open import open_postgres
from hostler.stores.postgres_rebuild import rebuild as rebuild_there
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_entries import rebuild
from hostler.testing.crashing import NoEngine, Workers, check_log, every_death
from hostler.testing.doubles import (
    ModelDouble,
    ToolboxDouble,
    a_call,
    a_session,
    a_tool,
    an_agent,
    dying,
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


def three_calls_at_once_twice(request: Request) -> Reply:
    asked = sum(isinstance(said, ToolSaid) for said in request.transcript) // 3
    if asked >= 2:
        return Reply(text="done", stop="end")
    calls = tuple(a_call(name) for name in ("reader", "safe", "never"))
    return Reply(text="", stop="tools", calls=calls)


TOOLS: Sequence[ToolSpec] = (
    a_tool("reader", twice="safe", effects="read"),
    a_tool("safe", twice="safe"),
    a_tool("never"),
)
SPEAKING: dict[str, Sequence[Policy | None]] = {
    "nobody says more": (),
    "one more message waits": ("queue",),
    "a steer and a message": ("steer", "queue"),
    "an interruption": ("interrupt",),
    "a cancel": (None,),
    "a cancel while another waits": ("queue", None),
}


async def check_rows(store: Store, key: Key) -> None:
    """Assert that what is kept of the session's runs is what its log gives."""

    async def rows() -> list[object]:
        runs = await store.runs(key.tenant, session=key.session, status=None, after="", limit=9)
        return [runs, *[await store.ledger.calls(key.tenant, run.id) for run in runs]]

    kept = await rows()
    if isinstance(store, SqliteStore):
        await store.writing(lambda db: rebuild(db, key))
    if isinstance(store, PostgresStore):
        await store.writing(key.tenant, lambda wire: rebuild_there(wire, key))
    assert await rows() == kept
    assert kept[0], "no run is kept"


@pytest.mark.parametrize("make", [in_memory, on_sqlite, on_postgres])
@pytest.mark.parametrize("doing", SPEAKING)
async def test_wherever_the_worker_dies_the_next_one_finishes_and_nothing_unsafe_is_repeated(
    make: Making, doing: str, request: pytest.FixtureRequest
) -> None:
    async with make(request) as (store, signals):

        async def play(n: int, after: bool) -> bool:  # noqa: FBT001
            tools = ToolboxDouble({spec.name: spec for spec in TOOLS})
            workers = Workers(
                store, an_agent(ModelDouble(three_calls_at_once_twice), tools=tools), signals
            )
            inbox = Inbox(
                store=store, engine=NoEngine(), world=World("client"), admission=Admission()
            )
            key = await a_session(store)
            await inbox.speak(ME, key.session, Message(content="go", policy="queue", metadata={}))

            async def meddle(_: object) -> str:
                for policy in SPEAKING[doing] if len(tools.done) == 2 else ():
                    if policy is None:
                        await inbox.cancel(ME, key.session)
                    else:
                        said = Message(content="more", policy=policy, metadata={})
                        await inbox.speak(ME, key.session, said)
                return "did it"

            tools.effects = dict.fromkeys(tools.tools, meddle)
            whole = store.append
            store.append = dying(whole, at=n, after=after)  # type: ignore[method-assign]
            try:
                log = await workers.work_until_rest(key)
            finally:
                store.append = whole  # type: ignore[method-assign]
            check_log(log)
            await check_rows(store, key)
            never = [call for name, call in tools.done if name == "never"]
            assert len(never) == len(set(never)), "an unsafe effect happened twice"
            return workers.crashes > 0

        deaths = [death async for death in every_death(play)]

        assert len(deaths) > 8


def two_calls(request: Request) -> Reply:
    if isinstance(request.transcript[-1], ToolSaid):
        return Reply(text="done", stop="end")
    return Reply(text="", stop="tools", calls=(a_call("safe"), a_call("never")))


class Showing(ToolboxDouble):
    """Tools that show two things each."""

    async def run(self, started: ToolStarted, context: CallContext) -> ToolFinished:
        for n in (1, 2):
            await context.show(DataPart(name="step", value=n))
        return await super().run(started, context)


@pytest.mark.parametrize("make", [in_memory, on_sqlite, on_postgres])
async def test_wherever_the_worker_dies_what_was_shown_stays_and_a_call_that_ends_has_shown_all(
    make: Making, request: pytest.FixtureRequest
) -> None:
    async with make(request) as (store, signals):

        async def play(n: int, after: bool) -> bool:  # noqa: FBT001
            tools = Showing({spec.name: spec for spec in TOOLS})
            workers = Workers(store, an_agent(ModelDouble(two_calls), tools=tools), signals)
            key = await a_session(store)
            inbox = Inbox(
                store=store, engine=NoEngine(), world=World("client"), admission=Admission()
            )
            await inbox.speak(ME, key.session, Message(content="go", policy="queue", metadata={}))
            whole = store.append
            store.append = dying(whole, at=n, after=after)  # type: ignore[method-assign]
            try:
                log = await workers.work_until_rest(key)
            finally:
                store.append = whole  # type: ignore[method-assign]
            check_log(log)
            await check_rows(store, key)
            for fact in [one.fact for one in log if isinstance(one.fact, ToolFinished)]:
                shown = [
                    one.fact.part
                    for one in log
                    if isinstance(one.fact, PartShown) and one.fact.call == fact.call
                ]
                last = [DataPart(name="step", value=n) for n in (1, 2)]
                assert fact.outcome != "ok" or shown[-2:] == last
                assert len(shown) <= 4
            return workers.crashes > 0

        deaths = [death async for death in every_death(play)]

        assert len(deaths) > 12
