"""What every store promises of links, and of what sessions take and which may go."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from hostler.core.errors import Conflict, NotFound
from hostler.core.events import Key, PrincipalId, TenantId
from hostler.core.head import LONGEST_QUEUE
from hostler.core.records import Share
from hostler.core.store import Store
from hostler.testing.doubles import a_session, whole_log
from hostler.testing.store_kit import (
    Check,
    Clock,
    Open,
    a_new_session,
    a_run,
    ended,
    once,
    refused,
    spoke,
)


async def a_link_is_found_by_its_digest_until_it_expires(make: Open) -> None:
    clock = Clock(1000.0)
    async with make(clock=clock) as store:
        key = await a_session(store)
        short, long = _share(key, "shr_1", until=2000.5), _share(key, "shr_2", until=3000.0)
        await store.share(long)
        await store.share(short)

        assert await store.shares(key) == [short, long]
        assert await store.shared("digest of shr_1") == short
        assert await store.shared("of another") is None
        clock.now = 2000.5
        assert await store.shared("digest of shr_1") is None
        assert await store.shared("digest of shr_2") == long
        assert await store.shares(key) == [short, long]


async def a_link_can_be_taken_back(make: Open) -> None:
    async with make() as store:
        key, other = await a_session(store), await a_session(store)
        share = _share(key, "shr_1")
        await store.share(share)

        await store.unshare(other, "shr_1")
        assert await store.shared(share.digest) == share
        await store.unshare(key, "shr_1")
        await store.unshare(key, "shr_1")

        assert await store.shared(share.digest) is None
        assert list(await store.shares(key)) == []


async def links_go_with_their_session(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        share = _share(key, "shr_1")
        await store.share(share)

        await store.delete(key)

        assert await store.shared(share.digest) is None
        await refused(NotFound, store.share(share))


async def sessions_that_nobody_touched_since_may_go_oldest_first(make: Open) -> None:
    clock = Clock()
    async with make(clock=clock) as store:
        keys = [await _touched(store, clock, at) for at in (300.0, 100.0, 200.0)]
        going = await _touched(store, clock, 50.0, run="run_1")
        other = await _touched(store, clock, 150.0, tenant="other")

        async def forgettable(before: float, limit: int = 9) -> list[Key]:
            return list(await store.forgettable(before=before, keep=100, limit=limit))

        assert await forgettable(100.0) == []
        assert await forgettable(250.0) == [keys[1], other, keys[2]]
        assert await forgettable(250.0, limit=2) == [keys[1], other]
        await store.append(going, [ended("run_1")])
        assert going not in await forgettable(160.0), "it was touched just now"


async def each_tenant_keeps_so_many_sessions(make: Open) -> None:
    clock = Clock()
    async with make(clock=clock) as store:
        mine = [await _touched(store, clock, at) for at in (100.0, 400.0, 200.0)]
        theirs = [
            await _touched(store, clock, at, tenant="other") for at in (150.0, 300.0, 350.0, 50.0)
        ]
        await _touched(store, clock, 10.0, tenant="other", run="run_1")

        async def forgettable(keep: int, limit: int = 9) -> list[Key]:
            return list(await store.forgettable(before=0.0, keep=keep, limit=limit))

        assert await forgettable(5) == []
        assert await forgettable(3) == [theirs[3], theirs[0]]
        assert await forgettable(2) == [theirs[3], mine[0], theirs[0], theirs[1]]
        assert await forgettable(2, limit=3) == [theirs[3], mine[0], theirs[0]]


async def storage_says_what_sessions_take(make: Open) -> None:
    async with make() as store:
        small, large, _ = [await a_session(store) for _ in range(3)]
        await store.append(small, [spoke("run_1", "x")])
        await store.append(large, [spoke("run_2", "ü" * 5000), *a_run("run_2", "x", claim=1)])
        await store.append(await a_session(store, tenant="other"), [spoke("run_1")])

        told = await store.storage(small.tenant, limit=1)
        sizes = [
            sum(len(event.raw) for event in await whole_log(store, key)) for key in (small, large)
        ]

        assert (told.sessions, told.events, told.fact_bytes) == (3, 7, sum(sizes))
        assert list(told.largest) == [(large.session, 6, sizes[1])]
        assert (await store.storage(TenantId("nobody"), limit=1)).sessions == 0


async def only_what_was_not_touched_since_is_deleted_as_idle(make: Open) -> None:
    clock = Clock()
    async with make(clock=clock) as store:
        idle = await _touched(store, clock, 100.0)
        going = await _touched(store, clock, 100.0, run="run_1")

        assert await store.delete(idle, idle_since=100.0) == ()
        assert await store.delete(going, idle_since=200.0) == ()
        assert (await store.head(idle)).seq == 2
        assert (await store.head(going)).active == "run_1"

        assert list(await store.delete(idle, idle_since=100.5)) == [idle.session]
        await refused(NotFound, store.head(idle))
        assert await store.delete(idle, idle_since=100.5) == ()


async def links_that_expired_are_tidied_away(make: Open) -> None:
    clock = Clock(1000.0)
    async with make(clock=clock) as store:
        key = await a_session(store)
        short, long = _share(key, "shr_1", until=2000.0), _share(key, "shr_2", until=3000.0)
        await store.share(short)
        await store.share(long)

        clock.now = 2000.0
        await store.tidy()

        assert list(await store.shares(key)) == [long]


async def an_answer_of_the_last_day_is_not_tidied_away(make: Open) -> None:
    clock = Clock(1000.0)
    async with make(clock=clock) as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_1")], once=once("scope"))

        clock.now += 86_000.0
        await store.tidy()
        assert await store.kept(key.tenant, "scope") is not None
        clock.now += 1000.0
        await store.tidy()
        assert await store.kept(key.tenant, "scope") is None
        await store.append(key, [spoke("run_2")], once=once("scope"))


async def sessions_are_counted_by_tenant(make: Open) -> None:
    async with make() as store:
        keys = [await a_session(store) for _ in range(3)]
        await a_session(store, tenant="other")

        assert await store.count(TenantId("default")) == 3
        await store.delete(keys[0])
        assert await store.count(TenantId("default")) == 2
        assert await store.count(TenantId("nobody")) == 0


async def a_queue_has_an_end_and_what_is_past_it_writes_nothing(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_0")])
        async with anyio.create_task_group() as tasks:
            for i in range(LONGEST_QUEUE - 1):
                tasks.start_soon(store.append, key, [spoke(f"run_q{i}")])
        told = list[bool]()

        async def one_more(run: str) -> None:
            try:
                await store.append(key, [spoke(run)])
            except Conflict as error:
                told.append(error.code == "queue_full")

        async with anyio.create_task_group() as tasks:
            for i in range(5):
                tasks.start_soon(one_more, f"run_x{i}")

        assert told == [True] * 4
        assert len((await store.head(key)).queue) == LONGEST_QUEUE
        assert (await store.head(key)).seq == LONGEST_QUEUE + 1
        await store.append(key, [spoke("run_0", "joins", policy="steer")])
        await store.append(key, [ended("run_0")])
        await store.append(key, [spoke("run_last")])


RECORDS: Sequence[Check] = (
    only_what_was_not_touched_since_is_deleted_as_idle,
    links_that_expired_are_tidied_away,
    an_answer_of_the_last_day_is_not_tidied_away,
    sessions_are_counted_by_tenant,
    a_queue_has_an_end_and_what_is_past_it_writes_nothing,
    a_link_is_found_by_its_digest_until_it_expires,
    a_link_can_be_taken_back,
    links_go_with_their_session,
    sessions_that_nobody_touched_since_may_go_oldest_first,
    each_tenant_keeps_so_many_sessions,
    storage_says_what_sessions_take,
)


def _share(key: Key, share: str, *, until: float = 9_000_000_000.0) -> Share:
    return Share(
        tenant=key.tenant,
        id=share,
        session=key.session,
        digest=f"digest of {share}",
        principal=PrincipalId("p"),
        created_at=1.5,
        expires_at=until,
    )


async def _touched(
    store: Store, clock: Clock, at: float, *, tenant: str = "default", run: str | None = None
) -> Key:
    """Make a session that was last touched at a time; idle, or with a run."""
    session = a_new_session(tenant, at=at)
    assert await store.create(session)
    key, clock.now = Key(session.tenant, session.id), at
    facts = [spoke(run or "run_0"), *([] if run else [ended("run_0")])]
    await store.append(key, facts)
    clock.now = 10_000.0
    return key
