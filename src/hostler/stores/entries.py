"""What an append changes in the rows of runs, model calls and tool calls, for all stores alike.

Changes say only what they know, so that a store can merge them into rows without reading those:
counts are added, what is None is left as it is, and of what is said once the first holds.

Invariant: pure; changes over any cuts of a log merge into equal rows.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hostler.core.events import (
    AttemptDropped,
    AttemptId,
    CallId,
    Fact,
    Fault,
    InputId,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    Outcome,
    PrincipalId,
    RunEnded,
    RunId,
    RunRated,
    RunStarted,
    RunStatus,
    Seq,
    ToolFinished,
    ToolStarted,
    Usage,
    UserSpoke,
)
from hostler.core.head import Head
from hostler.core.ledger import MOST_COST, MOST_TOKENS, CallStatus, Rating, may_have_cost
from hostler.core.said import Content, TextPart
from hostler.stores.times import MOST_S

SUMMARY = 200
"""Characters of the first input and the last reply that a run's row has."""
SNAPSHOT = 2000
"""Characters of a call's parameters and of its result that its row has."""
DIGITS = 20
"""Behind the point of a cost: more than any price has."""
CLEARED = ""
"""In place of an error: there is none any more."""

_json = msgspec.json.Encoder(decimal_format="string")


class RunChange(Struct, kw_only=True, gc=False):
    status: Literal["queued", "running"] | RunStatus
    input: InputId | None = None
    agent: str | None = None
    """None: the session's."""
    principal: PrincipalId | None = None
    purpose: str | None = None
    first_seq: Seq | None = None
    created_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    last_seq: Seq | None = None
    reason: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    input_summary: str | None = None
    output_summary: str | None = None
    cost: Decimal | None = None
    price_version: str | None = None
    steps: int = 0
    """Added, like all the numbers below."""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    unpriced_calls: int = 0


class LlmChange(Struct, kw_only=True):
    run: RunId
    step: int
    asked: ModelAsked | None = None
    asked_at: float | None = None
    number: int | None = None
    status: CallStatus = "open"
    error: Fault | None = None
    usage: Usage | None = None
    ended_at: float | None = None
    first_token_s: float | None = None

    @property
    def unpriced(self) -> bool:
        """Whether this ends an attempt that may have cost something, and what is not known."""
        return may_have_cost(self.status, self.usage)


class ToolChange(Struct, kw_only=True, gc=False):
    run: RunId
    step: int
    status: Literal["asked", "running"] | Outcome
    name: str | None = None
    asked_at: float | None = None
    parameters: str | None = None
    parameters_cut: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    result: str | None = None
    result_cut: bool = False


class Ledger(Struct):
    """All that one append changes here."""

    runs: dict[RunId, RunChange] = {}
    models: dict[tuple[RunId, AttemptId], LlmChange] = {}
    tools: dict[tuple[RunId, CallId], ToolChange] = {}
    ratings: dict[tuple[RunId, PrincipalId, str], Rating] = {}


def enter(book: Ledger, before: Head, seq: Seq, at: float, fact: Fact) -> None:
    """Take in what `fact`, written at `seq` to a session with this head, changes."""
    run = fact.run
    if run is None:
        return
    match fact:
        case UserSpoke():
            if run != before.active and run not in before.queue:
                book.runs[run] = _spoken(fact, seq, at)
        case ModelAsked() | ModelReplied() | ModelFailed() | AttemptDropped():
            _model(book, run, before, at, fact)
        case ToolStarted() | ToolFinished():
            _tool(book, run, before, at, fact)
        case RunStarted():
            change = book.runs.setdefault(run, RunChange(status="running"))
            change.status, change.started_at = "running", at
        case RunEnded():
            change = book.runs.setdefault(run, RunChange(status=fact.status))
            change.status, change.reason = fact.status, fact.reason
            change.cost, change.price_version = _cost(fact.usage.cost), fact.usage.price
            change.ended_at, change.last_seq = at, seq
        case RunRated():
            book.ratings[run, fact.principal, fact.key] = Rating(
                run=run,
                principal=fact.principal,
                key=fact.key,
                score=fact.score,
                comment=fact.comment,
                at=at,
            )
        case _:
            pass


def _spoken(fact: UserSpoke, seq: Seq, at: float) -> RunChange:
    return RunChange(
        status="queued",
        input=fact.input,
        agent=None if fact.terms is None else fact.terms.agent,
        principal=fact.principal,
        purpose=fact.purpose,
        first_seq=seq,
        created_at=at,
        input_summary=cut(plain(fact.content), SUMMARY)[0],
    )


def _model(
    book: Ledger,
    run: RunId,
    before: Head,
    at: float,
    fact: ModelAsked | ModelReplied | ModelFailed | AttemptDropped,
) -> None:
    key, step = (run, fact.attempt), before.steps + 1
    if isinstance(fact, ModelAsked):
        book.models[key] = LlmChange(
            run=run, step=step, asked=fact, asked_at=at, number=before.tries + 1
        )
        return
    if not before.asking:
        return  # had ended: what was left of its text is dropped
    call = book.models.setdefault(key, LlmChange(run=run, step=step))
    call.ended_at = at
    change = book.runs.setdefault(run, RunChange(status="running"))
    if isinstance(fact, AttemptDropped):
        call.status = "dropped"
    else:
        call.status = "replied" if isinstance(fact, ModelReplied) else "failed"
        call.usage = within(fact.usage)
        if fact.first_token_s is not None:
            call.first_token_s = min(fact.first_token_s, MOST_S)
        _count(change, call.usage)
    if isinstance(fact, ModelReplied):
        change.steps += 1
        change.error_type = change.error_message = CLEARED
        change.output_summary = cut(fact.text, SUMMARY)[0] or change.output_summary
        _asked(book, run, step, at, fact)
    elif isinstance(fact, ModelFailed):
        call.error = fact.error
        change.error_type, change.error_message = fact.error.code, fact.error.message
    change.unpriced_calls += call.unpriced


def _asked(book: Ledger, run: RunId, step: int, at: float, fact: ModelReplied) -> None:
    for call in fact.calls:
        parameters, is_cut = cut(_text(call.arguments), SNAPSHOT)
        book.tools[run, call.id] = ToolChange(
            run=run,
            step=step,
            status="asked",
            name=call.name,
            asked_at=at,
            parameters=parameters,
            parameters_cut=is_cut,
        )


def _tool(
    book: Ledger, run: RunId, before: Head, at: float, fact: ToolStarted | ToolFinished
) -> None:
    change = book.tools.setdefault(
        (run, fact.call), ToolChange(run=run, step=before.steps, status="running")
    )
    if isinstance(fact, ToolStarted):
        change.status, change.name, change.started_at = "running", fact.name, at
        change.parameters, change.parameters_cut = cut(_text(fact.arguments), SNAPSHOT)
    else:
        change.status, change.ended_at = fact.outcome, at
        change.result, change.result_cut = cut(fact.output, SNAPSHOT)


def _count(change: RunChange, used: Usage) -> None:
    change.input_tokens += used.input_tokens
    change.output_tokens += used.output_tokens
    change.cache_read_tokens += used.cache_read_tokens
    change.cache_write_tokens += used.cache_write_tokens
    change.reasoning_tokens += used.reasoning_tokens


def within(used: Usage) -> Usage:
    """Return what a provider told as far as it can be: a row holds it, and so do sums of rows."""
    return replace(
        used,
        input_tokens=_tokens(used.input_tokens),
        output_tokens=_tokens(used.output_tokens),
        cache_read_tokens=_tokens(used.cache_read_tokens),
        cache_write_tokens=_tokens(used.cache_write_tokens),
        reasoning_tokens=_tokens(used.reasoning_tokens),
        cost=_cost(used.cost),
    )


def _tokens(count: int) -> int:
    return max(0, min(MOST_TOKENS, count))


def _cost(cost: Decimal | None) -> Decimal | None:
    """Return a cost that can be written in digits; None for what is no number."""
    if cost is None or not cost.is_finite():
        return None
    cost = max(Decimal(0), min(MOST_COST, cost))
    exponent = cost.as_tuple().exponent
    return round(cost, DIGITS) if isinstance(exponent, int) and exponent < -DIGITS else cost


def cut(text: str, most: int) -> tuple[str, bool]:
    """Return what of a text fits, and whether that is not all of it."""
    return (text, False) if len(text) <= most else (f"{text[: most - 1]}…", True)


def plain(content: Content) -> str:
    """Return the words of a message."""
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content if isinstance(part, TextPart))


def _text(value: object) -> str:
    return _json.encode(value).decode()
