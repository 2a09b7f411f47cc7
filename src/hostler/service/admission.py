"""Admission: new work is refused early while there is more than this process can do.

A timer looks how late the event loop is.  While it is late, the number of runs that may be active
shrinks, and grows again when it is not:

    limit   MOST_ACTIVE ── late for GRACE_S ──▶ shrinks, down to LEAST_ACTIVE
            ◀── in time ── grows again            (severely late: nothing is let in)

So a burst is let in whole, and a load that does not end meets a limit that settles where the loop
keeps its time.  What has begun is never refused: reads, cancels, answers and health go on.

Invariant: refusing costs next to nothing, and nothing is refused for long once the loop is in time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import anyio
import anyio.lowlevel

from hostler.core.errors import Unavailable

log = logging.getLogger(__name__)

Begins: TypeAlias = Literal["session", "run"]

LOOK_S = 0.05
"""Between two looks at the loop."""
NEWEST = 0.25
"""What one look weighs against those before it: a busy loop is late by turns."""
LATE_S = 0.03
"""A loop that is later than this makes everybody wait: an answer takes two turns of it."""
IN_TIME_S = 0.015
SEVERE_S = 0.5
GRACE_S = 1.0
"""Late for less is a burst, which is worked off."""
MOST_ACTIVE = 5000
"""Runs that are begun: waiting for a model costs about 10 KB each, so memory allows more."""
LEAST_ACTIVE = 64
"""The loop is never too late because of so few."""
SESSIONS_UP_TO = 0.9
"""Of the limit: sessions are refused first, so that those that are made can be spoken in."""
SHRINKS, GROWS, RESTS = 0.9, 1.05, 1.01
"""What becomes of the limit in `LOOK_S`: late, in time and used, in time and not half used."""
RETRY_AFTER_S = 1.0


@dataclass(slots=True)
class Admission:
    """Decides; told by `look` how late the loop is, and asked by faces with `check`."""

    active: Callable[[], int] = lambda: 0
    """Runs that are begun and not ended or parked."""
    most: int = MOST_ACTIVE
    clock: Callable[[], float] = time.monotonic
    late_s: float = 0.0
    """How late the loop is, of late."""
    _limit: float = 0.0
    _looked: float = 0.0
    _late_since: float | None = None
    _is_pressed: bool = False
    _entering: int = 0

    def __post_init__(self) -> None:
        self._limit, self._looked = self.most, self.clock()

    @property
    def limit(self) -> int:
        """Return how many runs may be active now."""
        return 0 if self._is_pressed and self.late_s >= SEVERE_S else int(self._limit)

    def check(self, begins: Begins) -> None:
        """Return if new work may begin.

        Raises:
            Unavailable: not now (`overloaded`).
        """
        share = SESSIONS_UP_TO if begins == "session" else 1.0
        if self.active() + self._entering < share * self.limit:
            return
        told = "there is more to do than this server can; nothing was stored, try again"
        raise Unavailable(told, retry_after_s=RETRY_AFTER_S, code="overloaded")

    @contextmanager
    def entering(self) -> Generator[None]:
        """Count what is let in until it shows among the active runs."""
        self._entering += 1
        try:
            yield
        finally:
            self._entering -= 1

    def look(self, late_s: float) -> None:
        """Take in how late the loop is now."""
        now = self.clock()
        looks, self._looked = max(1.0, (now - self._looked) / LOOK_S), now
        self.late_s += (late_s - self.late_s) * NEWEST
        if self.late_s < LATE_S:
            self._late_since = None
        elif self._late_since is None:
            self._late_since = now
        tight, since = self._limit < self.most, self._late_since
        self._is_pressed = since is not None and (tight or now - since >= GRACE_S)
        if self._is_pressed:
            shrunk = min(self._limit, self.active()) * SHRINKS**looks
            self._limit = max(LEAST_ACTIVE, shrunk)
        elif self.late_s < IN_TIME_S:
            grows = GROWS if self.active() >= self._limit / 2 else RESTS
            self._limit = min(self.most, self._limit * grows**looks)
        if tight != (self._limit < self.most):
            log.warning("admission: %s", "in time again" if tight else "late: refusing new work")

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK_S
            await anyio.sleep(LOOK_S)
            await anyio.lowlevel.checkpoint()  # a whole turn of the loop: what an answer takes
            self.look(loop.time() - due)
