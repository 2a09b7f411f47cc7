"""How long a run waits for a model or a person: never longer than it has time for, never in silence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from hostler.core.codec import dump, load
from hostler.core.decide import (
    IMPATIENT_S,
    MOST_LIMITED,
    MOST_RETRY_S,
    Action,
    AskModel,
    End,
    Limits,
    Wait,
    decide,
)
from hostler.core.events import (
    ApprovalAsked,
    AttemptId,
    Event,
    Fact,
    Fault,
    Key,
    ModelAsked,
    ModelFailed,
    RunEnded,
    RunId,
    RunKey,
    RunStarted,
    Seq,
    SessionId,
    ToolFinished,
)
from hostler.core.loop import Drive, Interrupt
from hostler.core.ports import AgentSpec, Failure, FaultCode, Job, Reply, ToolSpec, World
from hostler.core.state import State, fold
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
from hostler.testing.store_kit import Clock, spoke

pytestmark = pytest.mark.anyio
R = RunId("run_1")
HOUR_S = 3_600.0


def asked(choice: int = 0) -> ModelAsked:
    return ModelAsked(run=R, attempt=AttemptId("a"), provider="p", model="m", choice=choice)


def failed(wait_s: float | None, code: FaultCode = "server") -> ModelFailed:
    fault = Fault(code=code, message="x")
    return ModelFailed(run=R, attempt=AttemptId("a"), error=fault, retry_after_s=wait_s)


def what_next(
    facts: Sequence[Fact], limits: Limits | None = None, *, now: float = 0.0, at: float = 0.0
) -> Action:
    """Return the next action after these facts, the last of which was written `at`."""
    log = [spoke("run_1"), RunStarted(run=R), *facts]
    events = [
        Event(
            session=SessionId("s"),
            seq=Seq(i),
            at=at if i == len(log) else 0.0,
            fact=fact,
            raw=b"",
        )
        for i, fact in enumerate(log, start=1)
    ]
    return decide(fold(State(), events), R, limits=limits or Limits(), now=now)


def test_a_wait_that_fits_into_the_run_s_time_is_waited() -> None:
    limits = Limits(max_seconds=60.0)
    assert what_next([asked(), failed(60.0)], limits) == Wait(60.0)
    assert what_next([asked(), failed(30.0)], limits, at=30.0, now=30.0) == Wait(60.0)


def test_a_longer_one_ends_the_run_at_once_and_says_why() -> None:
    limits = Limits(max_seconds=60.0)
    too_long = End("failed", "wait_too_long")
    assert what_next([asked(), failed(60.1)], limits) == too_long
    assert what_next([asked(), failed(31.0)], limits, at=30.0, now=30.0) == too_long
    assert what_next([asked(), failed(HOUR_S + 1)]) == too_long
    assert what_next([asked(), failed(61.0)], Limits(wait_s=60.0)) == too_long


def test_waits_for_one_model_in_one_step_add_up() -> None:
    log = [asked(), failed(0.0), asked(), failed(31.0)]
    assert what_next(log, Limits(wait_s=60.0), at=29.0, now=29.0) == Wait(60.0)
    assert what_next(log, Limits(wait_s=60.0), at=30.0, now=30.0) == End("failed", "wait_too_long")


def test_another_model_is_asked_rather_than_a_long_wait_waited() -> None:
    chain = Limits(models=2)
    assert what_next([asked(), failed(IMPATIENT_S)], chain) == Wait(IMPATIENT_S)
    assert what_next([asked(), failed(IMPATIENT_S + 1)], chain) == AskModel(1)
    last = [asked(), failed(None), asked(1), failed(IMPATIENT_S + 1)]
    assert what_next(last, chain) == Wait(IMPATIENT_S + 1)
    short = Limits(models=2, max_seconds=5.0)
    assert what_next([asked(), failed(IMPATIENT_S)], short) == AskModel(1)


@pytest.mark.parametrize(
    ("code", "tries"),
    [
        ("rate_limit", MOST_LIMITED),
        ("overloaded", MOST_LIMITED),
        ("server", 5),
        ("unavailable", 5),
        ("timeout_idle", 5),
    ],
)
def test_who_only_asks_for_time_gets_more_of_it(code: FaultCode, tries: int) -> None:
    log = [asked(), failed(0.0, code)] * tries
    assert what_next(log[:-2]) == AskModel(0)
    assert what_next(log) == End("failed", "model_error")


def test_what_cannot_pass_is_never_waited_for() -> None:
    assert what_next([asked(), failed(None, "rate_limit")]) == End("failed", "model_error")


# -- what is written -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "written"),
    [
        (math.inf, MOST_RETRY_S),
        (1e300, MOST_RETRY_S),
        (-math.inf, 0.0),
        (-5.0, 0.0),
        (2.5, 2.5),
        (math.nan, 0.5),
        (None, 0.5),
    ],
)
async def test_a_wait_is_written_as_a_number_that_can_be_kept(
    said: float | None, written: float
) -> None:
    failure = Failure(code="server", message="x", again=True, retry_after_s=said)
    play = Played(an_agent(ModelDouble(lambda _: failure), limits=Limits(attempts=1)))
    await play.begin()
    await play.drive()

    (first,) = [one for one in await play.facts() if isinstance(one, ModelFailed)]
    assert first.retry_after_s == written
    assert load(dump(first)) == first, "null would mean: never again"


@dataclass
class Played:
    """A run, a store and a clock, and who drives it."""

    agent: AgentSpec
    clock: Clock = field(default_factory=Clock)
    store: MemoryStore = field(init=False)
    key: RunKey = field(init=False)

    async def begin(self) -> None:
        self.store = MemoryStore(clock=self.clock)
        key = await a_session(self.store)
        self.key = RunKey(*key, R)
        await self.store.append(key, [spoke("run_1")])

    async def drive(self) -> float | None:
        return await Drive(
            key=self.key,
            agents=lambda _: self.agent,
            store=self.store,
            signals=LocalSignals(),
            interrupt=Interrupt(),
            world=World("w", clock=self.clock, chance=lambda: 0.5),
        ).run()

    async def facts(self) -> list[object]:
        log = await whole_log(self.store, Key(self.key.tenant, self.key.session))
        return [event.fact for event in log]


PARKING = {
    "an approval": a_tool("waits", approval=True),
    "a client": a_tool("waits", client=True, timeout_s=7 * 86_400.0),
}


@pytest.mark.parametrize("tool", PARKING.values(), ids=PARKING)
async def test_a_run_that_waits_for_somebody_ends_when_its_time_is_over(tool: ToolSpec) -> None:
    model = ModelDouble(lambda _: Reply(text="", stop="tools", calls=(a_call("waits"),)))
    limits = Limits(max_seconds=60.0)
    play = Played(an_agent(model, tools=ToolboxDouble({"waits": tool}), limits=limits))
    await play.begin()
    assert await play.drive() is None

    play.clock.now += 59.0
    assert await play.store.unfinished() == [], "nobody rings before"
    play.clock.now += 1.5
    assert await play.store.unfinished() == [Job(play.key)]
    await play.drive()

    answer, end = (await play.facts())[-2:]
    assert isinstance(answer, ToolFinished)
    assert answer.outcome == "cancelled"
    assert isinstance(end, RunEnded)
    assert (end.status, end.reason) == ("failed", "budget")
    assert len(model.asked) == 1


async def test_a_shorter_wait_than_the_run_s_time_stays_as_it_is() -> None:
    model = ModelDouble(lambda _: Reply(text="", stop="tools", calls=(a_call("waits"),)))
    tools = ToolboxDouble({"waits": a_tool("waits", approval=True)})
    play = Played(an_agent(model, tools=tools, limits=Limits(max_seconds=60.0, approval_s=30.0)))
    await play.begin()
    await play.drive()

    (asked,) = [one for one in await play.facts() if isinstance(one, ApprovalAsked)]
    assert asked.expires_at.timestamp() == play.clock.now + 30.0
