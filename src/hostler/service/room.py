"""Room for sessions: how many more a tenant may make.

Counting them all is slow, so it is done once, and again when what was left then is used up;
meanwhile deleting makes no room, which is on the safe side.

Invariant: nobody makes a session without having taken room for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from hostler.core.errors import Conflict
from hostler.core.events import TenantId
from hostler.core.ports import Store
from hostler.service.limits import MOST_SESSIONS


@dataclass(frozen=True, slots=True)
class Room:
    store: Store
    most: int = MOST_SESSIONS
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
        if self._left[tenant] <= 0:
            async with self._counting:
                await self._count(tenant)
        self._left[tenant] -= 1
        self._making[tenant] += 1
        try:
            yield
        except BaseException:
            self._left[tenant] += 1
            raise
        finally:
            self._making[tenant] -= 1

    async def _count(self, tenant: TenantId) -> None:
        if self._left[tenant] > 0:
            return  # somebody has counted while we waited
        making = self._making[tenant]
        self._left[tenant] = self.most - making - await self.store.count(tenant)
        if self._left[tenant] <= 0:
            told = f"there are {self.most:,} sessions, which is all there may be: delete some"
            raise Conflict(told, code="too_many_sessions")
