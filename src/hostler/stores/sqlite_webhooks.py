"""Webhooks and their deliveries in the store's own SQLite file.

Invariant: what is checked and what is written are one piece of work of the one writer, which knows
of a webhook from the commit on in which it is kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import msgspec

from hostler.beside.webhooks import (
    Delivery,
    DeliveryStatus,
    Due,
    Outcome,
    Webhook,
    WebhookChange,
)
from hostler.core.errors import NotFound
from hostler.core.events import TenantId
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_rows import SQL, read_list
from hostler.stores.times import to_seconds, to_us
from hostler.stores.webhook_rows import HOOK, to_delivery, to_webhook, webhook_row


class SqliteWebhooks:
    """A `beside.webhooks.Webhooks`."""

    def __init__(self, store: SqliteStore) -> None:
        self._store, self._notices = store, store.notices

    def listen(self, ring: Callable[[], None]) -> None:
        self._notices.ring = ring

    async def add(self, webhook: Webhook, *, most: int) -> bool:
        def write(db: sqlite3.Connection) -> bool:
            if db.execute(SQL["count_webhooks"], (webhook.tenant,)).fetchone()[0] >= most:
                return False
            db.execute(SQL["put_webhook"], webhook_row(webhook))
            self._notices.read()
            return True

        return await self._store.writing(write)

    async def webhook(self, tenant: TenantId, webhook: str) -> Webhook:
        return await self._store.reading(lambda db: _webhook(db, tenant, webhook))

    async def webhooks(self, tenant: TenantId, *, after: str, limit: int) -> Sequence[Webhook]:
        wanted = {"tenant": tenant, "after": after or None, "limit": limit}
        return await self._store.reading(
            lambda db: [to_webhook(row) for row in read_list(db, "webhooks", wanted)]
        )

    async def change(
        self, tenant: TenantId, webhook: str, change: WebhookChange, *, at: float
    ) -> Webhook:
        def write(db: sqlite3.Connection) -> Webhook:
            there = _webhook(db, tenant, webhook)
            return self._changed(db, there, change(msgspec.structs.replace(there)), at)

        return await self._store.writing(write)

    async def remove(self, tenant: TenantId, webhook: str) -> Webhook:
        def write(db: sqlite3.Connection) -> Webhook:
            there = _webhook(db, tenant, webhook)
            db.execute(SQL["delete_webhook"], (tenant, webhook))
            db.execute(SQL["delete_deliveries"], (tenant, webhook))
            self._notices.read()
            return there

        return await self._store.writing(write)

    async def rotated(self, before: float) -> Sequence[Webhook]:
        before_us = to_us(before)
        return await self._store.reading(
            lambda db: [
                to_webhook(row) for row in db.execute(SQL["rotated_webhooks"], (before_us,))
            ]
        )

    async def put(self, delivery: Delivery) -> None:
        def write(db: sqlite3.Connection) -> None:
            _webhook(db, delivery.tenant, delivery.webhook)
            db.execute(SQL["put_delivery"], webhook_row(delivery))
            self._notices.changed()

        await self._store.writing(write)

    async def deliveries(
        self,
        tenant: TenantId,
        webhook: str,
        *,
        status: DeliveryStatus | None,
        after: str,
        limit: int,
    ) -> Sequence[Delivery]:
        wanted = {"tenant": tenant, "webhook": webhook, "status": status, "limit": limit}

        def read(db: sqlite3.Connection) -> list[Delivery]:
            _webhook(db, tenant, webhook)
            rows = read_list(db, "deliveries", {**wanted, "after": after or None})
            return [to_delivery(row) for row in rows]

        return await self._store.reading(read)

    async def due(self, now: float, *, each: int) -> Due:
        now_us = to_us(now)

        def read(db: sqlite3.Connection) -> Due:
            rows = db.execute(SQL["due_deliveries"], {"now": now_us, "each": each})
            split = len(HOOK)
            found = [(to_webhook(row[:split]), to_delivery(row[split:])) for row in rows]
            (soonest,) = db.execute(SQL["next_delivery"], (now_us,)).fetchone()
            return Due(found, to_seconds(soonest))

        return await self._store.reading(read)

    async def take(self, of: Sequence[Delivery], *, now: float, until: float) -> Sequence[Delivery]:
        del now, until  # nobody else sends
        return of

    async def alter(
        self, tenant: TenantId, webhook: str, delivery: str, outcome: Outcome, *, at: float
    ) -> tuple[Webhook, Delivery]:
        def write(db: sqlite3.Connection) -> tuple[Webhook, Delivery]:
            there = _webhook(db, tenant, webhook)
            row = db.execute(SQL["delivery"], (tenant, webhook, delivery)).fetchone()
            if row is None:
                raise NotFound(f"no delivery {delivery}")
            hook, made = outcome(msgspec.structs.replace(there), to_delivery(row))
            db.execute(SQL["put_delivery"], webhook_row(made))
            if made.next_at is not None:
                self._notices.changed()
            hook = self._changed(db, there, hook, at)
            row = db.execute(SQL["delivery"], (tenant, webhook, delivery)).fetchone()
            return hook, to_delivery(row)

        return await self._store.writing(write)

    async def tidy(self, *, delivered: float, others: float, limit: int) -> int:
        wanted = {"delivered": to_us(delivered), "others": to_us(others), "limit": limit}
        return await self._store.writing(
            lambda db: db.execute(SQL["tidy_deliveries"], wanted).rowcount
        )

    def _changed(
        self, db: sqlite3.Connection, before: Webhook, made: Webhook, at: float
    ) -> Webhook:
        """Write a webhook over what it was, and what follows for its deliveries."""
        if made == before:
            return made
        db.execute(SQL["put_webhook"], webhook_row(made))
        was_on, is_on = before.disabled_at is None, made.disabled_at is None
        if was_on and not is_on:
            db.execute(SQL["hold_deliveries"], (made.tenant, made.id))
        elif is_on and not was_on:
            db.execute(SQL["release_deliveries"], (to_us(at), made.tenant, made.id))
            self._notices.changed()
        if (was_on, before.events) != (is_on, made.events):
            self._notices.read()
        return made


def _webhook(db: sqlite3.Connection, tenant: TenantId, webhook: str) -> Webhook:
    row = db.execute(SQL["webhook"], (tenant, webhook)).fetchone()
    if row is None:
        raise NotFound(f"no webhook {webhook}")
    return to_webhook(row)
