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

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from msgspec import Struct

from hostler.core.errors import Conflict, Moved, Unavailable
from hostler.core.events import (
    CancelRequested,
    Content,
    Fact,
    InputDropped,
    InputId,
    JsonObject,
    Key,
    Policy,
    Principal,
    RunEnded,
    RunId,
    RunKey,
    Seq,
    SessionId,
    Usage,
    UserSpoke,
)
from hostler.core.ports import Appended, Engine, Job, Store, World
from hostler.core.state import Head, fold, remember
from hostler.service.cursor import Cursor

TRIES = 50
"""How often a write that depends on the head is tried against a log that keeps moving."""
LONGEST_QUEUE = 100
"""Runs that may wait in one session; more are refused, so that no client can fill it blindly."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """The writing verbs of a session."""

    store: Store
    engine: Engine
    world: World

    async def speak(self, who: Principal, session: SessionId, message: Message) -> Receipt:
        """Store a message and see that a run answers it.

        Raises:
            NotFound: no such session.
            Conflict: `reject` while a run is going (`busy`); or the queue is full (`queue_full`).
        """
        key, policy = Key(who.tenant, session), message.policy
        spoke = UserSpoke(
            run=RunId(self.world.mint("run")),
            input=InputId(self.world.mint("inp")),
            content=message.content,
            policy=policy,
            principal=who.id,
            metadata=message.metadata,
        )
        if policy == "queue":
            done = await self.store.append(key, [spoke])
        else:
            done = await self._by_head(key, lambda head: self._arrive(key, head, spoke))
        accepted = done.events[-1]
        assert isinstance(accepted.fact, UserSpoke)
        assert accepted.fact.run is not None
        if policy == "interrupt" and len(done.events) > 1:
            await self._wake(key, done.events[0].fact.run)
        return Receipt(
            input=spoke.input,
            session=session,
            run=accepted.fact.run,
            seq=accepted.seq,
            cursor=str(Cursor(accepted.seq)),
            position=_position(done.head, accepted.fact.run),
            policy=policy,
        )

    async def cancel(
        self, who: Principal, session: SessionId, reason: str | None = None
    ) -> Cancelled:
        """Ask for the active run to end; those that wait go on.  Safe to repeat.

        Raises:
            NotFound: no such session.
        """
        key = Key(who.tenant, session)

        async def facts(head: Head) -> list[Fact]:
            if head.active is None:
                return []
            return [CancelRequested(run=head.active, principal=who.id, reason=reason)]

        done = await self._by_head(key, facts)
        if not done.events:
            return Cancelled(session=session, run=None, seq=None)
        run = done.events[0].fact.run
        await self._wake(key, run)
        return Cancelled(session=session, run=run, seq=done.events[0].seq)

    async def _arrive(self, key: Key, head: Head, spoke: UserSpoke) -> list[Fact]:
        """Return what to write for a message that depends on what is going on."""
        match spoke.policy:
            case "reject" if head.active is not None:
                raise Conflict("a run is going, and the message says `reject`", code="busy")
            case "steer" if head.active is not None:
                return [_joining(spoke, head.active)]
            case "coalesce" if head.queue:
                return [_joining(spoke, head.queue[-1])]
            case "coalesce" if head.active is not None and not head.started:
                return [_joining(spoke, head.active)]
            case "interrupt" if head.active is not None:
                cancel = CancelRequested(
                    run=head.active, principal=spoke.principal, reason="interrupted"
                )
                return [cancel, spoke]
            case "replace" if head.queue:
                return [*await self._drop_queue(key, head), spoke]
            case _:
                return [spoke]

    async def _drop_queue(self, key: Key, head: Head) -> list[Fact]:
        recall = await self.store.recall(key)
        pending = fold(remember(recall.past), recall.events).pending
        facts: list[Fact] = []
        for run in head.queue:
            facts += [
                InputDropped(run=run, input=said.input, reason="replaced")
                for said, _ in pending.get(run, [])
            ]
            facts.append(RunEnded(run=run, status="cancelled", reason="replaced", usage=Usage()))
        return facts

    async def _by_head(self, key: Key, facts: Callable[[Head], Awaitable[list[Fact]]]) -> Appended:
        """Append what `facts` makes of the head, anew for as long as others are faster."""
        for _ in range(TRIES):
            head = await self.store.head(key)
            written = await facts(head)
            if not written:
                return Appended([], head)
            try:
                return await self.store.append(key, written, expected=head.seq)
            except Moved:
                continue
        raise Unavailable("the session is written to faster than this could be decided")

    async def _wake(self, key: Key, run: RunId | None) -> None:
        """See that a cancelled run that is not being driven, because it waits, ends now."""
        if run is not None:
            await self.engine.enqueue(Job(RunKey(*key, run)))


def _joining(spoke: UserSpoke, run: RunId) -> UserSpoke:
    return UserSpoke(
        run=run,
        input=spoke.input,
        content=spoke.content,
        policy=spoke.policy,
        principal=spoke.principal,
        metadata=spoke.metadata,
    )


def _position(head: Head, run: RunId) -> int:
    return 0 if run == head.active else 1 + head.queue.index(run) if run in head.queue else 0
