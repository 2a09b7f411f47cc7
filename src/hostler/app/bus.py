"""The live bus of a fleet, if one is set; without it, a server hears itself alone.

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
    if settings.redis is None:
        return None
    wire = cast("Wire", wiring.redis_wire()(settings.redis.get_secret_value()))
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
