"""Operations on webhooks: where the tenant is told what happened, and whether that arrived.

Invariant: a secret is in the one answer to whoever had it made, and in no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.types import ASGIApp

from hostler.beside.webhooks import Delivery, DeliveryStatus, EventType, Webhook
from hostler.core.events import JsonObject
from hostler.faces.http.answers import Answer, page
from hostler.faces.http.endpoint import Call, Operation, number, one_of
from hostler.faces.http.form import stamp
from hostler.service.limits import LONGEST_TITLE, LONGEST_WEBHOOK_URL
from hostler.service.service import Service
from hostler.service.webhooks import LONGEST_OLD_S, OLD_GOOD_FOR_S, Changes

PATH = "/api/webhooks"
NO_STORE = ((b"cache-control", b"no-store"),)
STATUSES: Sequence[DeliveryStatus] = get_args(DeliveryStatus)
Url = Annotated[str, Meta(max_length=LONGEST_WEBHOOK_URL)]
"""https, or http where the operator lets it; without user name, password and fragment."""
Wanted = Annotated[list[EventType], Meta(min_length=1)]
Said = Annotated[str, Meta(max_length=LONGEST_TITLE)]
_object: msgspec.json.Decoder[JsonObject] = msgspec.json.Decoder(dict[str, object])


class NewWebhook(Struct, kw_only=True, forbid_unknown_fields=True):
    url: Url
    """https, or http where the operator lets it; without user name, password and fragment."""
    events: Wanted | None = None
    """What it is told of; null: of all, and of what there will be."""
    description: Said | None = None


class WebhookChanges(Struct, kw_only=True, forbid_unknown_fields=True):
    url: Url | UnsetType = UNSET
    events: Wanted | UnsetType | None = UNSET
    description: Said | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    """False: nothing is kept for it, and what was pending is held; true: that is sent."""


class NewWebhookSecret(Struct, kw_only=True, forbid_unknown_fields=True):
    old_good_for_s: Annotated[float, Meta(ge=0, le=LONGEST_OLD_S)] = OLD_GOOD_FOR_S
    """For so long, what is sent is signed with the old one as well."""


class WebhookView(Struct, kw_only=True):
    id: str
    url: str
    events: list[str] | None
    description: str | None
    enabled: bool
    disabled_at: str | None
    disabled_because: str | None
    """asked; gone: it answered 410; failing: every try of the last five days failed."""
    failures: int
    """Tries in a row that failed."""
    failing_since: str | None
    old_secret_until: str | None
    created_at: str
    updated_at: str


class NewWebhookView(WebhookView, kw_only=True):
    secret: str
    """Shown this once."""


class WebhookPage(Struct, kw_only=True):
    items: list[WebhookView]
    cursor: str | None
    more: bool


class DeliveryView(Struct, kw_only=True):
    id: str
    """The `webhook-id` with which it is sent, each time."""
    type: str
    status: str
    """pending, delivered, or given_up."""
    tries: int
    code: int | None
    """The status that the last try was answered with."""
    error: str | None
    """Why the last try had no answer."""
    created_at: str
    tried_at: str | None
    next_at: str | None
    """null: it is over, or the webhook is disabled."""
    body: JsonObject


class DeliveryPage(Struct, kw_only=True):
    items: list[DeliveryView]
    cursor: str | None
    more: bool


@dataclass(frozen=True, slots=True)
class _Handlers:
    service: Service

    async def create(self, call: Call) -> ASGIApp:
        body = cast("NewWebhook", call.body)
        made, secret = await self.service.webhooks.create(
            call.who, url=body.url, events=body.events, description=body.description
        )
        return Answer(201, _new(made, secret), NO_STORE)

    async def list(self, call: Call) -> ASGIApp:
        limit = number(call, "limit", default=100, most=1000)
        after = call.query.get("after", "")
        found = await self.service.webhooks.list(call.who, after=after, limit=limit + 1)
        return page([_view(one) for one in found], limit)

    async def get(self, call: Call) -> ASGIApp:
        return Answer(200, _view(await self.service.webhooks.get(call.who, call.path["webhook"])))

    async def change(self, call: Call) -> ASGIApp:
        body = cast("WebhookChanges", call.body)
        changes = Changes(body.url, body.events, body.description, body.enabled)
        made = await self.service.webhooks.change(call.who, call.path["webhook"], changes)
        return Answer(200, _view(made))

    async def remove(self, call: Call) -> ASGIApp:
        await self.service.webhooks.remove(call.who, call.path["webhook"])
        return Answer(204)

    async def rotate(self, call: Call) -> ASGIApp:
        body = cast("NewWebhookSecret", call.body)
        made, secret = await self.service.webhooks.rotate(
            call.who, call.path["webhook"], old_good_for_s=body.old_good_for_s
        )
        return Answer(200, _new(made, secret), NO_STORE)

    async def test(self, call: Call) -> ASGIApp:
        made = await self.service.deliveries.test(call.who, call.path["webhook"])
        return Answer(202, _delivery(made))

    async def deliveries(self, call: Call) -> ASGIApp:
        limit = number(call, "limit", default=100, most=1000)
        found = await self.service.deliveries.deliveries(
            call.who,
            call.path["webhook"],
            status=cast("DeliveryStatus | None", one_of(call, "status", STATUSES)),
            after=call.query.get("after", ""),
            limit=limit + 1,
        )
        return page([_delivery(one) for one in found], limit)

    async def replay(self, call: Call) -> ASGIApp:
        made = await self.service.deliveries.replay(
            call.who, call.path["webhook"], call.path["delivery"]
        )
        return Answer(202, _delivery(made))


def table(service: Service) -> list[Operation]:
    """Return the operations, in the order of the documentation."""
    do = _Handlers(service)
    one, pages = (
        f"{PATH}/{{webhook}}",
        {
            "after": "the last id of the page before",
            "limit": "1 to 1000, default 100",
        },
    )
    return [
        Operation(
            method="POST",
            path=PATH,
            name="create_webhook",
            summary="Have a URL told what happens; its secret is shown this once",
            run=do.create,
            audited="webhook.create",
            body=NewWebhook,
            returns={201: NewWebhookView},
            errors=(403, 409, 422),
            keeps=False,
        ),
        Operation(
            method="GET",
            path=PATH,
            name="list_webhooks",
            summary="The tenant's webhooks, newest first",
            run=do.list,
            query=pages,
            returns={200: WebhookPage},
            errors=(403, 409, 422),
        ),
        Operation(
            method="GET",
            path=one,
            name="get_webhook",
            summary="One webhook, and whether it works",
            run=do.get,
            returns={200: WebhookView},
            errors=(403, 404, 409),
        ),
        Operation(
            method="PATCH",
            path=one,
            name="change_webhook",
            summary="Change what is named, switch it off, or on again",
            run=do.change,
            audited="webhook.change",
            body=WebhookChanges,
            returns={200: WebhookView},
            errors=(403, 404, 409, 422),
        ),
        Operation(
            method="DELETE",
            path=one,
            name="remove_webhook",
            summary="Remove a webhook, with its deliveries",
            run=do.remove,
            audited="webhook.remove",
            returns={204: None},
            errors=(403, 404, 409),
        ),
        Operation(
            method="POST",
            path=f"{one}/rotate",
            name="rotate_webhook",
            summary="Give it a new secret, shown this once; for a while the old one signs, too",
            run=do.rotate,
            audited="webhook.rotate",
            body=NewWebhookSecret,
            returns={200: NewWebhookView},
            errors=(403, 404, 409, 422),
            keeps=False,
        ),
        Operation(
            method="POST",
            path=f"{one}/test",
            name="test_webhook",
            summary="Send it an event that says nothing; its deliveries tell what came of it",
            run=do.test,
            audited="webhook.test",
            returns={202: DeliveryView},
            errors=(403, 404, 409),
            keeps=False,
        ),
        Operation(
            method="GET",
            path=f"{one}/deliveries",
            name="list_deliveries",
            summary="What was and is to be sent to it, newest first",
            run=do.deliveries,
            query={**pages, "status": "one of: pending, delivered, given_up"},
            returns={200: DeliveryPage},
            errors=(403, 404, 409, 422),
        ),
        Operation(
            method="POST",
            path=f"{one}/deliveries/{{delivery}}/replay",
            name="replay_delivery",
            summary="Send a delivery again, now, under the same id",
            run=do.replay,
            audited="webhook.replay",
            returns={202: DeliveryView},
            errors=(403, 404, 409),
            keeps=False,
        ),
    ]


def _view(of: Webhook) -> WebhookView:
    return WebhookView(
        id=of.id,
        url=of.url,
        events=None if of.events is None else list(of.events),
        description=of.description,
        enabled=of.disabled_at is None,
        disabled_at=_time(of.disabled_at),
        disabled_because=of.disabled_because,
        failures=of.failures,
        failing_since=_time(of.failing_since),
        old_secret_until=_time(of.old_until),
        created_at=stamp(of.created_at),
        updated_at=stamp(of.updated_at),
    )


def _new(of: Webhook, secret: str) -> NewWebhookView:
    return NewWebhookView(**msgspec.structs.asdict(_view(of)), secret=secret)


def _delivery(of: Delivery) -> DeliveryView:
    return DeliveryView(
        id=of.id,
        type=of.type,
        status=of.status,
        tries=of.tries,
        code=of.code,
        error=of.error,
        created_at=stamp(of.created_at),
        tried_at=_time(of.tried_at),
        next_at=_time(of.next_at),
        body=_object.decode(of.body),
    )


def _time(at: float | None) -> str | None:
    return None if at is None else stamp(at)
