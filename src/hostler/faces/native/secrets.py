"""Operations on secrets: set, listed, removed, rotated, scrubbed.

Invariant: no answer has a value, and no request that has one is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from msgspec import Meta, Struct
from starlette.types import ASGIApp

from hostler.core.sealed import LONGEST, Named, Purpose, Scrubbed
from hostler.faces.http.answers import Answer
from hostler.faces.http.endpoint import Call, Operation
from hostler.faces.http.form import stamp
from hostler.service.service import Service

PATH = "/api/secrets"
VALUE = r"\S[\s\S]{6,}\S"
"""Of a value: what is around it does not count."""


class NewSecret(Struct, kw_only=True, forbid_unknown_fields=True):
    value: Annotated[str, Meta(max_length=LONGEST, pattern=VALUE)]
    """8 to 16,384 characters."""
    kind: Purpose | None = None
    """model, tool or webhook; else what the name says before a colon, or tool."""


class NewScrub(Struct, kw_only=True, forbid_unknown_fields=True):
    value: Annotated[str, Meta(max_length=LONGEST, pattern=VALUE)] | None = None
    """One that is no secret here; else all that are."""


class SecretView(Struct, kw_only=True):
    name: str
    kind: str
    created_at: str
    updated_at: str


class SecretPage(Struct, kw_only=True):
    items: list[SecretView]
    cursor: str | None
    more: bool


class Rotated(Struct, kw_only=True):
    data_keys: int
    """How many were wrapped again."""


class ScrubView(Struct, kw_only=True):
    id: str
    at: str
    principal: str
    facts: int
    rows: int
    files: int
    unread: int
    """Facts that this build cannot read, and so left as they are."""
    sessions: list[str]


@dataclass(frozen=True, slots=True)
class _Handlers:
    service: Service

    async def put(self, call: Call) -> ASGIApp:
        body = cast("NewSecret", call.body)
        named, is_new = await self.service.secrets.put(
            call.who, call.path["secret"], value=body.value, kind=body.kind
        )
        return Answer(201 if is_new else 200, _view(named))

    async def list(self, call: Call) -> ASGIApp:
        found = [_view(one) for one in await self.service.secrets.list(call.who)]
        cursor = found[-1].name if found else None
        return Answer(200, SecretPage(items=found, cursor=cursor, more=False))

    async def remove(self, call: Call) -> ASGIApp:
        await self.service.secrets.remove(call.who, call.path["secret"])
        return Answer(204)

    async def rotate(self, call: Call) -> ASGIApp:
        return Answer(200, Rotated(data_keys=await self.service.secrets.rotate(call.who)))

    async def scrub(self, call: Call) -> ASGIApp:
        body = cast("NewScrub", call.body)
        return Answer(200, _scrubbed(await self.service.secrets.scrub(call.who, value=body.value)))


def table(service: Service) -> list[Operation]:
    """Return the operations, in the order of the documentation."""
    do = _Handlers(service)
    return [
        Operation(
            method="GET",
            path=PATH,
            name="list_secrets",
            summary="The tenant's secrets by name, without their values",
            run=do.list,
            returns={200: SecretPage},
            errors=(403, 409),
        ),
        Operation(
            method="PUT",
            path=f"{PATH}/{{secret}}",
            name="put_secret",
            summary="Keep a secret under a name; its value is never returned",
            run=do.put,
            audited="secret.set",
            body=NewSecret,
            returns={201: SecretView, 200: SecretView},
            errors=(403, 409, 422),
        ),
        Operation(
            method="DELETE",
            path=f"{PATH}/{{secret}}",
            name="remove_secret",
            summary="Remove a secret",
            run=do.remove,
            audited="secret.remove",
            returns={204: None},
            errors=(403, 404, 409),
        ),
        Operation(
            method="POST",
            path="/api/secrets-rotation",
            name="rotate_master_key",
            summary="Wrap all tenants' data keys with the newest master key; safe to repeat",
            run=do.rotate,
            audited="secret.rotate",
            returns={200: Rotated},
            errors=(403, 409),
            keeps=False,
        ),
        Operation(
            method="POST",
            path="/api/secrets-scrub",
            name="scrub_secrets",
            summary="Mask secrets in what was written before they were known; safe to repeat",
            run=do.scrub,
            audited="secret.scrub",
            body=NewScrub,
            returns={200: ScrubView},
            errors=(403, 409, 422),
            keeps=False,
        ),
    ]


def _view(named: Named) -> SecretView:
    return SecretView(
        name=named.name,
        kind=named.kind,
        created_at=stamp(named.created_at),
        updated_at=stamp(named.updated_at),
    )


def _scrubbed(done: Scrubbed) -> ScrubView:
    return ScrubView(
        id=done.id,
        at=stamp(done.at),
        principal=done.principal,
        facts=done.facts,
        rows=done.rows,
        files=done.files,
        unread=done.unread,
        sessions=list(done.sessions),
    )
