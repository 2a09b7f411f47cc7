"""A queue in Redis: what others write there, what is left there, and a Redis that hangs or forgets."""

from __future__ import annotations

import pickle
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias, cast

import anyio
import anyio.lowlevel
import pytest
from redis.asyncio import Redis
from tests.fleets import PrivateRedis, a_redis

from hostler.core.errors import Unavailable
from hostler.core.ports import Job
from hostler.engine.docket import DocketEngine
from hostler.engine.docket_queue import Held, Queue
from hostler.testing.engine_suite import PATIENCE_S, Recorder, a_key, idle, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
LEASE_S = 1.0
KEY = a_key("run_1")


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncGenerator[PrivateRedis]:
    async with a_redis(tmp_path) as one:
        yield one


def a_node(redis: PrivateRedis, fleet: str = "test") -> DocketEngine:
    return DocketEngine(partial(Queue, redis.url, fleet, answer_s=LEASE_S), lease_s=LEASE_S)


class Asked:
    """A client of a Redis."""

    def __init__(self, redis: PrivateRedis) -> None:
        self.client = Redis.from_url(redis.url, protocol=2)  # pyright: ignore[reportUnknownMemberType]

    async def __call__(self, *words: str | bytes) -> object:
        answer = await self.client.execute_command(*words)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return cast("object", answer)


@pytest.fixture
async def ask(redis: PrivateRedis) -> AsyncGenerator[Asked]:
    asked = Asked(redis)
    yield asked
    await asked.client.aclose()


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.file,))


Change: TypeAlias = dict[str, bytes]
CHANGES: dict[str, Change] = {
    "other arguments": {"args": pickle.dumps((1,))},
    "a key that is none": {"key": b"one/two"},
    "another time": {"when": b"never"},
    "no number": {"generation": b"x"},
    "another task": {"function": b"trace"},
    "a field more": {"more": b""},
    "an empty one": {},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_a_message_of_somebody_else_is_removed_and_the_next_one_is_handled(
    redis: PrivateRedis, ask: Asked, change: Change
) -> None:
    recorder, node = Recorder(), a_node(redis)
    said = {"args": b"\x80\x05).", "kwargs": b"\x80\x05}.", "function": b"run", "attempt": b"1"}
    fields = {**said, "key": b"a/b/c", "generation": b"0", "when": b"now", **change}
    words = [word for pair in fields.items() for word in pair]
    await ask("XADD", "test:runs:stream", "*", *words)
    async with serving(node, recorder):
        await node.enqueue(Job(KEY))
        await recorder.until(1)
        await idle(node, KEY)
    assert recorder.handled == [KEY]
    assert await ask("XLEN", "test:runs:stream") == 0


async def test_nothing_that_redis_holds_is_unpickled(
    redis: PrivateRedis, ask: Asked, tmp_path: Path
) -> None:
    recorder, node = Recorder(), a_node(redis)
    evil = pickle.dumps(Evil(tmp_path / "was_here"))
    await node.enqueue(Job(KEY))
    ((_, fields),) = cast(
        "list[tuple[bytes, dict[bytes, bytes]]]",
        await ask("XRANGE", "test:runs:stream", "-", "+"),
    )
    for field in (b"args", b"kwargs"):
        words = [word for pair in {**fields, field: evil}.items() for word in pair]
        await ask("XADD", "test:runs:stream", "*", *words)
    strike = ("direction", "strike", "operator", "==", "function", "run", "parameter", "x")
    await ask("XADD", "test:runs:strikes", "*", *strike, "value", evil)
    async with serving(node, recorder):
        await recorder.until(1)
        await node.enqueue(Job(a_key("run_2")))
        await recorder.until(2)
    assert not (tmp_path / "was_here").exists()


async def test_what_is_done_leaves_nothing_and_all_names_begin_with_the_fleets(
    redis: PrivateRedis, ask: Asked
) -> None:
    recorder, node, keys = Recorder(), a_node(redis), [a_key(f"run_{one}") for one in range(50)]
    await ask("SET", "of_somebody_else", "1")
    async with serving(node, recorder):
        for key in keys:
            await node.enqueue(Job(key))
        await recorder.until(50)
        await idle(node, *keys)
    names = set(cast("list[bytes]", await ask("KEYS", "*")))
    lasting = {b"test:runs:stream", b"test:runs:memory", b"test:runs:leases:redelivery-sweep"}
    assert names - lasting == {b"of_somebody_else"}
    assert await ask("XLEN", "test:runs:stream") == 0
    assert await ask("XINFO", "CONSUMERS", "test:runs:stream", "docket-workers") == []


async def test_fleets_of_two_names_share_a_redis_and_no_run(redis: PrivateRedis) -> None:
    ours, theirs = Recorder(), Recorder()
    here, there = a_node(redis, "one"), a_node(redis, "two")
    async with serving(here, ours), serving(there, theirs):
        await here.enqueue(Job(KEY))
        await ours.until(1)
        await there.enqueue(Job(a_key("run_2")))
        await theirs.until(1)
    assert (ours.handled, theirs.handled) == ([KEY], [a_key("run_2")])


async def test_what_is_held_as_redis_forgets_all_is_kept_and_handled_once(
    redis: PrivateRedis,
) -> None:
    here, there = Recorder(holds=lambda _: True), Recorder()
    first, second = a_node(redis), a_node(redis)
    async with serving(first, here):
        await first.enqueue(Job(KEY))
        await here.until(1)
        redis.kill()
        await redis.start()
        async with serving(second, there):
            with anyio.fail_after(PATIENCE_S):
                while await second.idle([KEY]):
                    await anyio.lowlevel.checkpoint()
            await second.enqueue(Job(KEY))
            here.release.set()
            await here.until(1)
            await idle(second, KEY)
    assert sorted(here.handled + there.handled) == [KEY, KEY]
    assert here.cancelled == there.cancelled == []


async def test_a_redis_that_hangs_for_longer_than_a_lease_ends_no_handler(
    redis: PrivateRedis,
) -> None:
    here, there = Recorder(holds=lambda _: True), Recorder(holds=lambda _: True)
    first, second = a_node(redis), a_node(redis)
    async with serving(first, here), serving(second, there):
        await first.enqueue(Job(KEY))
        with anyio.fail_after(PATIENCE_S):
            while first.live + second.live < 1:
                await anyio.lowlevel.checkpoint()
        redis.pause()
        with pytest.raises(Unavailable), anyio.fail_after(10 * LEASE_S):
            await first.idle([KEY])
        await first.enqueue(Job(a_key("run_2")))  # the reconciler will
        redis.resume()
        await second.enqueue(Job(a_key("run_3")))
        with anyio.fail_after(PATIENCE_S):
            while a_key("run_3") not in here.handled + there.handled:
                await anyio.lowlevel.checkpoint()
        assert here.cancelled == there.cancelled == []
        assert (here.handled + there.handled).count(KEY) == 1


async def test_a_node_whose_redis_is_gone_does_not_serve_until_it_is_back(
    redis: PrivateRedis,
) -> None:
    recorder, node = Recorder(), a_node(redis)
    async with serving(node, recorder):
        await node.enqueue(Job(KEY))
        await recorder.until(1)
        assert node.serves
        redis.kill()
        with anyio.fail_after(PATIENCE_S):
            while node.serves:
                await anyio.lowlevel.checkpoint()
        await redis.start()
        with anyio.fail_after(PATIENCE_S):
            while not node.serves:
                await anyio.lowlevel.checkpoint()


async def test_only_the_claim_that_has_a_job_ends_it(redis: PrivateRedis, ask: Asked) -> None:
    queue = Queue(redis.url, "test", answer_s=LEASE_S)
    recorder, node = Recorder(holds=lambda _: True), a_node(redis)
    async with serving(node, recorder):
        await node.enqueue(Job(KEY))
        await recorder.until(1)
        ((message, _),) = cast(
            "list[tuple[bytes, object]]", await ask("XRANGE", "test:runs:stream", "-", "+")
        )
        thawed = Held(message, "/".join(KEY), f"somebody-else {message.decode()}")
        for again in (None, 0.0):
            await queue.finish(thawed, again, 1.0)
        _, ours = await queue.beat([thawed], worker="somebody-else", known="", lease_s=LEASE_S)
        assert ours == []
        assert await queue.idle([KEY]) == []
        recorder.release.set()
        await idle(node, KEY)
    await queue.close()
    assert recorder.handled == [KEY]


async def test_who_waits_is_counted_and_for_how_long(redis: PrivateRedis) -> None:
    queue = Queue(redis.url, "test", answer_s=LEASE_S)
    assert await queue.count(0.0) == (0, 0.0)
    for number in range(3):
        await queue.ring(Job(a_key(f"run_{number}")), 1.0)
    await queue.ring(Job(a_key("run_late"), 2.0), 1.0)
    await queue.ring(Job(a_key("run_later"), 99.0), 1.0)
    await queue.begin()
    with anyio.fail_after(PATIENCE_S):
        while (await queue.count(3.0))[1] == 0.0:
            await anyio.lowlevel.checkpoint()
    assert (await queue.count(3.0))[0] == 4
    await queue.close()


async def test_a_ring_for_a_key_that_is_handled_begins_nothing_beside_it(
    redis: PrivateRedis, ask: Asked
) -> None:
    recorder, node = Recorder(holds=lambda _: True), a_node(redis)
    async with serving(node, recorder):
        await node.enqueue(Job(KEY))
        await recorder.until(1)
        await node.enqueue(Job(KEY))
        assert await ask("XLEN", "test:runs:stream") == 1
        recorder.release.set()
        await recorder.until(2)
        await idle(node, KEY)
    assert recorder.cancelled == []
