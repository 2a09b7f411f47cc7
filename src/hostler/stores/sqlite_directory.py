"""The directory in the store's own SQLite file, through its reader and its writer.

Invariant: what is checked and what is written are one piece of work of the one writer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from hostler.core.directory import ApiKey, Endpoint, Grant, Standing, Tenant, TenantSettings
from hostler.core.errors import NotFound
from hostler.core.events import Key, PrincipalId, TenantId
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_rows import SQL, read_head, read_list
from hostler.stores.times import to_seconds, to_us

_settings = msgspec.json.Decoder(TenantSettings)
_names = ApiKey.__struct_fields__


@dataclass(frozen=True, slots=True)
class SqliteDirectory:
    """A `core.directory.Directory`."""

    store: SqliteStore

    async def create_tenant(self, tenant: Tenant) -> bool:
        row = (tenant.id, tenant.title, to_us(tenant.created_at), _json(tenant.settings))
        return await self.store.writing(
            lambda db: bool(db.execute(SQL["create_tenant"], row).rowcount)
        )

    async def tenant(self, tenant: TenantId) -> Tenant:
        return await self.store.reading(lambda db: _tenant(db, tenant))

    async def tenants(self, *, after: str, limit: int) -> Sequence[Tenant]:
        return await self.store.reading(
            lambda db: [_to_tenant(row) for row in db.execute(SQL["tenants"], (after, limit))]
        )

    async def change_tenant(self, tenant: TenantId, change: Callable[[Tenant], Tenant]) -> Tenant:
        def write(db: sqlite3.Connection) -> Tenant:
            changed = change(_tenant(db, tenant))
            db.execute(SQL["change_tenant"], (changed.title, _json(changed.settings), tenant))
            return changed

        return await self.store.writing(write)

    async def add_key(self, key: ApiKey) -> None:
        row = (
            key.tenant,
            key.id,
            key.user,
            key.role,
            None if key.scopes is None else _json(sorted(key.scopes)),
            key.prefix,
            key.digest,
            key.title,
            to_us(key.created_at),
            to_us(key.expires_at),
            to_us(key.revoked_at),
            to_us(key.used_at),
        )

        def write(db: sqlite3.Connection) -> None:
            _tenant(db, key.tenant)
            db.execute(SQL["add_key"], row)

        await self.store.writing(write)

    async def keys(
        self, tenant: TenantId, *, user: PrincipalId | None, after: str, limit: int
    ) -> Sequence[ApiKey]:
        wanted = {"tenant": tenant, "user": user, "after": after or None, "limit": limit}
        return await self.store.reading(
            lambda db: [_to_key(row) for row in read_list(db, "keys", wanted)]
        )

    async def key(self, tenant: TenantId, key: str) -> ApiKey:
        def read(db: sqlite3.Connection) -> ApiKey:
            row = db.execute(SQL["key"], (tenant, key)).fetchone()
            if row is None:
                raise NotFound(f"no key {key}")
            return _to_key(row)

        return await self.store.reading(read)

    async def key_of_digest(self, digest: str) -> ApiKey | None:
        def read(db: sqlite3.Connection) -> ApiKey | None:
            row = db.execute(SQL["key_of_digest"], (digest,)).fetchone()
            return None if row is None else _to_key(row)

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
            lambda db: [_to_endpoint(row) for row in db.execute(SQL["endpoints"])]
        )

    async def put_endpoint(self, endpoint: Endpoint) -> None:
        row = (
            endpoint.tenant,
            endpoint.provider,
            endpoint.base_url,
            to_us(endpoint.created_at),
            to_us(endpoint.updated_at),
        )

        def write(db: sqlite3.Connection) -> None:
            _tenant(db, endpoint.tenant)
            db.execute(SQL["put_endpoint"], row)

        await self.store.writing(write)

    async def drop_endpoint(self, tenant: TenantId, provider: str) -> bool:
        return await self.store.writing(
            lambda db: bool(db.execute(SQL["drop_endpoint"], (tenant, provider)).rowcount)
        )

    async def grant(self, grant: Grant) -> None:
        row = (
            grant.tenant,
            grant.session,
            grant.user,
            grant.role,
            grant.by,
            to_us(grant.at),
        )

        def write(db: sqlite3.Connection) -> None:
            read_head(db, Key(grant.tenant, grant.session))
            db.execute(SQL["grant"], row)

        await self.store.writing(write)

    async def ungrant(self, key: Key, user: PrincipalId) -> None:
        await self.store.writing(lambda db: db.execute(SQL["ungrant"], (*key, user)).rowcount)

    async def grants(self, key: Key) -> Sequence[Grant]:
        return await self.store.reading(
            lambda db: [_to_grant(row) for row in db.execute(SQL["grants"], key)]
        )

    async def standing(self, key: Key, user: PrincipalId) -> Standing | None:
        def read(db: sqlite3.Connection) -> Standing | None:
            row = db.execute(SQL["standing"], (user, *key)).fetchone()
            if row is None:
                return None
            return "owner" if row[0] == user else msgspec.convert(row[1], Standing | None)

        return await self.store.reading(read)


def _tenant(db: sqlite3.Connection, tenant: TenantId) -> Tenant:
    row = db.execute(SQL["tenant"], (tenant,)).fetchone()
    if row is None:
        raise NotFound(f"no tenant {tenant}")
    return _to_tenant(row)


def _to_tenant(row: Sequence[object]) -> Tenant:
    tenant, title, created_at, settings = row
    return msgspec.convert(
        {
            "id": tenant,
            "title": title,
            "created_at": to_seconds(created_at),
            "settings": _settings.decode(str(settings)),
        },
        Tenant,
    )


def _to_key(row: Sequence[object]) -> ApiKey:
    values: dict[str, object] = dict(zip(_names, row, strict=True))
    if values["scopes"] is not None:
        values["scopes"] = msgspec.json.decode(str(values["scopes"]))
    for name in ("created_at", "expires_at", "revoked_at", "used_at"):
        values[name] = to_seconds(values[name])
    return msgspec.convert(values, ApiKey)


def _to_endpoint(row: Sequence[object]) -> Endpoint:
    *values, created_at, updated_at = row
    times = (to_seconds(created_at), to_seconds(updated_at))
    named = dict(zip(Endpoint.__struct_fields__, [*values, *times], strict=True))
    return msgspec.convert(named, Endpoint)


def _to_grant(row: Sequence[object]) -> Grant:
    *values, at = row
    named = dict(zip(Grant.__struct_fields__, [*values, to_seconds(at)], strict=True))
    return msgspec.convert(named, Grant)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
