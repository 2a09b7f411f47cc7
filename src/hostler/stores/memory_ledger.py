"""Runs as data, in memory: the rows as changes make them, and what can be asked about them.

Invariant: merges changes as the statements in `ledger.sql` do, and answers as they do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeAlias

from msgspec.structs import replace

from hostler.core.events import (
    AttemptId,
    CallId,
    Event,
    Key,
    PrincipalId,
    RunId,
    Seq,
    TenantId,
    Usage,
)
from hostler.core.head import Head
from hostler.core.ledger import By, Calls, DirectCall, LlmRow, Rating, RunFilter, Spent, ToolRow
from hostler.core.records import RunRow, Session
from hostler.stores.entries import Ledger, LlmChange, RunChange, ToolChange, within
from hostler.stores.memory_rows import set_given
from hostler.stores.projection import restored

Run = tuple[TenantId, RunId]


@dataclass(slots=True)
class MemoryRows:
    """All rows, by their keys."""

    runs: dict[Run, RunRow] = field(default_factory=dict[Run, RunRow])
    models: dict[Run, dict[AttemptId, LlmRow]] = field(
        default_factory=lambda: defaultdict[Run, dict[AttemptId, LlmRow]](dict)
    )
    tools: dict[Run, dict[CallId, ToolRow]] = field(
        default_factory=lambda: defaultdict[Run, dict[CallId, ToolRow]](dict)
    )
    ratings: dict[Run, dict[tuple[PrincipalId, str], Rating]] = field(
        default_factory=lambda: defaultdict[Run, dict[tuple[PrincipalId, str], Rating]](dict)
    )
    used: dict[Run, Usage] = field(default_factory=lambda: defaultdict[Run, Usage](Usage))
    """Of runs that have not ended, too."""
    direct: dict[tuple[TenantId, str], DirectCall] = field(
        default_factory=dict[tuple[TenantId, str], DirectCall]
    )

    def enter(self, key: Key, session: Session, book: Ledger) -> None:
        """Merge changes into rows."""
        for run, change in book.runs.items():
            self._run(key, session, run, change)
        for (run, attempt), call in book.models.items():
            self._model(key, run, attempt, call)
        for (run, call), done in book.tools.items():
            self._tool(key, run, call, done)
        for (run, principal, name), rating in book.ratings.items():
            self.ratings[key.tenant, run][principal, name] = rating

    def erase(self, key: Key) -> None:
        """Remove all rows of a session."""
        for one in [k for k, run in self.runs.items() if (k[0], run.session) == key]:
            for rows in (self.runs, self.models, self.tools, self.ratings, self.used):
                rows.pop(one, None)

    def rebuild(self, session: Session, log: Iterable[Event]) -> None:
        """Make all rows of a session anew, from what it said itself."""
        key = Key(session.tenant, session.id)
        self.erase(key)
        own = [event for event in log if event.session == key.session]
        start = Head(seq=Seq(own[0].seq - 1)) if own else Head()
        self.enter(key, session, restored(key, own, start).ledger)

    def chosen(
        self, tenant: TenantId, session: str | None, status: str | None, only: RunFilter
    ) -> list[RunRow]:
        """Return the rows that are asked for, newest first."""
        wanted = {
            "session": session,
            "status": status,
            "agent": only.agent,
            "principal": only.principal,
            "purpose": only.purpose,
        }
        asked = {name: value for name, value in wanted.items() if value is not None}
        found = [
            run
            for (of, _), run in self.runs.items()
            if of == tenant
            and all(getattr(run, name) == value for name, value in asked.items())
            and (only.since is None or run.created_at >= only.since)
            and (only.before is None or run.created_at < only.before)
        ]
        return sorted(found, key=_age, reverse=True)

    def past(self, tenant: TenantId, after: str, runs: Iterable[RunRow]) -> list[RunRow]:
        """Return those of `runs` that are older than the run `after`."""
        mark = self.runs.get((tenant, RunId(after)))
        if mark is None:
            return [] if after else list(runs)
        return [run for run in runs if _age(run) < _age(mark)]

    def _run(self, key: Key, session: Session, run: RunId, change: RunChange) -> None:
        row = self.runs.get((key.tenant, run)) or _new_run(key, session, run, change)
        self.runs[key.tenant, run] = row
        row.status = change.status
        set_given(row, change, "reason", "ended_at", "last_seq", "output_summary")
        row.started_at = row.started_at or change.started_at
        row.steps += change.steps
        row.unpriced_calls += change.unpriced_calls
        set_given(row, change, "error_type", "error_message")
        row.error_type, row.error_message = row.error_type or None, row.error_message or None
        used = self.used[key.tenant, run]
        cost = used.cost if change.cost is None else change.cost
        used = self.used[key.tenant, run] = Usage(
            input_tokens=used.input_tokens + change.input_tokens,
            output_tokens=used.output_tokens + change.output_tokens,
            cache_read_tokens=used.cache_read_tokens + change.cache_read_tokens,
            cache_write_tokens=used.cache_write_tokens + change.cache_write_tokens,
            reasoning_tokens=used.reasoning_tokens + change.reasoning_tokens,
            cost=None if row.unpriced_calls else cost,
            price=change.price_version or used.price,
        )
        row.usage = None if row.ended_at is None else used

    def _model(self, key: Key, run: RunId, attempt: AttemptId, change: LlmChange) -> None:
        rows, asked = self.models[key.tenant, run], change.asked
        if asked is not None:
            assert change.asked_at is not None
            rows[attempt] = LlmRow(
                tenant=key.tenant,
                session=key.session,
                run=run,
                attempt=attempt,
                step=change.step,
                number=change.number or 0,
                provider=asked.provider,
                model=asked.model,
                asked_at=change.asked_at,
            )
        row = rows[attempt]
        row.status, row.unpriced = change.status, change.unpriced
        set_given(row, change, "usage", "ended_at", "first_token_s")
        if change.error is not None:
            row.error_type, row.error_message = change.error.code, change.error.message

    def _tool(self, key: Key, run: RunId, call: CallId, change: ToolChange) -> None:
        rows = self.tools[key.tenant, run]
        if call not in rows:
            assert change.name is not None
            assert change.asked_at is not None
            assert change.parameters is not None
            rows[call] = ToolRow(
                tenant=key.tenant,
                session=key.session,
                run=run,
                call=call,
                step=change.step,
                name=change.name,
                asked_at=change.asked_at,
                parameters=change.parameters,
            )
        row = rows[call]
        row.status = change.status
        set_given(row, change, "name", "started_at", "ended_at", "parameters", "result")
        if change.parameters is not None:
            row.parameters_cut = change.parameters_cut
        row.result_cut = row.result_cut or change.result_cut


@dataclass(frozen=True, slots=True)
class MemoryLedger:
    """A `core.ledger.Ledger` on the rows of a store in memory."""

    rows: MemoryRows
    is_seen: Callable[[Key, PrincipalId | None], bool]

    async def calls(self, tenant: TenantId, run: RunId) -> Calls:
        models = self.rows.models.get((tenant, run), {}).values()
        tools = self.rows.tools.get((tenant, run), {}).values()
        return Calls(
            sorted(map(replace, models), key=lambda c: (c.asked_at, c.step, c.number, c.attempt)),
            sorted(map(replace, tools), key=lambda c: (c.asked_at, c.step, c.call)),
        )

    async def ratings(self, tenant: TenantId, run: RunId) -> Sequence[Rating]:
        found = self.rows.ratings.get((tenant, run), {}).values()
        return sorted(found, key=lambda one: (one.at, one.principal, one.key))

    async def usage(
        self,
        tenant: TenantId,
        by: Sequence[By],
        *,
        since: float,
        before: float,
        after: Sequence[str],
        limit: int,
        seen_by: PrincipalId | None = None,
    ) -> Sequence[Spent]:
        groups: dict[tuple[str, ...], list[Asked]] = defaultdict(list)
        for run, call in self._asked(tenant, seen_by):
            if since <= call.asked_at < before:
                groups[tuple(GROUPS[one](run, call) for one in by)].append(call)
        chosen = sorted(group for group in groups if not after or group > tuple(after))
        return [_spent(by, group, groups[group]) for group in chosen[:limit]]

    async def keep_direct(self, call: DirectCall) -> None:
        used = None if call.usage is None else within(call.usage)
        self.rows.direct[call.tenant, call.id] = replace(call, usage=used)

    async def forget_direct(self, tenant: TenantId, before: float) -> int:
        gone = [
            key
            for key, one in self.rows.direct.items()
            if key[0] == tenant and one.asked_at < before and one.status != "open"
        ]
        for key in gone:
            del self.rows.direct[key]
        return len(gone)

    def _asked(
        self, tenant: TenantId, seen_by: PrincipalId | None
    ) -> Iterator[tuple[RunRow | DirectCall, Asked]]:
        """Yield all model calls that they see, each with what says whose it is."""
        for (of, run), calls in self.rows.models.items():
            row = self.rows.runs[of, run]
            if of == tenant and self.is_seen(Key(of, row.session), seen_by):
                yield from ((row, call) for call in calls.values())
        for (of, _), direct in self.rows.direct.items():
            if of == tenant and seen_by in (None, direct.principal):
                yield direct, direct


Asked: TypeAlias = LlmRow | DirectCall
GROUPS: dict[By, Callable[[RunRow | DirectCall, Asked], str]] = {
    "tenant": lambda of, _: of.tenant,
    "user": lambda of, _: of.principal,
    "agent": lambda of, _: of.agent if isinstance(of, RunRow) else "",
    "model": lambda _, call: f"{call.provider}:{call.model}",
    "day": lambda _, call: f"{datetime.fromtimestamp(call.asked_at, UTC):%Y-%m-%d}",
}


def _age(run: RunRow) -> tuple[float, str]:
    return run.created_at, run.id


def _new_run(key: Key, session: Session, run: RunId, change: RunChange) -> RunRow:
    assert change.input is not None
    assert change.first_seq is not None
    assert change.created_at is not None
    return RunRow(
        tenant=key.tenant,
        session=key.session,
        id=run,
        input=change.input,
        agent=change.agent or session.agent,
        owner=session.principal,
        principal=change.principal or PrincipalId(""),
        purpose=change.purpose,
        status="queued",
        created_at=change.created_at,
        first_seq=change.first_seq,
        input_summary=change.input_summary or "",
    )


def _spent(by: Sequence[By], group: Sequence[str], calls: Sequence[Asked]) -> Spent:
    used = [call.usage for call in calls if call.usage is not None]
    costs = [one.cost for one in used if one.cost is not None]
    return Spent(
        by=dict(zip(by, group, strict=True)),
        runs=len({call.run for call in calls if isinstance(call, LlmRow)}),
        calls=len(calls),
        failed_calls=sum(call.status == "failed" for call in calls),
        input_tokens=sum(one.input_tokens for one in used),
        output_tokens=sum(one.output_tokens for one in used),
        cache_read_tokens=sum(one.cache_read_tokens for one in used),
        cache_write_tokens=sum(one.cache_write_tokens for one in used),
        reasoning_tokens=sum(one.reasoning_tokens for one in used),
        cost=sum(costs, Decimal(0)).normalize() if costs else None,
        unpriced_calls=sum(call.unpriced for call in calls),
    )
