"""Room for sessions and runs: how many more a tenant may make, and have active.

Counting them all is slow, so it is done once, and again when what was left then is used up;
meanwhile deleting makes no room, which is on the safe side.  Active runs are few, and are counted
for those tenants that have a limit.

Invariant: nobody makes a session, or begins a run, without having taken room for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import anyio

from hostler.core.directory import TenantSettings
from hostler.core.errors import Conflict, TooMany
from hostler.core.events import Key, TenantId
from hostler.core.store import Store
from hostler.service.limits import MOST_SESSIONS

SettingsOf: TypeAlias = Callable[[TenantId], Awaitable[TenantSettings]]


async def _nothing_else(_: TenantId) -> TenantSettings:
    return TenantSettings()


@dataclass(frozen=True, slots=True)
class Room:
    store: Store
    most: int = MOST_SESSIONS
    settings_of: SettingsOf = _nothing_else
    _counted: dict[TenantId, int] = field(default_factory=dict[TenantId, int])
    """How many there might be when they were counted."""
    _left: Counter[TenantId] = field(default_factory=Counter[TenantId])
    _making: Counter[TenantId] = field(default_factory=Counter[TenantId])
    """Sessions that a count may not see yet."""
    _counting: anyio.Lock = field(default_factory=anyio.Lock)

    @asynccontextmanager
    async def one(self, tenant: TenantId) -> AsyncGenerator[None]:
        """Take room for one session; given back if making it fails.

        Raises:
            Conflict: there is none (`too_many_sessions`).
        """
        own = (await self.settings_of(tenant)).most_sessions
        most = self.most if own is None else min(own, self.most)
        if self._left[tenant] <= 0 or self._counted.get(tenant) != most:
            async with self._counting:
                await self._count(tenant, most)
        self._left[tenant] -= 1
        self._making[tenant] += 1
        try:
            yield
        except BaseException:
            self._left[tenant] += 1
            raise
        finally:
            self._making[tenant] -= 1

    async def _count(self, tenant: TenantId, most: int) -> None:
        if self._left[tenant] > 0 and self._counted.get(tenant) == most:
            return  # somebody has counted while we waited
        making = self._making[tenant]
        self._left[tenant] = most - making - await self.store.count(tenant)
        self._counted[tenant] = most
        if self._left[tenant] <= 0:
            told = f"there are {most:,} sessions, which is all there may be: delete some"
            raise Conflict(told, code="too_many_sessions")


@dataclass(frozen=True, slots=True)
class Running:
    """Room for active runs, in tenants that have a limit."""

    store: Store
    settings_of: SettingsOf = _nothing_else
    _entering: Counter[TenantId] = field(default_factory=Counter[TenantId])

    @asynccontextmanager
    async def one(self, key: Key, *, is_new: bool = False) -> AsyncGenerator[None]:
        """Take room for a run that may begin in a session; what is said to one that goes on needs none.

        `is_new`: the session is made with it.

        Raises:
            TooMany: there is none.
        """
        most = (await self.settings_of(key.tenant)).most_active_runs
        if most is None:
            yield
            return
        self._entering[key.tenant] += 1
        try:
            going = await self.store.count(key.tenant, active=True)
            is_full = going + self._entering[key.tenant] > most
            if is_full and (is_new or (await self.store.head(key)).active is None):
                raise TooMany(f"{most:,} runs are active, which is all there may be")
            yield
        finally:
            self._entering[key.tenant] -= 1
