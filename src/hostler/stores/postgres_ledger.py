"""Runs as data, asked for in PostgreSQL: a run's calls and ratings, and sums; and direct calls, kept.

Invariant: of what logs tell it only reads, but for `rebuild`, which changes nothing that is right.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from hostler.core.events import PrincipalId, RunId, TenantId
from hostler.core.ledger import By, Calls, DirectCall, Rating, Spent
from hostler.stores.ledger_rows import direct_row, to_llm_row, to_rating, to_spent, to_tool_row
from hostler.stores.log_rows import Row
from hostler.stores.postgres_rebuild import rebuild_some
from hostler.stores.postgres_wire import HOUSE, Wire
from hostler.stores.times import to_us

T = TypeVar("T")
FORGOTTEN_AT_ONCE = 500
"""Direct calls in one commit."""
GROUPS: dict[By, str] = {
    "tenant": "c.tenant",
    "user": 'c."user"',
    "agent": "c.agent",
    "model": "c.provider || ':' || c.model",
    "day": "to_char(to_timestamp(c.asked_at / 1000000) AT TIME ZONE 'UTC', 'YYYY-MM-DD') COLLATE \"C\"",
}


class Store(Protocol):
    """Whoever reads and writes; see `PostgresStore`."""

    async def reading(self, whose: TenantId | None, read: Callable[[Wire], Awaitable[T]]) -> T: ...
    async def writing(self, whose: TenantId | None, write: Callable[[Wire], Awaitable[T]]) -> T: ...
    async def finding(
        self, whose: TenantId | None, name: str, /, **given: object
    ) -> Sequence[tuple[object, ...]]: ...
    async def running(self, whose: TenantId | None, name: str, /, **given: object) -> int: ...
    async def entering(self, part: str, row: Row) -> None: ...


@dataclass(frozen=True, slots=True)
class PostgresLedger:
    """A `core.ledger.Ledger` on a store's database."""

    store: Store

    async def calls(self, tenant: TenantId, run: RunId) -> Calls:
        models = await self.store.finding(tenant, "llm_calls", tenant=tenant, run=run)
        tools = await self.store.finding(tenant, "tool_runs", tenant=tenant, run=run)
        return Calls([to_llm_row(row) for row in models], [to_tool_row(row) for row in tools])

    async def ratings(self, tenant: TenantId, run: RunId) -> Sequence[Rating]:
        found = await self.store.finding(tenant, "feedback", tenant=tenant, run=run)
        return [to_rating(row) for row in found]

    async def usage(
        self,
        tenant: TenantId,
        by: Sequence[By],
        *,
        since: float,
        before: float,
        after: Sequence[str],
        limit: int,
        seen_by: PrincipalId | None = None,
    ) -> Sequence[Spent]:
        wanted: dict[str, object] = {
            "tenant": tenant,
            "since": to_us(since),
            "before": to_us(before),
            "seen_by": seen_by,
            "limit": limit,
        }
        wanted |= {f"after_{place}": value for place, value in enumerate(after)}
        groups = ", ".join(GROUPS[one] for one in by)
        marks = ", ".join(f":after_{place}::text" for place in range(len(after)))
        past = f"HAVING ({groups}) > ({marks})" if after else ""
        filled = (("past", past), ("groups", groups))

        async def read(wire: Wire) -> Sequence[Spent]:
            return [to_spent(by, row) for row in await wire.asked("usage", wanted, filled)]

        return await self.store.reading(tenant, read)

    async def keep_direct(self, call: DirectCall) -> None:
        await self.store.entering("write_direct_calls", direct_row(call))

    async def forget_direct(self, tenant: TenantId, before: float) -> int:
        return await self.store.running(
            tenant,
            "forget_direct_calls",
            tenant=tenant,
            before=to_us(before),
            limit=FORGOTTEN_AT_ONCE,
        )

    async def rebuild(self) -> None:
        """Make all rows of all sessions anew from their logs, some sessions per commit."""
        await self.store.running(HOUSE, "mark_stale")
        while await self.store.writing(HOUSE, rebuild_some):
            pass
