"""The rules about runs, each by the smallest log that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest
from msgspec.structs import replace

from hostler.core.decide import (
    Action,
    AskModel,
    Begin,
    CallTools,
    End,
    Limits,
    Rest,
    Wait,
    decide,
    remark,
)
from hostler.core.events import (
    AttemptDropped,
    AttemptId,
    CallId,
    CancelRequested,
    Event,
    Fact,
    Fault,
    InputId,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    Outcome,
    PrincipalId,
    RunClaimed,
    RunEnded,
    RunId,
    RunStarted,
    Seq,
    SessionId,
    Stop,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Unknown,
    Usage,
    UserSpoke,
)
from hostler.core.said import ModelSaid, ToolSaid, UserSaid
from hostler.core.state import AGAIN, LOST, NEVER_RAN, State, add, fold, prompt

R = RunId("run_1")


def events(facts: Sequence[Fact | Unknown], *, at: float = 0.0) -> list[Event]:
    """Number the facts; a reply has seen what was there when its model was asked."""
    made: list[Event] = []
    asked_at = Seq(0)
    for i, fact in enumerate(facts, start=1):
        if isinstance(fact, ModelAsked):
            asked_at = Seq(i)
        seen = replace(fact, seen=asked_at) if isinstance(fact, ModelReplied) else fact
        made.append(Event(session=SessionId("s"), seq=Seq(i), at=at, fact=seen, raw=b""))
    return made


def next_action(
    facts: Sequence[Fact | Unknown], limits: Limits | None = None, *, now: float = 0.0
) -> Action:
    return decide(fold(State(), events(facts)), R, limits=limits or Limits(), now=now)


def spoke(run: RunId = R, text: str = "hello") -> UserSpoke:
    return UserSpoke(
        run=run,
        input=InputId(f"inp_{text}"),
        content=text,
        policy="queue",
        principal=PrincipalId("p"),
        metadata={},
    )


def asked(choice: int = 0) -> ModelAsked:
    return ModelAsked(run=R, attempt=AttemptId("att"), provider="p", model="m", choice=choice)


def replied(text: str = "", *calls: str, stop: Stop = "end", cost: Decimal | None = None) -> Fact:
    made = tuple(ToolCall(id=CallId(call), name=call, arguments={}) for call in calls)
    usage = Usage(input_tokens=10, output_tokens=5, cost=cost)
    return ModelReplied(
        run=R,
        attempt=AttemptId("att"),
        seen=Seq(0),
        text=text,
        calls=made,
        stop=stop,
        usage=usage,
    )


def failed(retry_after_s: float | None) -> ModelFailed:
    fault = Fault(code="server", message="x")
    return ModelFailed(run=R, attempt=AttemptId("att"), error=fault, retry_after_s=retry_after_s)


def started(call: str) -> ToolStarted:
    return ToolStarted(run=R, call=CallId(call), name=call, arguments={})


def finished(call: str, outcome: Outcome = "ok", output: str = "out") -> ToolFinished:
    return ToolFinished(run=R, call=CallId(call), outcome=outcome, output=output)


CANCEL = CancelRequested(run=R, principal=PrincipalId("p"), reason="enough")
BEGUN: list[Fact] = [spoke(), RunStarted(run=R)]


def test_an_empty_log_asks_for_nothing() -> None:
    assert next_action([]) == Rest()


def test_an_accepted_input_begins_its_run() -> None:
    assert next_action([spoke()]) == Begin()


def test_a_run_that_began_asks_the_first_model() -> None:
    assert next_action(BEGUN) == AskModel(0)


def test_a_reply_without_calls_ends_the_run() -> None:
    assert next_action([*BEGUN, asked(), replied("hi")]) == End("done")


@pytest.mark.parametrize("stop", ["length", "refusal"])
def test_a_reply_that_was_cut_or_refused_ends_the_run_and_says_so(stop: Stop) -> None:
    assert next_action([*BEGUN, asked(), replied("hi", stop=stop)]) == End("done", stop)


def test_a_reply_with_calls_has_them_called() -> None:
    action = next_action([*BEGUN, asked(), replied("", "a", "b")])
    assert isinstance(action, CallTools)
    assert [call.id for call in action.fresh] == ["a", "b"]
    assert action.lost == ()


def test_a_call_that_began_before_a_crash_is_lost_and_is_not_fresh() -> None:
    action = next_action([*BEGUN, asked(), replied("", "a", "b"), started("a")])
    assert isinstance(action, CallTools)
    assert [call.id for call in action.fresh] == ["b"]
    assert [one.call for one in action.lost] == ["a"]


def test_the_model_is_asked_again_when_every_call_is_answered() -> None:
    log = [*BEGUN, asked(), replied("", "a", "b"), finished("b"), finished("a")]
    assert next_action(log) == AskModel(0)


def test_answers_stand_in_the_order_of_the_calls_whatever_order_they_came_in() -> None:
    log = [*BEGUN, asked(), replied("", "a", "b"), finished("b", output="B"), finished("a")]
    said = prompt(fold(State(), events(log)))
    assert [one.output for one in said if isinstance(one, ToolSaid)] == ["out", "B"]


def test_an_open_call_is_shown_as_unknown_and_one_that_never_began_as_not_run() -> None:
    log = [*BEGUN, asked(), replied("", "a", "b"), started("a")]
    said = prompt(fold(State(), events(log)))
    assert [one.output for one in said if isinstance(one, ToolSaid)] == [LOST, NEVER_RAN]


def test_what_is_said_during_a_call_is_shown_after_its_answer() -> None:
    log = [*BEGUN, asked(), replied("", "a"), started("a"), spoke(text="wait"), finished("a")]
    said = prompt(fold(State(), events(log)))
    assert [type(one) for one in said] == [UserSaid, ModelSaid, ToolSaid, UserSaid]


def test_what_is_said_while_the_model_thinks_is_answered_before_the_run_ends() -> None:
    log = [*BEGUN, asked(), spoke(text="wait"), replied("hi")]
    assert next_action(log) == AskModel(0)


def test_a_cancel_beats_everything() -> None:
    assert next_action([*BEGUN, asked(), replied("", "a"), started("a"), CANCEL]) == End(
        "cancelled", "enough"
    )


def test_a_cancel_of_another_run_does_nothing() -> None:
    other = CancelRequested(run=RunId("run_2"), principal=PrincipalId("p"), reason=None)
    assert next_action([*BEGUN, other]) == AskModel(0)


def test_a_failure_that_may_pass_is_waited_for() -> None:
    log = [*BEGUN, asked(), failed(30.0)]
    assert next_action(log, now=10.0) == Wait(30.0)
    assert next_action(log, now=30.0) == AskModel(0)


def test_a_model_is_asked_so_often_and_no_more() -> None:
    log = [*BEGUN, *[asked(), failed(0.0)] * 5]
    assert next_action(log[:-2]) == AskModel(0)
    assert next_action(log) == End("failed", "model_error")


def test_the_next_model_of_the_chain_is_asked_when_one_will_not_do() -> None:
    limits = Limits(models=2)
    assert next_action([*BEGUN, asked(), failed(None)], limits) == AskModel(1)
    log = [*BEGUN, asked(), failed(None), asked(1), failed(None)]
    assert next_action(log, limits) == End("failed", "model_error")


def test_the_next_model_of_the_chain_has_attempts_of_its_own() -> None:
    log = [*BEGUN, *[asked(), failed(0.0)] * 5, asked(1), failed(0.0)]
    assert next_action(log, Limits(models=2)) == AskModel(1)


def test_a_fallback_is_kept_for_the_rest_of_the_run() -> None:
    log = [*BEGUN, asked(), failed(None), asked(1), replied("", "a"), finished("a")]
    assert next_action(log, Limits(models=2)) == AskModel(1)


def test_a_dropped_attempt_is_made_again() -> None:
    dropped = AttemptDropped(run=R, attempt=AttemptId("att"), reason="worker_lost")
    assert next_action([*BEGUN, asked(), dropped]) == AskModel(0)


def test_a_run_stops_at_its_step_limit() -> None:
    log = [*BEGUN, asked(), replied("", "a"), finished("a")]
    assert next_action(log, Limits(max_steps=1)) == End("failed", "step_limit")


def test_a_predicate_can_stop_a_run_after_a_step() -> None:
    log = [*BEGUN, asked(), replied("", "a"), finished("a")]
    limits = Limits(stop_when=lambda run: run.called.get("a", 0) == 0 and run.steps == 1)
    assert next_action(log, limits) == End("done", "stop_when")
    assert next_action(BEGUN, limits) == AskModel(0)


@pytest.mark.parametrize(
    ("limits", "now"),
    [
        (Limits(max_tokens=15), 0.0),
        (Limits(max_seconds=60.0), 60.0),
        (Limits(max_cost=Decimal("0.01")), 0.0),
    ],
)
def test_a_budget_stops_before_the_next_call_of_a_model_or_tool(limits: Limits, now: float) -> None:
    wants = [*BEGUN, asked(), replied("", "a", cost=Decimal("0.01"))]
    assert next_action(wants, limits, now=now) == End("failed", "budget")
    assert next_action([*wants, finished("a")], limits, now=now) == End("failed", "budget")


def test_a_budget_that_is_not_reached_stops_nothing() -> None:
    limits = Limits(max_tokens=16, max_seconds=60.0, max_cost=Decimal("0.02"))
    log = [*BEGUN, asked(), replied("", "a", cost=Decimal("0.01")), finished("a")]
    assert next_action(log, limits, now=59.0) == AskModel(0)


def test_an_unknown_price_stays_unknown_in_the_sum() -> None:
    priced, unpriced = Usage(input_tokens=1, cost=Decimal(1)), Usage(input_tokens=1)
    assert add(priced, unpriced).cost is None
    assert add(unpriced, priced).cost is None
    assert add(Usage(), priced).cost == Decimal(1)


def same_step(output: str = "out", outcome: Outcome = "ok") -> list[Fact]:
    return [asked(), replied("", "a"), started("a"), finished("a", outcome, output)]


def test_the_model_is_told_at_the_third_equal_step_and_stopped_at_the_fifth() -> None:
    third = fold(State(), events([*BEGUN, *same_step() * 2, *same_step()[:-1]])).run
    assert third is not None
    assert remark(third, {CallId("a"): finished("a")}) == AGAIN
    assert remark(third, {CallId("a"): finished("a", output="other")}) == ""
    assert next_action([*BEGUN, *same_step() * 4]) == AskModel(0)
    assert next_action([*BEGUN, *same_step() * 5]) == End("failed", "stuck")
    assert next_action([*BEGUN, *same_step() * 5], Limits(stuck_after=0)) == AskModel(0)


def test_equal_calls_side_by_side_are_no_loop() -> None:
    calls = ["a", "b", "c", "d", "e", "f"]
    log = [*BEGUN, asked(), replied("", *calls), *[finished(c, "error") for c in calls]]
    assert next_action(log) == AskModel(0)


def test_swinging_between_two_steps_is_a_loop() -> None:
    swing = [*same_step("x"), *same_step("y")]
    assert next_action([*BEGUN, *swing * 2]) == AskModel(0)
    assert next_action([*BEGUN, *swing * 3]) == End("failed", "stuck")


def test_four_equal_errors_or_five_failed_steps_are_a_loop() -> None:
    equal = same_step("no", "error")
    assert next_action([*BEGUN, *equal * 3], Limits(stuck_after=9)) == AskModel(0)
    assert next_action([*BEGUN, *equal * 4], Limits(stuck_after=9)) == End("failed", "stuck")
    differing = [fact for i in range(5) for fact in same_step(f"no {i}", "error")]
    assert next_action([*BEGUN, *differing[:-4]]) == AskModel(0)
    assert next_action([*BEGUN, *differing]) == End("failed", "stuck")


def test_a_success_between_errors_is_no_loop() -> None:
    log = [*BEGUN, *same_step("no", "error") * 3, *same_step("yes"), *same_step("no", "error")]
    assert next_action(log) == AskModel(0)


def test_an_empty_reply_is_asked_for_again_and_after_three_the_run_is_stuck() -> None:
    assert next_action([*BEGUN, *[asked(), replied()] * 2]) == AskModel(0)
    assert next_action([*BEGUN, *[asked(), replied()] * 3]) == End("failed", "stuck")
    said = prompt(fold(State(), events([*BEGUN, asked(), replied()])))
    assert list(said) == [UserSaid("hello")]


def test_a_run_that_kills_its_workers_ends_as_poisoned() -> None:
    claims = [RunClaimed(run=R, claim=i, worker="w") for i in range(1, 8)]
    assert next_action([*BEGUN, *claims[:5]]) == AskModel(0)
    assert next_action([*BEGUN, *claims[:6]]) == End("failed", "poisoned")


def test_progress_forgives_the_claims_before_it() -> None:
    claims = [RunClaimed(run=R, claim=i, worker="w") for i in range(1, 6)]
    log = [*BEGUN, *claims, asked(), replied("", "a"), *claims, finished("a")]
    assert next_action(log) == AskModel(0)


def test_a_build_does_not_drive_a_run_that_holds_a_kind_it_does_not_know() -> None:
    assert next_action([*BEGUN, Unknown(run=R, kind="from_the_future")]) == Rest()


def test_an_ended_run_rests() -> None:
    ended = RunEnded(run=R, status="done", usage=Usage())
    assert next_action([*BEGUN, asked(), replied("hi"), ended]) == Rest()


def test_a_remark_does_not_make_equal_steps_differ() -> None:
    remarked = [*same_step(), *same_step(), *same_step("out" + AGAIN), *same_step("out" + AGAIN)]
    assert next_action([*BEGUN, *remarked]) == AskModel(0)
    assert next_action([*BEGUN, *remarked, *same_step()]) == End("failed", "stuck")


def test_a_fold_of_a_log_is_linear_and_shares_its_transcript() -> None:
    log = events([*BEGUN, *same_step() * 50])
    state = fold(State(), log[:100])
    transcript = state.transcript
    assert fold(state, log[100:]).transcript is transcript
