"""What a message brings for its run: a history, and terms that its answers are asked for on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import anyio
import pytest

from hostler.core.codec import dump, load
from hostler.core.decide import AskModel, CallTools, End, Limits, Rest, decide
from hostler.core.errors import Invalid, TooLarge
from hostler.core.events import (
    AttemptId,
    CallId,
    Event,
    Fact,
    InputId,
    Key,
    ModelAsked,
    ModelReplied,
    PrincipalId,
    RunId,
    RunKey,
    RunStarted,
    Seq,
    SessionId,
    TenantId,
    ToolCall,
    ToolStarted,
    Usage,
    UserSpoke,
)
from hostler.core.loop import Drive, Interrupt, asking
from hostler.core.memory import remember
from hostler.core.ports import AgentSpec, Reply, World
from hostler.core.said import ImagePart, ModelSaid, Said, ToolSaid, UserSaid
from hostler.core.state import State, fold, terms_of
from hostler.core.terms import NO_TERMS, Terms, Wanted
from hostler.service.turns import check_history, check_terms
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.testing.doubles import ModelDouble, a_call, a_session, an_agent, whole_log

pytestmark = pytest.mark.anyio

CALL = ToolCall(id=CallId("call_1"), name="look", arguments={"at": 1}, provider_id="x")
HISTORY: tuple[Said, ...] = (
    UserSaid("hello"),
    ModelSaid("let me see", (CALL,), thinking="hm", replay={"a": [1]}),
    ToolSaid(CALL, "a wall", failed=True),
    UserSaid((ImagePart(url="https://example.com/a.png"),)),
    ModelSaid("a wall"),
)


def spoke(
    run: str,
    content: str = "and now?",
    *,
    terms: Terms | None = None,
    history: Sequence[Said] = (),
) -> UserSpoke:
    return UserSpoke(
        run=RunId(run),
        input=InputId(f"inp_{run}{content}"),
        content=content,
        policy="queue",
        principal=PrincipalId("p"),
        metadata={},
        terms=terms,
        history=tuple(history),
    )


@dataclass
class Rested:
    """A session in memory whose runs were driven until nothing was left to do."""

    store: MemoryStore = field(default_factory=lambda: MemoryStore(clock=lambda: 0.0))

    async def said(self, *agents: AgentSpec, facts: list[UserSpoke]) -> Key:
        key = await a_session(self.store, agent=agents[0].name)
        named = {one.name: one for one in agents}
        await self.store.append(key, facts)
        while (active := (await self.store.head(key)).active) is not None:
            drive = Drive(
                key=RunKey(*key, active),
                agents=named.get,
                store=self.store,
                signals=LocalSignals(),
                interrupt=Interrupt(),
                world=World("w", clock=lambda: 0.0, chance=lambda: 0.0),
            )
            with anyio.fail_after(10):
                await drive.run()
        return key


def model() -> ModelDouble:
    return ModelDouble(lambda _: Reply(text="so", stop="end"))


def test_a_history_and_terms_survive_being_written_down() -> None:
    wanted = Wanted(stop=("x",), calls="some", tool="look", json_schema={"type": "object"})
    terms = Terms(agent="a", instructions="be kind", max_output_tokens=3, wanted=wanted)
    fact = spoke("run_a", terms=terms, history=HISTORY)

    assert load(dump(fact)) == fact


async def test_a_model_reads_what_a_message_brings_before_what_it_says() -> None:
    double = model()
    await Rested().said(an_agent(double), facts=[spoke("run_a", history=HISTORY)])

    assert list(double.asked[0].transcript) == [*HISTORY, UserSaid("and now?")]


async def test_a_message_without_content_adds_nothing_but_what_it_brings() -> None:
    double = model()
    await Rested().said(an_agent(double), facts=[spoke("run_a", "", history=HISTORY[:3])])

    assert list(double.asked[0].transcript) == [*HISTORY[:3]]


async def test_what_was_brought_is_remembered_as_it_was_folded() -> None:
    rested = Rested()
    first, steer = spoke("run_a", history=HISTORY), spoke("run_a", "", terms=Terms(agent="double"))
    key = await rested.said(an_agent(model()), facts=[first, steer, spoke("run_b")])

    whole, recall = (
        fold(State(), await whole_log(rested.store, key)),
        await rested.store.recall(key),
    )
    kept = fold(remember(recall.past), recall.events)
    assert (kept.transcript, kept.size) == (whole.transcript, whole.size)


async def test_the_terms_of_a_run_are_those_of_its_last_message_that_has_some() -> None:
    one, other = Terms(instructions="be brief"), Terms(instructions="be long")
    store = MemoryStore()
    key = await a_session(store)
    facts = [spoke("run_a", "1", terms=one), spoke("run_a", "2", terms=other), spoke("run_a", "3")]
    await store.append(key, facts)
    state = fold(State(), await whole_log(store, key))

    assert terms_of(state, RunId("run_a")) == other
    assert terms_of(state, RunId("run_b")) == NO_TERMS


async def test_who_answers_is_as_the_terms_say_and_the_next_run_is_the_sessions_own_again() -> None:
    ours, theirs, rested = model(), model(), Rested()
    own, other = an_agent(ours), an_agent(theirs, name="other")
    facts = [spoke("run_a", terms=Terms(agent="other")), spoke("run_b")]
    key = await rested.said(own, other, facts=facts)

    rows = await rested.store.runs(key.tenant, session=None, status=None, after="", limit=9)
    assert (len(ours.asked), len(theirs.asked)) == (1, 1)
    assert {row.id: row.agent for row in rows} == {"run_a": "other", "run_b": "double"}


def test_a_client_s_instructions_come_after_the_agent_s() -> None:
    agent = AgentSpec(
        name="a",
        instructions="be kind",
        models=[],
        tools=an_agent().tools,
        max_output_tokens=100,
        options={"seed": 1},
    )
    terms = Terms(instructions="be brief", max_output_tokens=7, wanted=Wanted(temperature=0.5))
    key = RunKey(TenantId("t"), SessionId("ses"), RunId("run"))
    asked = asking(agent, terms, [], [], key)

    assert (asked.system, asked.max_output_tokens, asked.options) == (
        "be kind\n\nbe brief",
        7,
        {"seed": 1},
    )
    assert asked.wanted == Wanted(temperature=0.5)
    assert asking(agent, NO_TERMS, [], [], key).system == "be kind"


def state_of(*facts: Fact) -> State:
    events = [
        Event(session=SessionId("ses"), seq=Seq(place), at=100.0, fact=fact, raw=b"")
        for place, fact in enumerate(facts, start=1)
    ]
    return fold(State(), events)


@pytest.mark.parametrize("ends", [True, False])
def test_a_call_that_nobody_answers_in_time_ends_the_run_only_if_its_message_says_so(
    *, ends: bool
) -> None:
    run, attempt, call = RunId("run_a"), AttemptId("att_1"), a_call("locate")
    started = ToolStarted(
        run=run,
        call=call.id,
        name="locate",
        arguments={},
        expires_at=datetime.fromtimestamp(150.0, UTC),
    )
    state = state_of(
        spoke("run_a", terms=Terms(ends_unanswered=ends)),
        RunStarted(run=run),
        ModelAsked(run=run, attempt=attempt, provider="p", model="m"),
        ModelReplied(
            run=run,
            attempt=attempt,
            seen=Seq(3),
            text="",
            calls=(call,),
            stop="tools",
            usage=Usage(),
        ),
        started,
    )

    assert decide(state, run, limits=Limits(), now=149.0) == Rest()
    late = decide(state, run, limits=Limits(), now=150.0)
    assert late == (End("failed", "unanswered") if ends else CallTools((), (started,)))


def test_a_run_that_may_be_stuck_is_never_ended_for_it() -> None:
    state = state_of(spoke("run_a"), RunStarted(run=RunId("run_a")))
    assert state.run is not None
    state.run.errors, state.run.marks = ["e"] * 9, [1] * 9

    assert decide(state, RunId("run_a"), limits=Limits(), now=0.0) == End("failed", "stuck")
    free = decide(state, RunId("run_a"), limits=Limits(may_be_stuck=True), now=0.0)
    assert free == AskModel(0)


@pytest.mark.parametrize(
    "history",
    [
        HISTORY[:2],
        HISTORY[2:],
        (HISTORY[1], UserSaid("?"), HISTORY[2]),
        (HISTORY[1], HISTORY[2], HISTORY[2]),
        (ModelSaid("", (CALL, a_call("other"))), HISTORY[2]),
    ],
)
def test_a_history_with_a_call_that_has_not_its_one_answer_is_refused(
    history: tuple[Said, ...],
) -> None:
    with pytest.raises(Invalid, match="left open"):
        check_history(history)


def test_a_history_or_instructions_that_are_too_long_are_refused() -> None:
    check_history(HISTORY)
    with pytest.raises(TooLarge):
        check_history([UserSaid("x" * 1_000_000)] * 5)
    with pytest.raises(TooLarge):
        check_history([UserSaid("x")] * 20_001)
    with pytest.raises(TooLarge):
        check_terms(Terms(instructions="x" * 4_000_001), {})


@pytest.mark.parametrize(
    "terms",
    [
        Terms(agent="nobody"),
        Terms(wanted=Wanted(temperature=float("nan"))),
        Terms(wanted=Wanted(top_p=float("inf"))),
        Terms(wanted=Wanted(stop=("x",) * 65)),
        Terms(wanted=Wanted(stop=("x" * 20_000,))),
        Terms(wanted=Wanted(json_schema={"type": "x" * 40_000})),
    ],
)
def test_terms_that_no_run_can_be_held_to_are_refused(terms: Terms) -> None:
    with pytest.raises(Invalid):
        check_terms(terms, {})


def test_terms_may_be_absent() -> None:
    check_terms(None, {})
