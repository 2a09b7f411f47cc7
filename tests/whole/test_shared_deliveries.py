"""Deliveries of storage that several processes have: each is sent by one of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from tests.senders import At, working
from tests.services import Database

from hostler.beside.webhooks import Posted
from hostler.service import delivering
from hostler.service.delivering import TAKEN_S
from hostler.stores.postgres_open import open_postgres
from hostler.stores.postgres_webhooks import PostgresWebhooks
from hostler.testing.store_kit import Clock
from hostler.testing.webhook_suite import a_delivery, a_webhook

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def two_working(url: str, clock: Clock) -> AsyncGenerator[tuple[At, At]]:
    """Yield two workers, each with a store of its own on one database."""
    async with (
        open_postgres(url, clock=clock) as one,
        open_postgres(url, clock=clock) as two,
        working(PostgresWebhooks(one), clock) as here,
        working(PostgresWebhooks(two), clock) as there,
    ):
        yield here, there


async def test_of_two_workers_on_one_database_one_sends_each(postgres: Database) -> None:
    async with two_working(postgres.url, Clock(1000.0)) as (here, there):
        await here.hook()
        for number in range(20):
            await here.hooks.put(a_delivery(str(number), 1000.0))
            there.worker.wake()
        for number in range(20):
            await here.tried(1, str(number))

    sent = [name for _, name in (*here.post.sent, *there.post.sent)]
    assert sorted(sent) == sorted(f"evt_{number}" for number in range(20))


async def never(_: str) -> Posted:
    await anyio.sleep_forever()
    raise AssertionError


async def test_what_a_sender_that_leaves_had_on_its_way_another_one_sends_at_once(
    postgres: Database,
) -> None:
    clock = Clock(1000.0)
    async with open_postgres(postgres.url, clock=clock) as one:
        async with working(PostgresWebhooks(one), clock) as here:
            here.post.answer = never
            await here.hook()
            await here.hooks.put(a_delivery("1", 1000.0))
            await here.post.until(1)
        async with working(PostgresWebhooks(one), clock) as there:
            sent = await there.tried(1)

    assert (sent.status, len(there.post.sent)) == ("delivered", 1)


async def test_what_a_sender_that_died_had_taken_another_one_sends(postgres: Database) -> None:
    clock = Clock(1000.0)
    async with open_postgres(postgres.url, clock=clock) as one:
        dead = PostgresWebhooks(one)
        await dead.add(a_webhook(), most=1)
        await dead.put(a_delivery("1", 1000.0))
        taken = [row for _, row in (await dead.due(clock.now, each=1)).deliveries]
        assert await dead.take(taken, now=clock.now, until=clock.now + TAKEN_S)
        async with working(PostgresWebhooks(one), clock) as there:
            assert await there.hooks.due(clock.now, each=1) == ([], clock.now + TAKEN_S)
            assert there.post.sent == []
            there.later(TAKEN_S)
            sent = await there.tried(1)

    assert (sent.status, len(there.post.sent)) == ("delivered", 1)


async def test_what_a_slow_receiver_takes_long_to_answer_is_kept_by_who_sent_it(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "RENEWED", 1000)
    clock = Clock(1000.0)
    async with open_postgres(postgres.url, clock=clock) as one:
        other = PostgresWebhooks(one)
        async with working(PostgresWebhooks(one), clock) as here:
            here.post.answer = never
            await here.hook()
            await here.hooks.put(a_delivery("1", 1000.0))
            await here.post.until(1)
            here.later(2 * TAKEN_S)
            with anyio.fail_after(10):
                while await other.due(clock.now, each=1) != ([], clock.now + TAKEN_S):
                    await anyio.lowlevel.checkpoint()


async def test_what_another_process_commits_is_found_without_being_told(
    postgres: Database,
) -> None:
    clock = Clock(1000.0)
    async with open_postgres(postgres.url, clock=clock) as one:
        other = PostgresWebhooks(one)
        await other.add(a_webhook(), most=1)
        async with (
            open_postgres(postgres.url, clock=clock) as two,
            working(PostgresWebhooks(two), clock, look_s=0.01) as at,
        ):
            await other.put(a_delivery("1", 1000.0))
            sent = await at.tried(1)

    assert sent.status == "delivered"


async def test_a_secret_that_is_not_known_yet_is_looked_for_before_a_try_fails() -> None:
    async with working() as at:
        at.keys.gone = "yes"

        async def reread() -> None:
            at.keys.gone = ""

        at.worker.reread = reread
        await at.hook()
        await at.hooks.put(a_delivery("1", 1000.0))
        sent = await at.tried(1)

    assert (sent.status, sent.code) == ("delivered", 204)
