"""Runs as data, asked for in SQLite: a run's calls and ratings, and sums; and direct calls, kept.

Invariant: of what logs tell it only reads, but for `rebuild`, which changes nothing that is right.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from hostler.core.events import PrincipalId, RunId, TenantId
from hostler.core.ledger import By, Calls, DirectCall, Rating, Spent
from hostler.stores.ledger_rows import direct_row, to_llm_row, to_rating, to_spent, to_tool_row
from hostler.stores.log_rows import Row
from hostler.stores.sqlite_entries import mark_stale, rebuild_some
from hostler.stores.sqlite_rows import SQL, asking
from hostler.stores.times import to_us

T = TypeVar("T")
FORGOTTEN_AT_ONCE = 500
"""Direct calls in one commit."""
GROUPS: dict[By, str] = {
    "tenant": "c.tenant",
    "user": "c.user",
    "agent": "c.agent",
    "model": "c.provider || ':' || c.model",
    "day": "strftime('%Y-%m-%d', c.asked_at / 1000000, 'unixepoch')",
}


class Lanes(Protocol):
    """A store's reader and writer; see `SqliteStore`."""

    async def reading(self, read: Callable[[sqlite3.Connection], T]) -> T: ...
    async def writing(self, write: Callable[[sqlite3.Connection], T]) -> T: ...
    async def entering(self, statement: str, row: Row) -> None: ...


@dataclass(frozen=True, slots=True)
class SqliteLedger:
    """A `core.ledger.Ledger` on a store's file."""

    store: Lanes

    async def calls(self, tenant: TenantId, run: RunId) -> Calls:
        def read(db: sqlite3.Connection) -> Calls:
            asked = (tenant, run)
            models = [to_llm_row(row) for row in db.execute(SQL["llm_calls"], asked)]
            return Calls(models, [to_tool_row(row) for row in db.execute(SQL["tool_runs"], asked)])

        return await self.store.reading(read)

    async def ratings(self, tenant: TenantId, run: RunId) -> Sequence[Rating]:
        return await self.store.reading(
            lambda db: [to_rating(row) for row in db.execute(SQL["feedback"], (tenant, run))]
        )

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
        wanted = {
            "tenant": tenant,
            "since": to_us(since),
            "before": to_us(before),
            "seen_by": seen_by,
            "limit": limit,
        }
        wanted |= {f"after_{place}": value for place, value in enumerate(after)}
        groups = ", ".join(GROUPS[one] for one in by)
        marks = ", ".join(f":after_{place}" for place in range(len(after)))
        asked = asking("usage", *(["seen_by"] if seen_by is not None else []))
        asked = asked.replace("{past}", f"HAVING ({groups}) > ({marks})" if after else "")
        asked = asked.replace("{groups}", groups)
        return await self.store.reading(
            lambda db: [to_spent(by, row) for row in db.execute(asked, wanted)]
        )

    async def keep_direct(self, call: DirectCall) -> None:
        await self.store.entering("upsert_direct_calls", direct_row(call))

    async def forget_direct(self, tenant: TenantId, before: float) -> int:
        asked = (tenant, to_us(before), FORGOTTEN_AT_ONCE)
        return await self.store.writing(
            lambda db: db.execute(SQL["forget_direct_calls"], asked).rowcount
        )

    async def rebuild(self) -> None:
        """Make all rows of all sessions anew from their logs, some sessions per commit."""
        await self.store.writing(mark_stale)
        while await self.store.writing(rebuild_some):
            pass
