"""One watcher's view of one session: a bounded list of references to what all of them share.

Invariant: a watcher that does not keep up is told to read the log; it never slows another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from hostler.core.events import Event
from hostler.core.news import AtOnce, Piece

LARGEST_BACKLOG = 1024
"""Items kept for one watcher; at 20 tokens a second this is 50 s behind."""


class Watcher:
    """See `core.ports.Watch`."""

    def __init__(self, so_far: Callable[[], Sequence[Piece]], quiet_s: float) -> None:
        self._so_far, self._quiet_s = so_far, quiet_s
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
        return self._so_far()

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
