"""What is kept of a tenant's sessions is the tenant's own setting, where it has one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hostler.core.directory import DEFAULT, Tenant, TenantSettings
from hostler.core.errors import NotFound
from hostler.core.events import Key, TenantId
from hostler.core.ports import World
from hostler.service.authorise import Access
from hostler.service.retention import DAY_S, Forgetting, Keep
from hostler.service.tenants import Tenants
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.stores.memory_directory import MemoryDirectory
from hostler.testing.directory_suite import of
from hostler.testing.store_kit import Clock, ended, spoke

pytestmark = pytest.mark.anyio
DAYS = {"default": None, "short": 2.0, "long": 90.0, "ever": 0.0}


async def test_sessions_go_when_their_tenant_says_so_and_else_when_the_server_does() -> None:
    clock = Clock(0.0)
    store = MemoryStore(clock=clock)
    directory, world = MemoryDirectory(store), World("w", clock=clock)
    keys = dict[str, list[Key]]()
    for tenant, days in DAYS.items():
        settings = TenantSettings(retention_days=days)
        if tenant != DEFAULT:
            made = Tenant(id=TenantId(tenant), title=None, created_at=0.0, settings=settings)
            assert await directory.create_tenant(made)
        keys[tenant] = []
        for age in (1, 5, 50, 500):
            key = await of(store, "alice", tenant=tenant, name=f"ses_{age}")
            clock.now = (1000 - age) * DAY_S
            await store.append(key, [spoke(f"run_{age}"), ended(f"run_{age}")])
            keys[tenant].append(key)
    clock.now = 1000 * DAY_S
    forgetting = Forgetting(store=store, signals=LocalSignals(), access=Access(directory))

    await Keep(days=10).once(replace(forgetting, tenants=Tenants(directory, world, {})), world)

    left = {tenant: [await is_there(store, key) for key in of_it] for tenant, of_it in keys.items()}
    assert {tenant: sum(there) for tenant, there in left.items()} == {
        "default": 2,
        "short": 1,
        "long": 3,
        "ever": 4,
    }


async def is_there(store: MemoryStore, key: Key) -> bool:
    try:
        await store.head(key)
    except NotFound:
        return False
    return True
