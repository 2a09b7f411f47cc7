"""Runs as their callers see them: rows for lists, and one run with every call it made.

Invariant: read off the log and the rows kept from it; nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import anyio
from msgspec import Struct, structs

from hostler.core.errors import Conflict, NotFound
from hostler.core.events import (
    ApprovalAsked,
    CallId,
    Event,
    Fact,
    Key,
    ModelReplied,
    Principal,
    RunEnded,
    RunId,
    RunKey,
    RunRated,
    RunWithdrawn,
    Seq,
    SessionId,
    ToolStarted,
    Unknown,
    Usage,
)
from hostler.core.head import Head
from hostler.core.ledger import ANY_RUN, By, Rating, RunFilter, Spent
from hostler.core.ports import AgentSpec, ToolSpec
from hostler.core.records import RunRow
from hostler.core.store import Store
from hostler.service.authorise import Noun, Right, authorise, seen_by
from hostler.service.costs import Costs, CostTree
from hostler.service.cursor import Cursor
from hostler.service.follow import Following, Seat, end_of
from hostler.service.log import pages_of
from hostler.service.marks import Mark, rating_of
from hostler.service.once import Answering, once_of
from hostler.service.told import ModelCall, Told, ToolRun


class RunDetail(Struct, kw_only=True):
    run: RunRow
    model_calls: list[ModelCall]
    tool_calls: list[ToolRun]
    feedback: Sequence[Rating]


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
    agents: Mapping[str, AgentSpec]

    async def list(
        self,
        who: Principal,
        *,
        session: str | None,
        status: str | None,
        after: str,
        limit: int,
        only: RunFilter = ANY_RUN,
    ) -> Sequence[RunRow]:
        """Return runs, newest first, past the run `after`."""
        authorise(who, "read", None, "runs")
        only = structs.replace(only, seen_by=seen_by(who))
        if after and only.seen_by is not None:
            try:  # where a page goes on must not tell whether somebody else's run is there
                await self._row(who, RunId(after), "read", "runs")
            except NotFound:
                return []
        return await self.store.runs(
            who.tenant, session=session, status=status, after=after, limit=limit, only=only
        )

    async def get(self, who: Principal, run: RunId) -> RunDetail:
        """Return a run with its calls.  Raises NotFound."""
        row = await self._row(who, run, "read", "runs")
        told = Told()
        async for event in self._events(RunKey(who.tenant, row.session, run), row):
            told.hear(event)
        return RunDetail(
            run=row,
            model_calls=[*told.models.values()],
            tool_calls=[*told.tools.values()],
            feedback=await self.store.ledger.ratings(who.tenant, run),
        )

    async def find(self, who: Principal, run: RunId) -> RunRow:
        """Return a run's row, whose session one may read.  Raises NotFound."""
        return await self._row(who, run, "read", "sessions")

    async def of_session(self, who: Principal, session: SessionId, run: RunId) -> RunRow:
        """Return where a run is in the log of a session that one may read.  Raises NotFound."""
        key = await self.following.access.key(who, "read", session)
        row = await self.store.run(key.tenant, run)
        if row.session != key.session:
            raise NotFound(f"no run {run}")
        return row

    async def costs(self, who: Principal, run: RunId) -> Costs:
        """Return what in a run cost what, and what its prompts were made of.  Raises NotFound."""
        row = await self._row(who, run, "read", "runs")
        key = Key(who.tenant, row.session)
        agent = self.agents.get(row.agent)
        tools = () if agent is None else await self._tools(key, agent)
        tree = CostTree(run, "" if agent is None else agent.instructions, tools)
        async for events in pages_of(self.store, key, upto=row.last_seq):
            tree.take(events)
        return tree.costs(row)

    async def rate(
        self, who: Principal, run: RunId, mark: Mark, *, answering: Answering[Rating] | None = None
    ) -> Rating:
        """Say how good a run was; of one principal and key, the last word holds.

        Raises:
            NotFound: no such run.
            Invalid: the score is neither -1 nor from 0 to 1, or a text is too long.
        """
        row = await self._row(who, run, "write", "sessions")
        mark.check()
        rated = RunRated(
            run=run, principal=who.id, score=mark.score, key=mark.key or "", comment=mark.comment
        )
        once = once_of(answering, lambda done: rating_of(done.events[0]))
        done = await self.store.append(Key(who.tenant, row.session), [rated], once=once)
        return rating_of(done.events[0])

    async def withdraw(self, who: Principal, run: RunId, since: Seq) -> None:
        """Have what a run that ended said since `since` given out no more under its own name.

        Raises:
            NotFound: no such run.
            Conflict: it has not ended (`busy`).
        """
        row = await self._row(who, run, "write", "sessions")
        if row.ended_at is None:
            raise Conflict("the run goes on: cancel it first", code="busy")
        withdrawn = RunWithdrawn(run=run, principal=who.id, since=since)
        await self.store.append(Key(who.tenant, row.session), [withdrawn])

    async def usage(
        self,
        who: Principal,
        by: Sequence[By],
        *,
        since: float,
        before: float,
        after: Sequence[str],
        limit: int,
    ) -> Sequence[Spent]:
        """Return sums over the model calls of a time, ordered by their groups, past `after`."""
        authorise(who, "read", None, "runs")
        return await self.store.ledger.usage(
            who.tenant,
            by,
            since=since,
            before=before,
            after=after,
            limit=limit,
            seen_by=seen_by(who),
        )

    async def _row(self, who: Principal, run: RunId, right: Right, noun: Noun) -> RunRow:
        """Return a run on whose session `who` has the right.  Raises NotFound."""
        authorise(who, right, None, noun)
        row = await self.store.run(who.tenant, run)
        try:
            await self.following.access.key(who, right, row.session, noun)
        except NotFound:
            raise NotFound(f"no run {run}") from None
        return row

    async def _tools(self, key: Key, agent: AgentSpec) -> Sequence[ToolSpec]:
        session = await self.store.session(key)
        return agent.tools.with_clients(session.client_tools).specs

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
        before, where = Seq(row.first_seq - 1), Key(key.tenant, SessionId(key.session))
        async for events in pages_of(self.store, where, after=before, upto=row.last_seq):
            for event in events:
                if event.fact.run == key.run:
                    yield event
