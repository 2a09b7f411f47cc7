"""What an append changes besides the log: shared by all stores, so that they cannot disagree.

Invariant: pure.  Everything in here could be rebuilt from the logs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from hostler.core import codec
from hostler.core.errors import Fenced, Moved
from hostler.core.events import (
    Content,
    Event,
    Fact,
    InputId,
    Key,
    ModelReplied,
    RunEnded,
    RunId,
    RunStarted,
    RunStatus,
    Seq,
    TextPart,
    Unknown,
    Usage,
    UserSpoke,
)
from hostler.core.state import Head, advance


@dataclass(slots=True, kw_only=True)
class RunChange:
    """Columns of a run's row to set; None leaves one as it is."""

    status: Literal["queued", "running"] | RunStatus
    input: InputId | None = None
    first_seq: Seq | None = None
    created_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    last_seq: Seq | None = None
    reason: str | None = None
    usage: Usage | None = None


@dataclass(slots=True)
class Projection:
    """All that one append writes."""

    events: list[Event]
    head: Head
    runs: dict[RunId, RunChange] = field(default_factory=dict[RunId, RunChange])
    said: list[tuple[Seq, str, str]] = field(default_factory=list[tuple[Seq, str, str]])
    """(seq, kind, text) for the search index."""
    activated: RunId | None = None
    """The run that became active, and so needs a job."""


def project(
    key: Key,
    head: Head,
    facts: Sequence[Fact],
    *,
    at: float,
    fence: int | None,
    expected: Seq | None,
) -> Projection:
    """Return what appending `facts` to a session with this `head` writes.

    Raises:
        Fenced: `fence` is given and not the head's.
        Moved: `expected` is given and not the head's.
    """
    if fence is not None and fence != head.fence:
        raise Fenced(f"{key.session}: claim {fence} was outbid by {head.fence}")
    if expected is not None and expected != head.seq:
        raise Moved(f"{key.session}: expected {expected}, the log ends at {head.seq}")
    done = Projection([], head)
    for fact in facts:
        before, seq = done.head, Seq(done.head.seq + 1)
        done.events.append(
            Event(session=key.session, seq=seq, at=at, fact=fact, raw=codec.dump(fact))
        )
        done.head = advance(before, seq, fact)
        _rows(done, before, seq, at, fact)
    if done.head.active != head.active:
        done.activated = done.head.active
    return done


def _rows(done: Projection, before: Head, seq: Seq, at: float, fact: Fact) -> None:
    run = fact.run
    if run is None:
        return
    match fact:
        case UserSpoke():
            done.said.append((seq, "user_spoke", plain(fact.content)))
            if run != before.active and run not in before.queue:
                done.runs[run] = RunChange(
                    status="queued", input=fact.input, first_seq=seq, created_at=at
                )
        case ModelReplied(text=text) if text:
            done.said.append((seq, "model_replied", text))
        case RunStarted():
            change = done.runs.setdefault(run, RunChange(status="running"))
            change.status, change.started_at = "running", at
        case RunEnded():
            change = done.runs.setdefault(run, RunChange(status=fact.status))
            change.status, change.reason, change.usage = fact.status, fact.reason, fact.usage
            change.ended_at, change.last_seq = at, seq
        case _:
            pass


def plain(content: Content) -> str:
    """Return the words of a message."""
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content if isinstance(part, TextPart))


def said_in(fact: Fact | Unknown) -> str:
    """Return what a fact put into the search index."""
    if isinstance(fact, UserSpoke):
        return plain(fact.content)
    return fact.text if isinstance(fact, ModelReplied) else ""


WORD = re.compile(r"\w+")
AROUND = 60
"""Characters of context on either side of a hit."""


def words(query: str) -> list[str]:
    """Return the words that a search asks for."""
    return WORD.findall(query.casefold())


def snippet(text: str, wanted: Sequence[str]) -> str:
    """Return the surroundings of the first of the `wanted` words, each of them in **stars**."""
    hits = [m for m in WORD.finditer(text) if m.group().casefold() in wanted]
    if not hits:
        return text[: 2 * AROUND]
    start, end = max(0, hits[0].start() - AROUND), min(len(text), hits[0].end() + AROUND)
    marked = WORD.sub(
        lambda m: f"**{m.group()}**" if m.group().casefold() in wanted else m.group(),
        text[start:end],
    )
    return f"{'…' if start else ''}{marked}{'…' if end < len(text) else ''}"
