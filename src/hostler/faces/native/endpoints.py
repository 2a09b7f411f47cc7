"""Operations on endpoints: where a tenant has the models of a provider asked.

Invariant: a handler reads its call, calls one verb of the service and shapes the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from msgspec import Meta, Struct
from starlette.types import ASGIApp

from hostler.core.directory import Endpoint
from hostler.faces.http.answers import Answer
from hostler.faces.http.endpoint import Call, Operation
from hostler.faces.http.form import stamp
from hostler.service.endpoints import LONGEST
from hostler.service.service import Service

PATH = "/api/endpoints"


class NewEndpoint(Struct, kw_only=True, forbid_unknown_fields=True):
    base_url: Annotated[str, Meta(max_length=LONGEST)]
    """https, or http where the operator lets it; without user name, password and fragment."""


class EndpointView(Struct, kw_only=True):
    provider: str
    base_url: str
    created_at: str
    updated_at: str


class EndpointPage(Struct, kw_only=True):
    items: list[EndpointView]
    cursor: str | None
    more: bool


@dataclass(frozen=True, slots=True)
class _Handlers:
    service: Service

    async def list(self, call: Call) -> ASGIApp:
        found = [_view(one) for one in await self.service.endpoints.list(call.who)]
        cursor = found[-1].provider if found else None
        return Answer(200, EndpointPage(items=found, cursor=cursor, more=False))

    async def put(self, call: Call) -> ASGIApp:
        body = cast("NewEndpoint", call.body)
        endpoint, is_new = await self.service.endpoints.put(
            call.who, call.path["provider"], base_url=body.base_url
        )
        return Answer(201 if is_new else 200, _view(endpoint))

    async def remove(self, call: Call) -> ASGIApp:
        await self.service.endpoints.remove(call.who, call.path["provider"])
        return Answer(204)


def table(service: Service) -> list[Operation]:
    """Return the operations, in the order of the documentation."""
    do = _Handlers(service)
    return [
        Operation(
            method="GET",
            path=PATH,
            name="list_endpoints",
            summary="Where the tenant has models asked, instead of where the operator does",
            run=do.list,
            returns={200: EndpointPage},
            errors=(403,),
        ),
        Operation(
            method="PUT",
            path=f"{PATH}/{{provider}}",
            name="put_endpoint",
            summary="Have a provider's models asked at a URL, with the tenant's own key",
            run=do.put,
            audited="endpoint.set",
            body=NewEndpoint,
            returns={201: EndpointView, 200: EndpointView},
            errors=(403, 404, 422),
        ),
        Operation(
            method="DELETE",
            path=f"{PATH}/{{provider}}",
            name="remove_endpoint",
            summary="Have a provider's models asked where the operator does again",
            run=do.remove,
            audited="endpoint.remove",
            returns={204: None},
            errors=(403, 404),
        ),
    ]


def _view(endpoint: Endpoint) -> EndpointView:
    return EndpointView(
        provider=endpoint.provider,
        base_url=endpoint.base_url,
        created_at=stamp(endpoint.created_at),
        updated_at=stamp(endpoint.updated_at),
    )
