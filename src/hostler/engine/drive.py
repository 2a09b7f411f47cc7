"""Drives the run that a job names, and stands between one session's trouble and all the others.

Invariant: what a run is and where it stands comes from its log; nothing is kept here between jobs.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from hostler.core.errors import Fenced, NotFound, Unavailable
from hostler.core.events import RunKey
from hostler.core.loop import BACKOFF_S, Drive, Interrupt
from hostler.core.news import Signals
from hostler.core.ports import Agents, World
from hostler.core.sealed import Secrets
from hostler.core.store import Store
from hostler.engine.leaving import Leaving
from hostler.engine.pace import Pace, Place

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Driver:
    """A `core.ports.Handler`: call it with a run's key and it takes the run as far as it goes."""

    agents: Agents
    store: Store
    signals: Signals
    world: World
    pace: Pace = field(default_factory=Pace)
    secrets: Secrets | None = None
    leaving: Leaving = field(default_factory=Leaving)
    _troubles: dict[RunKey, int] = field(default_factory=dict[RunKey, int])
    """Unexpected errors in a row; only to space the tries out."""

    async def __call__(self, key: RunKey) -> float | None:
        """Drive a run; return when to try again, in Unix seconds, or None when it rests."""
        if self.leaving.leaves(key):
            return self.leaving.again_at(key)
        try:
            with self.leaving.driving(key), self.pace.place() as place:
                until = await self._drive(key, place)
        except Exception as error:  # noqa: BLE001  one session's trouble must not end the others
            return self._after(error, key)
        self._troubles.pop(key, None)
        if until is not None and self.leaving.leaves(key):
            return max(until, self.leaving.again_at(key))
        return until

    async def _drive(self, key: RunKey, place: Place) -> float | None:
        interrupt = Interrupt(place.leave)
        drive = Drive(
            key=key,
            agents=self.agents,
            store=self.store,
            signals=self.signals,
            interrupt=interrupt,
            world=self.world,
            secrets=self.secrets,
            crowded=self.pace.is_crowded,
            leaving=partial(self.leaving.leaves, key),
        )

        def ring() -> None:
            interrupt.ring()
            place.go()  # stopping waits for nobody

        with self.signals.on_cancel(key, ring):
            await place.turn()
            return await drive.run()

    def _after(self, error: Exception, key: RunKey) -> float | None:
        causes = _leaves(error)
        if all(isinstance(cause, Fenced | NotFound) for cause in causes):
            log.info("run %s is not ours any more: %s", key.run, causes[0])
            self._troubles.pop(key, None)
            return None
        tries = self._troubles[key] = self._troubles.get(key, 0) + 1
        wait_s = BACKOFF_S[min(tries, len(BACKOFF_S)) - 1]
        expected = all(isinstance(cause, Unavailable) for cause in causes)
        log.error(
            "run %s stopped, next try in %s s: %s",
            key.run,
            wait_s,
            causes[0],
            exc_info=None if expected else error,
        )
        return self.world.clock() + wait_s


def _leaves(error: Exception) -> list[Exception]:
    """Return what really happened inside exception groups."""
    if not isinstance(error, ExceptionGroup):
        return [error]
    inner = cast("ExceptionGroup[Exception]", error).exceptions
    return [leaf for one in inner for leaf in _leaves(one)]
