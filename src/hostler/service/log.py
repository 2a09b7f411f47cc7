"""A session's log, a page at a time.

Invariant: however long the log is, no more of it than a page is held here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from hostler.core.events import START, Event, Key, Seq
from hostler.core.store import LARGEST_READ, Store

PAGE = 1000


def is_last(events: Sequence[Event], limit: int) -> bool:
    """Say whether the log ended with these, of which so many were asked for, when it was read."""
    return len(events) < limit and sum(len(event.raw) for event in events) < LARGEST_READ


async def pages_of(
    store: Store, key: Key, *, after: Seq = START, upto: Seq | None = None
) -> AsyncGenerator[Sequence[Event], None]:
    """Yield the events past `after`, up to `upto` or to where the log then ends."""
    while upto is None or after < upto:
        limit = PAGE if upto is None else min(PAGE, upto - after)
        events = await store.read(key, after=after, limit=limit)
        if events:
            yield events
        if is_last(events, limit):
            return
        after = events[-1].seq
