"""The directory in the store's own SQLite file, through its reader and its writer.

Invariant: what is checked and what is written are one piece of work of the one writer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_rows import SQL, read_head, read_list
from hostler.stores.times import to_us


@dataclass(frozen=True, slots=True)
class SqliteDirectory:
    """A `core.directory.Directory`."""

    store: SqliteStore

    async def create_tenant(self, tenant: Tenant) -> bool:
        row = tenant_row(tenant)
        return await self.store.writing(
            lambda db: bool(db.execute(SQL["create_tenant"], row).rowcount)
        )

    async def tenant(self, tenant: TenantId) -> Tenant:
        return await self.store.reading(lambda db: _tenant(db, tenant))

    async def tenants(self, *, after: str, limit: int) -> Sequence[Tenant]:
        return await self.store.reading(
            lambda db: [to_tenant(row) for row in db.execute(SQL["tenants"], (after, limit))]
        )

    async def change_tenant(self, tenant: TenantId, change: Callable[[Tenant], Tenant]) -> Tenant:
        def write(db: sqlite3.Connection) -> Tenant:
            changed = change(_tenant(db, tenant))
            db.execute(SQL["change_tenant"], (changed.title, to_json(changed.settings), tenant))
            return changed

        return await self.store.writing(write)

    async def add_key(self, key: ApiKey) -> None:
        row = key_row(key)

        def write(db: sqlite3.Connection) -> None:
            _tenant(db, key.tenant)
            db.execute(SQL["add_key"], row)

        await self.store.writing(write)

    async def keys(
        self, tenant: TenantId, *, user: PrincipalId | None, after: str, limit: int
    ) -> Sequence[ApiKey]:
        wanted = {"tenant": tenant, "user": user, "after": after or None, "limit": limit}
        return await self.store.reading(
            lambda db: [to_key(row) for row in read_list(db, "keys", wanted)]
        )

    async def key(self, tenant: TenantId, key: str) -> ApiKey:
        def read(db: sqlite3.Connection) -> ApiKey:
            row = db.execute(SQL["key"], (tenant, key)).fetchone()
            if row is None:
                raise NotFound(f"no key {key}")
            return to_key(row)

        return await self.store.reading(read)

    async def key_of_digest(self, digest: str) -> ApiKey | None:
        def read(db: sqlite3.Connection) -> ApiKey | None:
            row = db.execute(SQL["key_of_digest"], (digest,)).fetchone()
            return None if row is None else to_key(row)

        return await self.store.reading(read)

    async def revoke_key(self, tenant: TenantId, key: str, *, at: float) -> None:
        def write(db: sqlite3.Connection) -> None:
            if not db.execute(SQL["revoke_key"], (to_us(at), tenant, key)).rowcount:
                raise NotFound(f"no key {key}")

        await self.store.writing(write)

    async def touch_keys(self, used: Mapping[tuple[TenantId, str], float]) -> None:
        rows = [(to_us(at), *key) for key, at in used.items()]

        def write(db: sqlite3.Connection) -> None:
            db.executemany(SQL["touch_key"], rows)

        await self.store.writing(write)

    async def endpoints(self) -> Sequence[Endpoint]:
        return await self.store.reading(
            lambda db: [to_endpoint(row) for row in db.execute(SQL["endpoints"])]
        )

    async def put_endpoint(self, endpoint: Endpoint) -> None:
        row = endpoint_row(endpoint)

        def write(db: sqlite3.Connection) -> None:
            _tenant(db, endpoint.tenant)
            db.execute(SQL["put_endpoint"], row)

        await self.store.writing(write)

    async def drop_endpoint(self, tenant: TenantId, provider: str) -> bool:
        return await self.store.writing(
            lambda db: bool(db.execute(SQL["drop_endpoint"], (tenant, provider)).rowcount)
        )

    async def grant(self, grant: Grant) -> None:
        row = grant_row(grant)

        def write(db: sqlite3.Connection) -> None:
            read_head(db, Key(grant.tenant, grant.session))
            db.execute(SQL["grant"], row)

        await self.store.writing(write)

    async def ungrant(self, key: Key, user: PrincipalId) -> None:
        await self.store.writing(lambda db: db.execute(SQL["ungrant"], (*key, user)).rowcount)

    async def grants(self, key: Key) -> Sequence[Grant]:
        return await self.store.reading(
            lambda db: [to_grant(row) for row in db.execute(SQL["grants"], key)]
        )

    async def standing(self, key: Key, user: PrincipalId) -> Standing | None:
        def read(db: sqlite3.Connection) -> Standing | None:
            row = db.execute(SQL["standing"], (user, *key)).fetchone()
            if row is None:
                return None
            return standing_of(user, *row)

        return await self.store.reading(read)


def _tenant(db: sqlite3.Connection, tenant: TenantId) -> Tenant:
    row = db.execute(SQL["tenant"], (tenant,)).fetchone()
    if row is None:
        raise NotFound(f"no tenant {tenant}")
    return to_tenant(row)
