"""Messages that are said later: accepted and stored now, spoken at their time as if sent then.

    message_scheduled ──its time comes──▶ user_spoke {scheduled}      input_dropped {reason}
                                                        if its policy refuses it, or it is withdrawn

The log says what is to be said, a row when.  The reconciler rings for it a little before, as it does
for runs, with the input's id in the place of a run's; the engine hands that out at the very time.

Invariant: what was scheduled ends once, by one of two facts; which, is decided on the head.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime

from msgspec import Struct, structs

from hostler.core.decide import MOST_WAIT_S
from hostler.core.errors import Conflict, Invalid, NotFound, TooMany, Unavailable
from hostler.core.events import (
    Event,
    Fact,
    InputDropped,
    InputId,
    JsonObject,
    Key,
    MessageScheduled,
    Policy,
    Principal,
    PrincipalId,
    Priority,
    RunId,
    RunKey,
    Seq,
    SessionId,
    UserSpoke,
)
from hostler.core.head import Head
from hostler.core.ports import Handler, Job
from hostler.core.records import Appended, Timer
from hostler.core.said import Content
from hostler.core.store import AHEAD_S
from hostler.service.authorise import Access
from hostler.service.by_head import by_head
from hostler.service.cursor import Cursor
from hostler.service.inbox import Inbox, Message, Receipt
from hostler.service.once import Answering, once_of
from hostler.service.times import moment, seconds

log = logging.getLogger(__name__)

MOST_SCHEDULED = 100
"""In one session, as many as runs may wait there."""
AGAIN_S = 5.0
"""Before a message is tried again that could not be said now."""
INPUT = "inp_"


class ScheduledReceipt(Receipt, frozen=True, kw_only=True):
    """A message is stored, and will be said; `run` is its own then, if it joins no other."""

    due_at: datetime


class Scheduled(Struct, frozen=True, kw_only=True):
    """A message that is still to be said."""

    input: InputId
    session: SessionId
    seq: Seq
    due_at: datetime
    content: Content
    policy: Policy
    principal: PrincipalId
    metadata: JsonObject
    purpose: str | None
    priority: Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The verbs of messages that are said later; they share what the inbox has."""

    inbox: Inbox

    @property
    def _access(self) -> Access:
        return self.inbox.access

    async def speak(
        self,
        who: Principal,
        session: SessionId,
        message: Message,
        at: datetime,
        *,
        answering: Answering[ScheduledReceipt] | None = None,
    ) -> ScheduledReceipt:
        """Store a message and see that it is said at a time.

        Raises:
            NotFound: no such session.
            Conflict: so many are scheduled in it already (`queue_full`).
            Invalid: the time has no zone, is not to come, or is over a year ahead; else as
                `Inbox.speak`.
        """
        key = await self._access.key(who, "write", session)
        due_at = moment(self._checked(at))
        spoke = await self.inbox.spoken(who, key, message)

        async def facts(_: Head) -> list[Fact]:
            if len(await self.inbox.store.scheduled(key)) >= MOST_SCHEDULED:
                told = f"{MOST_SCHEDULED} messages are scheduled in {session} already"
                raise Conflict(told, code="queue_full")
            return [MessageScheduled(run=None, message=spoke, due_at=due_at)]

        once = once_of(answering, lambda done: _receipt(key, spoke, due_at, done))
        done = await by_head(self.inbox.store, key, facts, once=once)
        if due_at.timestamp() - self.inbox.world.clock() <= AHEAD_S:
            due = RunKey(*key, RunId(spoke.input))
            await self.inbox.engine.enqueue(Job(due, due_at.timestamp()))
        return _receipt(key, spoke, due_at, done)

    async def list(self, who: Principal, session: SessionId) -> Sequence[Scheduled]:
        """Return what is still to be said, the next one first.  Raises NotFound."""
        key = await self._access.key(who, "read", session)
        await self.inbox.store.head(key)  # of an absent one there are no rows, which tells nothing
        found = [
            (timer, await self._read(key, timer)) for timer in await self.inbox.store.scheduled(key)
        ]
        return [_shown(key, timer, fact) for timer, fact in found if fact is not None]

    async def withdraw(self, who: Principal, session: SessionId, name: InputId) -> None:
        """Have a message not said.

        Raises:
            NotFound: no such session, or no such message is still to be said in it.
        """
        key = await self._access.key(who, "write", session)

        async def facts(_: Head) -> list[Fact]:
            if await self._timer(key, name) is None:
                raise NotFound(f"no message {name} is scheduled in {session}")
            return [InputDropped(run=None, input=name, reason="withdrawn", principal=who.id)]

        await by_head(self.inbox.store, key, facts)

    async def say(self, key: Key, name: InputId) -> float | None:
        """Say a message whose time has come; return when to try again (Unix seconds), or None."""
        now, wait = self.inbox.world.clock(), list[float]()
        policies = list[Policy]()

        async def facts(head: Head) -> list[Fact]:
            wait.clear()
            timer = await self._timer(key, name)
            if timer is None:
                return []
            if timer.at > now:
                wait.append(timer.at)
                return []
            fact = await self._read(key, timer)
            if fact is None:  # it cannot be read any more, and is not tried for ever
                return [InputDropped(run=None, input=name, reason="unreadable")]
            policies[:] = [fact.message.policy]
            return await self._arrived(
                key, head, structs.replace(fact.message, scheduled=timer.seq)
            )

        try:
            async with self._room(key):
                done = await by_head(self.inbox.store, key, facts)
        except (
            Conflict,
            TooMany,
        ) as error:  # as many runs are there as may be: it is said when there is room
            log.info("message %s waits: %s", name, error)
            return now + AGAIN_S
        if policies and done.events:
            await self._wake(key, policies[0], done)
        return min(wait, default=None)

    async def _arrived(self, key: Key, head: Head, spoke: UserSpoke) -> list[Fact]:
        message = Message(content=spoke.content, policy=spoke.policy, metadata=spoke.metadata)
        try:
            return await self.inbox.arrive(key, head, spoke, message)
        except Conflict as refused:
            return [InputDropped(run=None, input=spoke.input, reason=refused.code)]

    async def _wake(self, key: Key, policy: Policy, done: Appended) -> None:
        if policy == "interrupt" and len(done.events) > 1:
            await self.inbox.wake(key, done.events[0].fact.run)

    def _room(self, key: Key) -> AbstractAsyncContextManager[None]:
        running = self.inbox.running
        return nullcontext() if running is None else running.one(key)

    def _checked(self, at: datetime) -> float:
        due, now = seconds(at), self.inbox.world.clock()
        if not now < due <= now + MOST_WAIT_S:
            wanted = f"a time to come, within {MOST_WAIT_S / 86_400:.0f} days"
            raise Invalid(f"`at` is not {wanted}", fields=[("/at", wanted)])
        return due

    async def _timer(self, key: Key, name: InputId) -> Timer | None:
        found = await self.inbox.store.scheduled(key)
        return next((one for one in found if one.input == name), None)

    async def _read(self, key: Key, timer: Timer) -> MessageScheduled | None:
        """Return what is to be said, from the log."""
        events: Sequence[Event] = await self.inbox.store.read(
            key, after=Seq(timer.seq - 1), limit=1
        )
        fact = events[0].fact if events else None
        return fact if isinstance(fact, MessageScheduled) else None


@dataclass(frozen=True, slots=True)
class InTime:
    """A ring round what drives runs: a job that names an input has that said."""

    schedule: Schedule
    drive: Handler

    async def __call__(self, key: RunKey) -> float | None:
        if not key.run.startswith(INPUT):
            return await self.drive(key)
        try:
            return await self.schedule.say(Key(key.tenant, key.session), InputId(key.run))
        except NotFound:
            return None  # it went with its session
        except Unavailable as error:
            log.warning("message %s is said later: %s", key.run, error)
            return self.schedule.inbox.world.clock() + AGAIN_S


def _receipt(key: Key, spoke: UserSpoke, due_at: datetime, done: Appended) -> ScheduledReceipt:
    assert spoke.run is not None
    seq = done.events[0].seq
    return ScheduledReceipt(
        input=spoke.input,
        session=key.session,
        run=spoke.run,
        seq=seq,
        cursor=str(Cursor(seq)),
        position=0,
        policy=spoke.policy,
        status="scheduled",
        due_at=due_at,
    )


def _shown(key: Key, timer: Timer, fact: MessageScheduled) -> Scheduled:
    said = fact.message
    return Scheduled(
        input=said.input,
        session=key.session,
        seq=timer.seq,
        due_at=fact.due_at,
        content=said.content,
        policy=said.policy,
        principal=said.principal,
        metadata=said.metadata,
        purpose=said.purpose,
        priority=said.priority,
    )
