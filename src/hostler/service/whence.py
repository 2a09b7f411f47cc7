"""Where in the log each thing of a conversation was said, and what of it can be taken out.

A conversation is what a log adds up to, and its things have no names there.  Whoever wants to take
one out finds it by where it was said: a fact, and which of the things that it says.  A reply is
found by where it was asked for; its calls' results by the calls.

Invariant: pure; the things are those of `fold`, in its order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from hostler.core.events import (
    START,
    CallId,
    ConversationEdited,
    Event,
    ModelReplied,
    RunId,
    Seq,
    UserSpoke,
)
from hostler.core.said import ModelSaid, Said, ToolSaid
from hostler.core.state import State, fold, prompt, said_by


class Whence(NamedTuple):
    """Where something was said."""

    seq: Seq
    """Of the fact; of a reply, of the question; 0 for a result of a call that such a reply made."""
    place: int = 0
    """Which of the things that the fact says."""


RESULT = Whence(START)


class Thing(NamedTuple):
    said: Said
    whence: Whence


class _Tracing:
    def __init__(self) -> None:
        self._state = State()
        self._whence = list[Whence]()
        self._waits = dict[RunId, deque[Thing]]()
        """What was said to runs and is in the conversation not yet."""

    def all(self) -> list[Thing]:
        return [Thing(*pair) for pair in zip(self._state.transcript, self._whence, strict=True)]

    def take(self, event: Event) -> None:
        fact, state = event.fact, self._state
        if isinstance(fact, UserSpoke) and fact.run is not None:
            brought = (Thing(one, Whence(event.seq, at)) for at, one in enumerate(said_by(fact)))
            self._waits.setdefault(fact.run, deque()).extend(brought)
        runs = [] if state.run is None else [state.run.id]
        if isinstance(fact, ConversationEdited):
            before = prompt(state)  # as it is once what a fork left open is ended
            self._catch_up(before, runs, None)
            self._edit(event.seq, fact, before)
            fold(state, [event])
            return
        fold(state, [event])
        del self._whence[len(state.transcript) :]  # where it was taken back
        runs += [] if fact.run is None else [fact.run]
        self._catch_up(state.transcript, runs, fact if isinstance(fact, ModelReplied) else None)

    def _edit(self, seq: Seq, fact: ConversationEdited, old: Sequence[Said]) -> None:
        first = len(old) if fact.place is None else min(fact.place, len(old))
        end = min(first + fact.taken, len(old))
        gone = [Thing(old[place], self._whence[place]) for place in range(first, end)]
        self._whence[first:end] = _inherited(seq, fact, gone)

    def _catch_up(
        self, conversation: Sequence[Said], runs: Sequence[RunId], reply: ModelReplied | None
    ) -> None:
        """Find whence the newest things are, which `runs` said, or which were said to them."""
        for place in range(len(self._whence), len(conversation)):
            said = conversation[place]
            if reply is not None and isinstance(said, ModelSaid) and said.text == reply.text:
                self._whence.append(Whence(reply.seen))
            else:
                self._whence.append(self._told(said, runs))
            reply = None  # it comes first

    def _told(self, said: Said, runs: Sequence[RunId]) -> Whence:
        for run in runs:
            waits = self._waits.get(run)
            if waits and waits[0].said == said:
                return waits.popleft().whence
        return RESULT


def _inherited(seq: Seq, fact: ConversationEdited, gone: Iterable[Thing]) -> Iterator[Whence]:
    """Yield whence things are that were put in; what stands for another is whence that was."""
    replies = iter([one for one in gone if isinstance(one.said, ModelSaid)])
    results = {one.said.call.id: one for one in gone if isinstance(one.said, ToolSaid)}
    for place, said in enumerate(fact.said):
        before = None
        if isinstance(said, ModelSaid):
            before = next(replies, None)
        elif isinstance(said, ToolSaid):
            before = results.get(said.call.id)
        yield Whence(seq, place) if before is None else before.whence


def traced(events: Iterable[Event]) -> list[Thing]:
    """Return the conversation that a log, from its first fact on, adds up to."""
    tracing = _Tracing()
    for event in events:
        tracing.take(event)
    return tracing.all()


def fits(conversation: Sequence[Said], fact: ConversationEdited) -> bool:
    """Whether each reply still has its results right after it, once this is done."""
    first = len(conversation) if fact.place is None else fact.place
    edges = conversation[first : first + 1], conversation[first + fact.taken :][:1]
    return not any(isinstance(one, ToolSaid) for edge in edges for one in edge)


# -- taking out -------------------------------------------------------------------------------


class Cut(NamedTuple):
    """What is to be in place of what; no call is without its result after it."""

    place: int
    taken: int = 1
    said: tuple[Said, ...] = ()


def without(things: Sequence[Thing], place: int, call: CallId) -> Cut:
    """Return how a call and its result are taken out of the reply at `place`."""
    reply = things[place].said
    assert isinstance(reply, ModelSaid)
    calls = tuple(one for one in reply.calls if one.id != call)
    return remade(things, place, replace(reply, calls=calls))


def remade(things: Sequence[Thing], place: int, reply: ModelSaid) -> Cut:
    """Return how the reply at `place` becomes another, with results of those calls that it has.

    What its provider would want back is of the one that it was, and is not kept.  A reply that says
    nothing any more is none: thoughts alone are refused by providers.
    """
    end = place + 1
    while end < len(things) and isinstance(things[end].said, ToolSaid):
        end += 1
    calls = {call.id for call in reply.calls}
    results = [one for one in _results(things[place + 1 : end]) if one.call.id in calls]
    kept = (replace(reply, replay=None), *results) if reply.text or calls else ()
    return Cut(place, end - place, kept)


def reply_of(things: Sequence[Thing], place: int) -> int:
    """Return where the reply is whose call the result at `place` answers."""
    while isinstance(things[place].said, ToolSaid):
        place -= 1
    return place


def _results(things: Sequence[Thing]) -> Iterator[ToolSaid]:
    for said, _ in things:
        if isinstance(said, ToolSaid):
            yield said
