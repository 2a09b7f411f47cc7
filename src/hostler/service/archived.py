"""The facts of a session's file, checked as they are read: nothing that no log could hold gets in.

Invariant: after `close`, nothing in it is open, and no row that is kept from it lacks a column.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

import msgspec
from msgspec import Raw, Struct

from hostler.core import codec
from hostler.core.decide import End, closing
from hostler.core.errors import Invalid
from hostler.core.events import (
    KIND_OF,
    ApprovalAsked,
    ApprovalGiven,
    AttemptDropped,
    CallId,
    CancelRequested,
    ConversationEdited,
    Event,
    Fact,
    InputDropped,
    InputId,
    MessageScheduled,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    RunEnded,
    RunId,
    RunRated,
    RunStarted,
    RunWithdrawn,
    Seq,
    SessionForked,
    SessionId,
    SessionRewound,
    ToolFinished,
    ToolStarted,
    Unknown,
    Usage,
    UserSpoke,
)
from hostler.core.head import LONGEST_QUEUE, Head, advance
from hostler.core.state import State, fold, prompt
from hostler.service.archive_checks import check_fact
from hostler.service.times import seconds
from hostler.service.whence import fits

IMPORTED = End("cancelled", "imported")
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_OfStep: TypeAlias = ModelAsked | ModelReplied | ModelFailed | AttemptDropped
_OfCall: TypeAlias = ApprovalAsked | ApprovalGiven | ToolStarted | ToolFinished


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
    calls: dict[CallId, RunId] = field(default_factory=dict[CallId, RunId])
    """Those that replies asked for."""
    scheduled: set[InputId] = field(default_factory=set[InputId])
    """What was to be said later, and neither was nor was dropped."""

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
        for name in sorted(self.scheduled):
            self._add(session, now, InputDropped(run=None, input=name, reason="imported"))

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
        if isinstance(fact, ConversationEdited):
            self._check_edit(fact)
            return
        rewinds = isinstance(fact, SessionRewound) and run is None and self.head.active is None
        if rewinds or isinstance(fact, SessionForked):
            return
        if isinstance(fact, MessageScheduled) or (isinstance(fact, InputDropped) and run is None):
            self._check_scheduled(fact)
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
        else:
            self._check_step(run, fact)

    def _check_step(self, run: RunId, fact: Fact) -> None:
        """Refuse what no step of the active run could have here: rows and prompts are made of it."""
        r, kind = self.state.run, KIND_OF[type(fact)]
        if isinstance(fact, RunStarted):
            if self.head.started:
                raise Invalid("this run had started")
            return
        if isinstance(fact, _OfStep | _OfCall) and (r is None or r.id != run):
            raise Invalid(f"a {kind} of a run that had not started")
        if r is None or r.id != run:
            return
        if isinstance(fact, ModelAsked | ModelReplied | RunEnded) and r.asked:
            raise Invalid(f"a {kind} while a call has no outcome")
        if isinstance(fact, ModelReplied | ModelFailed) and fact.attempt != r.attempt:
            raise Invalid(f"a {kind} of an attempt that is not open")
        if isinstance(fact, ModelReplied):
            self._check_calls(run, fact)
        elif isinstance(fact, _OfCall) and self.calls.get(fact.call) != run:
            raise Invalid(f"a {kind} of a call that this run did not make")

    def _check_calls(self, run: RunId, fact: ModelReplied) -> None:
        for call in fact.calls:
            if self.calls.setdefault(call.id, run) != run:
                raise Invalid("a call that another run has made")
        if len({call.id for call in fact.calls}) < len(fact.calls):
            raise Invalid("a call that is made twice")

    def _check_scheduled(self, fact: MessageScheduled | InputDropped) -> None:
        if isinstance(fact, InputDropped):
            if fact.input not in self.scheduled:
                raise Invalid("nothing was scheduled that is dropped here")
        elif fact.run is not None or fact.message.input in self.scheduled:
            raise Invalid("this was scheduled before, or by a run")
        elif len(self.scheduled) >= LONGEST_QUEUE:
            raise Invalid(f"over {LONGEST_QUEUE} messages are scheduled")

    def _check_edit(self, fact: ConversationEdited) -> None:
        if fact.run is not None or self.head.active is not None:
            raise Invalid("this was changed while a run was going")
        if not fits(prompt(self.state), fact):
            raise Invalid("a call and its result are taken apart here")

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
            self.scheduled.clear()  # it is said in the session that was forked
        elif isinstance(fact, MessageScheduled):
            self.scheduled.add(fact.message.input)
        if isinstance(fact, UserSpoke | InputDropped):
            self.scheduled.discard(fact.input)
        self.head = advance(self.head, seq, fact)
        fold(self.state, [event])
        self.events.append(event)
