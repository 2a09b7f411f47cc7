"""Workers that send to webhooks, and what they send with."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel

from hostler.beside.webhooks import Delivery, Posted, Webhooks
from hostler.core.errors import SetupError
from hostler.core.events import TenantId
from hostler.core.ports import World
from hostler.core.sealed import Mask
from hostler.service.delivering import LOOK_S, Delivering
from hostler.service.sending import new_secret
from hostler.stores.memory import MemoryStore
from hostler.testing.store_kit import Clock
from hostler.testing.webhook_suite import a_webhook

DEFAULT = TenantId("default")
PATIENCE_S = 10.0
Answer = Callable[[str], Awaitable[Posted]]


async def well(_: str) -> Posted:
    return Posted(204)


@dataclass
class PostDouble:
    """Keeps to whom something was sent, and answers as a test wants."""

    answer: Answer = well
    sent: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(URL, webhook-id)."""
    going: dict[str, int] = field(default_factory=dict[str, int])
    most: dict[str, int] = field(default_factory=dict[str, int])
    """How many were on their way at once, by URL."""
    is_closed: bool = False
    news: anyio.Event = field(default_factory=anyio.Event)

    async def __call__(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Posted:
        assert body
        self.sent.append((url, headers["webhook-id"]))
        self.going[url] = self.going.get(url, 0) + 1
        self.most[url] = max(self.most.get(url, 0), self.going[url])
        news, self.news = self.news, anyio.Event()
        news.set()
        try:
            return await self.answer(url)
        finally:
            self.going[url] -= 1

    async def aclose(self) -> None:
        self.is_closed = True

    async def until(self, count: int, url: str | None = None) -> None:
        with anyio.fail_after(PATIENCE_S):
            while sum(url in (None, one) for one, _ in self.sent) < count:
                await self.news.wait()


class Keys:
    """Has a secret of every name but those that are gone."""

    gone: str = ""

    def mask(self, tenant: TenantId) -> Mask | None:
        del tenant

    def find(self, tenant: TenantId, name: str) -> str | None:
        del tenant
        if self.gone == "closed":
            raise SetupError(f"the secret {name} cannot be opened")
        return None if self.gone else SECRET


SECRET = new_secret()


@dataclass
class At:
    hooks: Webhooks
    post: PostDouble
    clock: Clock
    keys: Keys
    worker: Delivering

    async def hook(self, name: str = "1", tenant: TenantId = DEFAULT) -> str:
        made = a_webhook(name, tenant=tenant)
        assert await self.hooks.add(made, most=1000)
        return made.url

    async def row(self, name: str = "1", webhook: str = "whk_1") -> Delivery:
        found = await self.hooks.deliveries(DEFAULT, webhook, status=None, after="", limit=999)
        return next(one for one in found if one.id == f"evt_{name}")

    async def tried(self, tries: int, name: str = "1", webhook: str = "whk_1") -> Delivery:
        """Return a delivery once it was tried so often."""
        with anyio.fail_after(PATIENCE_S):
            while (row := await self.row(name, webhook)).tries < tries:
                await anyio.lowlevel.checkpoint()
        return row

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        self.worker.wake()


@asynccontextmanager
async def working(
    hooks: Webhooks | None = None, clock: Clock | None = None, look_s: float = LOOK_S
) -> AsyncGenerator[At]:
    clock, post, keys = clock or Clock(1000.0), PostDouble(), Keys()
    hooks = MemoryStore(clock=clock).webhooks if hooks is None else hooks
    world = World("w", clock=clock, chance=lambda: 0.0)
    worker = Delivering(hooks, post, keys, world, look_s)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.serve)
        yield At(hooks, post, clock, keys, worker)
        tasks.cancel_scope.cancel()
    assert post.is_closed
