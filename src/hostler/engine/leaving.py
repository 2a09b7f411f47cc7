"""Runs that this node leaves to others: all of them, as it stops, or one that somebody sends away.

A run is left between two steps (see `core.loop.Drive.leaving`), so nothing of it is done twice.

Invariant: leaving is no cancel, and what nobody else takes is driven here again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import anyio

from hostler.core.events import RunKey

AWAY_S = 5.0
"""For so long a run that was sent away is left to the others; if none takes it, there is none."""
AGAIN_S = 0.2
"""How often it is offered to them meanwhile: engines hand a key to whoever asks first."""


class Leaving:
    """What is left, and what is still driven here."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._all = False
        self._away = dict[RunKey, float]()
        self._driven = set[RunKey]()
        self._changed = anyio.Event()

    @property
    def is_over(self) -> bool:
        """Return whether this node stops."""
        return self._all

    def begin(self) -> None:
        """Leave all runs, from now on."""
        self._all = True

    def send_away(self, key: RunKey) -> bool:
        """Leave a run to others for a while; return whether it is driven here."""
        if key not in self._driven:
            return False
        now = self._clock()
        for old in [one for one, until in self._away.items() if until <= now]:
            del self._away[old]  # another node took it, and nobody asks here again
        self._away[key] = now + AWAY_S
        return True

    def leaves(self, key: RunKey) -> bool:
        """Return whether a run is to be left, or not to be begun."""
        if self._all:
            return True
        until = self._away.get(key)
        if until is None:
            return False
        if self._clock() < until:
            return True
        del self._away[key]
        return False

    def again_at(self, key: RunKey) -> float:
        """Return when a run that is left may be handed out again."""
        return self._clock() + (AGAIN_S if key in self._away else 0.0)

    @contextmanager
    def driving(self, key: RunKey) -> Generator[None]:
        """Count a run among those driven here, until the context is left."""
        self._driven.add(key)
        try:
            yield
        finally:
            self._driven.discard(key)
            changed, self._changed = self._changed, anyio.Event()
            changed.set()

    async def left(self) -> None:
        """Wait until nothing is driven here."""
        while self._driven:
            await self._changed.wait()
