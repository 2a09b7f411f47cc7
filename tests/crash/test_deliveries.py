"""A server dies at each of its writes about a delivery: what the log tells is told, maybe twice."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from aiohttp import web
from tests.canaries import Process, provider_keys
from tests.programs import free_port
from tests.receivers import Came, a_hook, delivery, receiving
from tests.serving import KEY, Client

from hostler.beside.webhooks import Delivery, Outcome, Posted, Webhook
from hostler.core.events import Fact, Key, TenantId
from hostler.core.ports import World
from hostler.core.sealed import Mask
from hostler.service.delivering import Delivering
from hostler.service.sending import new_secret
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_webhooks import SqliteWebhooks
from hostler.testing.crashing import every_death
from hostler.testing.doubles import Crash, a_session, whole_log
from hostler.testing.store_kit import Clock, a_run, spoke
from hostler.testing.webhook_suite import a_webhook

pytestmark = pytest.mark.anyio
DEFAULT, SECRET = TenantId("default"), new_secret()


class Secrets:
    def mask(self, tenant: TenantId) -> Mask | None:
        del tenant

    def find(self, tenant: TenantId, name: str) -> str:
        del tenant, name
        return SECRET


@dataclass
class Outside:
    """The world that a death leaves as it is: a clock, and a receiver that is ill at first."""

    clock: Clock = field(default_factory=lambda: Clock(1000.0))
    sent: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])

    async def __call__(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Posted:
        del url
        self.sent.append((headers["webhook-id"], body))
        return Posted(500 if len(self.sent) == 1 else 204)

    async def aclose(self) -> None: ...


@dataclass
class Life:
    """A process on a file, which dies at its n-th write, before or after that is on disk."""

    store: SqliteStore
    outside: Outside
    left: int
    after: bool
    writing: int = 0

    def __post_init__(self) -> None:
        self.hooks = SqliteWebhooks(self.store)

    async def append(self, key: Key, facts: list[Fact]) -> None:
        self._count(before=True)
        await self.store.append(key, facts)
        self._count(before=False)

    async def alter(
        self, tenant: TenantId, webhook: str, delivery: str, outcome: Outcome, *, at: float
    ) -> tuple[Webhook, Delivery]:
        self.writing += 1
        try:
            self._count(before=True)
            made = await SqliteWebhooks.alter(self.hooks, tenant, webhook, delivery, outcome, at=at)
            self._count(before=False)
        finally:
            self.writing -= 1
        return made

    async def deliver(self) -> None:
        """Send until nothing is left to send, letting time pass as it must.  Raises Crash."""
        self.hooks.alter = self.alter  # type: ignore[method-assign]
        world = World("w", clock=self.outside.clock, chance=lambda: 0.0)
        worker = Delivering(self.hooks, self.outside, Secrets(), world)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(worker.serve)
                with anyio.fail_after(10):
                    while (waits := await self.pending()) or self.writing:
                        self.outside.clock.now = max(self.outside.clock.now, waits or 0.0)
                        worker.wake()
                        await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            crashes, others = group.split(Crash)
            if others is not None or crashes is None:
                raise
            raise Crash from group

    async def pending(self) -> float | None:
        found = await self.hooks.deliveries(DEFAULT, "whk_1", status="pending", after="", limit=9)
        return min((one.next_at or 0.0 for one in found), default=None)

    def _count(self, *, before: bool) -> None:
        self.left -= before
        if self.left == 0 and before is not self.after:
            raise Crash


async def test_a_death_at_any_write_loses_nothing_and_repeats_under_the_same_id(
    tmp_path: Path,
) -> None:
    sent = dict[tuple[int, bool], int]()

    async def play(at: int, after: bool) -> bool:  # noqa: FBT001  as it is called
        file, outside, died = tmp_path / f"{at}-{after}.db", Outside(), False
        store = SqliteStore.open(file, clock=outside.clock)
        await SqliteWebhooks(store).add(a_webhook(), most=1)
        key = await a_session(store)
        life = Life(store, outside, at, after)
        try:
            await life.append(key, [spoke("run_1"), *a_run("run_1", "well", claim=1)])
            await life.deliver()
        except Crash:
            died = True
        store.close()

        store = SqliteStore.open(file, clock=outside.clock)
        life = Life(store, outside, 0, after)
        await life.deliver()
        has_ended = any(one.kind == "run_ended" for one in await whole_log(store, key))
        rows = await life.hooks.deliveries(DEFAULT, "whk_1", status=None, after="", limit=9)
        store.close()

        assert [one.status for one in rows] == ["delivered"] * has_ended
        assert len(set(outside.sent)) == has_ended, "another id, or another body"
        sent[at, after] = len(outside.sent)
        return died

    deaths = [one async for one in every_death(play)]

    assert len(deaths) == 6
    assert sent == {
        (1, False): 0,
        (2, False): 2,
        (3, False): 3,
        (4, False): 2,
        (1, True): 2,
        (2, True): 2,
        (3, True): 2,
        (4, True): 2,
    }


@pytest.mark.timeout(120)
async def test_a_server_that_is_killed_before_it_can_note_what_it_sent_sends_it_again(
    tmp_path: Path,
) -> None:
    (tmp_path / "hostler.toml").write_text('[egress]\nallow = ["127.0.0.1"]\n')
    port = free_port()
    command = [sys.executable, "-m", "hostler", "serve", "--port", str(port)]

    def start() -> Process:
        return Process(
            [*command, "--data", str(tmp_path / "data"), "--model", "scripted:demo"],
            cwd=tmp_path,
            env={"HOSTLER_ADMIN_KEY": KEY, "PATH": "", **provider_keys()},
        )

    async def kills(_: Came) -> web.StreamResponse:
        server.kill()
        return web.Response(status=204)

    server = start()
    try:
        async with receiving() as receiver, aiohttp.ClientSession() as http:
            client = Client(http, f"http://127.0.0.1:{port}")
            await healthy(client)
            hook = await a_hook(client, receiver.url)
            receiver.answer = kills
            session = await client.session()
            path = f"/api/sessions/{session}/messages"
            assert (await client.call("POST", path, {"content": "hello"}))[0] == 202
            await receiver.got(1)
            assert server.wait(10) == -signal.SIGKILL

            receiver.says(204)
            server = start()
            await healthy(client)
            first, second = await receiver.got(2)
            kept = await delivery(client, hook, tries=1)
    finally:
        server.kill()
        server.wait()

    assert (first.id, first.body) == (second.id, second.body)
    assert second.verified(str(hook["secret"]))
    assert kept["status"] == "delivered"


async def healthy(client: Client) -> None:
    with anyio.fail_after(60):
        while True:
            try:
                if (await client.call("GET", "/readyz"))[0] == 200:
                    return
            except aiohttp.ClientConnectionError:
                await anyio.to_thread.run_sync(lambda: None)
