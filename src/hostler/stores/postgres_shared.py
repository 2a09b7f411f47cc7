"""What processes on one database tell each other by its rows.

Invariant: the number of a change is written by the transaction that makes it (see the triggers in
`sql/postgres_0003.sql`), whichever build that is of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from hostler.core.events import TenantId
from hostler.stores.postgres import PostgresStore
from hostler.stores.postgres_wire import HOUSE, Wire
from hostler.stores.times import to_us


@dataclass(frozen=True, slots=True)
class PostgresShared:
    """A `beside.shared.Shared`."""

    store: PostgresStore

    def listen(self, tell: Callable[[str], None]) -> None:
        self.store.tell_changed = tell

    async def changes(self) -> Mapping[str, int]:
        found = await self.store.finding(HOUSE, "changes")
        return dict(cast("list[tuple[str, int]]", found))

    async def keep_ticket(
        self, tenant: TenantId, digest: str, holder: bytes, *, until: float
    ) -> None:
        row = {"tenant": tenant, "digest": digest, "holder": holder.decode()}
        now_us = self.store.now_us()

        async def write(wire: Wire) -> None:
            await wire.run("delete_old_tickets", now=now_us)
            await wire.run("keep_ticket", until=to_us(until), **row)

        await self.store.writing(tenant, write)

    async def take_ticket(self, digest: str) -> tuple[bytes, float] | None:
        async def write(wire: Wire) -> tuple[object, ...] | None:
            return await wire.row("take_ticket", digest=digest)

        row = await self.store.writing(HOUSE, write)
        if row is None:
            return None
        return str(row[0]).encode(), cast("int", row[1]) / 1_000_000
