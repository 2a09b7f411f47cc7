"""Webhooks of storage that several processes have: what two do to one at once leaves it whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import pytest
from tests.canaries import master_keys

from hostler.beside.webhooks import Webhook
from hostler.core.errors import NotFound
from hostler.core.events import Principal, PrincipalId, TenantId
from hostler.core.ports import World
from hostler.core.sealed import SealedSecret
from hostler.service.webhooks import Outgoing, TenantWebhooks
from hostler.stores.memory import MemoryStore
from hostler.stores.memory_sealed import MemorySealed
from hostler.stores.memory_webhooks import MemoryWebhooks
from hostler.testing.store_kit import Clock
from hostler.vault.vault import MasterKeys, SealedVault

pytestmark = pytest.mark.anyio
DEFAULT = TenantId("default")
ADMIN = Principal(id=PrincipalId("admin"), tenant=DEFAULT, is_operator=True)


async def nothing() -> None: ...


def anywhere(url: str) -> None:
    del url


@dataclass
class Rows(MemoryWebhooks):
    """Rows of which a process that has read one goes on when a test lets it."""

    read: Callable[[], Awaitable[None]] = nothing

    async def webhook(self, tenant: TenantId, webhook: str) -> Webhook:
        found = await super().webhook(tenant, webhook)
        await self.read()
        return found


@dataclass
class Fleet:
    """Processes, each with a vault of its own, on one storage."""

    keys: MasterKeys = field(default_factory=master_keys)
    rows: Rows = field(default_factory=Rows)
    sealed: MemorySealed = field(default_factory=lambda: MemorySealed(MemoryStore()))

    async def vault(self) -> SealedVault:
        vault = SealedVault(self.keys)
        await vault.open(self.sealed)
        return vault

    async def process(self) -> TenantWebhooks:
        outgoing = Outgoing(self.rows, await self.vault(), None, anywhere, is_shared=True)
        return TenantWebhooks(outgoing=outgoing, world=World("w", clock=Clock(1000.0)))

    async def kept(self) -> list[SealedSecret]:
        return list(await self.sealed.secrets())


async def test_of_two_processes_that_rotate_at_once_each_tells_a_secret_that_signs() -> None:
    fleet, told, both = Fleet(), list[str](), anyio.Event()
    hook, _ = await (await fleet.process()).create(ADMIN, url="https://hooks.example/")
    processes = [await fleet.process() for _ in range(2)]
    reading = list[None]()

    async def read() -> None:
        reading.append(None)
        if len(reading) == len(processes):
            both.set()
        await both.wait()

    async def rotate(process: TenantWebhooks) -> None:
        _, value = await process.rotate(ADMIN, hook.id)
        told.append(value)

    fleet.rows.read = read
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for process in processes:
                tasks.start_soon(rotate, process)

    fleet.rows.read = nothing
    made, vault = await fleet.rows.webhook(DEFAULT, hook.id), await fleet.vault()
    names = [name for name in (made.secret, made.old_secret) if name is not None]
    assert sorted(str(vault.find(DEFAULT, name)) for name in names) == sorted(told)
    assert sorted(one.about.name for one in await fleet.kept()) == sorted(names)


async def test_a_webhook_that_is_removed_while_another_process_rotates_it_leaves_no_secret() -> (
    None
):
    fleet = Fleet()
    here, there = await fleet.process(), await fleet.process()
    hook, _ = await here.create(ADMIN, url="https://hooks.example/")

    async def remove() -> None:
        await there.remove(ADMIN, hook.id)

    fleet.rows.read = remove
    with pytest.raises(NotFound):
        await here.rotate(ADMIN, hook.id)

    assert await fleet.kept() == []
