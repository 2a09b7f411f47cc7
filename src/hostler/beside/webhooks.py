"""Webhooks: where a tenant is told what happened, and the deliveries of that.

Stores write a delivery in the commit of the fact that it tells; a worker sends it until somebody
has taken it, or nobody will.  No rule about when and how is here: whoever changes a row says what
it becomes, and the store sees that nothing comes between.

Invariant: no row has what signs: of a secret, only the name under which the vault has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from hostler.core.events import TenantId

EventType: TypeAlias = Literal[
    "run.completed",
    "run.failed",
    "run.cancelled",
    "approval.requested",
    "response.completed",
    "response.failed",
    "response.cancelled",
    "response.incomplete",
]
"""What can be told; `response.…` of runs that a client of the Responses API began."""
TEST = "webhook.test"
"""Told when somebody asks for it, whatever the webhook is for."""
Because: TypeAlias = Literal["asked", "gone", "failing"]
"""Why a webhook is disabled: somebody wanted it, its receiver said so (410), or never took any."""
DeliveryStatus: TypeAlias = Literal["pending", "delivered", "given_up"]


class Webhook(Struct, kw_only=True):
    """Where a tenant is told, and how that went."""

    tenant: TenantId
    id: str
    url: str
    secret: str
    """The vault's name for what signs."""
    created_at: float
    updated_at: float
    """Unix seconds, as all times here."""
    events: tuple[EventType, ...] | None = None
    """None: of all."""
    description: str | None = None
    old_secret: str | None = None
    """The name of the one before, which signs too until `old_until`."""
    old_until: float | None = None
    disabled_at: float | None = None
    disabled_because: Because | None = None
    failures: int = 0
    """Tries in a row that failed, over all deliveries."""
    failing_since: float | None = None
    """When the first of those was."""


class Delivery(Struct, kw_only=True):
    """One event for one webhook."""

    tenant: TenantId
    webhook: str
    id: str
    """Of the event, and so the `webhook-id`: the same at each try, and for each webhook."""
    type: str
    body: str
    """JSON, as it is sent and signed."""
    created_at: float
    status: DeliveryStatus = "pending"
    tries: int = 0
    step: int = 0
    """Tries that failed since it was due for the first time, or since it was last replayed."""
    replays: int = 0
    tried_at: float | None = None
    code: int | None = None
    """What the last try was answered."""
    error: str | None = None
    """Why there was no answer."""
    next_at: float | None = None
    """None: it is over, or its webhook is disabled."""


class Due(NamedTuple):
    deliveries: Sequence[tuple[Webhook, Delivery]]
    soonest: float | None
    """When the next one is due after these; None: none waits."""


class Posted(NamedTuple):
    """What came of one try."""

    code: int | None = None
    retry_after: str | None = None
    """The header of that name, as it was."""
    error: str | None = None
    """Why there was no answer; names no address."""
    is_theirs: bool = True
    """False: it was for this server that nothing could be sent."""


class Post(Protocol):
    """Sends to a place that a tenant names, by the operator's rules."""

    async def __call__(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Posted:
        """Return what was answered, or why nothing was, in bounded time; follow no redirect."""
        ...

    async def aclose(self) -> None:
        """Let go of what is open; it is opened again when something is sent."""
        ...


WebhookChange: TypeAlias = Callable[[Webhook], Webhook]
Outcome: TypeAlias = Callable[[Webhook, Delivery], tuple[Webhook, Delivery]]


class Webhooks(Protocol):
    """Where webhooks and deliveries are kept; a store's appends write deliveries themselves.

    That is, one for each webhook that is enabled and wants the event, in the same commit as the fact,
    due at once.  What is written twice is there once.  All methods raise Unavailable when the
    storage cannot serve now.
    """

    def listen(self, ring: Callable[[], None]) -> None:
        """Have `ring` called, on the event loop, after a commit after which something may be due."""
        ...

    async def add(self, webhook: Webhook, *, most: int) -> bool:
        """Keep a new one; return False, and change nothing, if its tenant has `most` already."""
        ...

    async def webhook(self, tenant: TenantId, webhook: str) -> Webhook:
        """Return one.  Raises NotFound."""
        ...

    async def webhooks(self, tenant: TenantId, *, after: str, limit: int) -> Sequence[Webhook]:
        """Return the tenant's, newest first, past the id `after` ("" for the newest)."""
        ...

    async def change(
        self, tenant: TenantId, webhook: str, change: WebhookChange, *, at: float
    ) -> Webhook:
        """Set it to what `change` makes of what is there at this moment; return that.

        What is pending of one that becomes disabled is held, and due `at` when it is enabled again.
        Nothing is changed when `change` raises; it does nothing else.  Raises NotFound.
        """
        ...

    async def remove(self, tenant: TenantId, webhook: str) -> Webhook:
        """Remove one with its deliveries; return what it was.  Raises NotFound."""
        ...

    async def rotated(self, before: float) -> Sequence[Webhook]:
        """Return those, of all tenants, whose old secret was good until `before` or earlier."""
        ...

    async def put(self, delivery: Delivery) -> None:
        """Keep a delivery.  Raises NotFound: there is no such webhook."""
        ...

    async def deliveries(
        self,
        tenant: TenantId,
        webhook: str,
        *,
        status: DeliveryStatus | None,
        after: str,
        limit: int,
    ) -> Sequence[Delivery]:
        """Return those of a webhook, newest first, past the id `after`.  Raises NotFound."""
        ...

    async def due(self, now: float, *, each: int) -> Due:
        """Return what is due by `now`, of all tenants: of each webhook the `each` longest due.

        What another process has taken is left out, until it is free.
        """
        ...

    async def take(self, of: Sequence[Delivery], *, now: float, until: float) -> Sequence[Delivery]:
        """Return those of what is due that this process may send; until then, no other one may.

        A try that is written with `alter` frees one at once; of who is gone they are free then.
        Taken until `now`, they are given back.
        Storage that one process has gives all of them, and writes nothing.
        """
        ...

    async def alter(
        self, tenant: TenantId, webhook: str, delivery: str, outcome: Outcome, *, at: float
    ) -> tuple[Webhook, Delivery]:
        """Set a webhook and one of its deliveries to what `outcome` makes of them, as `change`.

        Raises NotFound: one of them is gone.
        """
        ...

    async def tidy(self, *, delivered: float, others: float, limit: int) -> int:
        """Remove deliveries that arrived before `delivered`, and others that are not due any more
        and older than `others`; at most so many.  Return how many were.
        """
        ...
