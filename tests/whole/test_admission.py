"""A server that has more to do than it can says so at once, and comes back by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from tests.serving import serving

from hostler.core import loop
from hostler.core.errors import Unavailable
from hostler.core.events import RunId, RunKey
from hostler.core.ports import Delta, Failure, Reply, Request, World
from hostler.engine.drive import Driver
from hostler.engine.pace import AT_ONCE, Pace, Place
from hostler.service import admission
from hostler.service.admission import (
    BURST_S,
    LARGEST_BURST,
    LATE_S,
    LOOK_S,
    MOST_ACTIVE,
    STANDING_S,
    Admission,
    Begins,
)
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.testing.doubles import ModelDouble, a_session, an_agent
from hostler.testing.store_suite import spoke

pytestmark = pytest.mark.anyio


@dataclass
class Load:
    """A line, a loop and a number of runs that a test sets; it is the `Line`, too."""

    now: float = 100.0
    runs: int = 0
    waiting: int = 0
    each_s: float = 0.002
    stands_s: float = 0.0
    admission: Admission = field(init=False)

    def __post_init__(self) -> None:
        self.admission = Admission(self, active=lambda: self.runs, clock=lambda: self.now)

    def look(self, late_s: float, *, for_s: float = 0.0) -> None:
        """Look again and again at a loop that is so late."""
        until = self.now + for_s
        while True:
            self.now += LOOK_S + late_s
            self.admission.look(late_s)
            if self.now >= until:
                return

    def lets_in(self, begins: Begins = "run") -> bool:
        try:
            self.admission.check(begins)
        except Unavailable:
            return False
        return True


def test_without_a_line_everybody_is_let_in() -> None:
    assert Load(runs=MOST_ACTIVE - 1, stands_s=BURST_S * 2).lets_in()


def test_no_more_runs_than_memory_is_meant_for_are_let_in() -> None:
    load = Load(runs=MOST_ACTIVE)
    with pytest.raises(Unavailable, match="nothing was stored") as refused:
        load.admission.check("run")
    assert (refused.value.code, refused.value.retry_after_s) == ("overloaded", 1.0)
    load.runs -= 1
    assert load.lets_in()
    assert not load.lets_in("session"), "those that have a session come first"


def test_a_burst_is_let_in_whole() -> None:
    assert Load(waiting=LARGEST_BURST - 1, stands_s=BURST_S * 0.99).lets_in()


def test_more_than_can_be_worked_off_soon_is_no_burst() -> None:
    load = Load(waiting=LARGEST_BURST, stands_s=0.1)
    assert not load.lets_in()
    load.waiting = round(LARGEST_BURST * 0.95)
    assert load.lets_in()
    assert not load.lets_in("session")


def test_a_line_that_does_not_go_away_is_kept_short() -> None:
    load = Load(waiting=100, each_s=STANDING_S / 100, stands_s=BURST_S)
    assert not load.lets_in()
    load.waiting = 95
    assert load.lets_in(), "so that there is always something to do"


def test_no_more_sessions_are_made_than_can_be_spoken_in() -> None:
    load = Load(waiting=50, each_s=STANDING_S / 100, stands_s=BURST_S)
    made = 0
    while load.lets_in("session"):
        made += 1
    assert made == 40, "nine tenths of the line, of which half is there"
    assert all(load.lets_in("run") for _ in range(made)), "each may speak"
    assert load.lets_in("session"), "they are not expected any more"

    while load.lets_in("session"):
        pass
    load.look(0.0, for_s=10.0)
    assert load.lets_in("session"), "who does not speak is not waited for"


def test_sessions_in_which_nobody_speaks_are_no_load() -> None:
    load = Load()
    assert all(load.lets_in("session") for _ in range(MOST_ACTIVE * 3))
    assert load.lets_in()


def test_a_loop_that_is_late_all_the_time_lets_nobody_in() -> None:
    load = Load()
    load.look(LATE_S * 2, for_s=BURST_S * 0.9)
    assert load.lets_in()
    load.look(LATE_S * 2, for_s=BURST_S * 0.3)
    assert not load.lets_in()
    load.look(0.0, for_s=1.0)
    assert load.lets_in()


def test_a_loop_that_is_late_by_turns_refuses_nobody() -> None:
    load = Load()
    for _ in range(20):
        load.look(LATE_S * 2, for_s=BURST_S * 0.4)
        load.look(0.0, for_s=1.0)
        assert load.lets_in()


def test_what_is_being_let_in_counts_before_it_shows() -> None:
    load = Load(runs=MOST_ACTIVE - 1)
    with load.admission.entering():
        assert not load.lets_in()
    assert load.lets_in()
    load = Load(waiting=LARGEST_BURST - 1)
    with load.admission.entering():
        assert not load.lets_in()
    assert load.lets_in()


@dataclass
class Runs:
    """Runs that begin when they are let, and make room when a test says so."""

    pace: Pace
    begun: list[int] = field(default_factory=list[int])
    places: dict[int, Place] = field(default_factory=dict[int, Place])

    async def begin(self, name: int) -> None:
        with self.pace.place() as self.places[name]:
            await self.places[name].turn()
            self.begun.append(name)
            await anyio.sleep_forever()


async def test_so_many_runs_begin_at_once_and_the_others_in_turn() -> None:
    runs = Runs(Pace(at_once=2))
    async with anyio.create_task_group() as tasks:
        for name in range(5):
            tasks.start_soon(runs.begin, name)
        await anyio.wait_all_tasks_blocked()
        assert (runs.begun, runs.pace.waiting) == ([0, 1], 3)
        for name, begun in ((1, [0, 1, 2]), (0, [0, 1, 2, 3]), (3, [0, 1, 2, 3, 4])):
            runs.places[name].leave()
            runs.places[name].leave()  # twice is once
            await anyio.wait_all_tasks_blocked()
            assert runs.begun == begun
        assert (runs.pace.waiting, runs.pace.stands_s) == (0, 0.0)
        tasks.cancel_scope.cancel()


async def test_a_run_that_goes_away_leaves_the_line_or_makes_room() -> None:
    runs = Runs(Pace(at_once=1))
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as first:
            first.start_soon(runs.begin, 0)
            await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as second:
                second.start_soon(runs.begin, 1)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(runs.begin, 2)
                await anyio.wait_all_tasks_blocked()
                second.cancel_scope.cancel()
            assert (runs.begun, runs.pace.waiting) == ([0], 1)
            first.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert (runs.begun, runs.pace.waiting) == ([0, 2], 0)
        tasks.cancel_scope.cancel()


async def test_a_run_that_is_stopped_does_not_wait_for_its_turn_and_takes_nobodys() -> None:
    runs = Runs(Pace(at_once=1))
    async with anyio.create_task_group() as tasks:
        for name in range(3):
            tasks.start_soon(runs.begin, name)
        await anyio.wait_all_tasks_blocked()
        runs.places[2].go()
        await anyio.wait_all_tasks_blocked()
        assert runs.begun == [0, 2]
        runs.places[2].leave()
        await anyio.wait_all_tasks_blocked()
        assert runs.begun == [0, 2]
        runs.places[0].leave()
        await anyio.wait_all_tasks_blocked()
        assert runs.begun == [0, 2, 1]
        tasks.cancel_scope.cancel()


async def test_the_line_knows_how_long_it_takes() -> None:
    now = 0.0
    runs = Runs(Pace(at_once=1, clock=lambda: now))
    async with anyio.create_task_group() as tasks:
        for name in range(500):
            tasks.start_soon(runs.begin, name)
        await anyio.wait_all_tasks_blocked()
        for name in range(400):
            now += 0.02
            runs.places[name].leave()
            await anyio.lowlevel.checkpoint()
        assert runs.pace.waiting == 99
        assert runs.pace.each_s == pytest.approx(0.02, rel=0.05)
        assert runs.pace.is_crowded()
        assert runs.pace.stands_s == pytest.approx(400 * 0.02)
        tasks.cancel_scope.cancel()


class SilentModel(ModelDouble):
    """Never answers."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        self.asked.append(request)
        await anyio.sleep_forever()
        yield Delta("text", "")


async def test_runs_that_wait_for_a_model_keep_no_other_from_beginning(tmp_path: Path) -> None:
    silent, many = SilentModel(lambda _: Reply(text="", stop="end")), AT_ONCE * 2
    async with serving(an_agent(silent, name="plain"), file=tmp_path / "log.db") as client:
        for _ in range(many):
            message = f"/api/sessions/{await client.session()}/messages"
            await client.call("POST", message, {"content": "x"})
        with anyio.fail_after(20):
            while len(silent.asked) < many:
                await anyio.lowlevel.checkpoint()


class Typist(ModelDouble):
    """Notes when it is asked for each word."""

    def __init__(self, words: int) -> None:
        super().__init__(lambda _: Reply(text="x " * words, stop="end"))
        self.words, self.at = words, list[float]()

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        async with aclosing(ModelDouble.stream(self, request)) as parts:
            async for part in parts:
                self.at.append(time.monotonic())
                yield part


@pytest.mark.parametrize("crowd", [0, 1])
async def test_text_is_taken_in_larger_pieces_while_others_wait_to_begin(
    crowd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "TOGETHER_S", 0.05)
    store, typist, pace = MemoryStore(), Typist(4), Pace(at_once=1)
    session = await a_session(store)
    await store.append(session, [spoke("run_1")])
    agent, runs = an_agent(typist), Runs(pace)
    driver = Driver(
        agents=lambda _: agent, store=store, signals=LocalSignals(), world=World("w"), pace=pace
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runs.begin, 0)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(driver, RunKey(*session, RunId("run_1")))
        for name in range(1, crowd + 2):
            tasks.start_soon(runs.begin, name)
        await anyio.wait_all_tasks_blocked()
        runs.places[0].leave()
        with anyio.fail_after(10):
            while (await store.head(session)).active is not None:
                await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        assert runs.begun == [0, 1]
        tasks.cancel_scope.cancel()

    gaps = [after - before for before, after in pairwise(typist.at)]
    assert len(gaps) == 4
    assert all(gap >= 0.05 for gap in gaps) is bool(crowd)


async def test_a_blocked_loop_refuses_new_work_alone_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "BURST_S", 0.5)
    agent = an_agent(ModelDouble(lambda _: Reply(text="ok", stop="end")), name="plain")
    async with serving(agent, file=tmp_path / "log.db") as client:
        session = await client.session()
        message = f"/api/sessions/{session}/messages"
        here, blocked = asyncio.get_running_loop(), True

        def hold() -> None:  # a stranger's code that forgets whose loop it is
            until = time.perf_counter() + 0.8
            while time.perf_counter() < until:
                pass
            if blocked:
                here.call_later(0.01, hold)

        here.call_soon(hold)
        with anyio.fail_after(30):
            while (await client.call("POST", "/api/sessions", {}))[0] != 503:
                pass
        status, problem = await client.call("POST", message, {"content": "x"})
        assert (status, problem["code"]) == (503, "overloaded")
        status, _ = await client.call("POST", message, raw=b"not even JSON")
        assert status == 503, "the body is not read"
        async with client.http.post(
            f"{client.url}{message}", headers={"Authorization": f"Bearer {client.key}"}
        ) as answered:
            assert answered.headers["retry-after"] == "1"
        for method, path in (
            ("GET", f"/api/sessions/{session}"),
            ("GET", f"/api/sessions/{session}/events"),
            ("GET", "/healthz"),
            ("POST", f"/api/sessions/{session}/cancel"),
        ):
            status, _ = await client.call(method, path, {} if method == "POST" else None)
            assert status in (200, 202), path
        status, _ = await client.call(
            "POST", f"/api/sessions/{session}/approvals/call_1", {"decision": "allow"}
        )
        assert status == 404, "an answer is not refused for the load"
        assert await client.facts(session) == []

        blocked = False
        with anyio.fail_after(30):
            while (await client.call("POST", message, {"content": "x"}))[0] != 202:
                await anyio.lowlevel.checkpoint()
