"""Webhooks and their deliveries in the store's own database.

Invariant: what is checked and what is written are one transaction, in which what was checked stays.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar, cast

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
from hostler.stores.postgres import PostgresStore
from hostler.stores.postgres_wire import HOUSE, Wire
from hostler.stores.times import to_seconds, to_us
from hostler.stores.webhook_rows import (
    DELIVERY,
    HOOK,
    to_delivery,
    to_webhook,
    webhook_row,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PostgresWebhooks:
    """A `beside.webhooks.Webhooks`, of which several processes have one on the same rows."""

    store: PostgresStore
    name: str = field(default_factory=partial(secrets.token_hex, 8))
    """Who takes deliveries here."""

    def listen(self, ring: Callable[[], None]) -> None:
        self.store.listen(ring)

    async def add(self, webhook: Webhook, *, most: int) -> bool:
        async def write(wire: Wire) -> bool:
            await wire.rows("lock_webhooks", tenant=webhook.tenant)
            ((number,),) = await wire.rows("count_webhooks", tenant=webhook.tenant)
            if cast("int", number) >= most:
                return False
            await _put(wire, webhook)
            return True

        return await self.store.writing(webhook.tenant, write)

    async def webhook(self, tenant: TenantId, webhook: str) -> Webhook:
        async def read(wire: Wire) -> Webhook:
            return await _webhook(wire, "webhook", tenant, webhook)

        return await self.store.reading(tenant, read)

    async def webhooks(self, tenant: TenantId, *, after: str, limit: int) -> Sequence[Webhook]:
        found = await self.store.finding(
            tenant, "webhooks", tenant=tenant, after=after or None, limit=limit
        )
        return [to_webhook(row) for row in found]

    async def change(
        self, tenant: TenantId, webhook: str, change: WebhookChange, *, at: float
    ) -> Webhook:
        async def write(wire: Wire) -> Webhook:
            there = await _webhook(wire, "lock_webhook", tenant, webhook)
            return await _changed(wire, there, change(msgspec.structs.replace(there)), at)

        return await self._rung(tenant, write)

    async def remove(self, tenant: TenantId, webhook: str) -> Webhook:
        async def write(wire: Wire) -> Webhook:
            there = await _webhook(wire, "lock_webhook", tenant, webhook)
            await wire.run("delete_webhook", tenant=tenant, id=webhook)
            return there

        return await self.store.writing(tenant, write)

    async def rotated(self, before: float) -> Sequence[Webhook]:
        found = await self.store.finding(HOUSE, "rotated_webhooks", before=to_us(before))
        return [to_webhook(row) for row in found]

    async def put(self, delivery: Delivery) -> None:
        async def write(wire: Wire) -> None:
            await _webhook(wire, "lock_webhook", delivery.tenant, delivery.webhook)
            await _put(wire, delivery)

        await self._rung(delivery.tenant, write)

    async def deliveries(
        self,
        tenant: TenantId,
        webhook: str,
        *,
        status: DeliveryStatus | None,
        after: str,
        limit: int,
    ) -> Sequence[Delivery]:
        wanted: dict[str, object] = {"tenant": tenant, "webhook": webhook, "limit": limit}
        wanted |= {"status": status, "after": after or None}

        async def read(wire: Wire) -> Sequence[Delivery]:
            await _webhook(wire, "webhook", tenant, webhook)
            return [to_delivery(row) for row in await wire.rows("deliveries", **wanted)]

        return await self.store.reading(tenant, read)

    async def due(self, now: float, *, each: int) -> Due:
        now_us, split = to_us(now), len(HOOK)

        async def read(wire: Wire) -> Due:
            rows = await wire.rows("due_deliveries", now=now_us, each=each, me=self.name)
            ((soonest,),) = await wire.rows("next_delivery", now=now_us, me=self.name)
            found = [(to_webhook(row[:split]), to_delivery(row[split:])) for row in rows]
            return Due(found, to_seconds(soonest))

        return await self.store.reading(HOUSE, read)

    async def take(self, of: Sequence[Delivery], *, now: float, until: float) -> Sequence[Delivery]:
        if not of:
            return ()
        names = sorted((one.tenant, one.webhook, one.id) for one in of)
        tenants, webhooks, ids = zip(*names, strict=True)

        async def write(wire: Wire) -> Sequence[Sequence[object]]:
            return await wire.rows(
                "take_deliveries",
                me=self.name,
                now=to_us(now),
                until=to_us(until),
                tenants=tenants,
                webhooks=webhooks,
                ids=ids,
            )

        taken = {*map(tuple, await self.store.writing(HOUSE, write))}
        return [one for one in of if (one.tenant, one.webhook, one.id) in taken]

    async def alter(
        self, tenant: TenantId, webhook: str, delivery: str, outcome: Outcome, *, at: float
    ) -> tuple[Webhook, Delivery]:
        async def write(wire: Wire) -> tuple[Webhook, Delivery]:
            there = await _webhook(wire, "lock_webhook", tenant, webhook)
            row = await _delivery(wire, tenant, webhook, delivery)
            hook, made = outcome(msgspec.structs.replace(there), msgspec.structs.replace(row))
            await _put(wire, made)
            if made.tries != row.tries:
                where = {"tenant": tenant, "webhook": webhook, "id": delivery}
                await wire.run("leave_delivery", me=self.name, **where)
            hook = await _changed(wire, there, hook, at)
            return hook, await _delivery(wire, tenant, webhook, delivery)

        return await self._rung(tenant, write)

    async def tidy(self, *, delivered: float, others: float, limit: int) -> int:
        return await self.store.running(
            HOUSE,
            "tidy_deliveries",
            delivered=to_us(delivered),
            others=to_us(others),
            limit=limit,
        )

    async def _rung(self, tenant: TenantId, write: Callable[[Wire], Awaitable[T]]) -> T:
        """Return what is answered; then something may be due."""
        answer = await self.store.writing(tenant, write)
        self.store.ring()
        return answer


async def _changed(wire: Wire, before: Webhook, made: Webhook, at: float) -> Webhook:
    """Write a webhook over what it was, and what follows for its deliveries."""
    if made == before:
        return made
    await _put(wire, made)
    was_on, is_on = before.disabled_at is None, made.disabled_at is None
    if was_on and not is_on:
        await wire.run("hold_deliveries", tenant=made.tenant, id=made.id)
    elif is_on and not was_on:
        await wire.run("release_deliveries", at=to_us(at), tenant=made.tenant, id=made.id)
    return made


async def _put(wire: Wire, of: Webhook | Delivery) -> None:
    if isinstance(of, Webhook):
        await wire.run("put_webhook", **dict(zip(HOOK, webhook_row(of), strict=True)))
    else:
        await wire.run("put_delivery", **dict(zip(DELIVERY, webhook_row(of), strict=True)))


async def _webhook(wire: Wire, name: str, tenant: TenantId, webhook: str) -> Webhook:
    row = await wire.row(name, tenant=tenant, id=webhook)
    if row is None:
        raise NotFound(f"no webhook {webhook}")
    return to_webhook(row)


async def _delivery(wire: Wire, tenant: TenantId, webhook: str, delivery: str) -> Delivery:
    row = await wire.row("delivery", tenant=tenant, webhook=webhook, id=delivery)
    if row is None:
        raise NotFound(f"no delivery {delivery}")
    return to_delivery(row)
