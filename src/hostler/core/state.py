"""What is true: `fold` reads a log, `prompt` shows it to a model.

Theory of operation.  A session is a conversation (`transcript`) to which runs add one after the
other.  An input belongs to a run from its acceptance; inputs of runs that have not begun wait in
`pending`, whatever else is written meanwhile.  What is said to the run that is going (a steer)
waits in `held` while the model thinks or its calls are unanswered, because providers want each
call answered right after it, in call order.

`fold` is linear in the log: it consumes the state it is given and shares the transcript.

Invariant: no I/O, no clock, no chance; times come from the events.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import assert_never

from hostler.core.events import (
    START,
    ApprovalAsked,
    ApprovalGiven,
    AttemptDropped,
    AttemptId,
    CallId,
    CancelRequested,
    ConversationEdited,
    Event,
    Fact,
    InputDropped,
    InputId,
    InputProcessed,
    MessageScheduled,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    PartShown,
    RunClaimed,
    RunEnded,
    RunId,
    RunRated,
    RunStarted,
    RunWithdrawn,
    Seq,
    SessionForked,
    SessionRewound,
    Stop,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Unknown,
    Usage,
    UserSpoke,
)
from hostler.core.said import ModelSaid, Said, TextPart, ToolSaid, UserSaid
from hostler.core.terms import NO_TERMS, Terms

ENDS_ATTEMPT = frozenset({"model_replied", "model_failed", "attempt_dropped", "run_claimed"})
"""After these, the text of an attempt that was in flight is out of date."""
NOTICE_AFTER = 3
"""Equal steps in a row before the model is told so."""
KEPT_MARKS = 10

NEVER_RAN = "Not run: the run ended before this call began."
LEFT = "Cancelled while a client had it; it may have taken effect."
LOST = "Outcome unknown: it had begun and its end was not recorded; it may have taken effect."
AGAIN = "\n\n(The third equal call with an equal result: try another way.)"
"""Put after the output of a call by `remark`."""


@dataclass(slots=True, kw_only=True)
class Run:
    """What the log implies about the run that is going."""

    id: RunId
    started_at: float
    inputs: list[tuple[InputId, Seq]]
    """Not yet processed, with where they joined."""
    heard: Seq
    """Where an input last joined."""
    seen: Seq = START
    """How far the log was when the model was asked for its last reply."""
    asking: Seq = START
    """Where the open attempt was written; 0 when none is open."""
    attempt: AttemptId | None = None
    choice: int = 0
    failure: ModelFailed | None = None
    failed_at: float = 0.0
    failing_since: float = 0.0
    """When the first of `failures` came."""
    failures: int = 0
    """Of the present model, for the present step."""
    steps: int = 0
    claims: int = 0
    """Since anything was achieved."""
    answered: Stop | None = None
    """Why the model stopped, once it gave a reply without calls."""
    asked: tuple[ToolCall, ...] = ()
    """The calls of the last reply, while any of them is unanswered."""
    gated: dict[CallId, ApprovalAsked] = field(default_factory=dict[CallId, ApprovalAsked])
    """Calls that were put before a person and have not begun."""
    given: dict[CallId, ApprovalGiven] = field(default_factory=dict[CallId, ApprovalGiven])
    open: dict[CallId, ToolStarted] = field(default_factory=dict[CallId, ToolStarted])
    answers: dict[CallId, ToolFinished] = field(default_factory=dict[CallId, ToolFinished])
    held: list[Said] = field(default_factory=list[Said])
    called: dict[str, int] = field(default_factory=dict[str, int])
    usage: Usage = field(default_factory=Usage)
    empty: int = 0
    """Replies in a row that said nothing."""
    errors: list[str] = field(default_factory=list[str])
    """What the steps since the last success said, in which every call failed."""
    marks: list[int] = field(default_factory=list[int])
    """Fingerprints of the last steps: calls and outputs."""
    terms: Terms = NO_TERMS
    """What the last message that asked for anything asks of it."""


@dataclass(slots=True, kw_only=True)
class State:
    """Everything the log implies.  Build it with `fold`, never by hand."""

    seq: Seq = START
    transcript: list[Said] = field(default_factory=list[Said])
    begun: dict[RunId, int] = field(default_factory=dict[RunId, int])
    """How long the transcript was when each run that is part of it began."""
    pending: dict[RunId, list[tuple[UserSpoke, Seq]]] = field(
        default_factory=dict[RunId, list[tuple[UserSpoke, Seq]]]
    )
    cancels: dict[RunId, str] = field(default_factory=dict[RunId, str])
    run: Run | None = None
    approved: set[str] = field(default_factory=set[str])
    """Tools that need no further approval in this session."""
    foreign: bool = False
    """The log holds a kind of a newer build."""
    size: int = 0
    """Characters in `transcript`: what keeping this state costs, roughly."""


def terms_of(state: State, run: RunId) -> Terms:
    """Return what is asked of a run that has not ended."""
    if state.run is not None and state.run.id == run:
        return state.run.terms
    asked = [spoke.terms for spoke, _ in state.pending.get(run, ()) if spoke.terms is not None]
    return asked[-1] if asked else NO_TERMS


def fold(state: State, events: Iterable[Event]) -> State:
    """Return `state` after `events`, which follow it; the `state` passed in is used up."""
    for event in events:
        assert event.seq > state.seq, f"event {event.seq} is not past {state.seq}"
        _apply(state, event, event.fact)
        state.seq = event.seq
    return state


def prompt(state: State) -> Sequence[Said]:
    """Return the conversation with every call answered, wherever the log was cut.

    The sequence is shared with the state: read it before the next `fold`.
    """
    if state.run is None or not state.run.asked:
        return state.transcript
    r = state.run
    return [*state.transcript, *_answers(r.asked, r.answers, r.open), *r.held]


def _apply(s: State, event: Event, fact: Fact | Unknown) -> None:
    match fact:
        case UserSpoke() | InputProcessed() | InputDropped() | CancelRequested():
            _inbox(s, event, fact)
        case ApprovalGiven() | SessionForked() | SessionRewound() | ConversationEdited():
            approve(s, fact)
        case ModelAsked() | ModelReplied() | ModelFailed() | AttemptDropped():
            if s.run is not None:
                _model(s, s.run, event, fact)
        case ToolStarted() | ToolFinished() | ApprovalAsked():
            if s.run is not None:
                _tool(s, s.run, fact)
        case RunClaimed() | RunStarted() | RunEnded():
            _life(s, event, fact)
        case RunRated() | RunWithdrawn() | PartShown() | MessageScheduled():
            pass  # for people, not for models (or not yet)
        case Unknown():
            s.foreign = True
        case _:
            assert_never(fact)


def _inbox(
    s: State, event: Event, fact: UserSpoke | InputProcessed | InputDropped | CancelRequested
) -> None:
    r = s.run
    match fact:
        case UserSpoke(run=run) if run is not None:
            said = said_by(fact)
            s.size += sum(map(size_of, said))
            if r is None or r.id != run:
                s.pending.setdefault(run, []).append((fact, event.seq))
                return
            r.heard, r.terms = event.seq, fact.terms or r.terms
            r.inputs.append((fact.input, event.seq))
            (r.held if r.asked or r.asking else s.transcript).extend(said)
        case InputProcessed(input=i) | InputDropped(input=i) if r is not None:
            r.inputs = [one for one in r.inputs if one[0] != i]
        case CancelRequested(run=run) if run is not None:
            s.cancels[run] = fact.reason or ""
        case _:
            pass


def _model(
    s: State, r: Run, event: Event, fact: ModelAsked | ModelReplied | ModelFailed | AttemptDropped
) -> None:
    if isinstance(fact, ModelAsked):
        if fact.choice != r.choice:
            r.choice, r.failures = fact.choice, 0
        r.asking, r.attempt, r.answered = event.seq, fact.attempt, None
        return
    if isinstance(fact, ModelReplied):
        _replied(s, r, fact)
    elif isinstance(fact, ModelFailed):
        if not r.failures:
            r.failing_since = event.at
        r.failure, r.failed_at, r.claims = fact, event.at, 0
        r.usage = add(r.usage, fact.usage)
        r.failures += 1
    r.asking, r.attempt = START, None
    if not r.asked:
        s.transcript.extend(r.held)
        r.held.clear()


def _replied(s: State, r: Run, fact: ModelReplied) -> None:
    r.seen, r.usage = fact.seen, add(r.usage, fact.usage)
    r.steps, r.failures, r.failure, r.claims = r.steps + 1, 0, None, 0
    r.asked = _say(s, fact)
    if _is_empty(fact):
        r.empty += 1
    else:
        r.empty, r.answered = 0, None if fact.calls else fact.stop


def _say(s: State, fact: ModelReplied) -> tuple[ToolCall, ...]:
    if not _is_empty(fact):
        said = ModelSaid(fact.text, fact.calls, fact.thinking, fact.replay)
        s.size += size_of(said)
        s.transcript.append(said)
    return fact.calls


def _is_empty(fact: ModelReplied) -> bool:
    return not (fact.text or fact.calls or fact.stop == "refusal")


def approve(
    s: State, fact: ApprovalGiven | SessionForked | SessionRewound | ConversationEdited
) -> None:
    """Take in what somebody outside decided about calls, or about what was said."""
    if isinstance(fact, SessionRewound | ConversationEdited):
        if s.run is not None:
            _settle(s, s.run)
            s.run = None
        _rewind(s, fact.before) if isinstance(fact, SessionRewound) else _edit(s, fact)
        return
    if isinstance(fact, SessionForked):
        s.approved.clear()  # was given for the other session
        return
    if fact.remembered is not None:
        s.approved.add(fact.remembered)
    if s.run is not None and fact.call in s.run.gated:
        s.run.given.setdefault(fact.call, fact)
        s.run.claims = 0


def _edit(s: State, fact: ConversationEdited) -> None:
    first = len(s.transcript) if fact.place is None else min(fact.place, len(s.transcript))
    end, grown = min(first + fact.taken, len(s.transcript)), first + len(fact.said)
    s.transcript[first:end] = fact.said
    s.size += sum(map(size_of, fact.said))
    for run, at in s.begun.items():
        if at > first:
            s.begun[run] = grown + max(0, at - end)


def _rewind(s: State, run: RunId) -> None:
    if run in s.begun:
        del s.transcript[s.begun[run] :]
        kept = [*s.begun][: [*s.begun].index(run)]
        s.begun = {one: s.begun[one] for one in kept}


def _tool(s: State, r: Run, fact: ToolStarted | ToolFinished | ApprovalAsked) -> None:
    call = next((c for c in r.asked if c.id == fact.call), None)
    if call is None or call.id in r.answers:
        return
    if isinstance(fact, ApprovalAsked):
        r.gated[fact.call], r.claims = fact, 0
        return
    r.gated.pop(fact.call, None)
    r.given.pop(fact.call, None)
    if isinstance(fact, ToolStarted):
        r.open[fact.call] = fact
        r.called[fact.name] = r.called.get(fact.name, 0) + 1
        return
    r.open.pop(fact.call, None)
    r.answers[fact.call], r.claims = fact, 0
    s.size += len(fact.output)
    if len(r.answers) == len(r.asked):
        _mark(r)
        _settle(s, r)


def _mark(r: Run) -> None:
    done = [r.answers[call.id] for call in r.asked]
    r.marks = [*r.marks, fingerprint(r, r.answers)][-KEPT_MARKS:]
    failed = all(one.outcome != "ok" for one in done)
    r.errors = [*r.errors, done[0].output][-KEPT_MARKS:] if failed else []


def fingerprint(r: Run, answers: Mapping[CallId, ToolFinished]) -> int:
    """Return what is equal for steps with equal calls and equal outputs.

    Of the step, not of its calls: equal calls side by side are no loop.
    """
    did = [
        (call.name, call.arguments, answers[call.id].output.removesuffix(AGAIN))
        for call in r.asked
        if call.id in answers
    ]
    return hash(json.dumps(did, sort_keys=True))


def _settle(s: State, r: Run) -> None:
    s.transcript.extend(_answers(r.asked, r.answers, r.open))
    s.transcript.extend(r.held)
    r.asked = ()
    r.gated.clear()
    r.given.clear()
    r.open.clear()
    r.answers.clear()
    r.held.clear()


def _answers(
    calls: tuple[ToolCall, ...],
    answers: Mapping[CallId, ToolFinished],
    begun: Mapping[CallId, ToolStarted],
) -> Iterable[ToolSaid]:
    # Providers refuse a call without an answer right after it, in the order of the calls.
    for call in calls:
        done = answers.get(call.id)
        if done is None:
            yield ToolSaid(call, LOST if call.id in begun else NEVER_RAN, failed=True)
        else:
            yield ToolSaid(call, done.output, failed=done.outcome != "ok")


def said_by(spoke: UserSpoke) -> list[Said]:
    """Return what a message adds to the conversation."""
    own: list[Said] = [UserSaid(spoke.content)] if spoke.content else []
    return [*spoke.history, *own]


def size_of(said: Said) -> int:
    """Return how many characters it has, roughly what keeping it costs."""
    if isinstance(said, ToolSaid):
        return len(said.output)
    if isinstance(said, ModelSaid):
        return len(said.text) + len(said.thinking or "") + 200 * len(said.calls)
    content = said.content
    if isinstance(content, str):
        return len(content)
    return sum(len(p.text if isinstance(p, TextPart) else p.data or "") for p in content)


def _life(s: State, event: Event, fact: RunClaimed | RunStarted | RunEnded) -> None:
    if isinstance(fact, RunClaimed):
        if s.run is not None:
            s.run.claims += 1
        return
    if fact.run is None:
        return
    if s.run is not None and (isinstance(fact, RunStarted) or fact.run == s.run.id):
        _settle(s, s.run)
        s.run = None
    if isinstance(fact, RunEnded):
        s.pending.pop(fact.run, None)
        s.cancels.pop(fact.run, None)
        return
    s.begun[fact.run] = len(s.transcript)
    inputs, terms = list[tuple[InputId, Seq]](), NO_TERMS
    for spoke, seq in s.pending.pop(fact.run, []):
        s.transcript.extend(said_by(spoke))
        inputs.append((spoke.input, seq))
        terms = spoke.terms or terms
    s.run = Run(id=fact.run, started_at=event.at, inputs=inputs, heard=event.seq, terms=terms)


def add(a: Usage, b: Usage) -> Usage:
    """Return the sum; its cost is unknown when either side used tokens at an unknown price."""
    unknown = any(u.cost is None and (u.input_tokens or u.output_tokens) for u in (a, b))
    return Usage(
        input_tokens=a.input_tokens + b.input_tokens,
        output_tokens=a.output_tokens + b.output_tokens,
        cache_read_tokens=a.cache_read_tokens + b.cache_read_tokens,
        cache_write_tokens=a.cache_write_tokens + b.cache_write_tokens,
        reasoning_tokens=a.reasoning_tokens + b.reasoning_tokens,
        cost=None if unknown else (a.cost or Decimal(0)) + (b.cost or Decimal(0)),
        price=b.price or a.price,
    )
