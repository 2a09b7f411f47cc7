"""A node that stops leaves its runs between two steps, and tells who watches to come back soon."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import anyio
import pytest
from tests.serving import serving

from hostler.core.events import RunEnded, RunId, RunKey
from hostler.core.ports import Delta, Failure, Job, Reply, Request, World
from hostler.engine.drive import Driver
from hostler.engine.leaving import AGAIN_S, AWAY_S, Leaving
from hostler.engine.queuer import EmbeddedEngine
from hostler.faces.http.open_streams import OpenStreams
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.testing.doubles import (
    ModelDouble,
    ToolboxDouble,
    a_call,
    a_session,
    a_tool,
    an_agent,
    whole_log,
)
from hostler.testing.store_suite import spoke

pytestmark = pytest.mark.anyio


class Held(ModelDouble):
    """A model that answers when it may: with a call, and then for good."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.began, self.goes = anyio.Event(), anyio.Event()

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        self.began.set()
        await self.goes.wait()
        async for part in super().stream(request):
            yield part

    def _answer(self, request: Request) -> Reply:
        if len(request.transcript) > 1:
            return Reply(text="done", stop="end")
        return Reply(text="", stop="tools", calls=(a_call("look"),))


@dataclass
class House:
    """A run that is about to be driven, by nodes that share a store and a clock."""

    store: MemoryStore = field(default_factory=MemoryStore)
    model: Held = field(default_factory=Held)
    now: float = 1000.0
    run: RunKey = field(init=False)

    async def begin(self) -> None:
        session = await a_session(self.store)
        await self.store.append(session, [spoke("run_1")])
        self.run = RunKey(*session, RunId("run_1"))

    def clock(self) -> float:
        return self.now

    def node(self, leaving: Leaving | None = None) -> Driver:
        agent = an_agent(self.model, tools=ToolboxDouble({"look": a_tool("look")}))
        return Driver(
            agents=lambda _: agent,
            store=self.store,
            signals=LocalSignals(),
            world=World("node", clock=self.clock),
            leaving=leaving or Leaving(self.clock),
        )

    async def kinds(self) -> list[str]:
        return [event.kind for event in await whole_log(self.store, self.run[:2])]  # type: ignore[arg-type]


async def a_house() -> House:
    house = House()
    await house.begin()
    return house


async def test_a_node_that_stops_ends_the_step_and_another_goes_on_with_the_next() -> None:
    house, leaving = await a_house(), Leaving()
    engine, node, left = EmbeddedEngine(), house.node(leaving), list[str]()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: engine.serve(node, slots=5))
            await engine.enqueue(Job(house.run))
            await house.model.began.wait()
            engine.drain()
            leaving.begin()
            house.model.goes.set()
            await leaving.left()
            left = await house.kinds()
            tasks.cancel_scope.cancel()
        await house.node()(house.run)

    assert "model_replied" in left
    assert "tool_started" not in left
    kinds = await house.kinds()
    assert kinds[-1] == "run_ended"
    assert kinds.count("model_asked") == kinds.count("model_replied") == 2
    assert "attempt_dropped" not in kinds


async def test_a_node_that_stops_begins_no_run() -> None:
    house, leaving = await a_house(), Leaving()
    leaving.begin()

    again_at = await house.node(leaving)(house.run)

    assert again_at is not None
    assert await house.kinds() == ["user_spoke"]
    with anyio.fail_after(1):
        await leaving.left()


async def test_a_run_that_is_sent_away_is_left_to_others_for_a_while_and_then_driven_here() -> None:
    house = await a_house()
    leaving = Leaving(house.clock)
    node = house.node(leaving)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(node, house.run)
            await house.model.began.wait()
            assert leaving.send_away(house.run)
            house.model.goes.set()
    left = await house.kinds()
    offered_at = await node(house.run)
    still_left = await house.kinds()
    house.now += AWAY_S
    await node(house.run)

    assert left == still_left
    assert "model_replied" in left
    assert "tool_started" not in left
    assert offered_at == 1000.0 + AGAIN_S
    ended = (await whole_log(house.store, house.run[:2]))[-1].fact  # type: ignore[arg-type]
    assert isinstance(ended, RunEnded)
    assert ended.status == "done"


async def test_a_run_that_is_not_driven_here_cannot_be_sent_away() -> None:
    house, leaving = await a_house(), Leaving()

    assert not leaving.send_away(house.run)
    assert not leaving.leaves(house.run)


async def test_who_watches_a_server_that_stops_is_told_to_come_back_sooner() -> None:
    streams = OpenStreams()
    async with serving(an_agent(Held()), file=None, streams=streams) as client:
        session = await client.session()
        path = f"{client.url}/api/sessions/{session}/events"
        headers = {"Authorization": f"Bearer {client.key}", "Accept": "text/event-stream"}
        async with client.http.get(path, headers=headers) as answer:
            said = await answer.content.readuntil(b"\n\n")
            streams.close()
            with anyio.fail_after(10):
                rest = await answer.content.read()

    assert said.startswith(b"retry: 1000\n")
    assert b"\nretry: 100\n" in b"\n" + rest
