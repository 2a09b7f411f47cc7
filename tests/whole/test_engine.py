"""The embedded engine delivers each key to one handler at a time, at least once, and late if asked."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest

from hostler.core.errors import Fenced, NotFound, Unavailable
from hostler.core.events import RunId, RunKey, SessionId, TenantId
from hostler.core.ports import Handler, Job, Reply, World
from hostler.core.records import Appended
from hostler.engine import queuer
from hostler.engine.drive import Driver
from hostler.engine.queuer import EmbeddedEngine
from hostler.engine.reconcile import reconcile
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.testing.doubles import ModelDouble, a_session, an_agent
from hostler.testing.store_suite import spoke

pytestmark = pytest.mark.anyio


def key(run: str) -> RunKey:
    return RunKey(TenantId("default"), SessionId("ses_1"), RunId(run))


@dataclass
class Recorder:
    """A handler that can be held, and tells what it was given."""

    handled: list[str] = field(default_factory=list[str])
    answers: dict[str, list[float | None]] = field(default_factory=dict[str, list[float | None]])
    held: set[str] = field(default_factory=set[str])
    news: anyio.Event = field(default_factory=anyio.Event)
    release: anyio.Event = field(default_factory=anyio.Event)
    at_once: int = 0
    most_at_once: int = 0

    async def __call__(self, one: RunKey) -> float | None:
        self.handled.append(one.run)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.news.set()
        if one.run in self.held:
            await self.release.wait()
        self.at_once -= 1
        answers = self.answers.get(one.run, [])
        return answers.pop(0) if answers else None

    async def until(self, count: int) -> None:
        with anyio.fail_after(10):
            while len(self.handled) < count:
                self.news = anyio.Event()
                await self.news.wait()


@asynccontextmanager
async def serving(handler: Handler, *, slots: int = 100) -> AsyncGenerator[EmbeddedEngine]:
    engine = EmbeddedEngine()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: engine.serve(handler, slots=slots))
        yield engine
        tasks.cancel_scope.cancel()


async def rests(engine: EmbeddedEngine, *keys: RunKey) -> None:
    with anyio.fail_after(10):
        while len(await engine.idle(keys)) < len(keys):
            await anyio.lowlevel.checkpoint()


async def test_a_job_is_handled_once_and_then_is_not_live() -> None:
    recorder = Recorder()
    async with serving(recorder) as engine:
        await engine.enqueue(Job(key("run_1")))
        assert not await engine.idle([key("run_1")])
        await recorder.until(1)
        await rests(engine, key("run_1"))

    assert recorder.handled == ["run_1"]


async def test_a_key_that_is_queued_is_not_queued_twice() -> None:
    recorder = Recorder()
    engine = EmbeddedEngine()
    for _ in range(5):
        await engine.enqueue(Job(key("run_1")))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: engine.serve(recorder, slots=10))
        await recorder.until(1)
        await rests(engine, key("run_1"))
        tasks.cancel_scope.cancel()

    assert recorder.handled == ["run_1"]


async def test_a_key_that_is_rung_while_it_is_handled_is_handled_once_more_and_never_twice_at_once() -> (
    None
):
    recorder = Recorder(held={"run_1"})
    async with serving(recorder) as engine:
        await engine.enqueue(Job(key("run_1")))
        await recorder.until(1)
        await engine.enqueue(Job(key("run_1")))
        await engine.enqueue(Job(key("run_1")))
        recorder.release.set()
        await recorder.until(2)
        await rests(engine, key("run_1"))

    assert recorder.handled == ["run_1", "run_1"]
    assert recorder.most_at_once == 1


async def test_a_key_rung_right_after_its_handler_returned_is_not_lost() -> None:
    # PgQueuer keeps a finished job's deduplication for up to 0.1 s; a ring in it must count.
    recorder = Recorder()
    async with serving(recorder) as engine:
        for count in range(1, 11):
            await engine.enqueue(Job(key("run_1")))
            await recorder.until(count)
            await rests(engine, key("run_1"))

    assert len(recorder.handled) == 10


async def test_a_handler_that_asks_to_be_called_later_is_called_then() -> None:
    recorder = Recorder()
    recorder.answers["run_1"] = [time.time() + 0.3]
    began = time.monotonic()
    async with serving(recorder) as engine:
        await engine.enqueue(Job(key("run_1")))
        await recorder.until(1)
        assert not await engine.idle([key("run_1")])
        await recorder.until(2)

    assert time.monotonic() - began >= 0.29


async def test_an_earlier_time_wins_over_a_later_one() -> None:
    recorder = Recorder()
    async with serving(recorder) as engine:
        await engine.enqueue(Job(key("run_1"), time.time() + 3600))
        await engine.enqueue(Job(key("run_2"), time.time() + 3600))
        await engine.enqueue(Job(key("run_1")))
        await recorder.until(1)
        await rests(engine, key("run_1"))
        assert not await engine.idle([key("run_2")])

    assert recorder.handled == ["run_1"]


async def test_so_many_keys_are_handled_at_once_and_no_more() -> None:
    recorder = Recorder(held={f"run_{i}" for i in range(20)})
    async with serving(recorder, slots=4) as engine:
        for i in range(20):
            await engine.enqueue(Job(key(f"run_{i}")))
        await recorder.until(4)
        recorder.release.set()
        await recorder.until(20)

    assert recorder.most_at_once == 4


async def test_leaving_cancels_the_handlers_in_flight() -> None:
    recorder, ended = Recorder(held={"run_1"}), list[str]()

    async def handler(one: RunKey) -> float | None:
        try:
            return await recorder(one)
        finally:
            ended.append(one.run)

    with anyio.fail_after(10):
        async with serving(handler) as engine:
            await engine.enqueue(Job(key("run_1")))
            await recorder.until(1)

    assert ended == ["run_1"]


async def test_leaving_ends_at_once_though_others_wait_for_a_slot() -> None:
    recorder = Recorder(held={"run_0"})
    with anyio.fail_after(5):
        async with serving(recorder, slots=1) as engine:
            for i in range(5):
                await engine.enqueue(Job(key(f"run_{i}")))
            await recorder.until(1)
            await anyio.wait_all_tasks_blocked()

    assert recorder.handled == ["run_0"]


async def test_a_run_that_is_handled_is_no_job_that_each_dequeue_looks_at() -> None:
    runs = [f"run_{i}" for i in range(50)]
    recorder = Recorder(held=set(runs))
    async with serving(recorder) as engine:
        for run in runs:
            await engine.enqueue(Job(key(run)))
        await recorder.until(len(runs))

        with anyio.fail_after(10):
            while await engine._queries.queue_size():
                await anyio.lowlevel.checkpoint()
        assert not await engine.idle([key(run) for run in runs])


async def test_a_handler_that_raises_is_logged_and_ends_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder()

    async def handler(one: RunKey) -> float | None:
        if one.run == "run_bad":
            raise RuntimeError("a bug")
        return await recorder(one)

    async with serving(handler, slots=1) as engine:
        await engine.enqueue(Job(key("run_bad")))
        await engine.enqueue(Job(key("run_good")))
        await recorder.until(1)
        await rests(engine, key("run_bad"), key("run_good"))

    assert "run_bad failed" in caplog.text


async def test_the_job_log_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queuer, "CLEAR_EVERY", 10)
    recorder = Recorder()
    async with serving(recorder) as engine:
        with anyio.fail_after(10):
            while len(recorder.handled) < 100 or len(await engine._queries.queue_log()) > 50:
                await engine.enqueue(Job(key(f"run_{len(recorder.handled)}")))
                await anyio.lowlevel.checkpoint()


class Troubled(MemoryStore):
    """Raises what it is given, one after the other, then works."""

    def __init__(self, *troubles: Exception) -> None:
        super().__init__()
        self.troubles = list(troubles)

    async def append(self, *args: object, **kwargs: object) -> Appended:
        if kwargs.get("fence") is not None and self.troubles:
            raise self.troubles.pop(0)
        return await super().append(*args, **kwargs)  # type: ignore[arg-type]


async def a_driver(*troubles: Exception) -> tuple[Driver, RunKey, list[float]]:
    now = [1000.0]
    store = Troubled(*troubles)
    session = await a_session(store)
    await store.append(session, [spoke("run_1")])
    agent = an_agent(ModelDouble(lambda _: Reply(text="ok", stop="end")))
    world = World("w", clock=lambda: now[0])
    driver = Driver(agents=lambda _: agent, store=store, signals=LocalSignals(), world=world)
    return driver, RunKey(*session, RunId("run_1")), now


async def test_a_store_that_cannot_write_now_is_tried_again_with_growing_patience() -> None:
    driver, run, _ = await a_driver(*[Unavailable("full")] * 3)

    waits = [await driver(run) for _ in range(4)]

    assert waits == [1001.0, 1002.0, 1004.0, None]
    assert (await driver.store.head(run[:2])).active is None  # type: ignore[arg-type]


async def test_a_bug_in_one_run_is_logged_and_does_not_reach_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver, run, _ = await a_driver(RuntimeError("a bug"))

    assert await driver(run) == 1001.0

    assert "a bug" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("error", [Fenced("outbid"), NotFound("deleted")])
async def test_a_run_that_is_not_ours_any_more_is_let_go(error: Exception) -> None:
    driver, run, _ = await a_driver(error)
    assert await driver(run) is None


async def test_a_job_whose_time_comes_later_as_the_clock_is_set_back_is_handled_then() -> None:
    recorder, ahead_s = Recorder(), [0.0]
    engine = EmbeddedEngine(clock=lambda: time.time() + ahead_s[0])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: engine.serve(recorder, slots=1))
        await engine.enqueue(Job(key("run_1"), time.time() + 0.2))
        ahead_s[0] = -0.5
        await recorder.until(1)
        tasks.cancel_scope.cancel()


async def test_every_unfinished_run_without_a_job_is_rung_for_once() -> None:
    store, engine = MemoryStore(), EmbeddedEngine()
    sessions = [await a_session(store) for _ in range(3)]
    for place, session in enumerate(sessions):
        await store.append(session, [spoke(f"run_{place}")])
    await engine.enqueue(Job(RunKey(*sessions[0], RunId("run_0"))))

    assert await reconcile(store, engine) == 2
    assert await reconcile(store, engine) == 0
