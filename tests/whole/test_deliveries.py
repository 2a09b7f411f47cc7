"""The worker sends what is due, in time, whatever receivers and the storage do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace
from tests.receivers import receiving, to_loopback
from tests.senders import DEFAULT, PATIENCE_S, working

from hostler.beside.webhooks import Delivery, Outcome, Posted, Webhook, Webhooks
from hostler.core.errors import Unavailable
from hostler.core.events import Principal, PrincipalId, TenantId
from hostler.core.ports import World
from hostler.harness.egress import Egress
from hostler.harness.outbound import Outbound
from hostler.harness.posting import Poster
from hostler.service.deliveries import TenantDeliveries
from hostler.service.delivering import AT_ONCE, OF_ONE, OF_TENANT
from hostler.service.endpoints import anywhere
from hostler.service.sending import SCHEDULE_S
from hostler.service.webhooks import Outgoing
from hostler.stores.memory import MemoryStore
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_webhooks import SqliteWebhooks
from hostler.testing.store_kit import Clock
from hostler.testing.webhook_suite import a_delivery
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio


async def test_what_is_due_is_sent_at_once_and_the_rest_when_it_is_due() -> None:
    async with working() as at:
        await at.hook()
        await at.hooks.put(a_delivery("2", 1060.0))
        await at.hooks.put(a_delivery("1", 1000.0))
        assert (await at.tried(1)).status == "delivered"
        assert [name for _, name in at.post.sent] == ["evt_1"]

        at.later(60)
        await at.tried(1, "2")

    assert [name for _, name in at.post.sent] == ["evt_1", "evt_2"]


async def test_a_delivery_that_fails_is_tried_ten_times_and_then_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def ill(_: str) -> Posted:
        return Posted(500)

    async with working() as at:
        at.post.answer = ill
        await at.hook()
        await at.hooks.put(a_delivery("1", 1000.0))
        for tries, _ in enumerate(SCHEDULE_S, start=1):
            row = await at.tried(tries)
            at.later((row.next_at or at.clock.now) - at.clock.now)

        assert (row.status, row.tries) == ("given_up", 10)  # pyright: ignore[reportPossiblyUnboundVariable]
        at.later(10 * 86_400)
        await at.hooks.put(a_delivery("2", at.clock.now))
        await at.tried(1, "2")

    assert [name for _, name in at.post.sent] == ["evt_1"] * 10 + ["evt_2"]
    assert "evt_1 is given up: answered 500" in caplog.text


async def test_a_webhook_that_fails_for_days_is_disabled_and_that_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def ill(_: str) -> Posted:
        return Posted(error="no answer within 15 s")

    async with working() as at:
        at.post.answer = ill
        await at.hook()
        failing = replace(await at.hooks.webhook(DEFAULT, "whk_1"), failures=9, failing_since=0.0)
        at.clock.now = 6 * 86_400.0
        await at.hooks.change(DEFAULT, "whk_1", lambda _: failing, at=1.0)
        await at.hooks.put(a_delivery("1", at.clock.now))
        row = await at.tried(1)
        hook = await at.hooks.webhook(DEFAULT, "whk_1")

    assert (hook.disabled_because, row.status, row.next_at) == ("failing", "pending", None)
    assert "webhook whk_1 of default is disabled: no answer within 15 s" in caplog.text


async def test_a_receiver_that_never_answers_holds_up_nobody_else() -> None:
    async def slow(url: str) -> Posted:
        if url == stuck:
            await anyio.sleep_forever()
        return Posted(200)

    async with working() as at:
        stuck, quick = await at.hook("1"), await at.hook("2")
        at.post.answer = slow
        for number in range(500):
            await at.hooks.put(a_delivery(f"{number:03}", 1000.0))
        for number in range(20):
            await at.hooks.put(a_delivery(f"{number:03}", 1000.0, webhook="whk_2"))
        await at.post.until(20, quick)

    assert at.post.most[stuck] == OF_ONE
    assert at.post.most[quick] <= OF_ONE


async def test_one_whose_last_try_failed_gets_one_at_a_time() -> None:
    async def ill(_: str) -> Posted:
        await anyio.lowlevel.checkpoint()
        return Posted(500)

    async with working() as at:
        at.post.answer = ill
        url = await at.hook()
        await at.hooks.put(a_delivery("1", 1000.0))
        await at.tried(1)
        at.post.most.clear()
        for number in range(2, 9):
            await at.hooks.put(a_delivery(str(number), 1000.0))
        for number in range(2, 9):
            await at.tried(1, str(number))

    assert at.post.most == {url: 1}


async def test_a_tenant_with_many_slow_receivers_leaves_room_for_others() -> None:
    async def slow(url: str) -> Posted:
        if url != other:
            await anyio.sleep_forever()
        return Posted(200)

    async with working() as at:
        other = await at.hook("other", TenantId("acme"))
        at.post.answer = slow
        for number in range(OF_TENANT):
            await at.hook(str(number))
            for name in range(OF_ONE):
                await at.hooks.put(a_delivery(str(name), 1000.0, webhook=f"whk_{number}"))
        made = replace(a_delivery("1", 1000.0, webhook="whk_other"), tenant=TenantId("acme"))
        await at.hooks.put(made)
        await at.post.until(1, other)
        assert sum(at.post.going.values()) - at.post.going[other] <= OF_TENANT

    assert OF_TENANT < AT_ONCE


async def test_a_receiver_that_wants_time_is_sent_nothing_else_meanwhile() -> None:
    async def busy(_: str) -> Posted:
        return Posted(429, "100") if len(at.post.sent) == 1 else Posted(200)

    async with working() as at:
        at.post.answer = busy
        await at.hook()
        await at.hooks.put(a_delivery("1", 1000.0))
        assert (await at.tried(1)).next_at == 1100.0
        await at.hooks.put(a_delivery("2", 1000.0))
        await at.hook("2")
        await at.hooks.put(a_delivery("3", 1000.0, webhook="whk_2"))
        await at.tried(1, "3", "whk_2")
        assert (await at.row("2")).tries == 0

        at.later(100)
        await at.tried(1, "2")
        await at.tried(2, "1")

    assert sorted(name for _, name in at.post.sent) == ["evt_1", "evt_1", "evt_2", "evt_3"]


async def test_a_replay_during_a_try_is_one_more_try() -> None:
    begun, go = anyio.Event(), anyio.Event()

    async def held(_: str) -> Posted:
        begun.set()
        await go.wait()
        return Posted(200)

    async with working() as at:
        at.post.answer = held
        await at.hook()
        out = Outgoing(at.hooks, SealedVault(_none), at.post, anywhere)
        verbs = TenantDeliveries(outgoing=out, world=World("w", clock=at.clock))
        me = Principal(id=PrincipalId("me"), tenant=DEFAULT)
        await at.hooks.put(a_delivery("1", 1000.0))
        with anyio.fail_after(PATIENCE_S):
            await begun.wait()
        assert (await verbs.replay(me, "whk_1", "evt_1")).replays == 1
        go.set()
        row = await at.tried(2)

    assert (row.status, len(at.post.sent)) == ("delivered", 2)


async def test_what_is_removed_during_a_try_is_no_trouble() -> None:
    begun, go = anyio.Event(), anyio.Event()

    async def held(url: str) -> Posted:
        if url == first:
            begun.set()
            await go.wait()
        return Posted(500)

    async with working() as at:
        at.post.answer = held
        first = await at.hook("1")
        await at.hook("2")
        await at.hooks.put(a_delivery("1", 1000.0))
        with anyio.fail_after(PATIENCE_S):
            await begun.wait()
        await at.hooks.remove(DEFAULT, "whk_1")
        go.set()
        await at.hooks.put(a_delivery("2", 1000.0, webhook="whk_2"))
        assert (await at.tried(1, "2", "whk_2")).code == 500


@pytest.mark.parametrize(
    ("gone", "told"),
    [("gone", "its secret was removed"), ("closed", "cannot be opened")],
)
async def test_without_its_secret_nothing_is_sent_and_it_is_tried_again(
    gone: str, told: str
) -> None:
    async with working() as at:
        at.keys.gone = gone
        await at.hook()
        await at.hooks.put(a_delivery("1", 1000.0))
        row = await at.tried(1)
        assert (row.status, at.post.sent) == ("pending", [])
        assert told in str(row.error)

        at.keys.gone = ""
        at.later(5)
        assert (await at.tried(2)).status == "delivered"


@dataclass
class Ill:
    """Webhooks whose storage cannot serve for a while."""

    hooks: Webhooks
    reads: int = 0
    writes: int = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.hooks, name)

    async def due(self, now: float, *, each: int) -> object:
        self.reads -= 1
        if self.reads >= 0:
            raise Unavailable("no")
        return await self.hooks.due(now, each=each)

    async def alter(
        self, tenant: TenantId, webhook: str, delivery: str, outcome: Outcome, *, at: float
    ) -> tuple[Webhook, Delivery]:
        self.writes -= 1
        if self.writes >= 0:
            raise Unavailable("no")
        return await self.hooks.alter(tenant, webhook, delivery, outcome, at=at)


async def test_a_storage_that_cannot_serve_puts_it_off_and_no_receiver_is_flooded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock(1000.0)
    ill = Ill(MemoryStore(clock=clock).webhooks, reads=1, writes=1)
    async with working(ill, clock) as at:  # type: ignore[arg-type]
        await at.hook()
        await at.hooks.put(a_delivery("1", 1000.0))
        with anyio.fail_after(PATIENCE_S):
            while ill.reads > 0:
                await anyio.lowlevel.checkpoint()
        at.worker.wake()
        await at.post.until(1)
        await at.hook("2")
        await at.hooks.put(a_delivery("2", 1000.0, webhook="whk_2"))
        await at.tried(1, "2", "whk_2")
        assert len(at.post.sent) == 2

        at.later(5)
        await at.tried(1)

    assert [name for _, name in at.post.sent] == ["evt_1", "evt_2", "evt_1"]
    assert "deliveries come later" in caplog.text
    assert "evt_1 of whk_1 was tried, which cannot be written" in caplog.text


async def test_a_commit_in_a_file_wakes_the_worker(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "log.db", clock=Clock(1000.0))
    try:
        async with working(SqliteWebhooks(store)) as at:
            await at.hook()
            for number in range(20):
                await at.hooks.put(a_delivery(str(number), 1000.0))
            for number in range(20):
                await at.tried(1, str(number))
    finally:
        store.close()

    assert len(at.post.sent) == 20


# -- over HTTP -------------------------------------------------------------------------------


async def test_an_answer_that_does_not_come_or_is_none_is_an_error_without_an_address() -> None:
    async def junk(reader: anyio.abc.ByteStream) -> None:
        await reader.receive()
        await reader.send(b"SSH-2.0-not-http\r\n\r\n")
        await reader.aclose()

    async def closes(reader: anyio.abc.ByteStream) -> None:
        await reader.receive()
        await reader.aclose()

    post = Poster(to_loopback(), patience_s=0.2)
    told = list[str | None]()
    try:
        async with receiving() as receiver:
            receiver.hangs()
            told.append((await post(receiver.url, headers={}, body=b"{}")).error)
        told.append((await post(receiver.url, headers={}, body=b"{}")).error)
        for answer in (junk, closes):
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.serve, answer)
                came = await post(f"http://127.0.0.1:{port}/", headers={}, body=b"{}")
                told.append(came.error)
                tasks.cancel_scope.cancel()
            await listener.aclose()
    finally:
        await post.aclose()

    assert told == [
        "no answer within 0.2 s",
        "Connection refused",
        "it gave no answer that is HTTP: ClientResponseError",
        "it closed the connection without an answer",
    ]


async def test_rules_that_were_tightened_since_hold_for_what_was_set_before() -> None:
    post = Poster(Outbound(Egress(), in_clear=False))
    async with receiving() as receiver:
        came = await post(receiver.url, headers={}, body=b"{}")
    await post.aclose()

    assert came.code is None
    assert "is connected to over https only" in str(came.error)
    assert receiver.came == []


async def test_no_connection_is_used_twice() -> None:
    post, ports = Poster(to_loopback()), list[str]()
    async with receiving() as receiver:
        for _ in range(3):
            came = await post(receiver.url, headers={"x": "1"}, body=b"{}")
            assert came.code == 204
        ports = [one.headers["connection"] for one in receiver.came]
    await post.aclose()

    assert ports == ["close"] * 3


def _none(*, make: bool, again: bool = False) -> tuple[()]:
    del make, again
    return ()
