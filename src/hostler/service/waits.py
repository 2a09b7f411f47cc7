"""What runs wait for from outside: approvals, and the results of tools that clients bring.

Nothing is held in memory while a run waits.  An answer is a fact; it rings for the run.

Invariant: the first answer is the only one; whoever comes later is told what it was.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hostler.core.audited import about
from hostler.core.errors import (
    CallerError,
    Conflict,
    HostlerError,
    Invalid,
    NotFound,
    Repeated,
    ToolError,
)
from hostler.core.events import (
    START,
    ApprovalGiven,
    CallId,
    Event,
    Fact,
    JsonObject,
    Key,
    Principal,
    RunId,
    RunKey,
    Seq,
    SessionId,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Verdict,
)
from hostler.core.head import Head
from hostler.core.memory import remember
from hostler.core.ports import AgentSpec, Engine, Job, Toolbox, World
from hostler.core.records import Approval
from hostler.core.sealed import Secrets, masked
from hostler.core.state import fold, terms_of
from hostler.core.store import Store
from hostler.service.authorise import Access, authorise, seen_by
from hostler.service.by_head import by_head
from hostler.service.log import pages_of
from hostler.service.once import Answering, once_of

LOOKED_BACK = 10_000
"""Events: who answers what is older than that is told that there is no such call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What somebody says to a request for an approval."""

    verdict: Verdict
    arguments: JsonObject | None = None
    """To run the call with instead."""
    reason: str | None = None
    remember: bool = False
    """Ask no more about this tool in this session."""
    digest: str | None = None
    """What the approver saw; refused if it is not what would be run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a client says came of a call."""

    output: str
    is_error: bool = False


Accepted: TypeAlias = dict[CallId, tuple[Toolbox | None, ToolFinished]]


@asynccontextmanager
async def accepting() -> AsyncGenerator[Accepted]:
    """Hold results until they are written, and drop what was kept of those that never will be."""
    accepted: Accepted = {}
    try:
        yield accepted
    except (CallerError, Repeated):
        # Another answer came first: of this one nothing is written, and nobody is told of it.
        # After any other error it may have been, and a file that is not goes with its session.
        for tools, finished in accepted.values():
            if tools is not None:
                await tools.drop(finished)
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    store: Store
    engine: Engine
    agents: Mapping[str, AgentSpec]
    world: World
    access: Access = field(default_factory=Access)
    secrets: Secrets | None = None

    async def list(
        self, who: Principal, *, session: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[Approval]:
        """Return approvals over all sessions, oldest first, past the call `after`."""
        authorise(who, "read", None)
        return await self.store.approvals(
            who.tenant,
            session=session,
            status=status,
            after=after,
            limit=limit,
            seen_by=seen_by(who),
        )

    async def approve(
        self,
        who: Principal,
        session: SessionId,
        call: CallId,
        decision: Decision,
        *,
        answering: Answering[Event] | None = None,
    ) -> Event:
        """Answer a request for an approval; return the fact.

        Raises:
            NotFound: no such request.
            Conflict: it was answered (`already_answered`), or it is too late (`expired`).
            Invalid: the arguments do not fit the tool, or `digest` is of another call.
        """
        key = await self.access.key(who, "write", session)
        about(decision=decision.verdict)

        async def facts(head: Head) -> list[Fact]:
            return [await self.given(who, key, head, call, decision)]

        return await self._write(key, facts, answering)

    async def given(
        self, who: Principal, key: Key, head: Head, call: CallId, decision: Decision
    ) -> ApprovalGiven:
        """Return a decision as a fact to write against `head`.  Raises as `approve`."""
        asked = await self.store.approval(key.tenant, key.session, call)
        await self._check(key, asked, decision)
        if not self._waits(head, call, "approval"):
            raise _too_late(await self.store.approval(key.tenant, key.session, call))
        allows = decision.verdict == "allow"
        return ApprovalGiven(
            run=head.active,
            call=call,
            decision=decision.verdict,
            principal=who.id,
            arguments=decision.arguments if allows else None,
            reason=decision.reason,
            remembered=asked.name if decision.remember and allows else None,
        )

    async def answer(
        self,
        who: Principal,
        session: SessionId,
        call: CallId,
        *,
        output: str,
        is_error: bool,
        answering: Answering[Event] | None = None,
    ) -> Event:
        """Give the result of a call that a client has to answer; return the fact.

        Raises:
            NotFound: no such call, or it is not for clients.
            Conflict: as `approve`.
            Invalid: the result is not what the call asked for.
        """
        key = await self.access.key(who, "write", session)
        result = Result(output=output, is_error=is_error)
        async with accepting() as accepted:

            async def facts(head: Head) -> list[Fact]:
                return [await self.result(who, key, head, call, result, accepted)]

            return await self._write(key, facts, answering)

    async def result(
        self,
        who: Principal,
        key: Key,
        head: Head,
        call: CallId,
        result: Result,
        accepted: Accepted,
    ) -> ToolFinished:
        """Return a result as a fact to write against `head`.  Raises as `answer`."""
        if not self._waits(head, call, "client_tool"):
            raise await self._was_answered(key, call)
        if call not in accepted:
            told = masked(self.secrets, key.tenant, result.output)
            accepted[call] = await self._accepted(who, key, call, told, is_error=result.is_error)
        return accepted[call][1]

    async def _write(
        self,
        key: Key,
        facts: Callable[[Head], Awaitable[list[Fact]]],
        answering: Answering[Event] | None,
    ) -> Event:
        once = once_of(answering, lambda done: done.events[0])
        done = await by_head(self.store, key, facts, once=once)
        event = done.events[0]
        if event.fact.run is not None:
            job = Job(RunKey(*key, event.fact.run), priority=done.head.priority)
            await self.engine.enqueue(job)
        return event

    def _waits(self, head: Head, call: CallId, kind: str) -> bool:
        """Whether the call still waits: a wait that is over is answered by its run."""
        now = self.world.clock()
        return any(
            wait.call == call and wait.kind == kind and now < wait.expires_at for wait in head.waits
        )

    async def _check(self, key: Key, asked: Approval, decision: Decision) -> None:
        if decision.digest is not None and decision.digest != asked.digest:
            raise Invalid(
                "this is not the call that would be run",
                fields=[("/digest", "the digest of the approval as it is stored")],
            )
        if decision.arguments is None or decision.verdict != "allow":
            return
        tools = await self._tools(key, asked.run)
        edited = ToolCall(id=asked.call, name=asked.name, arguments=decision.arguments)
        found = tools.check(edited, asked.run) if tools is not None else None
        if isinstance(found, ToolFinished):
            raise Invalid(found.output, fields=[("/arguments", f"arguments of {asked.name}")])

    async def _accepted(
        self, who: Principal, key: Key, call: CallId, output: str, *, is_error: bool
    ) -> tuple[Toolbox | None, ToolFinished]:
        recall = await self.store.recall(key)
        state = fold(remember(recall.past), recall.events)
        started = state.run.open.get(call) if state.run is not None else None
        if started is None or started.run is None:
            raise await self._was_answered(key, call)
        agent = self.agents.get(terms_of(state, started.run).agent or recall.agent)
        outcome: Literal["ok", "error"] = "error" if is_error else "ok"
        finished = ToolFinished(
            run=started.run, call=call, outcome=outcome, output=output, principal=who.id
        )
        if agent is None:
            return None, finished
        tools = agent.tools.with_clients(recall.client_tools)
        try:
            return tools, await tools.accept(started, finished, RunKey(*key, started.run))
        except ToolError as error:
            raise Invalid(str(error), fields=[("/output", "what the call asked for")]) from error

    async def _tools(self, key: Key, run: RunId) -> Toolbox | None:
        session = await self.store.session(key)
        agent = self.agents.get((await self.store.run(key.tenant, run)).agent)
        return None if agent is None else agent.tools.with_clients(session.client_tools)

    async def _was_answered(self, key: Key, call: CallId) -> HostlerError:
        """Return why a call cannot be answered (again)."""
        end, is_for_clients = (await self.store.head(key)).seq, False
        begin = Seq(max(START, end - LOOKED_BACK))
        async for events in pages_of(self.store, key, after=begin, upto=end):
            for event in events:
                fact = event.fact
                if isinstance(fact, ToolStarted) and fact.call == call:
                    is_for_clients = fact.expires_at is not None
                elif isinstance(fact, ToolFinished) and fact.call == call and is_for_clients:
                    return _finished(event.at, fact)
        if is_for_clients:
            return Conflict("nobody answered this call in time", code="expired")
        return NotFound(f"no call {call} that a client has to answer")


def _finished(at: float, fact: ToolFinished) -> Conflict:
    if fact.principal is None:
        return Conflict("nobody answered this call in time", code="expired")
    more = {"outcome": fact.outcome, "principal": fact.principal, "at": at}
    return Conflict("this call was answered already", code="already_answered", more=more)


def _too_late(approval: Approval) -> Conflict:
    if approval.status in ("open", "closed"):
        return Conflict("nobody answered this request in time", code="expired")
    more = {
        "decision": approval.status,
        "principal": approval.principal,
        "at": approval.answered_at,
    }
    return Conflict("this request was answered already", code="already_answered", more=more)
