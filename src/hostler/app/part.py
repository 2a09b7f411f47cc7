"""What part of a fleet's work a process does, and how it gives that up.

Invariant: whatever its part, a process may die at any moment, and the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import anyio
import anyio.lowlevel

from hostler.app.engines import LEASE_S, OnRedis, make_engine, outbox_of
from hostler.core.ports import Engine
from hostler.core.store import Outbox
from hostler.engine.leaving import Leaving
from hostler.engine.pace import Pace
from hostler.harness.limit_news import LimitNews
from hostler.service.service import Here

log = logging.getLogger(__name__)

Role: TypeAlias = Literal["all", "api", "worker"]
"""`api`: takes and shows, and drives nothing; `worker`: drives, and shows nothing but its health."""


class Stop(NamedTuple):
    """What else ends with the server."""

    begin: Callable[[], None]
    """Called as it is told to stop."""
    rest: Callable[[], Awaitable[None]]
    """What is waited for when no request is left."""


STOP = Stop(lambda: None, anyio.lowlevel.checkpoint)


@dataclass(slots=True, kw_only=True)
class Part:
    """One process's."""

    role: Role = "all"
    lease_s: float = LEASE_S
    """After which others go on with the runs of who gives no sign of life."""
    queue: OnRedis | None = None
    """Where the queue is, if it is not beside the logs."""
    drain_s: float = 0.0
    """How long runs may go on to the end of their step when this process is told to stop."""
    leaving: Leaving = field(default_factory=Leaving)
    limits: LimitNews = field(default_factory=LimitNews)
    """What it tells the others of keys that are limited, and hears."""
    engine: Engine | None = None
    """Of the house, once that is open."""

    @property
    def drives(self) -> bool:
        return self.role != "api"

    def unready(self) -> str | None:
        """Return why this process is not ready; None if it is."""
        if self.leaving.is_over:
            return "this server is about to stop"
        if self.drives and (self.engine is None or not self.engine.serves):
            return "no runs are driven here yet, or the queue cannot be reached"
        return None

    def open(self, place: Path | str | None) -> tuple[Engine, Pace]:
        """Return the engine of a house, and its line.  Raises SetupError."""
        self.engine, pace = make_engine(place, self.lease_s, self.queue)
        return self.engine, pace

    def outbox(self, place: Path | str | None) -> Outbox | None:
        """Return what rings for runs that became active, if the commit itself does not."""
        assert self.engine is not None
        return outbox_of(self.engine, place, self.queue)

    @property
    def here(self) -> Here:
        return Here(self.unready, self.leaving.send_away)

    @property
    def stop(self) -> Stop:
        """Return what ends with the server: no more runs are taken, and those there are, left."""
        return Stop(self._begin, self._rest)

    def _begin(self) -> None:
        if self.engine is not None:
            self.engine.drain()
        if self.drain_s:
            self.leaving.begin()

    async def _rest(self) -> None:
        with anyio.move_on_after(self.drain_s) as time_is_up:
            await self.leaving.left()
        if time_is_up.cancelled_caught and self.drain_s:
            log.warning(
                "steps that did not end in %g s are given up, to be taken elsewhere", self.drain_s
            )
