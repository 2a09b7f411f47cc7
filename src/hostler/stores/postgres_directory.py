"""The directory in the store's own database.

Invariant: what is checked and what is written are one transaction, in which what was checked stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from hostler.core.directory import ApiKey, Endpoint, Grant, Standing, Tenant
from hostler.core.errors import NotFound
from hostler.core.events import Key, PrincipalId, TenantId
from hostler.stores.beside_rows import (
    endpoint_row,
    grant_row,
    key_row,
    standing_of,
    tenant_row,
    to_endpoint,
    to_grant,
    to_json,
    to_key,
    to_tenant,
)
from hostler.stores.postgres import PostgresStore
from hostler.stores.postgres_alone import lock_head
from hostler.stores.postgres_wire import HOUSE, Wire
from hostler.stores.times import to_us

T = TypeVar("T")
TENANT = ("tenant", "title", "created_at", "settings")
KEY = (
    *("tenant", "id", "user", "role", "scopes", "prefix", "digest", "title"),
    *("created_at", "expires_at", "revoked_at", "used_at"),
)
ENDPOINT = ("tenant", "provider", "base_url", "created_at", "updated_at")
GRANT = ("tenant", "session", "user", "role", "by_whom", "at")


@dataclass(frozen=True, slots=True)
class PostgresDirectory:
    """A `core.directory.Directory`."""

    store: PostgresStore

    async def create_tenant(self, tenant: Tenant) -> bool:
        row = dict(zip(TENANT, tenant_row(tenant), strict=True))
        return self._told("tenants", await self.store.changing(tenant.id, "create_tenant", **row))

    async def tenant(self, tenant: TenantId) -> Tenant:
        return await self.store.reading(tenant, partial(_tenant, tenant, "tenant"))

    async def tenants(self, *, after: str, limit: int) -> Sequence[Tenant]:
        found = await self.store.finding(HOUSE, "tenants", after=after, limit=limit)
        return [to_tenant(row) for row in found]

    async def change_tenant(self, tenant: TenantId, change: Callable[[Tenant], Tenant]) -> Tenant:
        async def write(wire: Wire) -> Tenant:
            changed = change(await _tenant(tenant, "lock_tenant", wire))
            settings = to_json(changed.settings)
            await wire.run("change_tenant", title=changed.title, settings=settings, tenant=tenant)
            return changed

        return self._told("tenants", await self.store.writing(tenant, write))

    async def add_key(self, key: ApiKey) -> None:
        row = dict(zip(KEY, key_row(key), strict=True))

        async def write(wire: Wire) -> None:
            await _tenant(key.tenant, "lock_tenant", wire)
            await wire.run("add_key", **row)

        await self.store.writing(key.tenant, write)

    async def keys(
        self, tenant: TenantId, *, user: PrincipalId | None, after: str, limit: int
    ) -> Sequence[ApiKey]:
        found = await self.store.finding(
            tenant, "keys", tenant=tenant, user=user, after=after or None, limit=limit
        )
        return [to_key(row) for row in found]

    async def key(self, tenant: TenantId, key: str) -> ApiKey:
        found = await self.store.finding(tenant, "key", tenant=tenant, id=key)
        if not found:
            raise NotFound(f"no key {key}")
        return to_key(found[0])

    async def key_of_digest(self, digest: str) -> ApiKey | None:
        found = await self.store.finding(HOUSE, "key_of_digest", digest=digest)
        return to_key(found[0]) if found else None

    async def revoke_key(self, tenant: TenantId, key: str, *, at: float) -> None:
        async def write(wire: Wire) -> None:
            if not await wire.run("revoke_key", at=to_us(at), tenant=tenant, id=key):
                raise NotFound(f"no key {key}")

        self._told("keys", await self.store.writing(tenant, write))

    async def touch_keys(self, used: Mapping[tuple[TenantId, str], float]) -> None:
        if used:
            tenants, ids = zip(*used, strict=True)
            ats = [to_us(at) for at in used.values()]
            await self.store.running(HOUSE, "touch_keys", tenants=tenants, ids=ids, ats=ats)

    async def endpoints(self) -> Sequence[Endpoint]:
        return [to_endpoint(row) for row in await self.store.finding(HOUSE, "endpoints")]

    async def put_endpoint(self, endpoint: Endpoint) -> None:
        row = dict(zip(ENDPOINT, endpoint_row(endpoint), strict=True))

        async def write(wire: Wire) -> None:
            await _tenant(endpoint.tenant, "lock_tenant", wire)
            await wire.run("put_endpoint", **row)

        self._told("endpoints", await self.store.writing(endpoint.tenant, write))

    async def drop_endpoint(self, tenant: TenantId, provider: str) -> bool:
        given = {"tenant": tenant, "provider": provider}
        return self._told("endpoints", await self.store.changing(tenant, "drop_endpoint", **given))

    async def grant(self, grant: Grant) -> None:
        row = dict(zip(GRANT, grant_row(grant), strict=True))

        async def write(wire: Wire) -> None:
            await lock_head(wire, Key(grant.tenant, grant.session))
            await wire.run("grant", **row)

        await self.store.writing(grant.tenant, write)

    async def ungrant(self, key: Key, user: PrincipalId) -> None:
        tenant, session = key
        await self.store.running(tenant, "ungrant", tenant=tenant, session=session, user=user)

    async def grants(self, key: Key) -> Sequence[Grant]:
        tenant, session = key
        found = await self.store.finding(tenant, "grants", tenant=tenant, session=session)
        return [to_grant(row) for row in found]

    async def standing(self, key: Key, user: PrincipalId) -> Standing | None:
        tenant, session = key
        found = await self.store.finding(
            tenant, "standing", tenant=tenant, session=session, user=user
        )
        return standing_of(user, *found[0]) if found else None

    def _told(self, what: str, answer: T) -> T:
        """Return the answer to a change; then other processes may look."""
        self.store.tell_changed(what)
        return answer


async def _tenant(tenant: TenantId, name: str, wire: Wire) -> Tenant:
    row = await wire.row(name, tenant=tenant)
    if row is None:
        raise NotFound(f"no tenant {tenant}")
    return to_tenant(row)
