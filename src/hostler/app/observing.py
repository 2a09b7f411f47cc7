"""What a house lets others see of itself, and the one that is seen by nobody.

Invariant: unobserved, a house does nothing that it would not do without this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hostler.core.events import RunKey
from hostler.core.ledger import DirectCall
from hostler.core.ports import Agents, Handler
from hostler.core.store import Observer, Store
from hostler.service.scraping import Scraping


class Rooms(Protocol):
    """What can be read in a house at any time."""

    def queue(self) -> tuple[int, float]:
        """Return how many runs are due and wait, and for how many seconds the oldest."""
        ...

    def watchers(self) -> int: ...
    def admission(self) -> tuple[int, int]:
        """Return how many runs may be active, and how many were refused."""
        ...

    def bus(self) -> tuple[bool, int, int] | None:
        """Return whether the bus is up, what was sent and what was dropped; None without one."""
        ...


class Observing(Protocol):
    """Who looks."""

    @property
    def scraping(self) -> Scraping: ...
    @property
    def committed(self) -> Callable[[float, int], None] | None:
        """Told, on the store's thread, what each commit took, and how many orders were in it."""
        ...

    def observer(self, publish: Observer) -> Observer:
        """Return what is told of each append, and publishes it."""
        ...

    def first(self, key: RunKey) -> None:
        """Take in that the first of an attempt's text came."""
        ...

    def direct(self, call: DirectCall) -> None:
        """Take in that a client's question to a model itself is over."""
        ...

    def naming(self, agents: Agents) -> Agents: ...
    def driven(self, handler: Handler, store: Store, worker: str) -> Handler:
        """Return the ring round what drives runs."""
        ...

    def enter(self, rooms: Rooms) -> None: ...
    async def watch(self) -> None:
        """Look until cancelled."""
        ...


class Unobserved:
    """Nobody looks."""

    scraping = Scraping()
    committed = None

    def observer(self, publish: Observer) -> Observer:
        return publish

    def first(self, key: RunKey) -> None: ...
    def direct(self, call: DirectCall) -> None: ...
    def naming(self, agents: Agents) -> Agents:
        return agents

    def driven(self, handler: Handler, store: Store, worker: str) -> Handler:
        del store, worker
        return handler

    def enter(self, rooms: Rooms) -> None: ...
    async def watch(self) -> None: ...


UNOBSERVED: Observing = Unobserved()
