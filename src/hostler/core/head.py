"""What a session's log amounts to for those who write to it: kept by stores with each append.

A head is small and says what is going on without reading the log: which run is active, which
wait, and what a run waits for.

Invariant: pure; `advance` over a whole log gives the head that was kept.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from hostler.core.events import (
    START,
    ApprovalAsked,
    ApprovalGiven,
    AttemptDropped,
    CallId,
    CancelRequested,
    ConversationEdited,
    Fact,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    RunClaimed,
    RunEnded,
    RunId,
    RunStarted,
    Seq,
    SessionForked,
    ToolFinished,
    ToolStarted,
    UserSpoke,
)

Status: TypeAlias = Literal["idle", "queued", "running", "waiting"]
LONGEST_QUEUE = 100
"""Runs that may wait in one session; more are refused, so that no client can fill it blindly."""


class Wait(Struct, frozen=True):
    """A call that somebody outside has to answer."""

    call: CallId
    kind: Literal["approval", "client_tool"]
    expires_at: float
    """Unix seconds; then the call is answered without them."""


class Head(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Where a session stands."""

    seq: Seq = START
    fence: int = 0
    base: Seq = START
    """Where the last active run ended, or the conversation was edited since: what is before this is
    for `remember`."""
    active: RunId | None = None
    """The one run that has, or should have, a job."""
    started: bool = False
    queue: tuple[RunId, ...] = ()
    low: tuple[RunId, ...] = ()
    """Of the active run and those that wait, those of low priority."""
    unanswered: int = 0
    """Calls of the active run without an outcome."""
    waits: tuple[Wait, ...] = ()
    """Those of them that somebody outside has to answer."""
    cancelled: bool = False
    """The active run has to end, whatever it waits for."""
    steps: int = 0
    """Replies in the active run."""
    tries: int = 0
    """How often a model was asked for its next one."""
    asking: bool = False
    """Whether such an attempt is open."""

    @property
    def status(self) -> Status:
        if self.active is None:
            return "idle"
        if self.parked:
            return "waiting"
        return "running" if self.started else "queued"

    @property
    def priority(self) -> int:
        """Return the active run's, as jobs have it."""
        return -1 if self.active in self.low else 0

    @property
    def parked(self) -> bool:
        """Whether nothing can be done for the active run until somebody answers."""
        return bool(self.waits) and len(self.waits) >= self.unanswered and not self.cancelled

    @property
    def due(self) -> float | None:
        """Return when a parked run goes on without an answer; None when it is not parked."""
        return min(wait.expires_at for wait in self.waits) if self.parked else None


def advance(head: Head, seq: Seq, fact: Fact) -> Head:
    """Return a session's head after `fact` is written at `seq`."""
    match fact:
        case UserSpoke():
            return _spoke(head, seq, fact)
        case RunClaimed(claim=claim):
            return replace(head, seq=seq, fence=claim)
        case CancelRequested(run=run) if run is not None and run == head.active:
            return replace(head, seq=seq, cancelled=True)
        case RunEnded(run=run) if run != head.active:
            return replace(head, seq=seq, queue=_but(head.queue, run), low=_but(head.low, run))
        case RunEnded(run=run):
            active, queue = (head.queue[0], head.queue[1:]) if head.queue else (None, ())
            low = _but(head.low, run)
            return Head(seq=seq, fence=head.fence, base=seq, active=active, queue=queue, low=low)
        case SessionForked() | ConversationEdited():
            # What was going on before a fork goes on elsewhere; before an edit, nothing was.
            return Head(seq=seq, fence=head.fence, base=seq)
        case RunStarted():
            return replace(head, seq=seq, started=True)
        case ModelAsked() | ModelFailed() | AttemptDropped():
            asks = isinstance(fact, ModelAsked)
            return replace(head, seq=seq, tries=head.tries + asks, asking=asks)
        case ModelReplied() | ApprovalAsked() | ApprovalGiven() | ToolStarted() | ToolFinished():
            return _call(head, seq, fact)
        case _:
            return replace(head, seq=seq)


def _spoke(head: Head, seq: Seq, fact: UserSpoke) -> Head:
    run = fact.run
    if run is None or run == head.active or run in head.queue:
        return replace(head, seq=seq)
    low = (*head.low, run) if fact.priority == "low" else head.low
    if head.active is None:
        return replace(head, seq=seq, active=run, started=False, low=low)
    queue = (run, *head.queue) if fact.policy == "interrupt" else (*head.queue, run)
    return replace(head, seq=seq, queue=queue, low=low)


def _but(runs: tuple[RunId, ...], run: RunId | None) -> tuple[RunId, ...]:
    return tuple(one for one in runs if one != run) if run in runs else runs


def _call(
    head: Head,
    seq: Seq,
    fact: ModelReplied | ApprovalAsked | ApprovalGiven | ToolStarted | ToolFinished,
) -> Head:
    if isinstance(fact, ModelReplied):
        return replace(
            head,
            seq=seq,
            unanswered=len(fact.calls),
            waits=(),
            steps=head.steps + 1,
            tries=0,
            asking=False,
        )
    left = tuple(wait for wait in head.waits if wait.call != fact.call)
    if isinstance(fact, ToolFinished):
        return replace(head, seq=seq, unanswered=max(0, head.unanswered - 1), waits=left)
    if isinstance(fact, ApprovalAsked):
        left = (*left, Wait(fact.call, "approval", fact.expires_at.timestamp()))
    elif isinstance(fact, ToolStarted) and fact.expires_at is not None:
        left = (*left, Wait(fact.call, "client_tool", fact.expires_at.timestamp()))
    return replace(head, seq=seq, waits=left) if left != head.waits else replace(head, seq=seq)
