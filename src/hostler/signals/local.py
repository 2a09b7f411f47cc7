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

from hostler.core.events import (
    START,
    AttemptId,
    CancelRequested,
    Event,
    Key,
    PrincipalId,
    RunId,
    RunKey,
    Seq,
)
from hostler.core.news import Attendance, Piece, Present, Watch
from hostler.core.ports import Delta
from hostler.core.state import ENDS_ATTEMPT
from hostler.core.streamed import rest_of
from hostler.signals.in_flight import Attempt
from hostler.signals.presence import Rooms
from hostler.signals.watcher import Watcher


@dataclass(slots=True)
class _Channel:
    attempt: Attempt | None = None
    closed: Seq = START
    """Where an attempt last ended: text of older attempts, come late, is out of date."""
    tap: Callable[[Sequence[Piece]], None] | None = None
    watchers: list[Watcher] = field(default_factory=list[Watcher])
    rings: list[tuple[RunKey, Callable[[], None]]] = field(
        default_factory=list[tuple[RunKey, Callable[[], None]]]
    )

    def put(self, items: Sequence[Event | Piece]) -> None:
        for watcher in self.watchers:
            watcher.put(items)

    def so_far(self) -> Sequence[Piece]:
        return self.attempt.so_far() if self.attempt is not None else ()


class LocalSignals:
    """A `core.ports.Signals` for one process; nothing is lost here but to slow watchers."""

    def __init__(self, *, first: Callable[[RunKey], None] = lambda _key: None) -> None:
        """`first` is told when the first of an attempt's text came."""
        self._first = first
        self._channels: dict[Key, _Channel] = {}
        self.rooms = Rooms()

    @property
    def watching(self) -> int:
        return sum(len(one.watchers) for one in self._channels.values())

    def publish(self, key: Key, events: Sequence[Event]) -> None:
        if key in self._channels:
            self.hear(key, events)
            for event in events:
                if isinstance(event.fact, CancelRequested) and event.fact.run is not None:
                    self.ring(RunKey(*key, event.fact.run))

    def hear(self, key: Key, events: Sequence[Event]) -> None:
        """Pass on what was committed, and ring for no cancel: somebody else does that."""
        channel = self._channels.get(key)
        if channel is None:
            return
        if channel.attempt is not None:
            self._flush(channel, channel.attempt)
        for event in events:
            if event.kind in ENDS_ATTEMPT:
                channel.attempt, channel.closed = None, event.seq
            if (attempt := channel.attempt) is not None:
                attempt.seq = event.seq
                if attempt.length:
                    event.asked, event.offset = attempt.asked, attempt.length
        channel.put(events)
        self._tidy(key, channel)

    def ring(self, run: RunKey) -> None:
        """Ring for those here who drive this run: it is to be cancelled."""
        channel = self._channels.get(Key(run.tenant, run.session))
        for key, ring in channel.rings if channel is not None else ():
            if key.run == run.run:
                ring()

    def delta(self, key: RunKey, asked: Seq, attempt: AttemptId, delta: Delta) -> None:
        channel = self._channel(Key(key.tenant, key.session))
        current = channel.attempt
        if current is None or current.asked != asked:
            current = channel.attempt = Attempt(key, asked, attempt, asked)
            self._first(key)
        self._take(channel, current, delta)

    def hear_text(self, key: Key, piece: Piece) -> bool:
        """Pass on text that another node generates; return False if some before it is missing."""
        channel = self._channels.get(key)
        if channel is None or channel.rings or piece.asked < channel.closed:
            return True
        current = channel.attempt
        if current is not None and piece.asked < current.asked:
            return True
        if current is None or current.asked != piece.asked:
            if piece.start:
                return False
            run = RunKey(*key, piece.run)
            current = channel.attempt = Attempt(run, piece.asked, piece.attempt, piece.seq)
        seen = current.end - piece.start
        if seen < 0:
            return False
        if seen < len(piece.delta.text) or not (seen or piece.delta.text):
            self._take(channel, current, rest_of(piece.delta, seen))
        return True

    def forget_text(self, key: Key) -> None:
        """Keep no more of what another node generates: some of it may be missing."""
        channel = self._channels.get(key)
        if channel is not None and not channel.rings:
            channel.attempt = None
            self._tidy(key, channel)

    def driven(self, key: Key) -> RunId | None:
        """Return which run of the session is driven here, if one is."""
        channel = self._channels.get(key)
        return channel.rings[-1][0].run if channel is not None and channel.rings else None

    def tap(self, key: Key, tap: Callable[[Sequence[Piece]], None] | None) -> Sequence[Piece]:
        """Give `tap` what is generated for a session that is driven here, too, from now on.

        Returns what came before.  `tap` goes with the last who drives the session, or for None.
        """
        channel = self._channels.get(key)
        if channel is None or not channel.rings:
            return ()
        channel.tap = tap
        return channel.so_far()

    def lost(self, key: Key) -> None:
        channel = self._channels.get(key)
        for watcher in channel.watchers if channel is not None else ():
            watcher.lose()

    @contextmanager
    def watch(self, key: Key, *, quiet_s: float) -> Generator[Watch]:
        channel = self._channel(key)
        watcher = Watcher(channel.so_far, quiet_s)
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
                # Nobody drives: what was in flight is not any more.
                channel.attempt = channel.tap = None
            self._tidy(where, channel)

    def attend(self, key: Key, who: PrincipalId) -> AbstractContextManager[Attendance]:
        return self.rooms.attend(key, who)

    def typing(self, key: Key, who: PrincipalId) -> None:
        self.rooms.typing(key, who)

    def present(self, key: Key) -> Sequence[Present]:
        return self.rooms.present(key)

    def _channel(self, key: Key) -> _Channel:
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = _Channel()
        return channel

    def _tidy(self, key: Key, channel: _Channel) -> None:
        if not (channel.watchers or channel.rings or channel.attempt):
            self._channels.pop(key, None)

    def _take(self, channel: _Channel, attempt: Attempt, delta: Delta) -> None:
        if attempt.take(delta):
            asyncio.get_running_loop().call_soon(self._flush, channel, attempt)

    def _flush(self, channel: _Channel, attempt: Attempt) -> None:
        if attempt.fresh and channel.attempt is attempt:
            pieces = attempt.flushed()
            channel.put(pieces)
            if channel.tap is not None:
                channel.tap(pieces)
