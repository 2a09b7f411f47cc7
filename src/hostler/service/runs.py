"""Runs as their callers see them: rows for lists, and one run with every call it made.

Invariant: read off the log and the rows kept from it; nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import anyio
from msgspec import Struct

from hostler.core.events import (
    ApprovalAsked,
    CallId,
    Event,
    Fact,
    Fault,
    JsonObject,
    Key,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    Principal,
    RunEnded,
    RunId,
    RunKey,
    Seq,
    SessionId,
    ToolFinished,
    ToolStarted,
    Unknown,
    Usage,
)
from hostler.core.head import Head
from hostler.core.ports import Store
from hostler.core.records import RunRow
from hostler.service.authorise import authorise
from hostler.service.cursor import Cursor
from hostler.service.follow import Following, Seat, end_of

PAGE = 1000


class ModelCall(Struct, kw_only=True):
    """One attempt: what it cost, how long it took, how it ended."""

    attempt: str
    provider: str
    model: str
    asked_at: float
    ended_at: float | None = None
    status: str = "open"
    usage: Usage | None = None
    error: Fault | None = None


class ToolRun(Struct, kw_only=True):
    """One call of a tool."""

    call: str
    name: str
    arguments: JsonObject
    started_at: float
    ended_at: float | None = None
    status: str = "open"
    output: str | None = None


class RunDetail(Struct, kw_only=True):
    run: RunRow
    model_calls: list[ModelCall]
    tool_calls: list[ToolRun]


class Ended(Struct, frozen=True, kw_only=True):
    """What a caller who waited is told."""

    run: RunId
    status: str
    reason: str | None
    text: str
    """Of the last reply."""
    usage: Usage


class Waiting(NamedTuple):
    """What a run waits for."""

    call: CallId
    kind: Literal["approval", "client_tool"]


def _waiting(fact: Fact | Unknown) -> Waiting | None:
    if isinstance(fact, ApprovalAsked):
        return Waiting(fact.call, "approval")
    if isinstance(fact, ToolStarted) and fact.expires_at is not None:
        return Waiting(fact.call, "client_tool")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    store: Store
    following: Following

    async def list(
        self, who: Principal, *, session: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[RunRow]:
        """Return runs, newest first, past the id `after`."""
        authorise(who, "read", None)
        return await self.store.runs(
            who.tenant, session=session, status=status, after=after, limit=limit
        )

    async def get(self, who: Principal, run: RunId) -> RunDetail:
        """Return a run with its calls.  Raises NotFound."""
        authorise(who, "read", None)
        row = await self.store.run(who.tenant, run)
        detail = RunDetail(run=row, model_calls=[], tool_calls=[])
        attempts, calls = dict[str, ModelCall](), dict[str, ToolRun]()
        async for event in self._events(RunKey(who.tenant, row.session, run), row):
            _model_call(attempts, event)
            _tool_call(calls, event)
        detail.model_calls, detail.tool_calls = [*attempts.values()], [*calls.values()]
        return detail

    async def wait(
        self,
        seat: Seat,
        run: RunId,
        *,
        after: Cursor,
        timeout_s: float,
        current: bool = True,
        joined: bool = False,
    ) -> Ended | Waiting | None:
        """Wait for a run to end or to wait for somebody; None if it does neither in time.

        `current`: the seat was taken before anything past `after`.
        `joined`: the run may have begun to wait before `after`.
        """
        head = await self.store.head(seat.key) if joined else Head()
        if head.active == run and head.parked:
            return Waiting(head.waits[0].call, head.waits[0].kind)
        text = ""
        with anyio.move_on_after(timeout_s):
            async for batch in self.following.follow_on(
                seat, after=after, ends=end_of(run), current=current
            ):
                for item in batch:
                    fact = item.fact if isinstance(item, Event) else None
                    if fact is None or fact.run != run:
                        continue
                    if (waiting := _waiting(fact)) and await self._still(seat.key, waiting):
                        return waiting
                    if isinstance(fact, ModelReplied):
                        text = fact.text or text
                    elif isinstance(fact, RunEnded):
                        return Ended(
                            run=run,
                            status=fact.status,
                            reason=fact.reason,
                            text=text,
                            usage=fact.usage,
                        )
        return None

    async def _still(self, key: Key, waiting: Waiting) -> bool:
        head = await self.store.head(key)
        return any(wait.call == waiting.call for wait in head.waits)

    async def _events(self, key: RunKey, row: RunRow) -> AsyncGenerator[Event, None]:
        after, where = Seq(row.first_seq - 1), Key(key.tenant, SessionId(key.session))
        while True:
            events = await self.store.read(where, after=after, limit=PAGE)
            for event in events:
                if event.fact.run == key.run:
                    yield event
                if event.seq == row.last_seq:
                    return
            if len(events) < PAGE:
                return
            after = events[-1].seq


def _model_call(attempts: dict[str, ModelCall], event: Event) -> None:
    fact = event.fact
    if isinstance(fact, ModelAsked):
        attempts[fact.attempt] = ModelCall(
            attempt=fact.attempt, provider=fact.provider, model=fact.model, asked_at=event.at
        )
        return
    call = attempts.get(getattr(fact, "attempt", ""))
    if call is None or call.status != "open":
        return
    call.ended_at = event.at
    if isinstance(fact, ModelReplied):
        call.status, call.usage = "replied", fact.usage
    elif isinstance(fact, ModelFailed):
        call.status, call.error = "failed", fact.error
    else:
        call.status = "dropped"


def _tool_call(calls: dict[str, ToolRun], event: Event) -> None:
    fact = event.fact
    if isinstance(fact, ToolStarted):
        calls[fact.call] = ToolRun(
            call=fact.call, name=fact.name, arguments=fact.arguments, started_at=event.at
        )
    elif isinstance(fact, ToolFinished):
        call = calls.get(fact.call)
        if call is not None:
            call.status, call.output, call.ended_at = fact.outcome, fact.output, event.at
