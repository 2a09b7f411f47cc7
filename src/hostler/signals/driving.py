"""What this node drives, as the others see it: its text for who asked, and cancels that it missed.

Invariant: nobody is sent text who did not ask for it, and nobody after the attempt ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from hostler.core.events import START, Event, Key, Seq
from hostler.core.news import Piece
from hostler.core.state import ENDS_ATTEMPT
from hostler.signals.local import LocalSignals
from hostler.signals.outgoing import Outgoing

MOST_LISTENERS = 64
"""Nodes that are sent one session's text: larger fleets have other troubles."""
PAGE = 100


class Read(Protocol):
    """`Store.read`."""

    def __call__(self, key: Key, *, after: Seq, limit: int) -> Awaitable[Sequence[Event]]: ...


class Driving:
    """The sessions that are driven here."""

    def __init__(self, local: LocalSignals, outgoing: Outgoing) -> None:
        self._local, self._outgoing = local, outgoing
        self._listeners = dict[Key, tuple[str, ...]]()
        self._seqs = dict[Key, Seq]()
        """How far the log of each is known here without a hole."""

    @contextmanager
    def one(self, key: Key) -> Generator[None]:
        """Count a session among them, until the context is left."""
        self._seqs.setdefault(key, START)
        try:
            yield
        finally:
            if not self._local.driven(key):
                self._seqs.pop(key, None)
                self._listeners.pop(key, None)

    def published(self, key: Key, events: Sequence[Event]) -> None:
        """Take in what was committed here, and put text that came before it into line."""
        if key not in self._seqs:
            return
        self._outgoing.settle(key)
        for event in events:
            if self._seqs[key] in (START, event.seq - 1):
                self._seqs[key] = event.seq
            if event.kind in ENDS_ATTEMPT and self._listeners.pop(key, None):
                self._local.tap(key, None)

    def asked(self, key: Key, inbox: str, *, wanted: bool) -> None:
        """Let a node have the text of the session's attempt in flight, or no more of it."""
        if not self._local.driven(key):
            return
        others = tuple(one for one in self._listeners.get(key, ()) if one != inbox)
        self._outgoing.settle(key)
        if not wanted:
            self._listeners[key] = others
        elif len(others) < MOST_LISTENERS:
            so_far = self._local.tap(key, partial(self._said, key))
            self._listeners[key] = (*others, inbox)
            if so_far:
                self._outgoing.text(key, so_far, (inbox,))
                self._outgoing.settle(key)

    async def catch_up(self, read: Read) -> None:
        """Read what others wrote meanwhile of the sessions that are driven here: cancels, perhaps."""
        for key, seq in list(self._seqs.items()):
            if seq != START and (events := await read(key, after=seq, limit=PAGE)):
                if key in self._seqs:
                    self._seqs[key] = events[-1].seq
                self._local.publish(key, events)

    def _said(self, key: Key, pieces: Sequence[Piece]) -> None:
        listeners = self._listeners.get(key)
        if listeners:
            self._outgoing.text(key, pieces, listeners)
