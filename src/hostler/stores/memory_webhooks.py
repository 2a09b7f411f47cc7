"""Webhooks and their deliveries in dicts: the twin of `sqlite_webhooks` for stores in memory.

Invariant: the same facts make the same deliveries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec import Struct
from msgspec.structs import replace

from hostler.beside.notices import Happened, Notice, began, notices, tellable
from hostler.beside.webhooks import (
    Delivery,
    DeliveryStatus,
    Due,
    Outcome,
    Webhook,
    WebhookChange,
)
from hostler.core.errors import NotFound
from hostler.core.events import Event, Key, TenantId, UserSpoke
from hostler.core.head import Head


def _nobody() -> None:
    """Nobody listens."""


@dataclass(slots=True)
class MemoryWebhooks:
    """A `beside.webhooks.Webhooks`; a store in memory has one."""

    _ring: Callable[[], None] = _nobody
    _hooks: dict[tuple[TenantId, str], Webhook] = field(
        default_factory=dict[tuple[TenantId, str], Webhook]
    )
    _rows: dict[tuple[TenantId, str, str], Delivery] = field(
        default_factory=dict[tuple[TenantId, str, str], Delivery]
    )

    def note(
        self, key: Key, agent: str, head: Head, log: Sequence[Event], events: Sequence[Event]
    ) -> None:
        """Keep what is to be told of events that were appended to a log after this `head`."""
        hooks = [one for (of, _), one in self._hooks.items() if of == key.tenant]
        hooks = [one for one in hooks if one.disabled_at is None]
        for event in tellable(head, events) if hooks else ():
            for told in notices(_happened(key, agent, log, event)):
                self._tell(hooks, told, event.at)

    def _tell(self, hooks: Sequence[Webhook], told: Notice, at: float) -> None:
        for hook in hooks:
            if hook.events is None or told.type in hook.events:
                made = Delivery(
                    tenant=hook.tenant,
                    webhook=hook.id,
                    id=told.id,
                    type=told.type,
                    body=told.body.decode(),
                    created_at=at,
                    next_at=at,
                )
                self._rows.setdefault((hook.tenant, hook.id, told.id), made)
        self._ring()

    def rows(self, tenant: TenantId) -> list[Struct]:
        """Return all of a tenant's, to be masked in their places."""
        hooks = [one for (of, _), one in self._hooks.items() if of == tenant]
        return [*hooks, *(one for (of, _, _), one in self._rows.items() if of == tenant)]

    def listen(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    async def add(self, webhook: Webhook, *, most: int) -> bool:
        if sum(of == webhook.tenant for of, _ in self._hooks) >= most:
            return False
        self._hooks[webhook.tenant, webhook.id] = replace(webhook)
        return True

    async def webhook(self, tenant: TenantId, webhook: str) -> Webhook:
        return replace(self._hook(tenant, webhook))

    async def webhooks(self, tenant: TenantId, *, after: str, limit: int) -> Sequence[Webhook]:
        found = [
            one
            for (of, name), one in self._hooks.items()
            if of == tenant and (not after or name < after)
        ]
        found.sort(key=lambda one: one.id, reverse=True)
        return [replace(one) for one in found[:limit]]

    async def change(
        self, tenant: TenantId, webhook: str, change: WebhookChange, *, at: float
    ) -> Webhook:
        there = self._hook(tenant, webhook)
        return self._changed(there, change(replace(there)), at)

    async def remove(self, tenant: TenantId, webhook: str) -> Webhook:
        there = self._hook(tenant, webhook)
        del self._hooks[tenant, webhook]
        for row in self._of(there):
            del self._rows[tenant, webhook, row.id]
        return there

    async def rotated(self, before: float) -> Sequence[Webhook]:
        return [
            replace(one)
            for one in self._hooks.values()
            if one.old_until is not None and one.old_until <= before
        ]

    async def put(self, delivery: Delivery) -> None:
        self._hook(delivery.tenant, delivery.webhook)
        self._rows[delivery.tenant, delivery.webhook, delivery.id] = replace(delivery)
        self._ring()

    async def deliveries(
        self,
        tenant: TenantId,
        webhook: str,
        *,
        status: DeliveryStatus | None,
        after: str,
        limit: int,
    ) -> Sequence[Delivery]:
        found = [
            one
            for one in self._of(self._hook(tenant, webhook))
            if status in (None, one.status) and (not after or one.id < after)
        ]
        found.sort(key=lambda one: one.id, reverse=True)
        return [replace(one) for one in found[:limit]]

    async def due(self, now: float, *, each: int) -> Due:
        found = list[tuple[float, Webhook, Delivery]]()
        for hook in self._hooks.values():
            mine = [(one.next_at, one) for one in self._of(hook) if one.next_at is not None]
            mine = sorted((one for one in mine if one[0] <= now), key=lambda one: one[0])
            found += [(at, replace(hook), replace(one)) for at, one in mine[:each]]
        found.sort(key=lambda one: one[0])
        later = [one.next_at for one in self._rows.values() if one.next_at is not None]
        soonest = min((at for at in later if at > now), default=None)
        return Due([(hook, one) for _, hook, one in found], soonest)

    async def take(self, of: Sequence[Delivery], *, now: float, until: float) -> Sequence[Delivery]:
        del now, until  # nobody else sends
        return of

    async def alter(
        self, tenant: TenantId, webhook: str, delivery: str, outcome: Outcome, *, at: float
    ) -> tuple[Webhook, Delivery]:
        there, row = self._hook(tenant, webhook), self._rows.get((tenant, webhook, delivery))
        if row is None:
            raise NotFound(f"no delivery {delivery}")
        hook, made = outcome(replace(there), replace(row))
        self._rows[tenant, webhook, delivery] = made
        hook = self._changed(there, hook, at)
        self._ring()
        return hook, replace(self._rows[tenant, webhook, delivery])

    async def tidy(self, *, delivered: float, others: float, limit: int) -> int:
        old = [
            (one.created_at, place)
            for place, one in self._rows.items()
            if one.next_at is None
            and one.created_at < (delivered if one.status == "delivered" else others)
        ]
        gone = [place for _, place in sorted(old)[:limit]]
        for place in gone:
            del self._rows[place]
        return len(gone)

    def _hook(self, tenant: TenantId, webhook: str) -> Webhook:
        found = self._hooks.get((tenant, webhook))
        if found is None:
            raise NotFound(f"no webhook {webhook}")
        return found

    def _of(self, hook: Webhook) -> list[Delivery]:
        mine = (hook.tenant, hook.id)
        return [one for place, one in self._rows.items() if place[:2] == mine]

    def _changed(self, before: Webhook, made: Webhook, at: float) -> Webhook:
        was_on, is_on = before.disabled_at is None, made.disabled_at is None
        self._hooks[made.tenant, made.id] = made
        for row in self._of(made) if was_on != is_on else ():
            if not is_on:
                row.next_at = None
            elif row.status == "pending" and row.next_at is None:
                row.next_at = at
        self._ring()
        return replace(made)


def _happened(key: Key, agent: str, log: Sequence[Event], event: Event) -> Happened:
    """Return a fact with what its notices need of the log that it is in."""
    run = event.fact.run
    so_far = [one for one in log if one.seq <= event.seq and one.fact.run == run]
    known = began(run, ((one.seq, one.raw) for one in so_far if isinstance(one.fact, UserSpoke)))
    since = known.since
    wanted = () if since is None else [one for one in so_far if one.seq >= since]
    return Happened(key, agent, event, known, wanted)
