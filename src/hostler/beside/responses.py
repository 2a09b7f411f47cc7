"""Responses of OpenAI's API as stretches of runs: their names, where they begin and stop, and how.

    run_T      its first response is resp_T, and resp_T_12 the one that what is at 12 began

Whoever shows a response and whoever tells of one ask here, so that both say the same.

Invariant: pure; what is no name of a response is nothing, and never an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias, TypeGuard

import msgspec
from msgspec import Struct

from hostler.core.events import (
    ApprovalAsked,
    ApprovalGiven,
    CallId,
    CancelRequested,
    Event,
    Fact,
    JsonObject,
    ModelReplied,
    RunEnded,
    RunId,
    RunStatus,
    Seq,
    Stop,
    ToolFinished,
    ToolStarted,
    Unknown,
    UserSpoke,
)

Status: TypeAlias = Literal["completed", "incomplete", "failed", "cancelled"]
"""How a response is over."""
INCOMPLETE: Mapping[Stop, str] = {"length": "max_output_tokens", "refusal": "content_filter"}
"""Why a reply is no whole one, as OpenAI's clients call it."""
OPENAI = "openai"
"""Under which a message's metadata has an `Echo`."""
_RESPONSE = re.compile(r"resp_([A-Za-z0-9-]{1,128})(?:_(\d{1,18}))?", re.ASCII)
_ENDS: Mapping[RunStatus, Status] = {
    "done": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}


class ResponseId(NamedTuple):
    run: RunId
    since: Seq | None = None
    """Where in the log it begins; None: it is the run's first."""


def response_id(run: RunId, since: Seq | None = None) -> str:
    tail = run.removeprefix("run_")
    return f"resp_{tail}" if since is None else f"resp_{tail}_{since}"


def read_response(text: str) -> ResponseId | None:
    found = _RESPONSE.fullmatch(text)
    if found is None:
        return None
    since = None if found[2] is None else Seq(int(found[2]))
    return ResponseId(RunId(f"run_{found[1]}"), since)


class Echo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a response has to tell again of its request, and is kept nowhere else."""

    model: str = ""
    background: bool = False
    store: bool = True
    metadata: dict[str, str] = {}
    previous: str | None = None
    conversation: str | None = None
    include: tuple[str, ...] = ()
    truncation: str = "disabled"
    verbosity: str | None = None
    summary: str | None = None
    format: JsonObject | None = None
    """Of a JSON schema: its name, whether it is strict, what it is for."""
    choice: JsonObject | None = None
    """Which tools are allowed, where that is more than a word or a name."""
    max_tool_calls: int | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None
    own: int | None = None
    """So many of the characters of the instructions are the request's; the rest was in its input."""
    answers: int = 0
    """To so many calls came an answer with the message."""
    tools: str = ""
    """What is equal for equal tools."""
    strict: dict[str, bool] = {}
    custom: tuple[str, ...] = ()
    """Tools that are called with free text."""
    spaces: dict[str, tuple[str, str]] = {}
    """Tools that have another name here, with namespace and name."""
    roles: dict[str, str] = {}
    """Which of what was said, by its place, is said by no user, and who says it."""
    taken: tuple[str, ...] = ()
    """Items that are no part of the conversation any more."""


def echo_of(metadata: JsonObject) -> Echo | None:
    """Return what was kept with a message; None for one of another face."""
    kept = metadata.get(OPENAI)
    if kept is None:
        return None
    try:
        return msgspec.convert(kept, Echo)
    except msgspec.ValidationError:  # another client's word for something else
        return None


def ended(status: RunStatus, stop: Stop) -> tuple[Status, str | None]:
    """Return how a response is over whose run ended, after a last reply that stopped so.

    With it, why, if it is incomplete.  A reply of which nothing was left ends its run as one that
    said nothing, so the run's own end does not tell.
    """
    incomplete = INCOMPLETE.get(stop) if status == "done" else None
    return ("incomplete" if incomplete is not None else _ENDS[status]), incomplete


@dataclass(slots=True)
class Waits:
    """Which calls of a run wait for somebody, read from where a response begins."""

    answers: int = 0
    """To so many calls comes an answer with what begins it."""
    unanswered: set[CallId] = field(default_factory=set[CallId])
    waiting: set[CallId] = field(default_factory=set[CallId])
    is_cancelled: bool = False
    stop: Stop = "end"
    """Of the last reply."""

    def take(self, fact: Fact | Unknown) -> bool:
        """Take in what was written next; return whether nothing goes on until somebody answers."""
        match fact:
            case ModelReplied():
                self.stop, self.waiting = fact.stop, set()
                self.unanswered = {call.id for call in fact.calls}
            case CancelRequested():
                self.is_cancelled = True
            case ApprovalAsked() | ApprovalGiven() | ToolStarted() | ToolFinished():
                self._call(fact)
                return self._is_parked(fact)
            case _:
                pass
        return False

    def _call(self, fact: ApprovalAsked | ApprovalGiven | ToolStarted | ToolFinished) -> None:
        self.unanswered.add(fact.call)
        if isinstance(fact, ToolFinished):
            self.unanswered.discard(fact.call)
            self.waiting.discard(fact.call)
        elif isinstance(fact, ApprovalGiven):
            self.waiting.discard(fact.call)
        elif isinstance(fact, ApprovalAsked) or fact.expires_at is not None:
            self.waiting.add(fact.call)

    def _is_parked(self, fact: Fact) -> bool:
        if self.answers and not isinstance(fact, ToolStarted | ApprovalAsked):
            self.answers -= 1
            return False
        return bool(self.waiting) and self.waiting >= self.unanswered and not self.is_cancelled


class Over(NamedTuple):
    """A response that is over."""

    id: str
    status: Status


@dataclass(slots=True)
class _Stretch:
    id: str
    echo: Echo | None
    waits: Waits
    is_over: bool = False


def over_at_end(run: RunId, first: Seq, facts: Iterable[Event]) -> Over | None:
    """Return which background response the last of a run's facts ends; None: it ends none.

    `facts` are from a message on; `first` is where the run's first one is.
    """
    going, over = None, None
    for event in facts:
        fact, over = event.fact, None
        if fact.run != run or isinstance(fact, Unknown):
            continue
        going = _begun(going, run, first, event)
        if going is None:
            continue
        is_parked = going.waits.take(fact)
        if going.is_over or going.echo is None:
            continue
        if isinstance(fact, RunEnded):
            over = Over(going.id, ended(fact.status, going.waits.stop)[0])
        elif is_parked:
            over = Over(going.id, "completed")
        going.is_over = over is not None
    is_told = going is not None and going.echo is not None and going.echo.background
    return over if is_told else None


def _begun(going: _Stretch | None, run: RunId, first: Seq, event: Event) -> _Stretch | None:
    """Return the response that goes on with a fact: the one there was, or one that it begins."""
    fact = event.fact
    if isinstance(fact, UserSpoke):
        echo, is_first = echo_of(fact.metadata), event.seq == first
        if echo is not None or is_first:
            name = response_id(run, None if is_first else event.seq)
            return _Stretch(name, echo, Waits(0 if echo is None else echo.answers))
    elif isinstance(fact, ApprovalGiven | ToolFinished) and _goes_on(going):
        return _Stretch(response_id(run, event.seq), going.echo, Waits())
    return going


def _goes_on(stopped: _Stretch | None) -> TypeGuard[_Stretch]:
    """Whether an answer in another protocol begins a response after this one: not in a cancel."""
    return stopped is not None and stopped.is_over and not stopped.waits.is_cancelled


def since_background(messages: Sequence[tuple[Seq, JsonObject]]) -> Seq | None:
    """Return where a run was last spoken in from this API, by metadata; None: not in the background."""
    marked = [(seq, echo) for seq, data in messages if (echo := echo_of(data)) is not None]
    return marked[-1][0] if marked and marked[-1][1].background else None
