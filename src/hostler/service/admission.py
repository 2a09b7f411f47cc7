"""Admission: new work is refused early while there is more than this process can do.

Runs that are let in begin in turn, at the speed at which the process can begin them.  So the line
in which they wait tells how much more there is to do than can be done:

    a burst      makes a long line that goes away: all of it is let in
    an overload  makes a line that does not go away: it is kept short

What has begun is never refused: reads, cancels, answers and health go on.

Invariant: refusing costs next to nothing, and nothing is refused for long once the line is short.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import anyio
import anyio.lowlevel

from hostler.core.errors import Unavailable

Begins: TypeAlias = Literal["session", "run"]

BURST_S = 10.0
"""A line that was not there this long ago is a burst, which is worked off.
Facebook's queues tell the two apart like this ("Fail at Scale", ACM Queue 13(8), 2015)."""
LARGEST_BURST = 2500
"""Runs in line.  Letting one in costs half as much as all the rest of a short run."""
STANDING_S = 0.5
"""So long a line may stand for ever; the process is never idle for want of work."""
LOOK_S = 0.05
"""Between two looks at the loop."""
NEWEST = 0.25
"""What one look weighs against those before it: a busy loop is late by turns."""
LATE_S = 0.25
"""A loop that is this late all the time has too much to do beside what waits in line."""
MOST_ACTIVE = 5000
"""Runs that are begun: waiting for a model costs about 10 KB each, so memory allows more."""
STILL_EXPECTED = 0.95
"""Of those who made a session, after one look more: half of them are given up in 0.7 s."""
SESSIONS_UP_TO = 0.9
"""Of each limit: sessions are refused first, so that those that are made can be spoken in."""
RETRY_AFTER_S = 1.0


class Line(Protocol):
    """Where runs wait to begin."""

    @property
    def waiting(self) -> int: ...
    @property
    def each_s(self) -> float:
        """Return the time between two beginnings."""
        ...

    @property
    def stands_s(self) -> float:
        """Return for how long somebody has been waiting, whoever it was."""
        ...


@dataclass(slots=True)
class Admission:
    """Decides; told by `look` how late the loop is, and asked by faces with `check`."""

    line: Line | None = None
    """None: nobody waits."""
    active: Callable[[], int] = lambda: 0
    """Runs that are begun or wait to begin, and are not ended or parked."""
    most: int = MOST_ACTIVE
    clock: Callable[[], float] = time.monotonic
    late_s: float = 0.0
    """How late the loop is, of late."""
    refused: int = 0
    """What was not let in, so far."""
    _late_since: float | None = None
    _entering: int = 0
    _expected: float = 0.0
    """Sessions that were made of late and will be spoken in: all that come before the first of
    them speaks would be let in, to be refused when they speak."""

    def check(self, begins: Begins) -> None:
        """Return if new work may begin.

        Raises:
            Unavailable: not now (`overloaded`).
        """
        share, expected, more = 1.0, 0.0, -1.0
        if begins == "session":
            share, expected, more = SESSIONS_UP_TO, self._expected, 1.0
        active, coming = self.active() + self._entering, self._entering + expected
        if active < share * self.most and self._is_worked_off(share, coming):
            self._expected = max(0.0, self._expected + more)
            return
        self.refused += 1
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
        self.late_s += (late_s - self.late_s) * NEWEST
        self._expected *= STILL_EXPECTED
        if self.late_s < LATE_S:
            self._late_since = None
        elif self._late_since is None:
            self._late_since = self.clock()

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK_S
            await anyio.sleep(LOOK_S)
            await anyio.lowlevel.checkpoint()  # a whole turn of the loop: what an answer takes
            self.look(loop.time() - due)

    def _is_worked_off(self, share: float, coming: float) -> bool:
        """Whether what there is to do gets less, with what is `coming`."""
        late, line = self._late_since, self.line
        if late is not None and self.clock() - late >= BURST_S:
            return False
        if line is None or not line.waiting:
            return True
        waiting = line.waiting + coming
        if line.stands_s < BURST_S:
            return waiting < share * LARGEST_BURST
        return waiting * line.each_s < share * STANDING_S
