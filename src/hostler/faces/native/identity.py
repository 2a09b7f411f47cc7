"""Tenants, keys, members and who one is, as operations of the native API.

Invariant: a handler reads its call, calls one verb of the service and shapes the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from starlette.types import ASGIApp

from hostler.core.audited import about
from hostler.core.events import SessionId
from hostler.faces.http import form
from hostler.faces.http.answers import Answer, page
from hostler.faces.http.endpoint import Call, Operation, number
from hostler.faces.native import bodies
from hostler.faces.native import identity_bodies as own
from hostler.service.keys import NewKey
from hostler.service.service import Service

MEMBER = "/api/sessions/{session}/members/{user}"
PAGES = {"after": "the last id of the page before", "limit": "1 to 1000, default 100"}


@dataclass(frozen=True, slots=True)
class Identity:
    """The handlers, on one service."""

    service: Service

    async def me(self, call: Call) -> ASGIApp:
        who, key = call.who, await self.service.keys.own(call.who)
        about = bodies.Me(
            id=who.id,
            tenant=who.tenant,
            role=who.role,
            user=who.user,
            scopes=None if who.scopes is None else sorted(who.scopes),
            is_operator=who.is_operator,
            key=None if key is None else key.id,
            prefix=None if key is None else key.prefix,
            expires_at=None if call.until is None else form.stamp(call.until),
        )
        return Answer(200, about)

    async def create_tenant(self, call: Call) -> ASGIApp:
        body = cast("own.NewTenant", call.body)
        about("tenant", body.id)
        made = await self.service.tenants.create(
            call.who, tenant=body.id, title=body.title, settings=body.settings
        )
        return Answer(201, own.view_tenant(made))

    async def list_tenants(self, call: Call) -> ASGIApp:
        limit = number(call, "limit", default=100, most=1000)
        after = call.query.get("after", "")
        found = await self.service.tenants.list(call.who, after=after, limit=limit + 1)
        return page([own.view_tenant(one) for one in found], limit)

    async def get_tenant(self, call: Call) -> ASGIApp:
        found = await self.service.tenants.get(call.who, call.path["tenant"])
        return Answer(200, own.view_tenant(found))

    async def change_tenant(self, call: Call) -> ASGIApp:
        body = cast("own.TenantChanges", call.body)
        changed = await self.service.tenants.change(
            call.who, call.path["tenant"], title=body.title, settings=body.settings
        )
        return Answer(200, own.view_tenant(changed))

    async def create_key(self, call: Call) -> ASGIApp:
        body = cast("own.NewApiKey", call.body)
        wanted = NewKey(
            user=body.user,
            role=body.role,
            scopes=body.scopes,
            title=body.title,
            expires_in_s=body.expires_in_s,
        )
        key, text = await self.service.keys.create(call.who, wanted, tenant=body.tenant)
        return Answer(201, own.view_new_key(key, text), ((b"cache-control", b"no-store"),))

    async def list_keys(self, call: Call) -> ASGIApp:
        limit = number(call, "limit", default=100, most=1000)
        after = call.query.get("after", "")
        found = await self.service.keys.list(call.who, after=after, limit=limit + 1)
        return page([own.view_key(one) for one in found], limit)

    async def revoke_key(self, call: Call) -> ASGIApp:
        await self.service.keys.revoke(call.who, call.path["key"])
        return Answer(204)

    async def list_members(self, call: Call) -> ASGIApp:
        found = await self.service.members.list(call.who, SessionId(call.path["session"]))
        return page([own.view_member(one) for one in found], len(found), mark="user")

    async def add_member(self, call: Call) -> ASGIApp:
        body = cast("own.NewMember", call.body)
        grant = await self.service.members.add(
            call.who, SessionId(call.path["session"]), call.path["user"], role=body.role
        )
        return Answer(200, own.view_member(grant))

    async def remove_member(self, call: Call) -> ASGIApp:
        session = SessionId(call.path["session"])
        await self.service.members.remove(call.who, session, call.path["user"])
        return Answer(204)


def table(service: Service) -> list[Operation]:
    """Return every operation about who there is, in the order of the documentation."""
    do = Identity(service)
    return [_me(do), *_tenants(do), *_keys(do), *_members(do)]


def _me(do: Identity) -> Operation:
    return Operation(
        method="GET",
        path="/api/me",
        name="me",
        summary="Who the key belongs to",
        run=do.me,
        returns={200: bodies.Me},
    )


def _tenants(do: Identity) -> list[Operation]:
    return [
        Operation(
            method="POST",
            path="/api/tenants",
            name="create_tenant",
            summary="Make a tenant; only the operator, with the admin key, does",
            run=do.create_tenant,
            audited="tenant.create",
            body=own.NewTenant,
            returns={201: own.TenantView},
            errors=(403, 409),
            keeps=False,
        ),
        Operation(
            method="GET",
            path="/api/tenants",
            name="list_tenants",
            summary="Tenants by id: to the operator all, to others their own",
            run=do.list_tenants,
            query=PAGES,
            returns={200: own.TenantPage},
            errors=(403, 422),
        ),
        Operation(
            method="GET",
            path="/api/tenants/{tenant}",
            name="get_tenant",
            summary="One tenant",
            run=do.get_tenant,
            returns={200: own.TenantView},
            errors=(403, 404),
        ),
        Operation(
            method="PATCH",
            path="/api/tenants/{tenant}",
            name="change_tenant",
            summary="Set the title, or what is otherwise for this tenant; only the operator does",
            run=do.change_tenant,
            audited="tenant.change",
            body=own.TenantChanges,
            returns={200: own.TenantView},
            errors=(403, 404),
        ),
    ]


def _keys(do: Identity) -> list[Operation]:
    return [
        Operation(
            method="POST",
            path="/api/keys",
            name="create_key",
            summary="Make a key, which is shown this once",
            run=do.create_key,
            audited="key.create",
            body=own.NewApiKey,
            returns={201: own.NewKeyView},
            errors=(403, 404),
            keeps=False,
        ),
        Operation(
            method="GET",
            path="/api/keys",
            name="list_keys",
            summary="The tenant's keys, newest first; to a member their own",
            run=do.list_keys,
            query=PAGES,
            returns={200: own.KeyPage},
            errors=(403, 422),
        ),
        Operation(
            method="DELETE",
            path="/api/keys/{key}",
            name="revoke_key",
            summary="End a key, and the streams and sockets opened with it; safe to repeat",
            run=do.revoke_key,
            audited="key.revoke",
            returns={204: None},
            errors=(403, 404),
        ),
    ]


def _members(do: Identity) -> list[Operation]:
    return [
        Operation(
            method="GET",
            path="/api/sessions/{session}/members",
            name="list_members",
            summary="With whom the session is shared, by user",
            run=do.list_members,
            returns={200: own.MemberPage},
            errors=(403, 404),
        ),
        Operation(
            method="PUT",
            path=MEMBER,
            name="add_member",
            summary="Share the session with a user, to read (viewer) or to write (member)",
            run=do.add_member,
            audited="grant.set",
            body=own.NewMember,
            returns={200: own.MemberView},
            errors=(403, 404),
        ),
        Operation(
            method="DELETE",
            path=MEMBER,
            name="remove_member",
            summary="Share it with them no more, and end what they have open; safe to repeat",
            run=do.remove_member,
            audited="grant.remove",
            returns={204: None},
            errors=(403, 404),
        ),
    ]
