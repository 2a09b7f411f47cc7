"""The live bus of a fleet: Redis if one is set, else the database if that is PostgreSQL.

A server on a SQLite file is the only one, and hears itself alone.

Invariant: a server whose bus is down does all that it does without one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, cast

from hostler.app import wiring
from hostler.app.settings import Settings
from hostler.core.news import ALONE, Nodes, Signals
from hostler.signals.driving import Read
from hostler.signals.fleet import FleetSignals
from hostler.signals.local import LocalSignals
from hostler.signals.wire import Wire

Bus: TypeAlias = Callable[[LocalSignals], FleetSignals]
"""Makes a server a node of a fleet."""


def make_bus(settings: Settings) -> Bus | None:
    """Return what settings say about a bus.

    Raises:
        SetupError: the URL is none of a Redis, or the extra `fleet` is not installed.
    """
    if settings.redis is not None:
        wire = cast("Wire", wiring.redis_wire()(settings.redis.get_secret_value()))
    elif isinstance(settings.place, str):
        wire = cast("Wire", wiring.notify_wire()(settings.place))
    else:
        return None
    return partial(FleetSignals, wire=wire, fleet=settings.fleet)


@dataclass(frozen=True, slots=True)
class News:
    """What is told in this process, and to the other nodes, if there may be any."""

    local: LocalSignals
    fleet: FleetSignals | None

    @staticmethod
    def of(local: LocalSignals, bus: Bus | None) -> News:
        return News(local, None if bus is None else bus(local))

    @property
    def signals(self) -> Signals:
        return self.fleet or self.local

    @property
    def nodes(self) -> Nodes:
        return self.fleet or ALONE

    def watching(self) -> int:
        return self.local.watching

    def peers(self) -> int:
        """Return how many other nodes there are."""
        return 0 if self.fleet is None else self.fleet.peers

    def figures(self) -> tuple[bool, int, int] | None:
        """Return whether the bus is up, what was sent and what was dropped; None without one."""
        if self.fleet is None:
            return None
        sent, dropped = self.fleet.figures
        return self.fleet.is_up, sent, dropped

    async def serve(self, read: Read) -> None:
        """Hear the other nodes, until cancelled; `read`: the log."""
        if self.fleet is not None:
            await self.fleet.serve(read)
