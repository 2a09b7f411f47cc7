"""What sessions leave behind, and when it goes: files with their session, old sessions, direct calls.

Invariant: a session with a run that is active, or waits for somebody, is never taken; nor is one
that was touched after it was chosen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypedDict

import anyio

from hostler.core.directory import TenantSettings
from hostler.core.errors import NotFound
from hostler.core.events import Key, TenantId
from hostler.core.news import Signals
from hostler.core.ports import World
from hostler.core.store import Store
from hostler.service.authorise import Access
from hostler.service.tenants import Tenants

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
    tenants: Tenants | None = None
    access: Access = field(default_factory=Access)

    async def forget(self, key: Key, *, idle_since: float | None = None) -> None:
        """Remove a session and end its streams; `idle_since` as in `Store.delete`."""
        gone = await self.store.delete(key, idle_since=idle_since)
        self.access.forget(*key)
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


class Whose(TypedDict, total=False):
    """Of one tenant, or of all but some."""

    of: TenantId
    but: Sequence[TenantId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Which sessions are kept: those touched in the last `days`, and of each tenant's the
    `sessions` that were touched last; direct calls of the last `days`; and rows of the audit log for
    `audit_days`.  0: all of them.
    """

    days: float = 0
    sessions: int = 0
    audit_days: float = 0

    async def once(self, forgetting: Forgetting, world: World) -> None:
        """Forget what may go, a few at a time and never for more than half of the time."""
        await forgetting.store.tidy()
        await forgetting.sweep()
        others = list[TenantId]()
        if forgetting.tenants is not None:
            async for tenant in forgetting.tenants.every():
                keep = self._of(tenant.settings)
                await keep.forget_direct(forgetting.store, world, tenant.id)
                if keep != self:
                    others.append(tenant.id)
                    await keep.forget(forgetting, world, {"of": tenant.id})
        await self.forget(forgetting, world, {"but": others} if others else {})

    async def forget_direct(self, store: Store, world: World, tenant: TenantId) -> None:
        """Forget what a tenant's clients asked models themselves, once it is older than sessions are."""
        before = world.clock() - self.days * DAY_S
        while self.days:
            began = anyio.current_time()
            if not await store.ledger.forget_direct(tenant, before):
                return
            await anyio.sleep(anyio.current_time() - began)

    def _of(self, settings: TenantSettings) -> Keep:
        """Return what is kept of a tenant's."""
        days, sessions = settings.retention_days, settings.retention_sessions
        return Keep(
            days=self.days if days is None else days,
            sessions=self.sessions if sessions is None else sessions,
        )

    async def forget(self, forgetting: Forgetting, world: World, whose: Whose) -> None:
        """Forget what may go, of those tenants."""
        chosen, last = await self._choose(forgetting.store, world, whose), list[Key]()
        while chosen and chosen != last:
            since = world.clock()
            log.info("forgetting %d session(s) by retention", len(chosen))
            for key in chosen:
                began = anyio.current_time()
                await forgetting.forget(key, idle_since=since)
                await anyio.sleep(anyio.current_time() - began)
            chosen, last = await self._choose(forgetting.store, world, whose), chosen

    async def _choose(self, store: Store, world: World, whose: Whose) -> list[Key]:
        if not (self.days or self.sessions):
            return []
        before = world.clock() - self.days * DAY_S if self.days else 0.0
        keep = self.sessions or NO_LIMIT
        found = await store.forgettable(before=before, keep=keep, limit=BATCH, **whose)
        return [*found]


FOR_EVER = Keep()
