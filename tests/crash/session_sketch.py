"""What a session should look like: a model that is too simple to be wrong, and what it is held to.

It knows queues, waits and who said what; from the log it takes only what workers did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from hostler.core.events import (
    ApprovalAsked,
    ApprovalGiven,
    AttemptDropped,
    CallId,
    Event,
    InputDropped,
    InputId,
    InputProcessed,
    Key,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    Policy,
    RunEnded,
    RunId,
    RunStarted,
    ToolFinished,
    ToolStarted,
    UserSpoke,
)
from hostler.core.head import Head, advance
from hostler.core.state import State, fold, prompt
from hostler.testing.crashing import check_approvals, check_log, check_prompt


@dataclass
class Wait:
    """A call that somebody outside has to answer, and what became of it."""

    kind: Literal["approval", "client"]
    name: str
    expires_at: float
    status: Literal["open", "answered", "closed"] = "open"


@dataclass(eq=False)
class Sketch:
    """One session."""

    key: Key
    history: tuple[bytes, ...] = ()
    """What a fork began with."""
    sent: int = 0
    accepted: dict[InputId, str] = field(default_factory=dict[InputId, str])
    rejected: int = 0
    active: RunId | None = None
    started: bool = False
    queue: list[RunId] = field(default_factory=list[RunId])
    cancelled: set[RunId] = field(default_factory=set[RunId])
    dropped: dict[RunId, str] = field(default_factory=dict[RunId, str])
    """Runs that ended while they waited in the queue, with the reason that their end will have."""
    waits: dict[CallId, Wait] = field(default_factory=dict[CallId, Wait])
    at: int = 0
    """How far the log was read."""

    # -- what clients do ---------------------------------------------------------------------

    def joined(self, policy: Policy) -> RunId | Literal["new", "refused"]:
        """Return which run a message will belong to."""
        if self.active is None:
            return "new"
        if policy == "reject":
            return "refused"
        if policy == "steer":
            return self.active
        if policy == "coalesce":
            return self.queue[-1] if self.queue else "new" if self.started else self.active
        return "new"

    def spoke(self, policy: Policy, run: RunId, given: InputId, content: str) -> int:
        """Take a message as stored; return the position it should have."""
        self.accepted[given] = content
        if self.active is None:
            self.active, self.started = run, False
        elif run != self.active and run not in self.queue:
            if policy == "replace":
                self.dropped |= dict.fromkeys(self.queue, "replaced")
                self.queue = []
            if policy == "interrupt":
                self.cancelled.add(self.active)
            self.queue.insert(0 if policy == "interrupt" else len(self.queue), run)
        return 0 if run == self.active else 1 + self.queue.index(run)

    # -- what workers did --------------------------------------------------------------------

    def catch_up(self, log: Sequence[Event]) -> None:
        for event in log[self.at :]:
            self._take(event)
        self.at = len(log)

    def _take(self, event: Event) -> None:
        match event.fact:
            case RunStarted(run=run):
                assert run == self.active
                assert not self.started
                self.started = True
            case RunEnded() as end:
                self._ended(end)
            case ApprovalAsked(call=call, name=name, expires_at=at):
                self.waits[call] = Wait("approval", name, at.timestamp())
            case ToolStarted(call=call, name=name, expires_at=at) if at is not None:
                self.waits[call] = Wait("client", name, at.timestamp())
            case ApprovalGiven(call=call):
                assert self.waits[call].status == "open"
                self.waits[call].status = "answered"
            case ToolFinished(call=call, principal=principal) if call in self.waits:
                if self.waits[call].status == "open":
                    self.waits[call].status = "answered" if principal else "closed"
            case _:
                pass

    def _ended(self, end: RunEnded) -> None:
        run = end.run
        assert run is not None
        if run in self.dropped:
            assert (end.status, end.reason) == ("cancelled", self.dropped.pop(run))
            return
        assert run == self.active, "a run ended that was not going"
        assert (end.status == "cancelled") == (run in self.cancelled), end
        self.active, self.started = (self.queue.pop(0) if self.queue else None), False

    # -- what it is held to ------------------------------------------------------------------

    def check(self, head: Head, log: Sequence[Event]) -> None:
        """Assert what is true whenever nobody is in the middle of something."""
        assert [event.seq for event in log] == list(range(1, len(log) + 1)), "a hole"
        assert tuple(event.raw for event in log[: len(self.history)]) == self.history
        assert (head.active, list(head.queue)) == (self.active, self.queue)
        assert head.started == self.started
        assert head.cancelled == (self.active in self.cancelled)
        assert head == self.folded(log), "the head that is kept is not that of the log"
        assert self.sent == len(self.accepted) + self.rejected
        own = [event.fact for event in log[len(self.history) :]]
        spoken = {f.input: f.content for f in own if isinstance(f, UserSpoke)}
        assert spoken == self.accepted, "received is not accepted and rejected"
        check_approvals(own)

    def folded(self, log: Sequence[Event]) -> Head:
        start = len(self.history)
        head = Head(seq=log[start - 1].seq, base=log[start].seq) if start else Head()
        for event in log[start:]:
            assert event.fact is not None
            head = advance(head, event.seq, event.fact)  # type: ignore[arg-type]
        return head

    def check_rest(self, head: Head, log: Sequence[Event]) -> None:
        """Assert what is true once everything that was accepted has come to its end."""
        assert (head.active, head.queue, head.waits) == (None, (), ())
        if not self.history:
            check_log(log)
        own = [event.fact for event in log[len(self.history) :]]
        settled = [f.input for f in own if isinstance(f, InputProcessed | InputDropped)]
        assert sorted(settled) == sorted(self.accepted), "an input without an end, or with two"
        ended = [f.run for f in own if isinstance(f, RunEnded)]
        assert len(ended) == len(set(ended)), "a run with two ends"
        assert set(ended) == {f.run for f in own if isinstance(f, UserSpoke)}
        assert not self.dropped
        done = {f.run for f in own if isinstance(f, RunEnded) and f.status == "done"}
        dropped = {f.run for f in own if isinstance(f, InputDropped)}
        assert not done & dropped, "done, and something that was said to it has no answer"
        for cut in range(len(self.history), len(log) + 1):
            check_prompt(prompt(fold(State(), log[:cut])))


def last_closed(log: Sequence[Event], upto: int) -> int:
    """Return the last position up to `upto` where no call and no question to a model is open."""
    calls, asking, closed = set[CallId](), False, 0
    going: RunId | None = None
    for event in log[:upto]:
        match event.fact:
            case ModelAsked():
                asking = True
            case ModelReplied(calls=made):
                asking, calls = False, {call.id for call in made}
            case ModelFailed() | AttemptDropped():
                asking = False
            case ToolFinished(call=call):
                calls.discard(call)
            case RunStarted(run=run):
                going, asking, calls = run, False, set[CallId]()
            case RunEnded(run=run) if run == going:
                asking, calls = False, set[CallId]()
            case _:
                pass
        if not calls and not asking:
            closed = event.seq
    return closed
