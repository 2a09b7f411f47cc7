"""What to do next: `decide` answers for every state, and these are all the rules about runs.

    log ──fold──▶ State ──decide──▶ Begin | AskModel | CallTools | Wait | End | Rest

Order of the rules: a cancel beats all; a run that kills its workers ends; calls are answered
before anything is asked; a reply that left nothing unanswered ends the run; a failed model is
asked again, then the next of the chain; a limit that is reached stops before the next call.

Invariant: no I/O, no clock, no chance; the time is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias

from hostler.core.events import (
    CallId,
    Fact,
    InputDropped,
    InputProcessed,
    ModelFailed,
    Outcome,
    RunEnded,
    RunId,
    RunStatus,
    ToolCall,
    ToolFinished,
    ToolStarted,
)
from hostler.core.state import AGAIN, LEFT, LOST, NEVER_RAN, NOTICE_AFTER, Run, State, fingerprint

MAX_CLAIMS = 5
"""Claims in a row without progress before a run is taken for one that kills its workers."""
MOST_CALLS = 64
"""Calls in one reply that are looked at: a model that asks for more has run wild."""
MOST_LIMITED = 20
"""Calls of one model for one step while it only asks for time: limits their rate, or is overloaded."""
_ASKS_FOR_TIME = frozenset({"rate_limit", "overloaded"})
MOST_RETRY_S = 86_400.0
"""The longest wait that a provider's word is taken for."""
IMPATIENT_S = 10.0
"""With another model left in the chain, a longer wait for this one is not waited."""
MOST_WAIT_S = 366 * 86_400.0
"""The longest that anything may wait for somebody outside."""
EMPTY_AFTER, FAILED_AFTER, SAME_ERROR_AFTER = 3, 5, 4
"""Stuck: this many replies that say nothing, failed calls, or equal errors, each in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a run stops, whatever its model wants.  None: no limit of that sort."""

    max_steps: int = 100
    max_tokens: int | None = None
    """Input and output, summed over the run."""
    max_seconds: float | None = None
    """Since the run started; waiting counts."""
    max_cost: Decimal | None = None
    """US dollars; a call at an unknown price counts as nothing, and is reported as unknown."""
    tool_caps: Mapping[str, int] = field(default_factory=dict[str, int])
    """By tool name: how often it may begin within one run."""
    stop_when: Callable[[Run], bool] | None = None
    """Asked after each step; True ends the run as done."""
    attempts: int = 5
    """Calls of one model for one step, the first included."""
    wait_s: float = 3_600.0
    """From the first failure on, how long one model may be waited for in one step."""
    models: int = 1
    """Length of the agent's chain of models."""
    approval_s: float = 7 * 86_400.0
    """How long a call waits for an approval before it is denied."""
    stuck_after: int = 5
    """Equal calls with equal results in a row; 0 switches this check off."""
    may_be_stuck: bool = False
    """It never ends as stuck: who answers its calls says when it is enough."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do for this run until somebody writes to the log, or a `Head.due` is over."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Write `RunStarted`."""


@dataclass(frozen=True, slots=True)
class AskModel:
    choice: int


@dataclass(frozen=True, slots=True)
class CallTools:
    fresh: tuple[ToolCall, ...]
    """Neither begun nor answered; approved or not, or not asked about yet."""
    lost: tuple[ToolStarted, ...]
    """Begun by a worker that is gone, or by a client that is late."""


@dataclass(frozen=True, slots=True)
class Wait:
    until: float
    """When to look again, in Unix seconds."""


@dataclass(frozen=True, slots=True)
class End:
    status: RunStatus
    reason: str | None = None


Action: TypeAlias = Rest | Begin | AskModel | CallTools | Wait | End


def decide(state: State, run: RunId, *, limits: Limits, now: float) -> Action:
    """Return the next action of `run`.  Total: every state has exactly one answer."""
    r = state.run
    if state.foreign or r is None or r.id != run:
        fresh_run = r is None and run in state.pending and not state.foreign
        return Begin() if fresh_run else Rest()
    if run in state.cancels:
        return End("cancelled", state.cancels[run] or None)
    if r.claims > MAX_CLAIMS:
        return End("failed", "poisoned")
    if r.asked:
        return _calls(r, limits, now)
    if r.answered and r.heard <= r.seen:
        return End("done", None if r.answered in ("end", "tools") else r.answered)
    if r.failure is not None:
        return _after_failure(r, r.failure, limits, now)
    return _limited(r, limits, now) or AskModel(r.choice)


def _calls(r: Run, limits: Limits, now: float) -> Action:
    lost = tuple(one for one in r.open.values() if is_over(one.expires_at, now))
    fresh = tuple(
        call
        for call in r.asked
        if call.id not in r.answers and call.id not in r.open and _is_due(r, call.id, now)
    )
    if not fresh and not lost:
        return Rest()
    # What a client has is not waited for beyond the budget; what a worker lost is told as it was.
    late = any(one.expires_at for one in lost)
    if late and r.terms.ends_unanswered:
        return End("failed", "unanswered")
    stop = _spent(r, limits, now) if fresh or late else None
    return stop or CallTools(fresh, lost)


def _is_due(r: Run, call: CallId, now: float) -> bool:
    asked = r.gated.get(call)
    return asked is None or call in r.given or is_over(asked.expires_at, now)


def is_over(expires_at: datetime | None, now: float) -> bool:
    """Whether there is nobody outside to wait for, or not any more."""
    return expires_at is None or expires_at.timestamp() <= now


def _after_failure(r: Run, failure: ModelFailed, limits: Limits, now: float) -> Action:
    wait_s, others, tries = failure.retry_after_s, r.choice + 1 < limits.models, limits.attempts
    if failure.error.code in _ASKS_FOR_TIME:
        tries = max(tries, MOST_LIMITED)
    too_long = False
    if wait_s is not None and r.failures < tries:
        until = r.failed_at + wait_s
        too_long = until > min(r.failing_since + limits.wait_s, deadline(r, limits))
        if not too_long and not (others and wait_s > IMPATIENT_S):
            return Wait(until) if now < until else _limited(r, limits, now) or AskModel(r.choice)
    if others:
        return _limited(r, limits, now) or AskModel(r.choice + 1)
    return End("failed", "wait_too_long") if too_long else End("failed", "model_error")


def deadline(r: Run, limits: Limits) -> float:
    """Return when the run's time is over, in Unix seconds."""
    return math.inf if limits.max_seconds is None else r.started_at + limits.max_seconds


def bounded(asked_s: float | None) -> float | None:
    """Return a wait that a provider asked for as it can be kept; None: it said nothing of use."""
    if asked_s is None or math.isnan(asked_s):
        return None
    return min(max(asked_s, 0.0), MOST_RETRY_S)


def _limited(r: Run, limits: Limits, now: float) -> End | None:
    if r.steps and limits.stop_when is not None and limits.stop_when(r):
        return End("done", "stop_when")
    if r.steps >= limits.max_steps:
        return End("failed", "step_limit")
    if not limits.may_be_stuck and _is_stuck(r, limits.stuck_after):
        return End("failed", "stuck")
    return _spent(r, limits, now)


def _spent(r: Run, limits: Limits, now: float) -> End | None:
    tokens = r.usage.input_tokens + r.usage.output_tokens
    over = (
        (limits.max_tokens is not None and tokens >= limits.max_tokens)
        or now >= deadline(r, limits)
        or (limits.max_cost is not None and (r.usage.cost or 0) >= limits.max_cost)
    )
    return End("failed", "budget") if over else None


def _is_stuck(r: Run, equal: int) -> bool:
    marks, errors = r.marks, r.errors
    swings = len(marks) >= 6 and marks[-1] != marks[-2] and marks[-6:] == marks[-2:] * 3
    return (
        r.empty >= EMPTY_AFTER
        or len(errors) >= FAILED_AFTER
        or (len(errors) >= SAME_ERROR_AFTER and len(set(errors[-SAME_ERROR_AFTER:])) == 1)
        or (0 < equal <= len(marks) and (swings or len(set(marks[-equal:])) == 1))
    )


def remark(r: Run, done: Mapping[CallId, ToolFinished]) -> str:
    """Return what the model should read after the last output of a step; mostly nothing."""
    equal = r.marks[1 - NOTICE_AFTER :]
    mark = fingerprint(r, {**r.answers, **done})
    return AGAIN if equal == [mark] * (NOTICE_AFTER - 1) else ""


def closing(r: Run, end: End) -> list[Fact]:
    """Return the facts that end the run: every call answered, every input accounted for."""
    facts: list[Fact] = []
    for call in r.asked:
        if call.id not in r.answers:
            outcome, told = _left(r.open.get(call.id))
            facts.append(ToolFinished(run=r.id, call=call.id, outcome=outcome, output=told))
    facts += [InputDropped(run=r.id, input=i, reason=end.reason or end.status) for i, _ in r.inputs]
    return [*facts, RunEnded(run=r.id, status=end.status, reason=end.reason, usage=r.usage)]


def _left(begun: ToolStarted | None) -> tuple[Outcome, str]:
    """Return the outcome of a call whose run ends first."""
    if begun is None:
        return "cancelled", NEVER_RAN
    return ("unknown", LOST) if begun.expires_at is None else ("cancelled", LEFT)


def processed(r: Run) -> list[InputProcessed]:
    """Return what goes with a reply to the open attempt: the inputs that it has seen."""
    return [InputProcessed(run=r.id, input=i) for i, seq in r.inputs if seq < r.asking]
