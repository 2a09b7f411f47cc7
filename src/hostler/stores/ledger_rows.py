"""Runs, model calls, tool calls and ratings as rows have them: the same in every database.

Invariant: pure; a row that was made here is read here as what it was made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import partial

import msgspec

from hostler.core.events import Key, RunId, Usage
from hostler.core.ledger import By, DirectCall, LlmRow, Rating, Spent, ToolRow
from hostler.core.records import RunRow
from hostler.stores.entries import CLEARED, Ledger, LlmChange, RunChange, ToolChange, within
from hostler.stores.log_rows import Row
from hostler.stores.times import to_seconds, to_us


def ledger_rows(key: Key, agent: str, owner: str, book: Ledger) -> dict[str, list[Row]]:
    """Return rows by the name of the statement that writes them."""
    made = {
        "upsert_agent_runs": [
            _run_row(key, run, (change.agent or agent, owner), change)
            for run, change in book.runs.items()
        ],
        "upsert_llm_calls": [_llm_row(key, of[1], one) for of, one in book.models.items()],
        "upsert_tool_runs": [_tool_row(key, of[1], one) for of, one in book.tools.items()],
        "upsert_feedback": [_rating_row(key, one) for one in book.ratings.values()],
    }
    return {name: rows for name, rows in made.items() if rows}


def _run_row(key: Key, run: RunId, of: tuple[str, str], change: RunChange) -> Row:
    is_new, error = change.created_at is not None, change.error_type
    if is_new and error == CLEARED:
        error = None
    return (
        key.tenant,
        run,
        key.session,
        *of,
        change.principal,
        change.purpose,
        change.status,
        change.reason,
        change.input,
        change.first_seq,
        change.last_seq,
        to_us(change.created_at),
        to_us(change.started_at),
        to_us(change.ended_at),
        change.steps,
        change.input_tokens,
        change.output_tokens,
        change.cache_read_tokens,
        change.cache_write_tokens,
        change.reasoning_tokens,
        None if change.unpriced_calls else _money(change.cost),
        change.price_version,
        change.unpriced_calls,
        error,
        (change.error_message or None) if is_new else change.error_message,
        change.input_summary,
        change.output_summary,
    )


def _llm_row(key: Key, attempt: str, change: LlmChange) -> Row:
    asked, error = change.asked, change.error
    return (
        key.tenant,
        change.run,
        attempt,
        key.session,
        change.step,
        change.number,
        None if asked is None else asked.provider,
        None if asked is None else asked.model,
        change.status,
        None if error is None else error.code,
        None if error is None else error.message,
        *_used(change.usage),
        int(change.unpriced),
        to_us(change.asked_at),
        to_us(change.ended_at),
        to_us(change.first_token_s),
    )


def direct_row(call: DirectCall) -> Row:
    """Return the row of a direct call, as `upsert_direct_calls` takes it."""
    return (
        call.tenant,
        call.id,
        call.principal,
        call.purpose,
        call.provider,
        call.model,
        call.status,
        call.error_type,
        call.error_message,
        *_used(None if call.usage is None else within(call.usage)),
        int(call.unpriced),
        to_us(call.asked_at),
        to_us(call.ended_at),
        to_us(call.first_token_s),
    )


def _used(used: Usage | None) -> Row:
    if used is None:
        return (None,) * 7
    return (
        used.input_tokens,
        used.output_tokens,
        used.cache_read_tokens,
        used.cache_write_tokens,
        used.reasoning_tokens,
        _money(used.cost),
        used.price,
    )


def _tool_row(key: Key, call: str, change: ToolChange) -> Row:
    return (
        key.tenant,
        change.run,
        call,
        key.session,
        change.step,
        change.name,
        change.status,
        to_us(change.asked_at),
        to_us(change.started_at),
        to_us(change.ended_at),
        change.parameters,
        int(change.parameters_cut),
        change.result,
        int(change.result_cut),
    )


def _rating_row(key: Key, rating: Rating) -> Row:
    who = (key.tenant, rating.run, rating.principal, rating.key, key.session)
    return (*who, rating.score, rating.comment, to_us(rating.at))


def _money(cost: Decimal | None) -> str | None:
    return None if cost is None else f"{cost:f}"


# -- read ------------------------------------------------------------------------------------

_KINDS_OF_TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)
_TIMES = ("created_at", "started_at", "ended_at", "asked_at", "first_token_s", "at")


def _record(columns: Iterable[str], row: Sequence[object], *, used: bool) -> dict[str, object]:
    values = dict(zip(columns, row, strict=True))
    for name in _TIMES:
        if name in values:
            values[name] = to_seconds(values[name])
    if "cost" in values:
        counts = {name: values.pop(name) or 0 for name in _KINDS_OF_TOKENS}
        cost, price = values.pop("cost"), values.pop("price_version")
        values["usage"] = {**counts, "cost": cost, "price": price} if used else None
    return values


RUN = (
    *("tenant", "id", "session", "agent", "owner", "principal", "purpose", "status", "reason"),
    *("input", "first_seq", "last_seq", "created_at", "started_at", "ended_at", "steps"),
    *_KINDS_OF_TOKENS,
    *("cost", "price_version", "unpriced_calls", "error_type", "error_message"),
    *("input_summary", "output_summary"),
)
_LLM = (
    *("tenant", "run", "attempt", "session", "step", "number", "provider", "model", "status"),
    *("error_type", "error_message", *_KINDS_OF_TOKENS, "cost", "price_version", "unpriced"),
    *("asked_at", "ended_at", "first_token_s"),
)
_TOOL = (
    *("tenant", "run", "call", "session", "step", "name", "status", "asked_at", "started_at"),
    *("ended_at", "parameters", "parameters_cut", "result", "result_cut"),
)
_convert = partial(msgspec.convert, strict=False)


def to_run(row: Sequence[object]) -> RunRow:
    """Return the run of a row of `agent_runs`."""
    has_ended = row[RUN.index("ended_at")] is not None
    values = _record(RUN, row, used=has_ended)
    for name in ("input_summary", "output_summary"):
        values[name] = values[name] or ""
    return _convert(values, RunRow)


def to_llm_row(row: Sequence[object]) -> LlmRow:
    """Return the model call of a row of `llm_calls`."""
    return _convert(_record(_LLM, row, used=row[_LLM.index("input_tokens")] is not None), LlmRow)


def to_tool_row(row: Sequence[object]) -> ToolRow:
    """Return the call of a row of `tool_runs`."""
    return _convert(_record(_TOOL, row, used=False), ToolRow)


def to_rating(row: Sequence[object]) -> Rating:
    """Return the rating of a row of `feedback`."""
    columns = ("run", "principal", "key", "score", "comment", "at")
    return _convert(_record(columns, row, used=False), Rating)


def to_spent(by: Sequence[By], row: Sequence[object]) -> Spent:
    """Return the sums of a row of `usage`."""
    groups, sums = row[: len(by)], [_number(one) for one in row[len(by) :]]
    runs, calls, failed, read, wrote, cached, kept, reasoned, above, below, unpriced = sums
    known = row[-3] is not None
    return Spent(
        by={one: str(value) for one, value in zip(by, groups, strict=True)},
        runs=runs,
        calls=calls,
        failed_calls=failed,
        input_tokens=read,
        output_tokens=wrote,
        cache_read_tokens=cached,
        cache_write_tokens=kept,
        reasoning_tokens=reasoned,
        cost=Decimal(above * 1_000_000 + below).scaleb(-12).normalize() if known else None,
        unpriced_calls=unpriced,
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
