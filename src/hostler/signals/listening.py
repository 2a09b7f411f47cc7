"""What this node hears of sessions that somebody watches here.

Invariant: a channel is listened to as long as somebody watches, and a little longer; whenever
something may have been missed, those who watch read the log, and the text in flight is asked for
anew.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from hostler.core.events import START, Event, Key, Seq
from hostler.signals.local import LocalSignals
from hostler.signals.outgoing import Outgoing
from hostler.signals.wire import Wire
from hostler.signals.words import Ask, Said, Written, channel_of, encode, event, piece

QUIET_S = 15.0
"""After so much silence the log is read: the last thing that was said may have been lost."""
DOWN_S = 1.5
"""How often it is read while nothing can be heard."""
LINGER_S = 5.0
"""Who comes back within this time finds the channel open."""
AGAIN_S = 0.2
"""Between two questions for text of which some is missing."""
LONGEST_TEXT = 2**25
"""Characters of an attempt that are kept, of those that another node generates."""
_chance = random.Random()  # noqa: S311  spreads reads, hides nothing


@dataclass(slots=True)
class Watched:
    """A session that somebody watches here, or did."""

    key: Key
    channel: str
    due: float
    """When the log is read, if nothing is heard until then."""
    count: int = 0
    stands: bool = False
    seq: Seq = START
    """The last event that was heard of."""
    idle_at: float = 0.0
    asked_at: float = 0.0
    is_missing: bool = False
    """Text is: it will be asked for anew."""


class Listening:
    """All of them."""

    def __init__(
        self, local: LocalSignals, wire: Wire, outgoing: Outgoing, fleet: str, common: str
    ) -> None:
        self._local, self._wire, self._outgoing = local, wire, outgoing
        self._fleet, self._common = fleet, common
        self._of = dict[Key, Watched]()
        self._on = dict[str, Watched]()

    def __iter__(self) -> Iterator[Watched]:
        return iter(list(self._of.values()))

    def on(self, channel: str) -> Watched | None:
        """Return the session whose channel this is, if it is listened to."""
        return self._on.get(channel)

    @contextmanager
    def open(self, key: Key) -> Generator[None]:
        """Listen to what is said of a session."""
        one = self._of.get(key) or self._begin(key)
        one.count += 1
        if one.channel not in self._on:
            self._on[one.channel] = one
            self._wire.subscribe(one.channel)
        elif one.count == 1:
            self.ask(one)  # nobody did while nobody watched
        try:
            yield
        finally:
            one.count -= 1
            one.idle_at = time.monotonic()

    def published(self, key: Key, events: Sequence[Event]) -> None:
        """Take in what was committed here."""
        one = self._of.get(key)
        if one is not None:
            one.seq = max(one.seq, events[-1].seq)

    def written(self, one: Watched, item: Written) -> None:
        """Take in an event of another node's."""
        found, missed = event(one.key.session, item), START < one.seq < item.seq - 1
        one.seq = max(one.seq, Seq(item.seq))
        one.due = self._next(one)
        if missed or found is None:
            self.reread(one)
            return
        self._local.hear(one.key, [found])
        if found.kind == "model_asked":
            self.ask(one)

    def said(self, item: Said, key: Key) -> None:
        """Take in text that another node generates."""
        one, found = self._of.get(key), piece(item)
        if one is None or found is None or found.end > LONGEST_TEXT:
            return
        one.due = self._next(one)
        if not self._local.hear_text(key, found):
            one.is_missing = True
            self._ask_again(one)

    def stands(self, channel: str) -> Watched | None:
        """Take in that all that is said on the channel is heard from now on."""
        one = self._on.get(channel)
        if one is not None:
            one.stands = True
            self.reread(one)
        return one

    def down(self) -> None:
        """Take in that nothing is heard."""
        for one in self._of.values():
            one.stands, one.seq = False, START
            one.due = self._next(one)
            self._local.forget_text(one.key)

    def reread(self, one: Watched) -> None:
        """Let those who watch read the log: something may have been missed."""
        one.seq, one.due = START, self._next(one)
        self._local.forget_text(one.key)
        self._local.lost(one.key)
        self.ask(one)

    def ask(self, one: Watched) -> None:
        """Ask whoever drives the session for its text, if somebody here would see it."""
        one.asked_at, one.is_missing = time.monotonic(), False
        if one.stands and one.count and not self._local.driven(one.key):
            self._outgoing.say(self._common, encode(Ask(*one.key, wanted=True)))

    def look(self) -> None:
        """Do what is due.  Call this several times a second."""
        now = time.monotonic()
        for one in list(self._of.values()):
            if not one.count and now >= one.idle_at + LINGER_S:
                self._end(one)
            elif now >= one.due:
                self.reread(one)
            elif one.is_missing:
                self._ask_again(one)

    def _begin(self, key: Key) -> Watched:
        one = Watched(key, channel_of(self._fleet, key), 0.0)
        one.due = self._next(one)
        self._of[key] = one
        return one

    def _end(self, one: Watched) -> None:
        del self._of[one.key], self._on[one.channel]
        self._wire.unsubscribe(one.channel)
        self._local.forget_text(one.key)
        if one.stands and one.asked_at:
            self._outgoing.say(self._common, encode(Ask(*one.key, wanted=False)))

    def _ask_again(self, one: Watched) -> None:
        if time.monotonic() >= one.asked_at + AGAIN_S:
            self.ask(one)

    def _next(self, one: Watched) -> float:
        # Spread out: many sessions may have been watched since one moment.
        return time.monotonic() + (QUIET_S if one.stands else DOWN_S) * _chance.uniform(0.7, 1.0)
