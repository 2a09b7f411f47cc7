"""The directory in dicts, beside a store in dicts.

Invariant: the promises of `core.directory.Directory`, but for what a process's end takes with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from hostler.core.directory import DEFAULT, ApiKey, Endpoint, Grant, Standing, Tenant
from hostler.core.errors import NotFound
from hostler.core.events import Key, PrincipalId, TenantId
from hostler.stores.memory import MemoryStore


class MemoryDirectory:
    """A `core.directory.Directory`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        default = Tenant(id=DEFAULT, title=None, created_at=time.time())
        self._tenants = {DEFAULT: default}
        self._keys: dict[tuple[TenantId, str], ApiKey] = {}
        self._endpoints: dict[tuple[TenantId, str], Endpoint] = {}

    async def create_tenant(self, tenant: Tenant) -> bool:
        return self._tenants.setdefault(tenant.id, tenant) is tenant

    async def tenant(self, tenant: TenantId) -> Tenant:
        found = self._tenants.get(tenant)
        if found is None:
            raise NotFound(f"no tenant {tenant}")
        return found

    async def tenants(self, *, after: str, limit: int) -> Sequence[Tenant]:
        return [self._tenants[one] for one in sorted(self._tenants) if one > after][:limit]

    async def change_tenant(self, tenant: TenantId, change: Callable[[Tenant], Tenant]) -> Tenant:
        changed = change(await self.tenant(tenant))
        self._tenants[tenant] = changed
        return changed

    async def add_key(self, key: ApiKey) -> None:
        await self.tenant(key.tenant)
        self._keys[key.tenant, key.id] = key

    async def keys(
        self, tenant: TenantId, *, user: PrincipalId | None, after: str, limit: int
    ) -> Sequence[ApiKey]:
        found = [
            key
            for (of, name), key in self._keys.items()
            if of == tenant and user in (None, key.user) and (not after or name < after)
        ]
        return sorted(found, key=lambda key: key.id, reverse=True)[:limit]

    async def key(self, tenant: TenantId, key: str) -> ApiKey:
        found = self._keys.get((tenant, key))
        if found is None:
            raise NotFound(f"no key {key}")
        return found

    async def key_of_digest(self, digest: str) -> ApiKey | None:
        return next((key for key in self._keys.values() if key.digest == digest), None)

    async def revoke_key(self, tenant: TenantId, key: str, *, at: float) -> None:
        there = await self.key(tenant, key)
        if there.revoked_at is None:
            self._keys[tenant, key] = replace(there, revoked_at=at)

    async def touch_keys(self, used: Mapping[tuple[TenantId, str], float]) -> None:
        for name, at in used.items():
            there = self._keys.get(name)
            if there is not None:
                self._keys[name] = replace(there, used_at=max(there.used_at or 0.0, at))

    async def endpoints(self) -> Sequence[Endpoint]:
        return [self._endpoints[one] for one in sorted(self._endpoints)]

    async def put_endpoint(self, endpoint: Endpoint) -> None:
        await self.tenant(endpoint.tenant)
        there = self._endpoints.get((endpoint.tenant, endpoint.provider), endpoint)
        made = replace(endpoint, created_at=there.created_at)
        self._endpoints[endpoint.tenant, endpoint.provider] = made

    async def drop_endpoint(self, tenant: TenantId, provider: str) -> bool:
        return self._endpoints.pop((tenant, provider), None) is not None

    async def grant(self, grant: Grant) -> None:
        key = Key(grant.tenant, grant.session)
        await self._store.head(key)
        self._store.grants.setdefault(key, {})[grant.user] = grant

    async def ungrant(self, key: Key, user: PrincipalId) -> None:
        self._store.grants.get(key, {}).pop(user, None)

    async def grants(self, key: Key) -> Sequence[Grant]:
        return sorted(self._store.grants.get(key, {}).values(), key=lambda one: one.user)

    async def standing(self, key: Key, user: PrincipalId) -> Standing | None:
        if self._store.owner(key) == user:
            return "owner"
        found = self._store.grants.get(key, {}).get(user)
        return None if found is None else found.role
