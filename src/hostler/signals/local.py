"""News inside one process: what was committed, and text as it is generated.

Every watcher has a list of references to what all of them share; one that does not keep up is
told to read the log instead, so it costs a bounded list and never slows the others.

Invariant: single-threaded; called on the event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from hostler.core.events import AttemptId, CancelRequested, Event, Key, PrincipalId, RunKey, Seq
from hostler.core.news import AtOnce, Attendance, Piece, Present, Watch
from hostler.core.ports import Delta
from hostler.core.state import ENDS_ATTEMPT
from hostler.core.streamed import Joined, joined
from hostler.signals.presence import Rooms

LARGEST_BACKLOG = 1024
"""Items kept for one watcher; at 20 tokens a second this is 50 s behind."""


@dataclass(slots=True)
class _Attempt:
    """The text of the attempt in flight, adjacent deltas of one part joined."""

    key: RunKey
    asked: Seq
    attempt: AttemptId
    seq: Seq
    """The last fact published."""
    parts: list[Joined] = field(default_factory=list[Joined])
    length: int = 0
    fresh: list[Delta] = field(default_factory=list[Delta])
    """Come in this turn of the loop, not yet sent to the watchers."""

    def piece(self, start: int, delta: Delta) -> Piece:
        return Piece(
            session=self.key.session,
            run=self.key.run,
            asked=self.asked,
            attempt=self.attempt,
            seq=self.seq,
            start=start,
            delta=delta,
        )

    def add(self, delta: Delta) -> Piece:
        piece = self.piece(self.length, delta)
        self.length += len(delta.text)
        if not (self.parts and _joins(self.parts[-1].first, delta)):
            self.parts.append(Joined(delta))
        self.parts[-1].add(delta)
        return piece

    def so_far(self) -> list[Piece]:
        pieces, start = list[Piece](), 0
        for part in self.parts:
            pieces.append(self.piece(start, part.delta()))
            start = pieces[-1].end
        return pieces


def _joins(a: Delta, b: Delta) -> bool:
    return a.part == b.part and a.call == b.call


@dataclass(slots=True)
class _Channel:
    attempt: _Attempt | None = None
    watchers: list[_Watch] = field(default_factory=list["_Watch"])
    rings: list[tuple[RunKey, Callable[[], None]]] = field(
        default_factory=list[tuple[RunKey, Callable[[], None]]]
    )

    def put(self, items: Sequence[Event | Piece]) -> None:
        for watcher in self.watchers:
            watcher.put(items)


class LocalSignals:
    """A `core.ports.Signals` for one process; nothing is lost here but to slow watchers."""

    def __init__(self, *, first: Callable[[RunKey], None] = lambda _key: None) -> None:
        """`first` is told when the first of an attempt's text came."""
        self._first = first
        self._channels: dict[Key, _Channel] = {}
        self._rooms = Rooms()

    @property
    def watching(self) -> int:
        return sum(len(one.watchers) for one in self._channels.values())

    def publish(self, key: Key, events: Sequence[Event]) -> None:
        channel = self._channels.get(key)
        if channel is None:
            return
        if (attempt := channel.attempt) is not None:
            self._flush(channel, attempt)
        for event in events:
            if isinstance(event.fact, CancelRequested):
                _ring(channel, event.fact)
            elif event.kind in ENDS_ATTEMPT:
                channel.attempt = None
            if (attempt := channel.attempt) is not None:
                attempt.seq = event.seq
                if attempt.length:
                    event.asked, event.offset = attempt.asked, attempt.length
        channel.put(events)
        self._tidy(key, channel)

    def delta(self, key: RunKey, asked: Seq, attempt: AttemptId, delta: Delta) -> None:
        channel = self._channel(Key(key.tenant, key.session))
        current = channel.attempt
        if current is None or current.asked != asked:
            current = channel.attempt = _Attempt(key, asked, attempt, asked)
            self._first(key)
        fresh = current.fresh
        if not fresh:
            asyncio.get_running_loop().call_soon(self._flush, channel, current)
        if fresh and _joins(fresh[-1], delta):
            fresh[-1] = joined(fresh[-1], delta)
        else:
            fresh.append(delta)

    def lost(self, key: Key) -> None:
        channel = self._channels.get(key)
        for watcher in channel.watchers if channel is not None else ():
            watcher.lose()

    @contextmanager
    def watch(self, key: Key, *, quiet_s: float) -> Generator[Watch]:
        watcher = _Watch(channel := self._channel(key), quiet_s)
        channel.watchers.append(watcher)
        try:
            yield watcher
        finally:
            watcher.close()
            channel.watchers.remove(watcher)
            self._tidy(key, channel)

    @contextmanager
    def on_cancel(self, key: RunKey, ring: Callable[[], None]) -> Generator[None]:
        where = Key(key.tenant, key.session)
        channel, entry = self._channel(where), (key, ring)
        channel.rings.append(entry)
        try:
            yield
        finally:
            channel.rings.remove(entry)
            if not channel.rings:
                channel.attempt = None  # nobody drives: what was in flight is not any more
            self._tidy(where, channel)

    def attend(self, key: Key, who: PrincipalId) -> AbstractContextManager[Attendance]:
        return self._rooms.attend(key, who)

    def typing(self, key: Key, who: PrincipalId) -> None:
        self._rooms.typing(key, who)

    def present(self, key: Key) -> Sequence[Present]:
        return self._rooms.present(key)

    def _channel(self, key: Key) -> _Channel:
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = _Channel()
        return channel

    def _tidy(self, key: Key, channel: _Channel) -> None:
        if not (channel.watchers or channel.rings or channel.attempt):
            self._channels.pop(key, None)

    def _flush(self, channel: _Channel, attempt: _Attempt) -> None:
        fresh, attempt.fresh = attempt.fresh, []
        if fresh and channel.attempt is attempt:
            channel.put([attempt.add(delta) for delta in fresh])


def _ring(channel: _Channel, cancel: CancelRequested) -> None:
    for key, ring in channel.rings:
        if key.run == cancel.run:
            ring()


class _Watch:
    """See `core.ports.Watch`."""

    def __init__(self, channel: _Channel, quiet_s: float) -> None:
        self._channel, self._quiet_s = channel, quiet_s
        self._items: list[Event | Piece] = []
        self._missed = False
        self.at_once: AtOnce | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        # One timer a watch, not one a wait: a wait ends with every token.
        self._timer = self._loop.call_later(quiet_s, self._look)

    def close(self) -> None:
        self._timer.cancel()

    def put(self, items: Sequence[Event | Piece]) -> None:
        waits = self._waiter is not None and not self._waiter.done()
        if waits and self.at_once is not None and self.at_once(items):
            self._last = self._loop.time()
            return
        if len(self._items) + len(items) > LARGEST_BACKLOG:
            self.lose()
        elif not self._missed:
            self._items += items
        self._wake()

    def lose(self) -> None:
        self._items, self._missed = [], True
        self._wake()

    def begin(self) -> Sequence[Piece]:
        # What is kept for this watcher from here on comes after what is returned.
        self._items, self._missed = [], False
        attempt = self._channel.attempt
        return attempt.so_far() if attempt is not None else []

    async def next(self) -> Sequence[Event | Piece] | None:
        if not self._items and not self._missed:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._last = self._loop.time()
        if self._missed:
            return None
        items, self._items = self._items, []
        return items

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _look(self) -> None:
        quiet_s = self._loop.time() - self._last
        if quiet_s >= self._quiet_s:
            quiet_s = 0.0
            self._wake()
        self._timer = self._loop.call_later(self._quiet_s - quiet_s, self._look)
