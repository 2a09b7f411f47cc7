"""The facts of a session's file, checked as they are read: nothing that no log could hold gets in.

Invariant: after `close`, nothing in it is open, and no row that is kept from it lacks a column.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from msgspec import Raw, Struct

from hostler.core import codec
from hostler.core.decide import End, closing
from hostler.core.errors import Invalid
from hostler.core.events import (
    KIND_OF,
    AttemptDropped,
    CancelRequested,
    Event,
    Fact,
    InputDropped,
    RunEnded,
    RunId,
    RunRated,
    RunStarted,
    RunWithdrawn,
    Seq,
    SessionForked,
    SessionId,
    SessionRewound,
    Unknown,
    Usage,
    UserSpoke,
)
from hostler.core.head import LONGEST_QUEUE, Head, advance
from hostler.core.state import State, fold
from hostler.service.archive_checks import check_fact
from hostler.service.times import seconds

IMPORTED = End("cancelled", "imported")
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Line(Struct, kw_only=True):
    seq: int
    at: datetime
    fact: Raw


_line = msgspec.json.Decoder(_Line)


@dataclass(slots=True)
class Restored:
    """The facts so far, checked one by one."""

    length: int = 0
    """How many there shall be."""
    events: list[Event] = field(default_factory=list[Event])
    head: Head = field(default_factory=Head)
    state: State = field(default_factory=State)
    ended: set[RunId] = field(default_factory=set[RunId])

    def take(self, session: SessionId, line: bytes) -> None:
        """Read one line.  Raises Invalid."""
        try:
            read = _line.decode(line)
            fact = codec.load(bytes(read.fact))
        except UNREADABLE as error:
            raise Invalid(f"this is no event: {error}") from error
        except codec.CorruptFact as error:
            raise Invalid(str(error)) from error
        if read.seq != self.head.seq + 1:
            raise Invalid(f"event {self.head.seq + 1} should be here, this is {read.seq}")
        if read.seq > self.length:
            raise Invalid(f"there are {self.length} events, says the first line")
        if isinstance(fact, Unknown):
            raise Invalid(f"a {fact.kind} is of a newer build than this one")
        check_fact(fact)
        self._check_order(fact)
        self._add(session, seconds(read.at), fact)

    def close(self, session: SessionId, now: float) -> None:
        """End what is open, so that nobody waits for it or runs on."""
        while (run := self.head.active) is not None:
            for fact in self._ending(run):
                self._add(session, now, fact)

    def _ending(self, run: RunId) -> list[Fact]:
        r = self.state.run
        if r is None or r.id != run:
            return [
                *(
                    InputDropped(run=run, input=spoke.input, reason="imported")
                    for spoke, _ in self.state.pending.get(run, [])
                ),
                RunEnded(run=run, status="cancelled", reason="imported", usage=Usage()),
            ]
        facts: list[Fact] = []
        if r.attempt is not None:
            facts.append(AttemptDropped(run=run, attempt=r.attempt, reason="imported"))
        return [*facts, *closing(r, IMPORTED)]

    def _check_order(self, fact: Fact) -> None:
        """Refuse a fact that no log could have here: rows are kept from it.  Raises Invalid."""
        run, kind = fact.run, KIND_OF[type(fact)]
        rewinds = isinstance(fact, SessionRewound) and run is None and self.head.active is None
        if rewinds or isinstance(fact, SessionForked):
            return
        if run is None:
            raise Invalid(f"a {kind} of no run")
        if isinstance(fact, UserSpoke):
            self._check_said(run)
        elif isinstance(fact, RunRated | RunWithdrawn):
            if run not in self.ended and run != self.head.active:
                raise Invalid(f"a {kind} of a run that is not here")
        elif run != self.head.active:
            waits = isinstance(fact, InputDropped | RunEnded | CancelRequested)
            if not waits or run not in self.head.queue:
                raise Invalid(f"a {kind} of a run that does not go here")
        elif isinstance(fact, RunStarted) and self.head.started:
            raise Invalid("this run had started")

    def _check_said(self, run: RunId) -> None:
        if run in self.ended:
            raise Invalid("this was said to a run that had ended")
        queue, is_new = self.head.queue, run != self.head.active
        if is_new and len(queue) >= LONGEST_QUEUE and run not in queue:
            raise Invalid(f"over {LONGEST_QUEUE} runs wait")

    def _add(self, session: SessionId, at: float, fact: Fact) -> None:
        seq = Seq(self.head.seq + 1)
        event = Event(session=session, seq=seq, at=at, fact=fact, raw=b"")
        if isinstance(fact, RunEnded) and fact.run is not None:
            self.ended.add(fact.run)
        elif isinstance(fact, SessionForked):
            self.ended |= {one for one in (self.head.active, *self.head.queue) if one is not None}
        self.head = advance(self.head, seq, fact)
        fold(self.state, [event])
        self.events.append(event)
