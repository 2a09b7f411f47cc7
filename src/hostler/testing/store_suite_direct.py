"""What every store promises of direct calls: kept once, counted with the others, gone when they are old."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import anyio
from msgspec.structs import replace

from hostler.core.events import Key, PrincipalId, TenantId, Usage
from hostler.core.ledger import MOST_COST, MOST_TOKENS, By, DirectCall, Spent
from hostler.core.store import Store
from hostler.testing.doubles import a_session
from hostler.testing.store_kit import Check, Open, a_run, spoke

A, B = TenantId("a"), TenantId("b")
USED = Usage(
    input_tokens=7,
    output_tokens=5,
    cache_read_tokens=3,
    cache_write_tokens=2,
    reasoning_tokens=1,
    cost=Decimal("0.25"),
    price="2026-01-01",
)


def a_direct_call(
    name: str = "dir_1", *, tenant: TenantId = A, who: str = "ann", at: float = 1_000.0
) -> DirectCall:
    """Return a question that is open."""
    return DirectCall(
        tenant=tenant,
        id=name,
        principal=PrincipalId(who),
        provider="p",
        model="m",
        asked_at=at,
        purpose="nightly",
    )


def replied(call: DirectCall, usage: Usage = USED) -> DirectCall:
    return replace(
        call,
        status="replied",
        usage=usage,
        unpriced=usage.cost is None,
        ended_at=call.asked_at + 1,
        first_token_s=0.5,
    )


async def sums(
    store: Store,
    by: Sequence[By] = ("tenant",),
    *,
    tenant: TenantId = A,
    since: float = 0.0,
    before: float = 1e10,
    seen_by: str | None = None,
) -> Sequence[Spent]:
    """Return the usage of a tenant."""
    return await store.ledger.usage(
        tenant,
        by,
        since=since,
        before=before,
        after=(),
        limit=100,
        seen_by=None if seen_by is None else PrincipalId(seen_by),
    )


async def a_direct_call_is_a_call_and_no_run(make: Open) -> None:
    async with make() as store:
        key = await a_session(store, tenant=A)
        await store.append(key, [spoke("run_1"), *a_run("run_1", "so", claim=1)])
        await store.ledger.keep_direct(replied(a_direct_call()))

        (whole,) = await sums(store)
        split = await sums(store, ("user", "agent", "model", "day"))

        assert (whole.runs, whole.calls, whole.input_tokens) == (1, 2, 10)
        assert (whole.output_tokens, whole.reasoning_tokens) == (5, 1)
        assert (whole.cache_read_tokens, whole.cache_write_tokens) == (3, 2)
        assert (whole.cost, whole.unpriced_calls) == (Decimal("0.25"), 1)
        assert [(one.by["user"], one.by["agent"], one.runs, one.calls) for one in split] == [
            ("ann", "", 0, 1),
            ("p", "double", 1, 1),
        ]
        assert (split[0].by["model"], split[0].by["day"]) == ("p:m", "1970-01-01")


async def a_later_row_of_a_direct_call_replaces_it(make: Open) -> None:
    async with make() as store:
        call = a_direct_call()
        await store.ledger.keep_direct(call)
        (asked,) = await sums(store)
        failed = replace(
            call, status="failed", error_type="server", error_message="oh", ended_at=1_001.0
        )
        await store.ledger.keep_direct(failed)
        (over,) = await sums(store)

        assert (asked.calls, asked.failed_calls, asked.unpriced_calls) == (1, 0, 0)
        assert (over.calls, over.failed_calls, over.unpriced_calls) == (1, 1, 0)


async def direct_calls_that_are_kept_at_once_are_all_kept(make: Open) -> None:
    async with make() as store:

        async def ask(number: int) -> None:
            call = a_direct_call(f"dir_{number}", who=f"user-{number % 3}", at=number)
            await store.ledger.keep_direct(call)
            await store.ledger.keep_direct(replied(call))

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(ask, number)

        (whole,) = await sums(store)
        assert (whole.calls, whole.input_tokens, whole.cost) == (100, 700, Decimal(25))


async def what_is_kept_of_a_direct_call_is_what_it_was_then(make: Open) -> None:
    async with make() as store:
        call = a_direct_call()
        await store.ledger.keep_direct(call)
        call.status, call.unpriced = "failed", True

        (asked,) = await sums(store)

        assert (asked.failed_calls, asked.unpriced_calls) == (0, 0)


async def a_direct_call_is_its_user_s_and_its_tenant_s(make: Open) -> None:
    async with make() as store:
        await store.ledger.keep_direct(replied(a_direct_call("dir_1", who="ann")))
        await store.ledger.keep_direct(replied(a_direct_call("dir_2", who="bob")))
        await store.ledger.keep_direct(replied(a_direct_call("dir_1", tenant=B, who="ann")))

        (whole,) = await sums(store)
        (own,) = await sums(store, seen_by="ann")

        assert (whole.calls, own.calls) == (2, 1)
        assert await sums(store, seen_by="eve") == []
        assert [one.calls for one in await sums(store, tenant=B)] == [1]


async def direct_calls_are_summed_over_the_time_that_is_asked_for(make: Open) -> None:
    async with make() as store:
        for at in (10.0, 20.0, 30.0):
            await store.ledger.keep_direct(replied(a_direct_call(f"dir_{at}", at=at)))

        (some,) = await sums(store, since=10.0, before=30.0)

        assert some.calls == 2


async def old_direct_calls_are_forgotten_but_open_ones_and_those_of_others(make: Open) -> None:
    async with make() as store:
        for at in (10.0, 20.0, 30.0):
            await store.ledger.keep_direct(replied(a_direct_call(f"dir_{at}", at=at)))
        await store.ledger.keep_direct(a_direct_call("dir_open", at=5.0))
        await store.ledger.keep_direct(replied(a_direct_call(tenant=B, at=10.0)))

        gone = 0
        while more := await store.ledger.forget_direct(A, 30.0):
            gone += more

        assert gone == 2
        assert [one.calls for one in await sums(store)] == [2]
        assert [one.calls for one in await sums(store, tenant=B)] == [1]


async def absurd_numbers_of_a_direct_call_are_the_most_there_is(make: Open) -> None:
    async with make() as store:
        usage = Usage(input_tokens=2**63, output_tokens=-1, cost=Decimal("1E+400000"))
        await store.ledger.keep_direct(replied(a_direct_call("dir_1"), usage))
        usage = Usage(input_tokens=1, cost=Decimal("NaN"))
        await store.ledger.keep_direct(replied(a_direct_call("dir_2"), usage))

        (whole,) = await sums(store)

        assert (whole.input_tokens, whole.output_tokens) == (MOST_TOKENS + 1, 0)
        assert whole.cost == MOST_COST


async def direct_calls_outlive_the_sessions_of_their_user(make: Open) -> None:
    async with make() as store:
        key: Key = await a_session(store, tenant=A)
        await store.append(key, [spoke("run_1"), *a_run("run_1", "so", claim=1)])
        await store.ledger.keep_direct(replied(a_direct_call()))

        await store.delete(key)

        assert [(one.runs, one.calls) for one in await sums(store)] == [(0, 1)]


DIRECT: Sequence[Check] = (
    a_direct_call_is_a_call_and_no_run,
    a_later_row_of_a_direct_call_replaces_it,
    direct_calls_that_are_kept_at_once_are_all_kept,
    what_is_kept_of_a_direct_call_is_what_it_was_then,
    a_direct_call_is_its_user_s_and_its_tenant_s,
    direct_calls_are_summed_over_the_time_that_is_asked_for,
    old_direct_calls_are_forgotten_but_open_ones_and_those_of_others,
    absurd_numbers_of_a_direct_call_are_the_most_there_is,
    direct_calls_outlive_the_sessions_of_their_user,
)
