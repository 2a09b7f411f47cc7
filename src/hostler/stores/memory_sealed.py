"""Sealed secrets in memory, beside a store that is there, too.

Invariant: as `sqlite_sealed`, but for durability.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from hostler.core.events import TenantId
from hostler.core.sealed import DataKey, Mask, Scrubbed, SealedSecret
from hostler.stores.memory import MemoryStore


class MemorySealed:
    """A `core.sealed.SealedRows` in dicts."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._secrets: dict[tuple[TenantId, str], SealedSecret] = {}
        self._data_keys: dict[tuple[TenantId, str], DataKey] = {}

    async def secrets(self) -> Sequence[SealedSecret]:
        return [self._secrets[one] for one in sorted(self._secrets)]

    async def data_keys(self) -> Sequence[DataKey]:
        return [self._data_keys[one] for one in sorted(self._data_keys)]

    async def put(self, secret: SealedSecret, key: DataKey | None) -> None:
        if key is not None:
            self._data_keys[key.tenant, key.id] = key
        about = secret.about
        there = self._secrets.get((about.tenant, about.name))
        if there is not None:
            about = replace(about, created_at=there.about.created_at)
        self._secrets[about.tenant, about.name] = replace(secret, about=about)

    async def drop(self, tenant: TenantId, name: str) -> bool:
        return self._secrets.pop((tenant, name), None) is not None

    async def rewrap(self, keys: Sequence[DataKey]) -> None:
        self._data_keys |= {
            (one.tenant, one.id): one for one in keys if (one.tenant, one.id) in self._data_keys
        }

    async def scrub(self, tenant: TenantId, mask: Mask, done: Scrubbed) -> Scrubbed:
        return self._store.scrub(mask, replace(done, tenant=tenant))
