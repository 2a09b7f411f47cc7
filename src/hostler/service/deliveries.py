"""Deliveries of webhooks: made to try one out, read, and sent again.

Invariant: a delivery keeps its id and its words, however often it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from hostler.beside.notices import thin
from hostler.beside.webhooks import TEST, Delivery, DeliveryStatus, Webhook
from hostler.core.errors import Conflict
from hostler.core.events import Principal
from hostler.core.ports import World
from hostler.service.authorise import authorise
from hostler.service.webhooks import Outgoing, opened

DELIVERED_KEPT_S = 7 * 86_400.0
OTHERS_KEPT_S = 30 * 86_400.0
"""What was given up, or is held for a webhook that is disabled: it can be sent until then."""
TIDIED_AT_ONCE = 500
EVERY_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantDeliveries:
    """Without `outgoing`, each verb is a Conflict (`no_vault`)."""

    outgoing: Outgoing | None
    world: World

    async def test(self, who: Principal, webhook: str) -> Delivery:
        """Have an event sent that says nothing, to see whether it arrives.

        Raises:
            NotFound: there is no such webhook.
            Conflict: it is disabled (`webhook_disabled`).
        """
        authorise(who, "admin", None)
        out, now = opened(self.outgoing), self.world.clock()
        there = await out.rows.webhook(who.tenant, webhook)
        _check_enabled(there)
        made = Delivery(
            tenant=who.tenant,
            webhook=webhook,
            id=self.world.mint("evt"),
            type=TEST,
            body=thin(TEST, now, {"webhook": webhook}).decode(),
            created_at=now,
            next_at=now,
        )
        await out.rows.put(made)
        return made

    async def deliveries(
        self,
        who: Principal,
        webhook: str,
        *,
        status: DeliveryStatus | None,
        after: str,
        limit: int,
    ) -> Sequence[Delivery]:
        """Return what was and is to be sent, newest first.  Raises NotFound."""
        authorise(who, "admin", None)
        rows = opened(self.outgoing).rows
        return await rows.deliveries(who.tenant, webhook, status=status, after=after, limit=limit)

    async def replay(self, who: Principal, webhook: str, delivery: str) -> Delivery:
        """Have a delivery sent now, whether or not it has arrived, and tried as if it were new.

        Its id stays: receivers know by it that they have seen it.

        Raises:
            NotFound: there is no such webhook, or no such delivery of it (any more).
            Conflict: the webhook is disabled (`webhook_disabled`).
        """
        authorise(who, "admin", None)
        now = self.world.clock()

        def again(hook: Webhook, row: Delivery) -> tuple[Webhook, Delivery]:
            _check_enabled(hook)
            replays = row.replays + 1
            return hook, replace(row, status="pending", step=0, replays=replays, next_at=now)

        rows = opened(self.outgoing).rows
        _, made = await rows.alter(who.tenant, webhook, delivery, again, at=now)
        return made

    async def tidy(self) -> None:
        """Remove what is over and old."""
        if self.outgoing is None:
            return
        now, rows = self.world.clock(), self.outgoing.rows
        delivered, others = now - DELIVERED_KEPT_S, now - OTHERS_KEPT_S
        while await rows.tidy(delivered=delivered, others=others, limit=TIDIED_AT_ONCE):
            pass


def _check_enabled(webhook: Webhook) -> None:
    if webhook.disabled_at is not None:
        raise Conflict("this webhook is disabled: enable it first", code="webhook_disabled")
