"""What sessions leave behind, and when it goes: files with their session, and old sessions.

Invariant: a session with a run that is active, or waits for somebody, is never taken; nor is one
that was touched after it was chosen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import anyio

from hostler.core.errors import NotFound, Unavailable
from hostler.core.events import Key
from hostler.core.news import Signals
from hostler.core.ports import Store, World

log = logging.getLogger(__name__)

EVERY_S = 3600.0
BATCH = 50
"""Sessions that are chosen at once."""
DAY_S = 86_400.0
NO_LIMIT = 2**62


class Leftovers(Protocol):
    """What is kept of sessions outside of the store."""

    async def remove(self, key: Key) -> None:
        """Remove all of a session.  Absent ones are fine."""
        ...

    async def keys(self) -> Iterable[Key]:
        """Return the sessions of which something is kept."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting:
    """Removes sessions, with all that they leave behind."""

    store: Store
    signals: Signals
    leftovers: Leftovers | None = None

    async def forget(self, key: Key, *, idle_since: float | None = None) -> None:
        """Remove a session and end its streams; `idle_since` as in `Store.delete`."""
        gone = await self.store.delete(key, idle_since=idle_since)
        self.signals.lost(key)
        if self.leftovers is not None:
            for session in gone:
                await self.leftovers.remove(Key(key.tenant, session))

    async def sweep(self) -> None:
        """Remove what is left of sessions that are gone: a crash came between."""
        for key in () if self.leftovers is None else await self.leftovers.keys():
            try:
                await self.store.head(key)
            except NotFound:
                await self.forget(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Which sessions are kept: those touched in the last `days`, and of each tenant's the
    `sessions` that were touched last.  0: all of them.
    """

    days: float = 0
    sessions: int = 0

    async def __call__(
        self, forgetting: Forgetting, world: World, *, every_s: float = EVERY_S
    ) -> None:
        """Forget the others, at once and then again and again, until cancelled."""
        while True:
            try:
                await self.once(forgetting, world)
            except Unavailable as error:
                log.warning("retention comes later: %s", error)
            await anyio.sleep(every_s)

    async def once(self, forgetting: Forgetting, world: World) -> None:
        """Forget what may go, a few at a time and never for more than half of the time."""
        await forgetting.store.tidy()
        await forgetting.sweep()
        chosen, last = await self._choose(forgetting.store, world), list[Key]()
        while chosen and chosen != last:
            since = world.clock()
            log.info("forgetting %d session(s) by retention", len(chosen))
            for key in chosen:
                began = anyio.current_time()
                await forgetting.forget(key, idle_since=since)
                await anyio.sleep(anyio.current_time() - began)
            chosen, last = await self._choose(forgetting.store, world), chosen

    async def _choose(self, store: Store, world: World) -> list[Key]:
        if not (self.days or self.sessions):
            return []
        before = world.clock() - self.days * DAY_S if self.days else 0.0
        keep = self.sessions or NO_LIMIT
        return [*await store.forgettable(before=before, keep=keep, limit=BATCH)]


FOR_EVER = Keep()
