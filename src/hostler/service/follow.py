"""Following a session: what a cursor has not seen, then what is new, gapless and once.

Facts come from the log or, when they are the very next ones, straight from the signals; text in
flight comes from the signals alone.  A watcher that falls behind starts over from its cursor.

Invariant: whatever is lost on the way here, a fact is never skipped and never given twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, TypeGuard

import anyio

from hostler.core.errors import Malformed
from hostler.core.events import (
    Event,
    Key,
    Principal,
    RunEnded,
    RunId,
    Seq,
    SessionId,
)
from hostler.core.news import AtOnce, Attendance, Piece, Present, Signals, Watch
from hostler.core.state import ENDS_ATTEMPT
from hostler.core.store import LARGEST_READ, Store
from hostler.service.authorise import Access
from hostler.service.cursor import Cursor
from hostler.service.log import is_last
from hostler.service.position import Position, take

FIRST_PAGE, PAGE = 8, 1000
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


class Page(NamedTuple):
    items: Sequence[Event | Piece]
    more: bool = False
    """The log goes on after them."""


class Seat(NamedTuple):
    """A watch on a session, given to those who may see it."""

    key: Key
    watch: Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """The events of sessions, for those who may see them."""

    store: Store
    signals: Signals
    access: Access = field(default_factory=Access)

    async def page(
        self,
        who: Principal,
        session: SessionId,
        *,
        after: Cursor,
        limit: int,
        wait_s: float = 0,
        deltas: bool = False,
    ) -> Page:
        """Return up to `limit` events past the cursor, fewer if they are large, and the text after
        them; wait up to `wait_s` for the first.

        Without `deltas`, events alone, whose cursors still count the text that was seen before.

        Raises:
            Malformed: the cursor is beyond the head.
        """
        key = await self.access.key(who, "read", session)
        at = Position(after.seq, after.asked, after.offset)
        with await self.watch(who, session) as seat:
            pieces = seat.watch.begin() if deltas else ()
            events, more = await self._page(key, after.seq, limit)
            if not events or after.asked:
                await self.check(who, session, after)
            items: list[Event | Piece] = [new for one in events if (new := at.event(one))]
            if not more:
                await self._settle(key, at, pieces)
                items += [new for one in pieces if (new := at.piece(one))]
            if items or not wait_s:
                return Page(items, more)
            with anyio.move_on_after(wait_s):
                async for batch in self.follow_on(seat, after=after):
                    if deltas and batch:
                        return Page(batch)
                    found = [new for one in batch if _is_event(one) and (new := at.event(one))]
                    if found:
                        return Page(found)
        return Page([])

    async def _page(self, key: Key, after: Seq, limit: int) -> tuple[list[Event], bool]:
        """Return events, and whether the log goes on after them."""
        events, size = list[Event](), 0
        async for step in self._steps(key, after):
            events += step
            size += sum(len(event.raw) for event in step)
            if len(events) > limit or size >= LARGEST_READ:
                more = len(events) > limit or (await self.store.head(key)).seq > events[-1].seq
                return events[:limit], more
        return events, False

    async def watch(self, who: Principal, session: SessionId) -> AbstractContextManager[Seat]:
        """Return a context that keeps news, so that nothing falls between a write and following it."""
        return self.seat(await self.access.key(who, "read", session))

    @contextmanager
    def seat(self, key: Key) -> Generator[Seat]:
        """Keep news for who may see the session, or is about to make it."""
        with self.signals.watch(key, quiet_s=QUIET_S) as watch:
            yield Seat(key, watch)

    async def follow(
        self,
        who: Principal,
        session: SessionId,
        *,
        after: Cursor,
        ends: Ends = never,
        at_once: AtOnce | None = None,
    ) -> AsyncGenerator[Sequence[Event | Piece], None]:
        """Yield all past the cursor, then what is new, in batches; empty ones when it is quiet.

        Ends after the first event that `ends` says yes to.  Text that `at_once` takes is in no
        batch; it is offered what comes next in order, while this waits for more.  Raises NotFound.
        """
        with await self.watch(who, session) as seat:
            async for batch in self.follow_on(seat, after=after, ends=ends, at_once=at_once):
                yield batch

    async def follow_on(
        self,
        seat: Seat,
        *,
        after: Cursor,
        ends: Ends = never,
        current: bool = False,
        at_once: AtOnce | None = None,
    ) -> AsyncGenerator[Sequence[Event | Piece], None]:
        """As `follow`, on a seat; `current`: it was taken before anything past the cursor."""
        at = Position(after.seq, after.asked, after.offset)
        key, watch = seat
        watch.at_once = None if at_once is None else lambda items: at.passes(items, at_once)
        while True:
            if not current:
                pieces = watch.begin()
                async for events in self._history(key, at):
                    batch, over = _cut(events, ends)
                    yield batch
                    if over:
                        return
                await self._settle(key, at, pieces)
                if fresh := [one for piece in pieces if (one := at.piece(piece)) is not None]:
                    yield fresh
            current = False
            while (items := await watch.next()) is not None:
                await self._settle(key, at, items)
                taken, whole = take(at, items)
                if taken or not items:
                    batch, over = _cut(taken, ends)
                    yield batch
                    if over:
                        return
                if not whole:
                    break

    async def attend(
        self, who: Principal, session: SessionId
    ) -> AbstractContextManager[Attendance]:
        """Let others see that `who` watches, and see them."""
        return self.signals.attend(await self.access.key(who, "read", session), who.id)

    async def present(self, who: Principal, session: SessionId) -> Sequence[Present]:
        """Return who lets others see that they watch."""
        return self.signals.present(await self.access.key(who, "read", session))

    async def typing(self, who: Principal, session: SessionId) -> None:
        """Let those who watch see, for some seconds, that `who` types.  Raises NotFound."""
        key = await self.access.key(who, "write", session)
        await self.store.head(key)
        self.signals.typing(key, who.id)

    async def _history(self, key: Key, at: Position) -> AsyncGenerator[Sequence[Event], None]:
        async for events in self._steps(key, at.seq):
            new = [one for event in events if (one := at.event(event)) is not None]
            if new:
                yield new

    async def _settle(self, key: Key, at: Position, items: Sequence[Event | Piece]) -> None:
        """Learn where an attempt last ended before the cursor, if text comes that may be older."""
        if (asked := at.doubted(items)) is not None:
            async for events in self._steps(key, asked):
                seen = [one for one in events if one.seq <= at.seq]
                ends = [one.seq for one in seen if one.kind in ENDS_ATTEMPT]
                at.closed = max([at.closed, *ends])
                if len(seen) < len(events):
                    return

    async def _steps(self, key: Key, after: Seq) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the log past `after`, few events first."""
        limit = FIRST_PAGE
        while True:
            events = await self.store.read(key, after=after, limit=limit)
            if events:
                yield events
            if is_last(events, limit):
                return
            after, limit = events[-1].seq, min(PAGE, 8 * limit)

    async def check(self, who: Principal, session: SessionId, after: Cursor) -> None:
        """Refuse a cursor of a session that does not go that far.  Raises Malformed, NotFound."""
        head = await self.store.head(await self.access.key(who, "read", session))
        if after.seq > head.seq or after.asked > after.seq:
            raise Malformed(f"cursor {after} is beyond the last event, {head.seq}")


def _is_event(item: Event | Piece) -> TypeGuard[Event]:
    return isinstance(item, Event)


def _cut(batch: Sequence[Event | Piece], ends: Ends) -> tuple[Sequence[Event | Piece], bool]:
    """Return the batch up to the event that ends the stream, and whether there is one."""
    if ends is never:
        return batch, False
    for place, item in enumerate(batch, start=1):
        if isinstance(item, Event) and ends(item):
            return batch[:place], True
    return batch, False
