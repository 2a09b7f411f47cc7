"""What is remembered of tenants is what was last said of them."""

from __future__ import annotations

import anyio
import pytest
from tests.whole.test_keys import OPERATOR

from hostler.core.directory import DEFAULT, Tenant
from hostler.core.events import TenantId
from hostler.core.ports import World
from hostler.service.tenants import Tenants
from hostler.stores.memory import MemoryStore
from hostler.stores.memory_directory import MemoryDirectory

pytestmark = pytest.mark.anyio


class Late(MemoryDirectory):
    """A directory whose first answer is on its way for a while."""

    read, arrive = anyio.Event(), anyio.Event()

    async def tenant(self, tenant: TenantId) -> Tenant:
        found = await super().tenant(tenant)
        if not self.read.is_set():
            self.read.set()
            await self.arrive.wait()
        return found


async def test_what_was_read_before_a_change_is_not_remembered_after_it() -> None:
    directory = Late(MemoryStore())
    tenants = Tenants(directory, World("w"), {})
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tenants.settings_of, DEFAULT)
            await directory.read.wait()
            await tenants.change(OPERATOR, DEFAULT, settings={"most_sessions": 7})
            directory.arrive.set()

    assert (await tenants.settings_of(DEFAULT)).most_sessions == 7
