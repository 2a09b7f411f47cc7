"""Few runs begin at a time: the others stand in line.

A run costs most as it begins: a claim, a read of the log, a request.  A thousand that begin at once
make everybody late who is served beside them, themselves included; the same thousand in line
begin as soon, since it is the processor that they wait for either way.

Invariant: what waits for the world (a model, a tool, a time) holds up nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager

AT_ONCE = 32
"""A beginning takes a dozen turns of the loop; so many make a turn of some 5 ms."""
EACH_S = 1 / 300
"""Between two beginnings, until it is known."""
OVER = 64
"""Beginnings over which that is averaged."""


class Pace:
    """The line in which runs wait to begin."""

    def __init__(self, at_once: int = AT_ONCE, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._at_once = clock, at_once
        self._beginning = 0
        self._line: OrderedDict[Place, None] = OrderedDict()
        self._each_s, self._last, self._since = EACH_S, clock(), 0.0

    @property
    def waiting(self) -> int:
        return len(self._line)

    def is_crowded(self) -> bool:
        """Return whether anybody waits to begin."""
        return bool(self._line)

    @property
    def each_s(self) -> float:
        """Return the time between two beginnings."""
        return self._each_s

    @property
    def stands_s(self) -> float:
        """Return for how long there has been a line."""
        return self._clock() - self._since if self._line else 0.0

    @contextmanager
    def place(self) -> Generator[Place]:
        """Take a place; it is given up as the context is left, at the latest."""
        place = Place(self)
        try:
            yield place
        finally:
            place.leave()

    def enter(self, place: Place) -> bool:
        """Let a place begin, or put it in line and return False."""
        if self._beginning < self._at_once:
            self._beginning += 1
            return True
        if not self._line:
            self._since = self._last = self._clock()
        self._line[place] = None
        return False

    def next(self) -> None:
        """Let the first in line take the place of one that has begun."""
        self._beginning -= 1
        if not self._line:
            return
        now = self._clock()
        self._each_s += (now - self._last - self._each_s) / OVER
        self._last = now
        self._beginning += 1
        place, _ = self._line.popitem(last=False)
        place.go(begins=True)

    def drop(self, place: Place) -> None:
        self._line.pop(place, None)


class Place:
    """One run's place in the line."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._turn: asyncio.Future[None] | None = None
        self._may_go = self._begins = False

    async def turn(self) -> None:
        """Wait until this place's turn has come."""
        if self._may_go:
            return
        if self._pace.enter(self):
            self._begins = True
            return
        self._turn = asyncio.get_running_loop().create_future()
        await self._turn

    def go(self, *, begins: bool = False) -> None:
        """Let this place go on; out of turn it holds up nobody."""
        self._may_go, self._begins = True, self._begins or begins
        if not begins:
            self._pace.drop(self)
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def leave(self) -> None:
        """Make room: what there was to begin has begun, or will not."""
        if self._begins:
            self._begins = False
            self._pace.next()
        else:
            self._pace.drop(self)
