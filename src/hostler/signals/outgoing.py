"""What this node says to the others: in order, joined, bounded, one write at a time.

Events leave with the turn of the loop that brought them.  Text is joined for `join_s` since the
last write, so the first of it leaves at once.

Invariant: what does not fit is dropped and counted, and then all are told to read the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import anyio

from hostler.core.events import Key
from hostler.core.news import Piece
from hostler.signals.cutting import said
from hostler.signals.wire import Down, Wire
from hostler.signals.words import HEAD, Reread, encode, message

MOST_BYTES = 8_000_000
"""That wait to be sent: a few seconds of a wire that is slow."""


class Figures(NamedTuple):
    """What became of items, since the start."""

    sent: int
    dropped: int


class Outgoing:
    """What is to be said.  Channels are those of the wire."""

    def __init__(self, wire: Wire, node: str, common: str) -> None:
        self._wire, self._node, self._common = wire, node, common
        self._limit = wire.limit_bytes - HEAD - 2
        self._items = list[tuple[str, bytes]]()
        self._bytes = 0
        self._texts = dict[Key, list[Piece]]()
        self._listeners = dict[Key, Sequence[str]]()
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._wrote_at = 0.0
        self._left_out = False
        self._sent = self._dropped = 0

    @property
    def figures(self) -> Figures:
        return Figures(self._sent, self._dropped)

    def say(self, channel: str, item: bytes) -> None:
        """Say this with the end of this turn of the loop, after all that was said before."""
        self._put(channel, item)
        self._due.set()

    def text(self, key: Key, pieces: Sequence[Piece], listeners: Sequence[str]) -> None:
        """Say this soon, on the channels of those who listen to the session's text."""
        if self._listeners.get(key, listeners) != listeners:
            self.settle(key)
        self._listeners[key] = listeners
        self._texts.setdefault(key, []).extend(pieces)
        if pieces[0].start == 0:
            self._due.set()
        elif self._timer is None and not self._due.is_set():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._wrote_at + self._wire.join_s, self._ripe)

    def settle(self, key: Key) -> None:
        """Put text of the session that waits into line, before what is said of it next."""
        pieces = self._texts.pop(key, None)
        if pieces is None:
            return
        listeners = self._listeners.pop(key)
        for item in said(key, pieces, self._limit):
            for channel in listeners:
                self._put(channel, item)

    def again(self) -> None:
        """Say that something was left out, if it was: it can be said now."""
        if self._left_out:
            self._due.set()

    def empty(self) -> None:
        """Drop all that waits: nobody hears it."""
        self._dropped += len(self._items) + len(self._texts)
        self._left_out = self._left_out or bool(self._items or self._texts)
        self._items, self._bytes = [], 0
        self._texts.clear()
        self._listeners.clear()

    async def serve(self) -> None:
        """Say it, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._due.wait()
            self._due.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._wrote_at = loop.time()
            self._settle_all()
            items, self._items, self._bytes = self._items, [], 0
            try:
                await self._write(items)
            except Down:
                self._dropped += len(items)
                self._left_out = True
                self.empty()
                await anyio.sleep(self._wire.join_s)  # not a busy loop, while nothing is carried

    async def _write(self, items: list[tuple[str, bytes]]) -> None:
        if is_hole := self._left_out:
            items.append((self._common, encode(Reread())))
        if not items:
            return
        await self._wire.publish(list(self._messages(items)))
        self._sent += len(items)
        if is_hole:
            self._left_out = False

    def _messages(self, items: Sequence[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        """Join items of one channel to messages, which keep the order of each session.

        A message leaves before another channel's that has later items: what one node hears on two
        channels comes in the order in which it was said.
        """
        of, held, length = "", list[bytes](), 0
        for channel, item in items:
            if held and (channel != of or length + len(item) + 1 > self._limit):
                yield of, message(self._node, held)
                held, length = [], 0
            of, length = channel, length + len(item) + 1
            held.append(item)
        if held:
            yield of, message(self._node, held)

    def _settle_all(self) -> None:
        """As `settle`, of all sessions: one message for each who listens."""
        lines = dict[str, list[bytes]]()
        for key, pieces in self._texts.items():
            items = list(said(key, pieces, self._limit))
            for channel in self._listeners[key]:
                lines.setdefault(channel, []).extend(items)
        self._texts.clear()
        self._listeners.clear()
        for channel, items in lines.items():
            for item in items:
                self._put(channel, item)

    def _put(self, channel: str, item: bytes) -> None:
        if len(item) > self._limit or self._bytes + len(item) > MOST_BYTES:
            self._dropped += 1
            self._left_out = True
            return
        self._items.append((channel, item))
        self._bytes += len(item)

    def _ripe(self) -> None:
        self._timer = None
        self._due.set()
