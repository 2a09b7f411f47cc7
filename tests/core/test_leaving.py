"""A worker that leaves its run to another one does so between two steps."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from hostler.core.events import (
    AttemptDropped,
    InputId,
    Key,
    PrincipalId,
    RunClaimed,
    RunEnded,
    RunId,
    RunKey,
    ToolStarted,
    UserSpoke,
)
from hostler.core.loop import Drive, Interrupt
from hostler.core.ports import AgentSpec, Reply, Request, World
from hostler.core.state import ToolSaid
from hostler.core.store import Store
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.testing.crashing import check_log
from hostler.testing.doubles import (
    ModelDouble,
    ToolboxDouble,
    a_call,
    a_session,
    a_tool,
    an_agent,
    whole_log,
)

pytestmark = pytest.mark.anyio

RUN = RunId("run_a")
STEPS = 3
"""Two in which a tool is called, and the answer."""


class Counted:
    """An agent that takes `STEPS`, and says how often its model and its tool were asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.tools = ToolboxDouble({"look": a_tool("look")})
        self.agent = an_agent(ModelDouble(self._reply), tools=self.tools)

    def _reply(self, request: Request) -> Reply:
        self.asked += 1
        seen = sum(isinstance(said, ToolSaid) for said in request.transcript)
        if seen == STEPS - 1:
            return Reply(text="done", stop="end")
        return Reply(text="", stop="tools", calls=(a_call("look", number=seen),))


async def drive(
    store: Store, key: Key, agent: AgentSpec, *, leaving: Callable[[], bool], worker: str = "w"
) -> float | None:
    driven = Drive(
        key=RunKey(*key, RUN),
        agents=lambda _: agent,
        store=store,
        signals=LocalSignals(),
        interrupt=Interrupt(),
        world=World(worker),
        leaving=leaving,
    )
    with anyio.fail_after(10):
        return await driven.run()


async def spoken(store: Store) -> Key:
    key = await a_session(store)
    said = UserSpoke(
        run=RUN,
        input=InputId("inp_a"),
        content="hello",
        policy="queue",
        principal=PrincipalId("p"),
        metadata={},
    )
    await store.append(key, [said])
    return key


def at_look(number: int) -> Callable[[], bool]:
    """Return what says True from the `number`-th time on that it is asked."""
    looks = 0

    def look() -> bool:
        nonlocal looks
        looks += 1
        return looks >= number

    return look


@pytest.mark.parametrize("number", range(1, 2 * STEPS))
async def test_whenever_a_worker_leaves_nothing_is_asked_or_run_a_second_time(number: int) -> None:
    store, counted = MemoryStore(), Counted()
    key = await spoken(store)

    again_at = await drive(store, key, counted.agent, leaving=at_look(number))
    left = await whole_log(store, key)
    rest = await drive(store, key, counted.agent, leaving=lambda: False, worker="other")

    log = await whole_log(store, key)
    check_log(log)
    assert again_at is not None
    assert rest is None
    assert not isinstance(left[-1].fact, RunEnded | ToolStarted)
    assert isinstance(log[-1].fact, RunEnded)
    assert log[-1].fact.status == "done"
    assert counted.asked == STEPS
    assert len(counted.tools.done) == STEPS - 1
    assert not any(isinstance(event.fact, AttemptDropped) for event in log)
    assert [e.fact.worker for e in log if isinstance(e.fact, RunClaimed)] == ["w", "other"]


async def test_a_worker_that_leaves_ends_a_run_that_has_nothing_left_to_do() -> None:
    store, counted = MemoryStore(), Counted()
    key = await spoken(store)

    again_at = await drive(store, key, counted.agent, leaving=at_look(2 * STEPS))

    log = await whole_log(store, key)
    assert again_at is None
    assert isinstance(log[-1].fact, RunEnded)


async def test_a_worker_that_leaves_every_time_still_keeps_all_that_was_done() -> None:
    store, counted = MemoryStore(), Counted()
    key = await spoken(store)

    while await drive(store, key, counted.agent, leaving=at_look(2)) is not None:
        pass

    check_log(await whole_log(store, key))
    assert counted.asked == STEPS
    assert len(counted.tools.done) == STEPS - 1
