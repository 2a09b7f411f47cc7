"""What storage promises of webhooks that several processes have: run these beside `WEBHOOK_SUITE`.

    @pytest.mark.parametrize("check", SHARED_WEBHOOK_SUITE, ids=lambda check: check.__name__)
    async def test_webhooks_of_two(check, url):
        await check(lambda clock: open_my_webhooks_twice(url, clock))

Invariant: a check knows the ports alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import anyio
from msgspec.structs import replace

from hostler.beside.webhooks import Delivery, Webhook, Webhooks
from hostler.core.store import Store
from hostler.testing.doubles import a_session
from hostler.testing.store_kit import Clock, a_run, spoke
from hostler.testing.webhook_suite import (
    DEFAULT,
    MANY,
    a_delivery,
    a_webhook,
    of,
    over,
    switched,
)

Kept: TypeAlias = tuple[Store, Webhooks]
OpenTwice: TypeAlias = Callable[[Clock], AbstractAsyncContextManager[tuple[Kept, Kept]]]
"""Opens empty storage twice, as two processes do, on one clock."""
Check: TypeAlias = Callable[[OpenTwice], Awaitable[None]]


async def ids(hooks: Webhooks, now: float, *, each: int = MANY) -> list[str]:
    return [row.id for _, row in (await hooks.due(now, each=each)).deliveries]


async def takes(hooks: Webhooks, now: float, *, until: float) -> list[str]:
    """Take all that is due; return what was taken."""
    rows = [row for _, row in (await hooks.due(now, each=MANY)).deliveries]
    return sorted(one.id for one in await hooks.take(rows, now=now, until=until))


async def what_one_has_taken_the_other_leaves_alone_until_it_is_free(make: OpenTwice) -> None:
    async with make(Clock()) as ((_, one), (_, two)):
        await one.add(a_webhook(), most=1)
        await one.put(a_delivery("1", 5.0))
        rows = [row for _, row in (await two.due(6.0, each=MANY)).deliveries]

        assert await takes(one, 6.0, until=50.0) == ["evt_1"]

        assert await two.take(rows, now=6.0, until=50.0) == [], "what was read before is taken"
        assert await two.due(6.0, each=MANY) == ([], 50.0)
        assert await takes(one, 7.0, until=51.0) == ["evt_1"], "who took it may go on"
        assert await takes(two, 50.5, until=99.0) == []
        assert await takes(two, 51.0, until=99.0) == ["evt_1"]
        assert await ids(one, 52.0) == []


async def of_many_who_take_at_once_one_gets_each(make: OpenTwice) -> None:
    async with make(Clock()) as ((_, one), (_, two)):
        await one.add(a_webhook(), most=1)
        for number in range(20):
            await one.put(a_delivery(f"{number:02}", 5.0))
        rows = [row for _, row in (await one.due(6.0, each=MANY)).deliveries]
        got = list[tuple[int, str]]()

        async def take(who: int, hooks: Webhooks, some: Sequence[Delivery]) -> None:
            taken = await hooks.take(some, now=6.0, until=50.0)
            got.extend((who, row.id) for row in taken)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take, 1, one, rows)
            tasks.start_soon(take, 2, two, [*reversed(rows)])
        for who, hooks in ((1, one), (2, two)):  # what both had their hands on is left
            got += [(who, name) for name in await takes(hooks, 6.0, until=50.0)]

        mine, theirs = ({name for by, name in got if by == who} for who in (1, 2))
        assert not mine & theirs
        assert mine | theirs == {row.id for row in rows}


async def a_try_that_is_written_frees_a_delivery_and_another_change_does_not(
    make: OpenTwice,
) -> None:
    def failed(hook: Webhook, row: Delivery) -> tuple[Webhook, Delivery]:
        return hook, replace(row, tries=row.tries + 1, next_at=7.0)

    def replayed(hook: Webhook, row: Delivery) -> tuple[Webhook, Delivery]:
        return hook, replace(row, replays=row.replays + 1, next_at=6.0)

    async with make(Clock()) as ((_, one), (_, two)):
        await one.add(a_webhook(), most=1)
        await one.put(a_delivery("1", 5.0))
        await takes(one, 6.0, until=50.0)

        await two.alter(DEFAULT, "whk_1", "evt_1", replayed, at=6.0)
        assert await ids(two, 7.0) == []
        await one.alter(DEFAULT, "whk_1", "evt_1", failed, at=6.5)

        assert await takes(two, 7.0, until=50.0) == ["evt_1"]


async def what_others_have_taken_counts_among_the_few_of_a_webhook(make: OpenTwice) -> None:
    async with make(Clock()) as ((_, one), (_, two)):
        for name in ("1", "2"):
            await one.add(a_webhook(name), most=9)
        for name, at in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
            await one.put(a_delivery(name, at))
        await one.put(a_delivery("d", 4.0, webhook="whk_2"))
        rows = [row for _, row in (await one.due(5.0, each=1)).deliveries]
        await one.take(rows[:1], now=5.0, until=50.0)

        assert await ids(two, 5.0, each=2) == ["evt_b", "evt_d"]
        assert await ids(one, 5.0, each=2) == ["evt_a", "evt_b", "evt_d"]


async def what_is_over_or_held_is_not_taken(make: OpenTwice) -> None:
    async with make(Clock()) as ((_, one), (_, two)):
        await one.add(a_webhook(), most=1)
        await one.put(a_delivery("1", 5.0))
        rows = [row for _, row in (await two.due(6.0, each=MANY)).deliveries]
        await one.alter(DEFAULT, "whk_1", "evt_1", over("delivered"), at=6.0)

        assert await two.take(rows, now=6.0, until=50.0) == []


async def each_tells_at_once_what_the_other_one_s_webhooks_want(make: OpenTwice) -> None:
    async with make(Clock()) as ((store, one), (_, two)):
        key = await a_session(store)
        told = list[int]()

        async def run(number: int) -> None:
            name = f"run_{number}"
            await store.append(key, [spoke(name), *a_run(name, "well", claim=number)])
            told.append(len(await of(one)) if await one.webhooks(DEFAULT, after="", limit=1) else 0)

        await run(1)
        await two.add(a_webhook(), most=1)
        await run(2)
        await two.change(DEFAULT, "whk_1", lambda hook: replace(hook, events=("run.failed",)), at=1)
        await run(3)
        await two.change(DEFAULT, "whk_1", lambda hook: replace(hook, events=None), at=1)
        await run(4)
        await two.change(DEFAULT, "whk_1", switched(1.0), at=1)
        await run(5)
        await two.remove(DEFAULT, "whk_1")
        await run(6)

        assert told == [0, 1, 1, 2, 2, 0]


SHARED_WEBHOOK_SUITE: Sequence[Check] = (
    what_one_has_taken_the_other_leaves_alone_until_it_is_free,
    of_many_who_take_at_once_one_gets_each,
    a_try_that_is_written_frees_a_delivery_and_another_change_does_not,
    what_others_have_taken_counts_among_the_few_of_a_webhook,
    what_is_over_or_held_is_not_taken,
    each_tells_at_once_what_the_other_one_s_webhooks_want,
)
