"""Following a session: what a cursor has not seen, then what is new, gapless and once.

Facts come from the log or, when they are the very next ones, straight from the signals; text in
flight comes from the signals alone.  A watcher that falls behind starts over from its cursor.

Invariant: whatever is lost on the way here, a fact is never skipped and never given twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

from msgspec.structs import replace

from hostler.core.errors import Malformed
from hostler.core.events import START, Event, Key, RunEnded, RunId, Seq
from hostler.core.ports import Piece, Signals, Store, Watch
from hostler.core.state import ENDS_ATTEMPT
from hostler.service.cursor import Cursor

PAGE = 1000
QUIET_S = 15.0
"""An empty batch is given after this long, for faces to keep connections open with."""


Ends: TypeAlias = Callable[[Event], bool]


def never(_: Event) -> bool:
    """Follow until whoever follows has had enough."""
    return False


def any_end(event: Event) -> bool:
    """Follow until a run ends."""
    return isinstance(event.fact, RunEnded)


def end_of(run: RunId) -> Ends:
    """Follow until this run ends."""
    return lambda event: isinstance(event.fact, RunEnded) and event.fact.run == run


@dataclass(slots=True)
class _Position:
    """How far one follower is, and what of an item it has not seen.

    An item says how far somebody is who has seen it and all before it.  For followers that keep
    up, that is true of the item as it comes, and they share it; others get a copy that says where
    they are.
    """

    seq: Seq
    asked: Seq
    offset: int
    closed: Seq = START
    """Where an attempt last ended: text of older attempts is out of date."""

    def event(self, event: Event) -> Event | None:
        if event.seq <= self.seq:
            return None
        self.seq = event.seq
        if event.kind in ENDS_ATTEMPT:
            self.closed, self.asked, self.offset = event.seq, START, 0
        if (event.asked, event.offset) == (self.asked, self.offset):
            return event
        return replace(event, asked=self.asked, offset=self.offset, wire=None)

    def piece(self, piece: Piece) -> Piece | None:
        if piece.asked < self.closed:
            return None
        if piece.asked != self.asked:
            self.asked, self.offset = piece.asked, 0
        if piece.end <= self.offset and (piece.end > piece.start or piece.start < self.offset):
            return None
        seen, self.offset = self.offset - piece.start, piece.end
        if seen <= 0 and piece.seq == self.seq:
            return piece
        delta, start = piece.delta, max(piece.start, piece.start + seen)
        rest = replace(delta, text=delta.text[start - piece.start :])
        return replace(piece, seq=self.seq, start=start, delta=rest, wire=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """The events of sessions, for those who may see them."""

    store: Store
    signals: Signals

    async def page(self, key: Key, *, after: Cursor, limit: int) -> Sequence[Event]:
        """Return up to `limit` stored events past the cursor.

        Raises:
            Malformed: the cursor is beyond the head.
        """
        events = await self.store.read(key, after=after.seq, limit=limit)
        if not events:
            await self.check(key, after)
        return events

    def watch(self, key: Key) -> AbstractContextManager[Watch]:
        """Begin to keep news, so that nothing falls between a write and following it."""
        return self.signals.watch(key, quiet_s=QUIET_S)

    async def follow(
        self, key: Key, *, after: Cursor, ends: Ends = never
    ) -> AsyncGenerator[Sequence[Event | Piece], None]:
        """Yield all past the cursor, then what is new, in batches; empty ones when it is quiet.

        Ends after the first event that `ends` says yes to.  Raises NotFound.
        """
        with self.watch(key) as watch:
            async for batch in self.follow_on(key, watch, after=after, ends=ends):
                yield batch

    async def follow_on(
        self,
        key: Key,
        watch: Watch,
        *,
        after: Cursor,
        ends: Ends = never,
        current: bool = False,
    ) -> AsyncGenerator[Sequence[Event | Piece], None]:
        """As `follow`, on a watch; `current`: it was made before anything past the cursor."""
        at = _Position(after.seq, after.asked, after.offset)
        while True:
            if not current:
                pieces = watch.begin()
                async for events in self._history(key, at):
                    batch, over = _cut(events, ends)
                    yield batch
                    if over:
                        return
                if fresh := [one for piece in pieces if (one := at.piece(piece)) is not None]:
                    yield fresh
            current = False
            while (items := await watch.next()) is not None:
                taken, whole = _take(at, items)
                if taken or not items:
                    batch, over = _cut(taken, ends)
                    yield batch
                    if over:
                        return
                if not whole:
                    break

    async def _history(self, key: Key, at: _Position) -> AsyncGenerator[Sequence[Event], None]:
        while True:
            events = await self.store.read(key, after=at.seq, limit=PAGE)
            new = [one for event in events if (one := at.event(event)) is not None]
            if new:
                yield new
            if len(events) < PAGE:
                return

    async def check(self, key: Key, after: Cursor) -> None:
        """Refuse a cursor of a session that does not go that far.  Raises Malformed, NotFound."""
        head = await self.store.head(key)
        if after.seq > head.seq or after.asked > head.seq:
            raise Malformed(f"cursor {after} is beyond the last event, {head.seq}")


def _take(at: _Position, items: Sequence[Event | Piece]) -> tuple[list[Event | Piece], bool]:
    """Return what is new of `items`, and whether all of them followed without a gap."""
    batch: list[Event | Piece] = []
    for item in items:
        if isinstance(item, Piece):
            if item.asked > at.seq:
                return batch, False
            new = at.piece(item)
        else:
            if item.seq > at.seq + 1:
                return batch, False
            new = at.event(item)
        if new is not None:
            batch.append(new)
    return batch, True


def _cut(batch: Sequence[Event | Piece], ends: Ends) -> tuple[Sequence[Event | Piece], bool]:
    """Return the batch up to the event that ends the stream, and whether there is one."""
    if ends is never:
        return batch, False
    for place, item in enumerate(batch, start=1):
        if isinstance(item, Event) and ends(item):
            return batch[:place], True
    return batch, False
