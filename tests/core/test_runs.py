"""What a run promises, whatever clients do and whenever a worker dies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, get_args

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.decide import Limits
from hostler.core.errors import Conflict, Fenced
from hostler.core.events import (
    CancelRequested,
    Event,
    InputId,
    Key,
    Policy,
    Principal,
    PrincipalId,
    RunEnded,
    RunId,
    RunKey,
    Seq,
    TenantId,
    ToolFinished,
    UserSpoke,
)
from hostler.core.loop import Drive, Interrupt
from hostler.core.memory import remember
from hostler.core.ports import (
    AgentSpec,
    Reply,
    Request,
    World,
    mint,
)
from hostler.core.records import Recall
from hostler.core.said import ModelSaid, ToolSaid, UserSaid
from hostler.core.state import State, fold
from hostler.service.admission import Admission
from hostler.service.inbox import Inbox, Message
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.testing.crashing import NoEngine, check_log
from hostler.testing.doubles import (
    Crash,
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


def spoke(run: str, *, policy: Policy = "queue", text: str = "hello") -> UserSpoke:
    return UserSpoke(
        run=RunId(run),
        input=InputId(mint("inp")),
        content=text,
        policy=policy,
        principal=PrincipalId("p"),
        metadata={},
    )


def call_both_tools_then_stop(request: Request) -> Reply:
    if isinstance(request.transcript[-1], ToolSaid):
        return Reply(text="done", stop="end")
    calls = tuple(a_call(name) for name in ("safe", "never", "missing"))
    return Reply(text="", stop="tools", calls=calls)


def two_tools() -> ToolboxDouble:
    return ToolboxDouble({"safe": a_tool("safe", twice="safe"), "never": a_tool("never")})


Move = Policy | Literal["cancel"]
ME = Principal(id=PrincipalId("p"), tenant=TenantId("default"))


@dataclass
class MeddledStore(MemoryStore):
    """Plays `moves[n]`, as clients would, at the n-th time that a worker reads."""

    moves: Mapping[int, Sequence[Move]] = field(default_factory=dict[int, list[Move]])
    interrupt: Interrupt = field(default_factory=Interrupt)
    turns: int = 0

    def __post_init__(self) -> None:
        super().__init__(clock=lambda: 0.0)
        self.inbox = Inbox(
            store=self, engine=NoEngine(), world=World("clients"), admission=Admission()
        )

    async def recall(self, key: Key) -> Recall:
        recalled = await super().recall(key)
        self.turns += 1
        for move in self.moves.get(self.turns, ()):
            await self.play(key, move)
        return recalled

    async def play(self, key: Key, move: Move) -> None:
        if move == "cancel":
            await self.inbox.cancel(ME, key.session)
        else:
            message = Message(content="hello", policy=move, metadata={})
            with suppress(Conflict):
                await self.inbox.speak(ME, key.session, message)
        if move in ("cancel", "interrupt"):
            self.interrupt.ring()


async def work_until_rest(store: MeddledStore, key: Key, agent: AgentSpec) -> list[Event]:
    """Drive the session's runs as engines do, with a new worker after each crash."""
    for worker in range(100):
        head = await store.head(key)
        if head.active is None:
            return await whole_log(store, key)
        drive = Drive(
            key=RunKey(*key, head.active),
            agents=lambda _: agent,
            store=store,
            signals=LocalSignals(),
            interrupt=store.interrupt,
            world=World(f"w{worker}", clock=lambda: 0.0, chance=lambda: 0.0),
        )
        try:
            await drive.run()
        except Crash:
            continue
        except BaseExceptionGroup as group:
            _, others = group.split(Crash)
            assert others is None
    raise AssertionError("the session never came to rest")


client_moves = st.dictionaries(
    keys=st.integers(1, 8),
    values=st.lists(st.sampled_from([*get_args(Policy), "cancel"]), max_size=3),
    max_size=4,
)


@given(moves=client_moves, dies_at=st.integers(0, 10), after=st.booleans())
@settings(max_examples=300, deadline=None)
def test_every_input_ends_visibly_and_no_unsafe_effect_happens_twice(
    moves: dict[int, list[Move]],
    dies_at: int,
    after: bool,  # noqa: FBT001
) -> None:
    async def scenario() -> None:
        tools = two_tools()
        agent = an_agent(ModelDouble(call_both_tools_then_stop), tools=tools)
        store = MeddledStore(moves=moves)
        key = await a_session(store)
        await MemoryStore.append(store, key, [spoke("run_a")])
        store.append = dying(store.append, at=dies_at, after=after)

        log = await work_until_rest(store, key, agent)

        check_log(log)
        whole, (_, _, _, past, events) = fold(State(), log), await store.recall(key)
        assert fold(remember(past), events).transcript == whole.transcript
        never = [call for name, call in tools.done if name == "never"]
        assert len(never) == len(set(never))

    anyio.run(scenario)


async def test_what_is_said_while_the_model_thinks_is_shown_to_it_next() -> None:
    store = MeddledStore()
    key = await a_session(store)
    await store.append(key, [spoke("run_a", text="first")])

    class Overtaken(ModelDouble):
        async def stream(self, request: Request):
            if not self.asked:
                await store.append(key, [spoke("run_a", policy="steer", text="second")])
            async for part in ModelDouble.stream(self, request):
                yield part

    model = Overtaken(lambda _: Reply(text="ok", stop="end"))
    await work_until_rest(store, key, an_agent(model))

    assert [
        getattr(s, "content", None) or getattr(s, "text", "") for s in model.asked[-1].transcript
    ] == [
        "first",
        "ok",
        "second",
    ]


async def test_a_message_for_a_later_run_is_not_shown_to_the_run_that_is_going() -> None:
    store = MeddledStore()
    key = await a_session(store)
    await store.append(key, [spoke("run_a", text="first")])
    await store.append(key, [spoke("run_b", text="later")])
    model = ModelDouble(lambda _: Reply(text="ok", stop="end"))

    await work_until_rest(store, key, an_agent(model))

    assert [request.transcript for request in model.asked] == [
        (UserSaid("first"),),
        (UserSaid("first"), ModelSaid("ok"), UserSaid("later")),
    ]


async def test_a_cancel_stops_the_tool_in_flight_and_still_answers_every_call() -> None:
    store, started = MeddledStore(), anyio.Event()
    key = await a_session(store)
    await store.append(key, [spoke("run_a")])

    async def endless(_: object) -> str:
        started.set()
        await anyio.sleep_forever()
        raise AssertionError

    tools = ToolboxDouble({"safe": a_tool("safe"), "never": a_tool("never")}, {"safe": endless})
    agent = an_agent(ModelDouble(call_both_tools_then_stop), tools=tools)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(work_until_rest, store, key, agent)
            await started.wait()
            await store.append(
                key, [CancelRequested(run=RunId("run_a"), principal=PrincipalId("p"), reason="x")]
            )
            store.interrupt.ring()

    log = await whole_log(store, key)
    check_log(log)
    assert isinstance(log[-1].fact, RunEnded)
    assert log[-1].fact.status == "cancelled"
    outcomes = [e.fact.outcome for e in log if isinstance(e.fact, ToolFinished)]
    assert outcomes == ["error", "cancelled", "cancelled"]


async def test_a_worker_that_lost_its_claim_writes_nothing() -> None:
    store = MeddledStore()
    key = await a_session(store)
    await store.append(key, [spoke("run_a")])
    other = Drive(
        key=RunKey(*key, RunId("run_a")),
        agents=lambda _: an_agent(ModelDouble(lambda _: Reply(text="theirs", stop="end"))),
        store=store,
        signals=LocalSignals(),
        interrupt=Interrupt(),
        world=World("other"),
    )

    class Outbid(ModelDouble):
        async def stream(self, request: Request):
            await other.run()
            async for part in ModelDouble.stream(self, request):
                yield part

    agent = an_agent(Outbid(lambda _: Reply(text="mine", stop="end")))
    with pytest.raises(Fenced):
        await work_until_rest(store, key, agent)

    log = await whole_log(store, key)
    check_log(log)
    assert [getattr(e.fact, "text", None) for e in log if e.kind == "model_replied"] == ["theirs"]


async def test_a_cap_on_a_tool_holds_across_steps_and_the_model_is_told() -> None:
    store, tools = MeddledStore(), ToolboxDouble({"publish": a_tool("publish")})
    key = await a_session(store)
    await store.append(key, [spoke("run_a")])

    def publish_twice(request: Request) -> Reply:
        done = sum(isinstance(said, ToolSaid) for said in request.transcript)
        if done >= 2:
            return Reply(text="done", stop="end")
        return Reply(text="", stop="tools", calls=(a_call("publish", number=done),))

    limits = Limits(tool_caps={"publish": 1})
    log = await work_until_rest(
        store, key, an_agent(ModelDouble(publish_twice), tools=tools, limits=limits)
    )

    assert len(tools.done) == 1
    outcomes = [e.fact.outcome for e in log if isinstance(e.fact, ToolFinished)]
    assert outcomes == ["ok", "denied"]
    assert Seq(len(log)) == log[-1].seq
