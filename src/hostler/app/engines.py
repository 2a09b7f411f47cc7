"""Which engine drives the runs: it goes by where the logs are, and by what is wanted.

Invariant: beside a file, or nothing, one process drives; on PostgreSQL, as many as like to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hostler.app import wiring
from hostler.core.ports import Engine
from hostler.core.store import Outbox
from hostler.engine.pace import AT_ONCE, Pace
from hostler.engine.queuer import EmbeddedEngine

LEASE_S = 5.0
"""After which the runs of a node that gives no sign of life are another one's."""
AHEAD = 2 * AT_ONCE
"""Runs of the queue that may stand in this process's line: enough for it to be never idle, and few
enough that what more there is waits in the queue's fair order, where any node may take it."""


class OnRedis(NamedTuple):
    """Where the queue is, if it is not beside the logs."""

    url: str
    fleet: str
    """What all names in it begin with."""


def make_engine(
    place: Path | str | None, lease_s: float, queue: OnRedis | None = None
) -> tuple[Engine, Pace]:
    """Return the engine for logs in a PostgreSQL database (a URL), a file, or memory; and the line.

    Raises:
        SetupError: what speaks to PostgreSQL or to Redis is not installed.
    """
    pace = Pace()
    ahead = partial(_room, pace)
    if not isinstance(place, str):
        return EmbeddedEngine(ahead=ahead), pace
    if queue is not None:
        return wiring.redis_engine(*queue, lease_s=lease_s, ahead=ahead), pace
    return wiring.postgres_engine(place, lease_s=lease_s, ahead=ahead), pace


def _room(pace: Pace) -> int:
    return AHEAD - pace.waiting


def outbox_of(
    engine: Engine, place: Path | str | None, queue: OnRedis | None = None
) -> Outbox | None:
    """Return what rings for runs that became active, if the commit itself does not."""
    commits_ring = isinstance(place, str) and queue is None
    return None if commits_ring else engine.enqueue


@dataclass(frozen=True, slots=True)
class Lines:
    """A `service.admission.Line`: this process's, and the queue before it."""

    pace: Pace
    engine: Engine

    @property
    def waiting(self) -> int:
        return self.pace.waiting + self.engine.waiting()[0]

    @property
    def each_s(self) -> float:
        return self.pace.each_s

    @property
    def stands_s(self) -> float:
        return self.pace.stands_s
