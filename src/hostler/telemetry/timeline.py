"""What runs do, in time: committed facts put together to attempts, calls and runs with an end.

    store ──observer──▶ Timeline ──▶ metrics, traces          (each a `Reader`)
    worker ──`driven`──▶ lays the trail that lines and outgoing requests read

A run of which this process did not see the beginning is learned from its log, once.

Invariant: what fails here is counted, and reaches no run and no commit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, cast

from hostler.core.errors import HostlerError
from hostler.core.events import (
    ApprovalAsked,
    AttemptDropped,
    AttemptId,
    CallId,
    Event,
    Key,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    RunClaimed,
    RunEnded,
    RunId,
    RunKey,
    RunStarted,
    ToolFinished,
    ToolStarted,
    UserSpoke,
)
from hostler.core.ledger import DirectCall
from hostler.core.ports import Agents, AgentSpec, Handler
from hostler.core.store import Store
from hostler.core.trail import Trail, here

log = logging.getLogger(__name__)

MOST_RUNS = 10_000
"""Runs that are known at once; one that was forgotten is learned again when it goes on."""

Answered: TypeAlias = ModelReplied | ModelFailed | AttemptDropped


@dataclass(slots=True)
class Attempt:
    asked: ModelAsked
    at: float
    first_at: float | None = None
    """When the first of its text came."""


@dataclass(slots=True)
class Call:
    started: ToolStarted
    at: float


@dataclass(slots=True)
class Lived:
    """A run as far as it has come."""

    key: RunKey
    trail: Trail
    agent: str | None = None
    accepted_at: float = 0.0
    started_at: float | None = None
    asked: ModelAsked | None = None
    """What was asked last."""
    replies: int = 0
    claims: list[tuple[float, RunClaimed]] = field(default_factory=list[tuple[float, RunClaimed]])
    attempt: Attempt | None = None
    calls: dict[CallId, Call] = field(default_factory=dict[CallId, Call])
    joined: list[str] = field(default_factory=list[str])
    """`traceparent` of inputs that came later, from elsewhere."""
    lost: list[AttemptId] = field(default_factory=list[AttemptId])
    """Attempts that went down with their worker."""
    is_heard: bool = False
    """Its first input is known."""
    inputs: list[UserSpoke] = field(default_factory=list[UserSpoke])
    """If they are kept."""


class Reader(Protocol):
    """Is told of what ended."""

    def started(self, run: Lived) -> None: ...
    def attempted(self, run: Lived, attempt: Attempt, end: Answered, at: float) -> None: ...
    def called(self, run: Lived, call: Call, end: ToolFinished, at: float) -> None: ...
    def waits(self, run: Lived, asked: ApprovalAsked) -> None: ...
    def ended(self, run: Lived, end: RunEnded, at: float) -> None: ...
    def direct(self, call: DirectCall, trail: Trail) -> None: ...


class Timeline:
    """An `Observer` and a ring round the `Handler` that drives runs."""

    def __init__(
        self,
        readers: Sequence[Reader] = (),
        *,
        clock: Callable[[], float] = time.time,
        makes_spans: bool = False,
        keeps_inputs: bool = False,
    ) -> None:
        self._readers, self._clock = readers, clock
        self._makes_spans, self._keeps_inputs = makes_spans, keeps_inputs
        self._runs: dict[RunKey, Lived] = {}
        self._follow: dict[type, Callable[[RunKey, Event], None]] = {
            UserSpoke: self._spoke,
            RunClaimed: self._claimed,
            RunStarted: self._started,
            ModelAsked: self._asked,
            ModelReplied: self._answered,
            ModelFailed: self._answered,
            AttemptDropped: self._answered,
            ApprovalAsked: self._waits,
            ToolStarted: self._called,
            ToolFinished: self._finished,
            RunEnded: self._ended,
        }
        self.driven_now = 0
        """Runs that workers of this process drive."""
        self.errors = 0
        """What went wrong here, so far."""

    def observe(self, key: Key, events: Sequence[Event]) -> None:
        """Take in what was committed."""
        try:
            for event in events:
                follow = self._follow.get(type(event.fact))
                if follow is not None:
                    follow(RunKey(*key, cast("RunId", event.fact.run)), event)
        except Exception as error:  # noqa: BLE001 # a mistake in what is told of a run is not its trouble
            self._failed(error)

    def direct(self, call: DirectCall) -> None:
        """Take in that a direct call has ended."""
        trail = here.get() or Trail()
        try:
            for reader in self._readers:
                reader.direct(call, trail)
        except Exception as error:  # noqa: BLE001 # nor that of a direct call
            self._failed(error)

    def first(self, key: RunKey) -> None:
        """Take in that the first of an attempt's text came."""
        run = self._runs.get(key)
        if run is not None and run.attempt is not None and run.attempt.first_at is None:
            run.attempt.first_at = self._clock()

    def naming(self, agents: Agents) -> Agents:
        """Return `agents`, and note which one each run asks for."""

        def named(name: str) -> AgentSpec | None:
            trail = here.get()
            run = None if trail is None or trail.run is None else self._runs.get(trail.run)
            if run is not None:
                run.agent = name
            return agents(name)

        return named

    def driven(self, handler: Handler, store: Store, worker: str) -> Handler:
        """Return a handler that lays a trail for all that happens in a run."""

        async def drive(key: RunKey) -> float | None:
            run = self._runs.get(key)
            if run is None:
                run = await self._learn(key, store)
            run.trail.worker = worker
            token = here.set(run.trail)
            self.driven_now += 1
            try:
                return await handler(key)
            finally:
                self.driven_now -= 1
                here.reset(token)

        return drive

    async def _learn(self, key: RunKey, store: Store) -> Lived:
        run = self._known(key)
        try:
            recall = await store.recall(Key(key.tenant, key.session))
        except HostlerError:
            return run  # whoever drives the run meets the same, and says so
        run.agent = recall.agent
        for fact in recall.past.spoken:  # what was said while the run before it was going
            if isinstance(fact, UserSpoke) and fact.run == key.run:
                self._hear(run, fact, 0.0)
        readers, self._readers = self._readers, ()  # what was told once is not told again
        try:
            self.observe(
                Key(key.tenant, key.session),
                [event for event in recall.events if event.fact.run == key.run],
            )
        finally:
            self._readers = readers
        return self._known(key)

    def _known(self, key: RunKey) -> Lived:
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = Lived(key, Trail(run=key))
            if len(self._runs) > MOST_RUNS:
                del self._runs[next(iter(self._runs))]
        return run

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        if self.errors & (self.errors - 1) == 0:  # the 1st, 2nd, 4th, 8th …
            log.error("telemetry failed %d time(s)", self.errors, exc_info=error)

    # -- what follows from each fact

    def _spoke(self, key: RunKey, event: Event) -> None:
        self._hear(self._known(key), cast("UserSpoke", event.fact), event.at)

    def _hear(self, run: Lived, fact: UserSpoke, at: float) -> None:
        if not run.is_heard:
            run.is_heard, run.accepted_at = True, at
            run.trail.traceparent, run.trail.tracestate = fact.traceparent, fact.tracestate
        elif fact.traceparent is not None and fact.traceparent != run.trail.traceparent:
            run.joined.append(fact.traceparent)
        if self._keeps_inputs:
            run.inputs.append(fact)

    def _claimed(self, key: RunKey, event: Event) -> None:
        self._known(key).claims.append((event.at, cast("RunClaimed", event.fact)))

    def _started(self, key: RunKey, event: Event) -> None:
        run = self._known(key)
        run.started_at = event.at
        for reader in self._readers:
            reader.started(run)

    def _asked(self, key: RunKey, event: Event) -> None:
        run = self._known(key)
        run.asked = cast("ModelAsked", event.fact)
        run.attempt = Attempt(run.asked, event.at)
        run.trail.step = run.replies + 1
        if self._makes_spans:
            run.trail.span = run.asked.attempt

    def _answered(self, key: RunKey, event: Event) -> None:
        run, end = self._known(key), cast("Answered", event.fact)
        attempt, run.attempt = run.attempt, None
        if attempt is None or attempt.asked.attempt != end.attempt:
            return  # a failure that left text is followed by the drop of that text
        if isinstance(end, AttemptDropped) and end.reason == "worker_lost":
            run.lost.append(end.attempt)
        for reader in self._readers:
            reader.attempted(run, attempt, end, event.at)
        if isinstance(end, ModelReplied):
            run.replies += 1

    def _called(self, key: RunKey, event: Event) -> None:
        fact = cast("ToolStarted", event.fact)
        self._known(key).calls[fact.call] = Call(fact, event.at)

    def _finished(self, key: RunKey, event: Event) -> None:
        run, end = self._known(key), cast("ToolFinished", event.fact)
        call = run.calls.pop(end.call, None)
        if call is not None:
            for reader in self._readers:
                reader.called(run, call, end, event.at)

    def _waits(self, key: RunKey, event: Event) -> None:
        run = self._known(key)
        for reader in self._readers:
            reader.waits(run, cast("ApprovalAsked", event.fact))

    def _ended(self, key: RunKey, event: Event) -> None:
        run = self._known(key)
        for reader in self._readers:
            reader.ended(run, cast("RunEnded", event.fact), event.at)
        self._runs.pop(key, None)
