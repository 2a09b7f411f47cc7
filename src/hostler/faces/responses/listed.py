"""All that a conversation has, as items, and how one of them is taken out.

Invariant: pure; the same log gives the same items under the same ids, and what is taken out of the
list is no part of what is said next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

from msgspec.structs import replace

from hostler.beside.responses import Echo, echo_of
from hostler.core.errors import NotFound
from hostler.core.events import (
    CallId,
    ConversationEdited,
    Event,
    JsonObject,
    RunEnded,
    RunId,
    RunStarted,
    SessionRewound,
    UserSpoke,
)
from hostler.core.said import ModelSaid
from hostler.faces.responses.echo import About
from hostler.faces.responses.ids import read_approval, read_item
from hostler.faces.responses.shown import Places, items_of, of_request
from hostler.faces.responses.telling import Part, Teller
from hostler.faces.responses.writer import Writer
from hostler.service.whence import Cut, Thing, Whence, remade, reply_of, traced, without

_NOTHING = Echo()


class Listed(NamedTuple):
    """An item, and of what thing in the conversation it is; None: of none."""

    body: JsonObject
    whence: Whence | None
    call: CallId | None = None
    """Which call it is, or is the result of."""

    @property
    def id(self) -> str:
        return str(self.body["id"])


class _Entry(NamedTuple):
    listed: Listed
    run: RunId | None
    epoch: int
    """How many runs had begun."""


class _Told:
    """A run, as it is told."""

    def __init__(self, run: RunId, event: Event, about: About) -> None:
        self._writer = Writer(about, tail=run.removeprefix("run_"), after=math.inf)
        self._teller = Teller(Part(run=run, since=event.seq, splits=False), self._writer)
        self._shown = 0

    def take(self, event: Event) -> list[Listed]:
        """Return the items that are done, in their order: one that is not holds up the others."""
        self._teller.take(event)
        made, output = list[Listed](), self._writer.output
        while self._shown < len(output) and output[self._shown].get("status") != "in_progress":
            made.append(_of_output(output[self._shown], self._teller.ran))
            self._shown += 1
        return made


class _List:
    def __init__(self) -> None:
        self._entries = list[_Entry]()
        self._waiting = dict[RunId, list[_Entry]]()
        """What was said to runs that have not begun."""
        self._told = dict[RunId, _Told]()
        self._begun = dict[RunId, int]()
        self._brought: UserSpoke | None = None
        self._taken = set[str]()

    def all(self) -> list[Listed]:
        waiting = (one for entries in self._waiting.values() for one in entries)
        every = (one.listed for one in (*self._entries, *waiting))
        return [one for one in every if one.id not in self._taken]

    def take(self, event: Event) -> None:
        fact, run = event.fact, event.fact.run
        if isinstance(fact, ConversationEdited):
            self._edited(event, fact)
        elif isinstance(fact, SessionRewound):
            self._rewound(fact.before)
        if run is None:
            return
        if isinstance(fact, UserSpoke):
            self._spoke(event, run, fact)
        elif isinstance(fact, RunStarted):
            self._begun.setdefault(run, len(self._begun))
            self._entries += self._waiting.pop(run, ())
        if run in self._told:
            self._add(run, self._told[run].take(event))
        if isinstance(fact, RunEnded):  # of one that had not begun, nothing was ever read
            self._waiting.pop(run, None)
            self._told.pop(run, None)

    def _add(self, run: RunId | None, listed: Iterable[Listed]) -> None:
        entries = self._entries
        if run is not None and run not in self._begun:
            entries = self._waiting.setdefault(run, [])
        entries += [_Entry(one, run, len(self._begun)) for one in listed]

    def _spoke(self, event: Event, run: RunId, fact: UserSpoke) -> None:
        self._brought = fact if fact.client_tools is not None else self._brought
        about = _about(fact, self._brought)
        self._add(run, _of_request(about, run, event, fact))
        if run not in self._told:
            self._told[run] = _Told(run, event, about)

    def _edited(self, event: Event, fact: ConversationEdited) -> None:
        echo = echo_of(fact.metadata) or _NOTHING
        self._taken.update(echo.taken)
        if not fact.taken:
            self._add(None, of_edit(event, fact))

    def _rewound(self, before: RunId) -> None:
        first = self._begun.get(before)
        if first is None:
            return
        gone = frozenset(run for run, at in self._begun.items() if at >= first)
        self._begun = {run: at for run, at in self._begun.items() if at < first}
        for run in gone:
            self._told.pop(run, None)
        self._entries = [
            one
            for one in self._entries
            if one.run not in gone and (one.run is not None or one.epoch <= first)
        ]


def of_session(events: Iterable[Event]) -> list[Listed]:
    """Return what a log adds up to, in order."""
    made = _List()
    for event in events:
        made.take(event)
    return made.all()


def of_edit(event: Event, fact: ConversationEdited) -> list[Listed]:
    """Return what was put into a conversation."""
    about = About(id="", created_at=0, model="", echo=echo_of(fact.metadata) or _NOTHING)
    made, tail = list[Listed](), event.session.removeprefix("ses_")
    for place, said in enumerate(fact.said):
        items = items_of(about, said, tail, event.seq, Places(len(made), place))
        made += [_listed(one, Whence(event.seq, place)) for one in items]
    return made


def _of_request(about: About, run: RunId, event: Event, fact: UserSpoke) -> list[Listed]:
    return [_listed(*one) for one in of_request(about, run, event.seq, fact)]


def _listed(body: JsonObject, whence: Whence | None) -> Listed:
    call = body.get("call_id")
    return Listed(body, whence, CallId(call) if isinstance(call, str) else None)


def _of_output(body: JsonObject, ran: Mapping[str, CallId]) -> Listed:
    approval, name = read_approval(body["id"]), read_item(body["id"])
    if approval is not None or name is None:
        return Listed(body, None, approval)
    listed = _listed(body, Whence(name.asked))
    return listed._replace(call=ran.get(listed.id, listed.call))


def _about(fact: UserSpoke, brought: UserSpoke | None) -> About:
    tools = () if brought is None or brought.client_tools is None else brought.client_tools
    echo = echo_of(fact.metadata)
    about = About(id="", created_at=0, model="", tools=tools)
    if fact.terms is not None:
        about = About(id="", created_at=0, model="", tools=tools, terms=fact.terms)
    if echo is None:
        return about
    return About(id="", created_at=0, model="", tools=tools, terms=about.terms, echo=echo)


# -- taking out -------------------------------------------------------------------------------


class Removal(NamedTuple):
    cut: Cut | None
    """None: nothing that is read stood for it."""
    items: Sequence[str]
    """All that go with it."""


def removal(events: Sequence[Event], name: str) -> Removal:
    """Return how an item is taken out of a conversation.

    A call and its result go together, as no model may be shown one of them.  Thoughts, and what a
    reply said, go alone; of a reply that says nothing any more, nothing is read.

    Raises:
        NotFound: the conversation has no such item.
    """
    listed = of_session(events)
    one = next((one for one in listed if one.id == name), None)
    if one is None:
        raise NotFound(f"Item with id '{name[:100]}' not found.")
    things = traced(events)
    places = {thing.whence: place for place, thing in enumerate(things)}
    place = None if one.whence is None else places.get(one.whence)
    if place is None or one.body.get("status") == "incomplete":
        return Removal(None, [name])
    if one.call is not None:
        return _of_call(listed, things, reply_of(things, place), one)
    said = things[place].said
    if not isinstance(said, ModelSaid):
        return Removal(Cut(place), [name])
    rest = "".join(_text(other) for other in listed if _is_beside(other, one))
    if one.body["type"] == "reasoning":
        said = replace(said, thinking=rest or None)
    else:
        said = replace(said, text=rest)
    return Removal(remade(things, place, said), [name])


def _of_call(listed: Sequence[Listed], things: Sequence[Thing], place: int, one: Listed) -> Removal:
    reply = things[place].said
    assert one.call is not None
    if not isinstance(reply, ModelSaid) or all(call.id != one.call for call in reply.calls):
        return Removal(None, [one.id])
    cut = without(things, place, one.call)
    whence = {thing.whence for thing in things[place : place + cut.taken]}
    names = [
        other.id
        for other in listed
        if other.call == one.call and (other.whence is None or other.whence in whence)
    ]
    return Removal(cut, names)


def _is_beside(other: Listed, one: Listed) -> bool:
    """Whether another item is the rest of the text that an item is of."""
    is_whole = other.body.get("status") != "incomplete"
    same = (other.whence, other.body["type"]) == (one.whence, one.body["type"])
    return same and is_whole and other.id != one.id


def _text(listed: Listed) -> str:
    parts = cast("Sequence[JsonObject]", listed.body.get("content") or listed.body.get("summary"))
    return "".join(str(part["text"]) for part in parts)
