"""What clients write to a session: messages and cancels.

A message that arrives while a run is going follows its policy:

    queue      a run of its own, after those that wait                    (the default)
    steer      joins the run that is going, before its next model call
    interrupt  cancels the run that is going, then runs before those that wait
    replace    drops those that wait, then waits
    coalesce   joins the last one that waits
    reject     is refused

Invariant: a receipt is given only for what is stored, and whatever is stored ends visibly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Struct, structs

from hostler.core.errors import Conflict, NotFound
from hostler.core.events import (
    CancelRequested,
    ClientTool,
    Fact,
    InputDropped,
    InputId,
    JsonObject,
    Key,
    Policy,
    Principal,
    Priority,
    RunEnded,
    RunId,
    RunKey,
    Seq,
    SessionId,
    Usage,
    UserSpoke,
)
from hostler.core.head import Head
from hostler.core.memory import remember
from hostler.core.ports import AgentSpec, Engine, Job, World
from hostler.core.records import Appended, Once
from hostler.core.said import Content, Said
from hostler.core.state import fold
from hostler.core.store import Store
from hostler.core.terms import Terms
from hostler.core.trail import Trail, here
from hostler.service.admission import Admission
from hostler.service.authorise import Access
from hostler.service.by_head import by_head
from hostler.service.cursor import Cursor
from hostler.service.limits import check_content, check_label, check_metadata
from hostler.service.once import Answering, once_of
from hostler.service.rates import Rates
from hostler.service.room import Running
from hostler.service.turns import brought, check_history, check_terms, taken_back


class Receipt(Struct, frozen=True, kw_only=True):
    """A message is stored, and will end visibly."""

    input: InputId
    session: SessionId
    run: RunId
    seq: Seq
    cursor: str
    """Follow from here to see what comes of it."""
    position: int
    """How many runs are before its own; 0: it is the active one."""
    policy: Policy
    status: str = "accepted"


class Cancelled(Struct, frozen=True, kw_only=True):
    """A cancel is stored; `run` is None when there was nothing to cancel."""

    session: SessionId
    run: RunId | None
    seq: Seq | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    content: Content
    policy: Policy
    metadata: JsonObject
    purpose: str | None = None
    priority: Priority = "normal"
    before: RunId | None = None
    """Say it there, and take back what was said since this run began."""
    ends_at: Seq | None = None
    """With the policy `reject`: it is refused, too, where the last run did not end there."""
    client_tools: Sequence[ClientTool] | None = None
    """What its clients bring from here on."""
    history: Sequence[Said] = ()
    """What was said before, as the client tells it."""
    terms: Terms | None = None
    """What is asked of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """The writing verbs of a session."""

    store: Store
    engine: Engine
    world: World
    admission: Admission = field(default_factory=Admission)
    access: Access = field(default_factory=Access)
    running: Running | None = None
    rates: Rates = field(default_factory=Rates)
    agents: Mapping[str, AgentSpec] = field(default_factory=dict[str, AgentSpec])

    async def speak(
        self,
        who: Principal,
        session: SessionId,
        message: Message,
        *,
        answering: Answering[Receipt] | None = None,
    ) -> Receipt:
        """Store a message and see that a run answers it.

        Raises:
            NotFound: no such session.
            Conflict: `reject` or `before` while a run is going (`busy`), or more was said after
                `ends_at` (`went_on`); the queue is full (`queue_full`), `before` `taken_back`.
            TooLarge, Invalid: over a limit, or what it brings cannot be had (`turns`).
            TooMany: so many runs were begun of late (`rate`).
        """
        key, policy = await self.access.key(who, "write", session), message.policy
        spoke = await self.spoken(who, key, message)
        once = once_of(answering, lambda done: receipt(key, spoke, done))
        with self.admission.entering():
            if self.running is None:
                done = await self._store(key, spoke, once, message)
            else:
                async with self.running.one(key):
                    done = await self._store(key, spoke, once, message)
        if policy == "interrupt" and len(done.events) > 1:
            await self.wake(key, done.events[0].fact.run)
        return receipt(key, spoke, done)

    async def spoken(self, who: Principal, key: Key, message: Message) -> UserSpoke:
        """Return a message as a fact, for a run of its own.  Raises as `speak`."""
        check_content(message.content)
        check_metadata(message.metadata)
        check_label("/purpose", message.purpose)
        check_history(message.history)
        check_terms(message.terms, self.agents)
        self.rates.take(who, "runs")
        trail = here.get() or Trail()
        return UserSpoke(
            run=RunId(self.world.mint("run")),
            input=InputId(self.world.mint("inp")),
            content=message.content,
            policy=message.policy,
            principal=who.id,
            metadata=message.metadata,
            purpose=message.purpose,
            priority=message.priority,
            traceparent=trail.traceparent,
            tracestate=trail.tracestate,
            client_tools=await self._brought(key, message),
            history=tuple(message.history),
            terms=message.terms,
        )

    async def _brought(self, key: Key, message: Message) -> tuple[ClientTool, ...] | None:
        tools, terms = message.client_tools, message.terms
        if tools is None:
            return None
        agent = None if terms is None else terms.agent
        return await brought(self.store, self.agents, key, tools, agent=agent)

    async def _store(
        self, key: Key, spoke: UserSpoke, once: Once | None, message: Message
    ) -> Appended:
        if spoke.policy == "queue" and message.before is None:
            return await self.store.append(key, [spoke], once=once)
        return await by_head(
            self.store, key, lambda head: self.arrive(key, head, spoke, message), once=once
        )

    async def cancel(
        self,
        who: Principal,
        session: SessionId,
        reason: str | None = None,
        *,
        run: RunId | None = None,
        answering: Answering[Cancelled] | None = None,
    ) -> Cancelled:
        """Ask for a run to end: the active one, or `run`; the others go on.  Safe to repeat.

        One that waits in the queue ends at once, and what was said for it is dropped.

        Raises:
            NotFound: no such session, or no such run in it.
        """
        key = await self.access.key(who, "write", session)
        if run is not None and not await self._has(key, run):
            raise NotFound(f"no run {run} in {session}")

        async def facts(head: Head) -> list[Fact]:
            wanted = run or head.active
            if wanted is None or (wanted != head.active and wanted not in head.queue):
                return []
            asked = CancelRequested(run=wanted, principal=who.id, reason=reason)
            if wanted == head.active:
                return [asked]
            return [asked, *await self._drop(key, [wanted], reason)]

        once = once_of(answering, lambda done: _cancelled(session, done))
        done = await by_head(self.store, key, facts, once=once)
        cancelled = _cancelled(session, done)
        if cancelled.run == done.head.active:
            await self.wake(key, cancelled.run)
        return cancelled

    async def _has(self, key: Key, run: RunId) -> bool:
        """Say whether a run is of this session: not whether it is of any."""
        try:
            return (await self.store.run(key.tenant, run)).session == key.session
        except NotFound:
            return False

    async def arrive(self, key: Key, head: Head, spoke: UserSpoke, message: Message) -> list[Fact]:
        """Return what to write for a message that depends on what is going on.  Raises as `speak`."""
        if message.before is not None:
            return [await taken_back(self.store, key, head, message.before, spoke), spoke]
        match spoke.policy:
            case "reject" if head.active is not None:
                raise Conflict("a run is going, and the message says `reject`", code="busy")
            case "reject" if message.ends_at not in (None, head.base):
                raise Conflict("more was said since then", code="went_on")
            case "steer" if head.active is not None:
                return [joining(spoke, head.active)]
            case "coalesce" if head.queue:
                return [joining(spoke, head.queue[-1])]
            case "coalesce" if head.active is not None and not head.started:
                return [joining(spoke, head.active)]
            case "interrupt" if head.active is not None:
                cancel = CancelRequested(
                    run=head.active, principal=spoke.principal, reason="interrupted"
                )
                return [cancel, spoke]
            case "replace" if head.queue:
                return [*await self._drop(key, head.queue, "replaced"), spoke]
            case _:
                return [spoke]

    async def _drop(self, key: Key, runs: Sequence[RunId], reason: str | None) -> list[Fact]:
        """Return what to write to end runs that wait in the queue."""
        recall = await self.store.recall(key)
        pending = fold(remember(recall.past), recall.events).pending
        facts: list[Fact] = []
        for run in runs:
            facts += [
                InputDropped(run=run, input=said.input, reason=reason or "cancelled")
                for said, _ in pending.get(run, [])
            ]
            facts.append(RunEnded(run=run, status="cancelled", reason=reason, usage=Usage()))
        return facts

    async def wake(self, key: Key, run: RunId | None) -> None:
        """See that a cancelled run that is not being driven, because it waits, ends now."""
        if run is not None:
            await self.engine.enqueue(Job(RunKey(*key, run), priority=1))


def receipt(key: Key, spoke: UserSpoke, done: Appended) -> Receipt:
    """Return what is told of a message that was written."""
    accepted = next(one for one in reversed(done.events) if isinstance(one.fact, UserSpoke))
    assert accepted.fact.run is not None
    return Receipt(
        input=spoke.input,
        session=key.session,
        run=accepted.fact.run,
        seq=accepted.seq,
        cursor=str(Cursor(accepted.seq)),
        position=_position(done.head, accepted.fact.run),
        policy=spoke.policy,
    )


def _cancelled(session: SessionId, done: Appended) -> Cancelled:
    event = done.events[0] if done.events else None
    return Cancelled(session=session, run=event and event.fact.run, seq=event and event.seq)


def joining(spoke: UserSpoke, run: RunId) -> UserSpoke:
    return structs.replace(spoke, run=run)


def _position(head: Head, run: RunId) -> int:
    return 0 if run == head.active else 1 + head.queue.index(run) if run in head.queue else 0
