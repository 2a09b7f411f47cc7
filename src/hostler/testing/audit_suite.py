"""What every audit log keeps: the checks of `core.audited.Audits`, for any adapter.

Invariant: each check is one promise, and needs nothing but an empty log and a clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import anyio
from msgspec.structs import replace

from hostler.core.audited import CUT, FIRST, LONGEST, MOST_DETAILS, Audits, Detail, Entry, Wanted
from hostler.core.events import PrincipalId, TenantId
from hostler.service.chain import Broken, check
from hostler.testing.store_kit import Clock

A, B = TenantId("a"), TenantId("b")
MANY = 10_000
DAY_S = 86_400.0


class Open(Protocol):
    """Opens an empty log, and closes it in the end."""

    def __call__(self, *, clock: Clock = ...) -> AbstractAsyncContextManager[Audits]: ...


Check = Callable[[Open], Awaitable[None]]


def an_entry(
    action: str = "key.create",
    *,
    tenant: TenantId = A,
    principal: str = "admin",
    **details: Detail,
) -> Entry:
    """Return what somebody did."""
    return Entry(
        tenant=tenant,
        action=action,
        principal=PrincipalId(principal),
        kind="key",
        object="key_1",
        details=details,
    )


async def rows_are_numbered_and_each_seals_the_one_before(make: Open) -> None:
    async with make() as audits:
        first = await audits.write(an_entry(note="ünïcode \u2028 \U0001f40e", bad="\ud800\x00"))
        second = await audits.write(an_entry("key.revoke"))

        assert (first.seq, first.previous) == (1, FIRST)
        assert (second.seq, second.previous) == (2, first.hash)
        rows = await audits.rows(A, after=0, limit=MANY)
        assert list(rows) == [first, second]
        assert check(rows) == await audits.head(A)


async def tenants_have_chains_of_their_own(make: Open) -> None:
    async with make() as audits:
        await audits.write(an_entry())
        other = await audits.write(an_entry(tenant=B))

        assert (other.seq, other.previous) == (1, FIRST)
        assert [row.tenant for row in await audits.newest(A, Wanted(), limit=MANY)] == [A]
        assert (await audits.head(TenantId("c"))).seq == 0


async def many_at_once_are_one_chain(make: Open) -> None:
    async with make() as audits:
        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(audits.write, an_entry(number=number))

        rows = await audits.rows(A, after=0, limit=MANY)
        assert [row.seq for row in rows] == list(range(1, 41))
        assert not isinstance(check(rows), Broken)


async def pages_go_back_from_the_newest(make: Open) -> None:
    async with make() as audits:
        for number in range(5):
            await audits.write(an_entry(number=number))

        page = await audits.newest(A, Wanted(), limit=2)
        assert [row.seq for row in page] == [5, 4]
        rest = await audits.newest(A, Wanted(after=4), limit=MANY)
        assert [row.seq for row in rest] == [3, 2, 1]
        assert [row.seq for row in await audits.rows(A, after=3, limit=1)] == [4]


async def rows_are_found_by_time_action_and_principal(make: Open) -> None:
    clock = Clock()
    async with make(clock=clock) as audits:
        for number, action in enumerate(("key.create", "key.revoke", "key.create")):
            clock.now = 1_000_000.0 + number
            await audits.write(an_entry(action, principal=f"p{number}"))

        async def found(**wanted: object) -> list[int]:
            rows = await audits.newest(A, Wanted(**wanted), limit=MANY)  # type: ignore[arg-type]
            return [row.seq for row in rows]

        assert await found(action="key.create") == [3, 1]
        assert await found(principal="p1") == [2]
        assert await found(since=1_000_001.0) == [3, 2]
        assert await found(until=1_000_001.0) == [1]
        assert await found(action="key.create", since=1_000_001.0, after=3) == []


async def values_are_bounded(make: Open) -> None:
    async with make() as audits:
        much: dict[str, Detail] = {f"name{number}": "x" * 10_000 for number in range(100)}
        row = await audits.write(replace(an_entry(principal="p" * 10_000), details=much))

        assert len(row.principal) <= LONGEST
        assert len(str(row.details)) <= MOST_DETAILS * (LONGEST + 20)


async def a_cut_chain_is_whole_and_says_where_it_was_cut(make: Open) -> None:
    clock = Clock()
    async with make(clock=clock) as audits:
        for day in range(4):
            clock.now = 1_000_000.0 + day * DAY_S
            await audits.write(an_entry(day=day))
            await audits.write(an_entry(tenant=B))

        assert await audits.cut(1_000_000.0 + 2 * DAY_S, worth_s=DAY_S) == 4

        rows = await audits.rows(A, after=0, limit=MANY)
        assert [row.seq for row in rows] == [3, 4, 5]
        assert [row.details.get("day") for row in rows] == [2, 3, None]
        assert (rows[2].action, rows[2].details["through"]) == (CUT, 2)
        assert rows[2].details["hash"] == rows[0].previous
        assert not isinstance(check(rows), Broken)


async def a_cut_leaves_a_row_even_when_all_are_old(make: Open) -> None:
    clock = Clock()
    async with make(clock=clock) as audits:
        await audits.write(an_entry())
        clock.now += 10 * DAY_S

        assert await audits.cut(clock.now, worth_s=DAY_S) == 1

        rows = await audits.rows(A, after=0, limit=MANY)
        assert [(row.seq, row.action) for row in rows] == [(2, CUT)]
        assert not isinstance(check(rows), Broken)


async def nothing_is_cut_that_is_not_worth_a_row(make: Open) -> None:
    clock = Clock()
    async with make(clock=clock) as audits:
        await audits.write(an_entry())

        assert await audits.cut(clock.now + DAY_S / 2, worth_s=DAY_S) == 0
        assert await audits.cut(clock.now, worth_s=0) == 0
        assert (await audits.head(A)).seq == 1


AUDIT_SUITE: list[Check] = [
    rows_are_numbered_and_each_seals_the_one_before,
    tenants_have_chains_of_their_own,
    many_at_once_are_one_chain,
    pages_go_back_from_the_newest,
    rows_are_found_by_time_action_and_principal,
    values_are_bounded,
    a_cut_chain_is_whole_and_says_where_it_was_cut,
    a_cut_leaves_a_row_even_when_all_are_old,
    nothing_is_cut_that_is_not_worth_a_row,
]
