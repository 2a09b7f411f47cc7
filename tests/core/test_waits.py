"""What waits for a person or a client: asked, answered, late, remembered, refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Literal, cast

import anyio
import pytest
from hypothesis import given as example_of
from hypothesis import settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hostler.core.decide import CallTools, End, Limits, Rest, decide
from hostler.core.events import (
    START,
    ApprovalAsked,
    ApprovalGiven,
    CallId,
    CancelRequested,
    ClientTool,
    Event,
    Fact,
    JsonObject,
    Key,
    PrincipalId,
    RunClaimed,
    RunId,
    Seq,
    SessionForked,
    SessionId,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Unknown,
)
from hostler.core.gate import CHANGED, LATE, admit, digest
from hostler.core.head import Head, advance
from hostler.core.loop import NO_RESULT
from hostler.core.ports import Reply, Request, ToolSpec
from hostler.core.state import LEFT, Run, State, ToolSaid, fold
from hostler.harness.clients import OfClient
from hostler.harness.permissions import Permissions
from hostler.harness.toolbox import Toolbox
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.testing.crashing import Workers, check_log
from hostler.testing.doubles import (
    ModelDouble,
    ToolboxDouble,
    a_call,
    a_session,
    a_tool,
    an_agent,
    dying,
)
from hostler.testing.store_kit import Clock, a_step, asked, finished, given, spoke, started
from hostler.tools.ask_user import AskUser
from hostler.tools.function import function_tool

pytestmark = pytest.mark.anyio
R = RunId("run_1")
CANCEL = CancelRequested(run=R, principal=PrincipalId("p"), reason="enough")


def state_of(facts: Sequence[Fact]) -> State:
    session = SessionId("ses_1")
    return fold(
        State(),
        [
            Event(session=session, seq=Seq(i), at=0.0, fact=fact, raw=b"")
            for i, fact in enumerate(facts, start=1)
        ],
    )


def wants(*calls: str) -> list[Fact]:
    return [spoke("run_1"), *a_step("run_1", *calls)]


def what_next(facts: Sequence[Fact], *, now: float = 0.0) -> object:
    return decide(state_of(facts), R, limits=Limits(), now=now)


# -- decide ----------------------------------------------------------------------------------


def test_a_call_that_was_asked_about_rests_until_somebody_answers() -> None:
    log = [*wants("call_1"), asked("run_1", "call_1", expires_at=1000.0)]
    assert what_next(log, now=999.0) == Rest()
    for decision in ("allow", "deny"):
        action = what_next([*log, given("run_1", "call_1", decision)], now=999.0)
        assert isinstance(action, CallTools)
        assert [call.id for call in action.fresh] == ["call_1"]


def test_a_request_that_nobody_answered_in_time_goes_on() -> None:
    log = [*wants("call_1"), asked("run_1", "call_1", expires_at=1000.0)]
    action = what_next(log, now=1000.0)
    assert isinstance(action, CallTools)
    assert [call.id for call in action.fresh] == ["call_1"]


def test_calls_beside_one_that_waits_go_on() -> None:
    log = [*wants("call_1", "call_2"), asked("run_1", "call_1")]
    action = what_next(log)
    assert isinstance(action, CallTools)
    assert [call.id for call in action.fresh] == ["call_2"]


def test_a_client_has_until_its_time_is_over_and_then_its_call_is_lost() -> None:
    log = [*wants("call_1"), started("run_1", "call_1", expires_at=1000.0)]
    assert what_next(log, now=999.0) == Rest()
    action = what_next(log, now=1000.0)
    assert isinstance(action, CallTools)
    assert [one.call for one in action.lost] == ["call_1"]


def test_a_cancel_beats_a_wait() -> None:
    for wait in (asked("run_1", "call_1"), started("run_1", "call_1", expires_at=9e9)):
        assert what_next([*wants("call_1"), wait, CANCEL]) == End("cancelled", "enough")


def test_the_model_is_asked_again_only_when_every_wait_is_answered() -> None:
    log = [*wants("call_1", "call_2"), asked("run_1", "call_1"), finished("run_1", "call_2")]
    assert what_next(log) == Rest()


def test_answering_people_are_progress_and_forgive_claims() -> None:
    claims = [RunClaimed(run=R, claim=i, worker="w") for i in range(1, 6)]
    log = [*wants("call_1"), asked("run_1", "call_1"), *claims, given("run_1", "call_1", "allow")]
    assert isinstance(what_next([*log, *claims]), CallTools)


# -- the gate --------------------------------------------------------------------------------


def remove(path: str, times: int) -> str:
    """Remove a file."""
    return f"{path} removed {times} times"


def a_box(permissions: Permissions | None = None, *names: str) -> Toolbox:
    tools = [function_tool(remove, name=name, approval=True) for name in names or ("remove",)]
    return Toolbox(tools, spill_folder=None, permissions=permissions or Permissions())


def gated(
    log: Sequence[Fact],
    arguments: JsonObject,
    *,
    tools: Toolbox | None = None,
    limits: Limits | None = None,
    now: float = 0.0,
    name: str = "remove",
) -> Fact:
    """Return what becomes of `call_1`, which asks for `remove` with these arguments."""
    state = state_of(log)
    run = cast("Run", state.run)
    call = ToolCall(id=CallId("call_1"), name=name, arguments=arguments)
    (fact,) = admit(state, run, [call], tools or a_box(), limits or Limits(), now=now)
    return fact


def a_request(arguments: JsonObject, *, expires_at: float = 2_000_000.0) -> ApprovalAsked:
    known = asked("run_1", "call_1", expires_at=expires_at)
    return replace(known, name="remove", arguments=arguments, digest=digest("remove", arguments))


GOOD: JsonObject = {"path": "a", "times": 2}
ASKED = [*wants("call_1"), a_request(GOOD)]


def test_an_approval_is_asked_for_the_arguments_that_would_be_run() -> None:
    limits = Limits(approval_s=60.0)
    fact = gated(wants("call_1"), {"path": "a", "times": "2"}, limits=limits, now=100.0)
    assert isinstance(fact, ApprovalAsked)
    assert (fact.arguments, fact.digest) == (GOOD, digest("remove", GOOD))
    assert fact.expires_at.timestamp() == 160.0


def test_a_digest_is_of_name_and_arguments_whatever_their_order() -> None:
    assert digest("a", {"x": 1, "y": 2}) == digest("a", {"y": 2, "x": 1})
    assert len({digest("a", {"x": 1}), digest("b", {"x": 1}), digest("a", {"x": "1"})}) == 3


def test_what_is_allowed_runs_as_it_was_shown() -> None:
    fact = gated([*ASKED, given("run_1", "call_1", "allow")], {"path": "swapped", "times": 9})
    assert isinstance(fact, ToolStarted)
    assert fact.arguments == GOOD


def test_what_is_denied_does_not_run_and_the_model_is_told_by_whom_and_why() -> None:
    fact = gated([*ASKED, given("run_1", "call_1", "deny", "too dear")], GOOD)
    assert isinstance(fact, ToolFinished)
    assert (fact.outcome, fact.output) == ("denied", "Denied by boss: too dear")


def test_what_nobody_answered_does_not_run() -> None:
    fact = gated(ASKED, GOOD, now=3_000_000.0)
    assert isinstance(fact, ToolFinished)
    assert (fact.outcome, fact.output) == ("denied", LATE)


def test_edited_arguments_are_run_instead_and_are_checked_like_a_model_s() -> None:
    allowed = given("run_1", "call_1", "allow")
    fact = gated([*ASKED, replace(allowed, arguments={"path": "b", "times": "3"})], GOOD)
    assert isinstance(fact, ToolStarted)
    assert fact.arguments == {"path": "b", "times": 3}
    unfit = gated([*ASKED, replace(allowed, arguments={"path": "b"})], GOOD)
    assert isinstance(unfit, ToolFinished)
    assert unfit.outcome == "error"


def test_a_remembered_tool_is_not_asked_about_again_but_in_a_fork() -> None:
    remembered = ApprovalGiven(
        run=R,
        call=CallId("call_0"),
        decision="allow",
        principal=PrincipalId("p"),
        remembered="remove",
    )
    forked = SessionForked(
        run=None, origin=SessionId("ses_0"), at=Seq(1), principal=PrincipalId("p")
    )
    assert isinstance(gated([remembered, *wants("call_1")], GOOD), ToolStarted)
    assert isinstance(gated([remembered, forked, *wants("call_1")], GOOD), ApprovalAsked)


def test_a_rule_beats_an_approval_that_was_given_before_it() -> None:
    denying = a_box(Permissions(deny=("rem*",)))
    allowed = given("run_1", "call_1", "allow")
    remembered = replace(allowed, call=CallId("call_0"), remembered="remove")
    for log in ([*ASKED, allowed], [remembered, *wants("call_1")]):
        fact = gated(log, GOOD, tools=denying)
        assert isinstance(fact, ToolFinished)
        assert fact.outcome == "denied"


def test_an_approval_is_good_for_no_other_tool() -> None:
    allowed = given("run_1", "call_1", "allow")
    fact = gated([*ASKED, allowed], GOOD, tools=a_box(None, "Remove"))
    assert isinstance(fact, ToolFinished)
    assert (fact.outcome, fact.output) == ("denied", CHANGED)
    gone = gated([*ASKED, allowed], GOOD, tools=a_box(None, "another"))
    assert isinstance(gone, ToolFinished)
    assert gone.outcome == "error"


def test_a_rule_can_ask_about_any_tool_and_allow_what_its_author_asked_about() -> None:
    plain = Toolbox([function_tool(remove)], spill_folder=None, permissions=Permissions(ask=("*",)))
    assert isinstance(gated(wants("call_1"), GOOD, tools=plain), ApprovalAsked)
    trusting = a_box(Permissions(ask=("*",), allow=("remove",)))
    assert isinstance(gated(wants("call_1"), GOOD, tools=trusting), ToolStarted)


def test_a_cap_counts_what_is_asked_about_in_one_reply() -> None:
    state = state_of(wants("call_1", "call_2"))
    calls = [ToolCall(id=CallId(f"call_{i}"), name="remove", arguments=GOOD) for i in (1, 2)]
    limits = Limits(tool_caps={"remove": 1})
    first, second = admit(state, cast("Run", state.run), calls, a_box(), limits, now=0.0)
    assert isinstance(first, ApprovalAsked)
    assert isinstance(second, ToolFinished)
    assert second.outcome == "denied"


def test_a_cap_beats_an_approval() -> None:
    log = [*ASKED, given("run_1", "call_1", "allow")]
    fact = gated(log, GOOD, limits=Limits(tool_caps={"remove": 0}))
    assert isinstance(fact, ToolFinished)
    assert fact.outcome == "denied"


def test_a_client_s_call_begins_with_a_time_to_answer() -> None:
    tools = Toolbox([OfClient(ClientTool(name="remove", timeout_s=30.0))], spill_folder=None)
    fact = gated(wants("call_1"), GOOD, tools=tools, now=100.0)
    assert isinstance(fact, ToolStarted)
    assert fact.expires_at is not None
    assert fact.expires_at.timestamp() == 130.0


def test_a_question_that_no_answer_could_fit_is_put_to_nobody() -> None:
    tools = Toolbox([AskUser()], spill_folder=None)
    wrongs: Sequence[JsonObject] = (
        {"question": "?", "schema": {"type": "colour"}},
        {"question": "?", "schema": {"$ref": "https://example.com/schema"}},
        {"question": "?", "options": ["a"], "schema": {"type": "string"}},
        {"question": "?", "options": []},
        {"options": ["a"]},
    )
    for wrong in wrongs:
        fact = gated(wants("call_1"), wrong, tools=tools, name="ask_user")
        assert isinstance(fact, ToolFinished), wrong
        assert fact.outcome == "error"
    fine = gated(wants("call_1"), {"question": "Sure?"}, tools=tools, name="ask_user")
    assert isinstance(fine, ToolStarted)
    assert fine.expires_at is not None


# -- the head --------------------------------------------------------------------------------


def head_of(facts: Sequence[Fact]) -> Head:
    return reduce(lambda head, one: advance(head, Seq(head.seq + 1), one), facts, Head())


def test_a_head_is_parked_while_all_that_is_unanswered_waits() -> None:
    log = [*wants("call_1", "call_2"), asked("run_1", "call_1", expires_at=500.0)]
    assert (head_of(log).parked, head_of(log).due) == (False, None)
    both = [*log, started("run_1", "call_2", expires_at=400.0)]
    assert (head_of(both).status, head_of(both).due) == ("waiting", 400.0)
    assert head_of([*both, finished("run_1", "call_2")]).due == 500.0
    for news in (given("run_1", "call_1", "deny"), CANCEL):
        assert not head_of([*both, news]).parked
    other = replace(CANCEL, run=RunId("run_2"))
    assert head_of([*both, other]).parked


# -- whole runs ------------------------------------------------------------------------------

TOOLS: dict[str, ToolSpec] = {
    "gated": a_tool("gated", approval=True),
    "client": a_tool("client", client=True, timeout_s=100.0),
    "both": a_tool("both", client=True, approval=True, timeout_s=100.0),
    "plain": a_tool("plain"),
}


def four_calls_then_words(request: Request) -> Reply:
    if sum(isinstance(said, ToolSaid) for said in request.transcript) >= 8:
        return Reply(text="done", stop="end")
    return Reply(text="", stop="tools", calls=tuple(a_call(name) for name in TOOLS))


Deed = Literal["allow", "deny", "edit", "remember", "result", "late", "cancel", "steer"]


class People:
    """What is done, one deed after the other, whenever a run waits; then everything is allowed."""

    def __init__(self, store: MemoryStore, clock: Clock, deeds: Sequence[Deed]) -> None:
        self.store, self.clock, self.deeds = store, clock, list(deeds)

    async def __call__(self, key: Key, head: Head) -> None:
        deed = self.deeds.pop(0) if self.deeds else "allow"
        run, wait = cast("RunId", head.active), head.waits[-1]
        who = PrincipalId("boss")
        if deed == "late":
            self.clock.now = cast("float", head.due)
        elif deed == "cancel":
            await self.store.append(key, [replace(CANCEL, run=run)])
        elif deed == "steer":
            await self.store.append(key, [spoke(run, "hurry", policy="steer")])
        elif wait.kind == "client_tool":
            await self.store.append(
                key,
                [ToolFinished(run=run, call=wait.call, outcome="ok", output="x", principal=who)],
            )
        else:
            fact = ApprovalGiven(
                run=run,
                call=wait.call,
                decision="deny" if deed == "deny" else "allow",
                principal=who,
                arguments={"edited": True} if deed == "edit" else None,
                remembered="gated" if deed == "remember" else None,
            )
            await self.store.append(key, [fact])


@example_of(
    deeds=st.lists(st.sampled_from(Deed.__args__), max_size=8),
    dies_at=st.integers(0, 12),
    after=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_whatever_people_do_and_whenever_a_worker_dies_the_run_ends_and_the_head_is_the_log_s(
    deeds: list[Deed],
    dies_at: int,
    after: bool,  # noqa: FBT001
) -> None:
    async def scenario() -> None:
        clock = Clock()
        store = MemoryStore(clock=clock)
        tools = ToolboxDouble(TOOLS)
        limits = Limits(approval_s=50.0)
        agent = an_agent(ModelDouble(four_calls_then_words), tools=tools, limits=limits)
        key = await a_session(store)
        await store.append(key, [spoke("run_a")])
        people = People(store, clock, deeds)
        workers = Workers(store, agent, LocalSignals(), outside=people, clock=clock)
        store.append = dying(store.append, at=dies_at, after=after)  # type: ignore[method-assign]

        log = await workers.work_until_rest(key)

        check_log(log)
        assert not {name for name, _ in tools.done} & {"client", "both"}
        head, state = Head(), State()
        for event in log:
            assert not isinstance(event.fact, Unknown)
            head, state = advance(head, event.seq, event.fact), fold(state, [event])
            if head.parked and head.active is not None:
                action = decide(state, head.active, limits=limits, now=0.0)
                assert action == Rest(), "parked, and there was something to do"
        assert head == await store.head(key)

    anyio.run(scenario)


async def test_a_late_client_is_an_error_that_the_model_reads() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    key = await a_session(store)
    await store.append(key, [spoke("run_a")])

    def once(request: Request) -> Reply:
        if isinstance(request.transcript[-1], ToolSaid):
            return Reply(text="so be it", stop="end")
        return Reply(text="", stop="tools", calls=(a_call("client"),))

    agent = an_agent(ModelDouble(once), tools=ToolboxDouble(TOOLS))
    people = People(store, clock, ["late"])
    log = await Workers(store, agent, LocalSignals(), outside=people, clock=clock).work_until_rest(
        key
    )

    (late,) = [event.fact for event in log if isinstance(event.fact, ToolFinished)]
    assert (late.outcome, late.output, late.principal) == ("error", NO_RESULT, None)


@pytest.mark.parametrize(("tool", "told"), [("client", LEFT), ("gated", "Not run")])
async def test_a_cancel_while_a_run_waits_ends_it_and_says_what_became_of_the_call(
    tool: str, told: str
) -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    key = await a_session(store)
    await store.append(key, [spoke("run_a")])
    model = ModelDouble(lambda _: Reply(text="", stop="tools", calls=(a_call(tool),)))
    agent = an_agent(model, tools=ToolboxDouble(TOOLS))
    people = People(store, clock, ["cancel"])

    log = await Workers(store, agent, LocalSignals(), outside=people, clock=clock).work_until_rest(
        key
    )

    check_log(log)
    (left,) = [event.fact for event in log if isinstance(event.fact, ToolFinished)]
    assert left.outcome == "cancelled"
    assert told in left.output


async def test_a_parked_run_is_not_claimed_by_those_who_look_at_it() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    key = await a_session(store)
    await store.append(key, [spoke("run_a")])
    model = ModelDouble(lambda _: Reply(text="", stop="tools", calls=(a_call("gated"),)))
    looked = list[Seq]()

    async def look(_: Key, head: Head) -> None:
        looked.append(head.seq)
        if len(looked) == 5:
            await store.append(key, [replace(CANCEL, run=RunId("run_a"))])

    agent = an_agent(model, tools=ToolboxDouble(TOOLS))
    await Workers(store, agent, LocalSignals(), outside=look, clock=clock).work_until_rest(key)

    assert len(set(looked)) == 1
    assert looked[0] > START
