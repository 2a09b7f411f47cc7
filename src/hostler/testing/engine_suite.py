"""What all engines promise, one check per promise: run them on yours.

    @pytest.mark.parametrize("check", ENGINE_SUITE, ids=lambda check: check.__name__)
    async def test_engine(check):
        await check(open_my_nodes)

`FLEET_SUITE` is for those whose processes share one queue.  That a worker may be killed or stopped
is shown with real processes, beside these.

Invariant: a check knows the port alone, and waits for no more than `PATIENCE_S`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import anyio
import anyio.lowlevel

from hostler.core.events import Event, Key, RunEnded, RunId, RunKey, SessionId, TenantId
from hostler.core.ports import Engine, Handler, Job
from hostler.core.store import Store
from hostler.testing.crashing import check_log
from hostler.testing.doubles import whole_log

Node: TypeAlias = Callable[[], Engine]
"""Makes one more node of a fleet; an engine of one process may give the same one again."""
Open: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]


class Check(Protocol):
    """One promise."""

    __name__: str

    async def __call__(self, make: Open, /) -> None: ...


PATIENCE_S = 60.0
AT_ONCE_S = 1.0
"""How long others may wait for what a node gives back."""


def a_key(run: str, tenant: str = "default") -> RunKey:
    return RunKey(TenantId(tenant), SessionId(f"ses_of_{run}"), RunId(run))


@dataclass
class Recorder:
    """A handler that can be held, and tells what it was given."""

    handled: list[RunKey] = field(default_factory=list[RunKey])
    answers: dict[RunKey, list[float]] = field(default_factory=dict[RunKey, list[float]])
    """When it asks to be called again."""
    holds: Callable[[RunKey], bool] = lambda _: False
    release: anyio.Event = field(default_factory=anyio.Event)
    running: int = 0
    most_at_once: int = 0
    cancelled: list[RunKey] = field(default_factory=list[RunKey])
    _news: anyio.Event = field(default_factory=anyio.Event)

    async def __call__(self, key: RunKey) -> float | None:
        self.handled.append(key)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        self._news.set()
        try:
            if self.holds(key):
                await self.release.wait()
        except BaseException:
            self.cancelled.append(key)
            raise
        finally:
            self.running -= 1
        answers = self.answers.get(key)
        return answers.pop(0) if answers else None

    async def until(self, count: int) -> None:
        with anyio.fail_after(PATIENCE_S):
            while len(self.handled) < count:
                self._news = anyio.Event()
                await self._news.wait()


@asynccontextmanager
async def serving(engine: Engine, handler: Handler, *, slots: int = 100) -> AsyncGenerator[None]:
    """Have an engine serve until the context is left, and all that it held is given back."""
    async with aclosing(engine), anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: engine.serve(handler, slots=slots))
        yield
        tasks.cancel_scope.cancel()


async def idle(engine: Engine, *keys: RunKey) -> None:
    """Wait until none of the keys has a job."""
    with anyio.fail_after(PATIENCE_S):
        while len(await engine.idle(keys)) < len(keys):  # noqa: ASYNC110  nobody tells
            await anyio.sleep(0.01)


async def all_ended(store: Store, keys: Sequence[Key]) -> list[list[Event]]:
    """Wait until all runs have ended; return the logs, which hold together."""
    with anyio.fail_after(PATIENCE_S):
        for key in keys:
            while (await store.head(key)).active is not None:  # noqa: ASYNC110  of another process
                await anyio.sleep(0.05)
    logs = [await whole_log(store, key) for key in keys]
    for log in logs:
        check_log(log)
        (end,) = [event.fact for event in log if isinstance(event.fact, RunEnded)]
        assert end.status == "done", end
    return logs


async def a_job_is_handled_once_and_then_its_key_is_idle(make: Open) -> None:
    recorder, key = Recorder(), a_key("run_1")
    async with make() as node:
        engine = node()
        assert await engine.idle([key]) == [key]
        await engine.enqueue(Job(key))
        assert await engine.idle([key, a_key("run_2")]) == [a_key("run_2")]
        async with serving(engine, recorder):
            await recorder.until(1)
            await idle(engine, key)
    assert recorder.handled == [key]


async def a_key_that_is_queued_is_not_queued_twice(make: Open) -> None:
    recorder, key = Recorder(), a_key("run_1")
    async with make() as node:
        engine = node()
        for _ in range(5):
            await engine.enqueue(Job(key))
        async with serving(engine, recorder):
            await recorder.until(1)
            await idle(engine, key)
    assert recorder.handled == [key]


async def a_key_rung_while_it_is_handled_is_handled_once_more_and_never_twice_at_once(
    make: Open,
) -> None:
    recorder, key = Recorder(holds=lambda _: True), a_key("run_1")
    async with make() as node:
        engine = node()
        async with serving(engine, recorder):
            await engine.enqueue(Job(key))
            await recorder.until(1)
            await engine.enqueue(Job(key))
            await engine.enqueue(Job(key))
            recorder.release.set()
            await recorder.until(2)
            await idle(engine, key)
    assert recorder.handled == [key, key]
    assert recorder.most_at_once == 1
    assert recorder.cancelled == []


async def a_key_rung_right_after_its_handler_returned_is_not_lost(make: Open) -> None:
    recorder, key = Recorder(), a_key("run_1")
    async with make() as node:
        engine = node()
        async with serving(engine, recorder):
            for count in range(1, 21):
                await engine.enqueue(Job(key))
                await recorder.until(count)
            await idle(engine, key)


async def a_handler_that_asks_to_be_called_later_is_called_then(make: Open) -> None:
    recorder, key, began = Recorder(), a_key("run_1"), time.time()
    recorder.answers[key] = [began + 1.0]
    async with make() as node:
        engine = node()
        async with serving(engine, recorder):
            await engine.enqueue(Job(key))
            await recorder.until(1)
            assert await engine.idle([key]) == []
            await recorder.until(2)
    assert time.time() >= began + 0.99


async def a_delayed_job_is_handled_then(make: Open) -> None:
    recorder, key, began = Recorder(), a_key("run_1"), time.time()
    async with make() as node:
        engine = node()
        async with serving(engine, recorder):
            await engine.enqueue(Job(key, began + 1.0))
            await recorder.until(1)
    assert time.time() >= began + 0.99


async def an_earlier_time_wins_over_a_later_one(make: Open) -> None:
    recorder, key, later = Recorder(), a_key("run_1"), time.time() + 3600
    async with make() as node:
        engine = node()
        async with serving(engine, recorder):
            await engine.enqueue(Job(key, later))
            await engine.enqueue(Job(a_key("run_2"), later))
            await engine.enqueue(Job(key))
            await engine.enqueue(Job(key, later))
            await recorder.until(1)
            await idle(engine, key)
            assert await engine.idle([a_key("run_2")]) == []
    assert recorder.handled == [key]


async def a_ring_for_later_while_its_key_is_handled_is_kept(make: Open) -> None:
    recorder, key = Recorder(holds=lambda _: True), a_key("run_1")
    async with make() as node:
        engine = node()
        async with serving(engine, recorder):
            await engine.enqueue(Job(key))
            await recorder.until(1)
            await engine.enqueue(Job(key, time.time() + 3600))
            await engine.enqueue(Job(key, time.time() + 1.0))
            recorder.release.set()
            await recorder.until(2)
            await idle(engine, key)


async def so_many_keys_are_handled_at_once_and_no_more(make: Open) -> None:
    recorder = Recorder(holds=lambda _: True)
    async with make() as node:
        engine = node()
        async with serving(engine, recorder, slots=4):
            for number in range(20):
                await engine.enqueue(Job(a_key(f"run_{number}")))
            await recorder.until(4)
            recorder.release.set()
            await recorder.until(20)
    assert recorder.most_at_once == 4


async def leaving_cancels_the_handlers_in_flight(make: Open) -> None:
    recorder = Recorder(holds=lambda _: True)
    async with make() as node:
        engine = node()
        with anyio.fail_after(PATIENCE_S):
            async with serving(engine, recorder, slots=1):
                for number in range(5):
                    await engine.enqueue(Job(a_key(f"run_{number}")))
                await recorder.until(1)
    assert recorder.cancelled == recorder.handled
    assert len(recorder.handled) == 1


async def a_handler_that_raises_ends_nothing_else(make: Open) -> None:
    recorder, bad, good = Recorder(), a_key("run_bad"), a_key("run_good")

    async def handler(key: RunKey) -> float | None:
        if key == bad:
            raise RuntimeError("a bug")
        return await recorder(key)

    async with make() as node:
        engine = node()
        async with serving(engine, handler, slots=1):
            await engine.enqueue(Job(bad))
            await idle(engine, bad)
            await engine.enqueue(Job(good))
            await recorder.until(1)
            await idle(engine, good)


async def a_drained_engine_takes_no_more_and_goes_on_with_what_it_has(make: Open) -> None:
    recorder, first, second = Recorder(holds=lambda _: True), a_key("run_1"), a_key("run_2")
    async with make() as node:
        engine = node()
        async with serving(engine, recorder):
            await engine.enqueue(Job(first))
            await recorder.until(1)
            engine.drain()
            await engine.enqueue(Job(second))
            recorder.release.set()
            await idle(engine, first)
            assert await engine.idle([second]) == []
    assert (recorder.handled, recorder.cancelled) == ([first], [])


async def a_process_says_how_many_keys_are_in_its_hands(make: Open) -> None:
    recorder = Recorder(holds=lambda _: True)
    async with make() as node:
        engine = node()
        assert engine.live == 0
        async with serving(engine, recorder):
            for number in range(3):
                await engine.enqueue(Job(a_key(f"run_{number}")))
            await recorder.until(3)
            assert engine.live == 3
            recorder.release.set()
            with anyio.fail_after(PATIENCE_S):
                while engine.live:
                    await anyio.lowlevel.checkpoint()


# -- of a fleet ------------------------------------------------------------------------------


async def two_nodes_share_the_work_and_each_key_is_handled_once(make: Open) -> None:
    recorder = Recorder()
    keys = [a_key(f"run_{number}") for number in range(100)]
    async with make() as node:
        here, there = node(), node()
        async with serving(here, recorder, slots=5), serving(there, recorder, slots=5):
            for key in keys:
                await here.enqueue(Job(key))
            await recorder.until(100)
            await idle(there, *keys)
    assert sorted(recorder.handled) == sorted(keys)


async def what_a_node_held_as_it_left_is_another_ones_at_once(make: Open) -> None:
    recorder, other = Recorder(holds=lambda _: True), Recorder()
    async with make() as node, anyio.create_task_group() as tasks:
        here, there, leaving = node(), node(), anyio.CancelScope()

        async def serve_here() -> None:
            with leaving:
                await here.serve(recorder, slots=100)

        tasks.start_soon(serve_here)
        for number in range(10):
            await here.enqueue(Job(a_key(f"run_{number}")))
        await recorder.until(10)
        here.drain()
        tasks.start_soon(lambda: there.serve(other, slots=100))
        await there.enqueue(Job(a_key("run_awake")))
        await other.until(1)
        left_at = time.monotonic()
        leaving.cancel()
        await other.until(11)
        assert time.monotonic() - left_at < AT_ONCE_S
        tasks.cancel_scope.cancel()
    assert sorted(other.handled[1:]) == sorted(recorder.handled)


async def what_a_drained_node_is_asked_for_another_one_does(make: Open) -> None:
    recorder, other = Recorder(), Recorder()
    async with make() as node:
        here, there = node(), node()
        async with serving(here, recorder), serving(there, other):
            here.drain()
            for number in range(10):
                await here.enqueue(Job(a_key(f"run_{number}")))
            await other.until(10)
    assert recorder.handled == []


async def a_ring_on_one_node_reaches_the_handler_on_another(make: Open) -> None:
    recorder, key = Recorder(holds=lambda _: True), a_key("run_1")
    async with make() as node:
        here, there = node(), node()
        async with serving(here, recorder):
            await there.enqueue(Job(key))
            await recorder.until(1)
            assert await there.idle([key]) == []
            await there.enqueue(Job(key))
            recorder.release.set()
            await recorder.until(2)
            await idle(there, key)


async def a_node_that_serves_nothing_can_ring_and_ask(make: Open) -> None:
    key = a_key("run_1")
    async with make() as node:
        await node().enqueue(Job(key))
        assert await node().idle([key, a_key("run_2")]) == [a_key("run_2")]


# -- in which order --------------------------------------------------------------------------


async def what_is_more_urgent_goes_first(make: Open) -> None:
    recorder = Recorder()
    keys = {priority: a_key(f"run_{priority}") for priority in (-1, 0, 1)}
    async with make() as node:
        engine = node()
        for priority in (0, -1, 1):
            await engine.enqueue(Job(keys[priority], priority=priority))
        async with serving(engine, recorder, slots=1):
            await recorder.until(3)
    assert recorder.handled == [keys[1], keys[0], keys[-1]]


async def of_one_tenant_and_priority_the_first_goes_first(make: Open) -> None:
    recorder, keys = Recorder(), [a_key(f"run_{number}") for number in range(20)]
    async with make() as node:
        engine = node()
        for key in keys:
            await engine.enqueue(Job(key))
        async with serving(engine, recorder, slots=1):
            await recorder.until(20)
    assert recorder.handled == keys


async def who_has_many_keys_queued_is_before_nobody_elses_first(make: Open) -> None:
    recorder = Recorder()
    async with make() as node:
        engine = node()
        for number in range(200):
            await engine.enqueue(Job(a_key(f"run_a{number}", "a")))
        async with serving(engine, recorder, slots=2):
            await recorder.until(20)
            await engine.enqueue(Job(a_key("run_b", "b")))
            await engine.enqueue(Job(a_key("run_c", "c")))
            await recorder.until(202)
    places = [place for place, key in enumerate(recorder.handled) if key.tenant != "a"]
    assert places[-1] < 100


async def tenants_with_much_to_do_take_turns(make: Open) -> None:
    recorder = Recorder()
    async with make() as node:
        engine = node()
        for tenant in ("a", "b"):
            for number in range(20):
                await engine.enqueue(Job(a_key(f"run_{tenant}{number}", tenant)))
        async with serving(engine, recorder, slots=1):
            await recorder.until(40)
    first = [key.tenant for key in recorder.handled[:20]]
    assert 8 <= first.count(TenantId("a")) <= 12


ENGINE_SUITE: Sequence[Check] = (
    a_job_is_handled_once_and_then_its_key_is_idle,
    a_key_that_is_queued_is_not_queued_twice,
    a_key_rung_while_it_is_handled_is_handled_once_more_and_never_twice_at_once,
    a_key_rung_right_after_its_handler_returned_is_not_lost,
    a_handler_that_asks_to_be_called_later_is_called_then,
    a_delayed_job_is_handled_then,
    an_earlier_time_wins_over_a_later_one,
    a_ring_for_later_while_its_key_is_handled_is_kept,
    so_many_keys_are_handled_at_once_and_no_more,
    leaving_cancels_the_handlers_in_flight,
    a_handler_that_raises_ends_nothing_else,
    a_drained_engine_takes_no_more_and_goes_on_with_what_it_has,
    a_process_says_how_many_keys_are_in_its_hands,
)
FLEET_SUITE: Sequence[Check] = (
    two_nodes_share_the_work_and_each_key_is_handled_once,
    what_a_node_held_as_it_left_is_another_ones_at_once,
    what_a_drained_node_is_asked_for_another_one_does,
    a_ring_on_one_node_reaches_the_handler_on_another,
    a_node_that_serves_nothing_can_ring_and_ask,
)
FAIR_SUITE: Sequence[Check] = (
    what_is_more_urgent_goes_first,
    of_one_tenant_and_priority_the_first_goes_first,
    who_has_many_keys_queued_is_before_nobody_elses_first,
    tenants_with_much_to_do_take_turns,
)
