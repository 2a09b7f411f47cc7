"""A server that has more to do than it can says so at once, and comes back by itself."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from tests.serving import serving

from hostler.core.errors import Unavailable
from hostler.core.ports import Reply
from hostler.service.admission import (
    GRACE_S,
    LATE_S,
    LEAST_ACTIVE,
    LOOK_S,
    MOST_ACTIVE,
    Admission,
    Begins,
)
from hostler.testing.doubles import ModelDouble, an_agent

pytestmark = pytest.mark.anyio


@dataclass
class Load:
    """A controller with a clock and a number of runs that a test sets."""

    now: float = 100.0
    runs: int = 0
    admission: Admission = field(init=False)

    def __post_init__(self) -> None:
        self.admission = Admission(active=lambda: self.runs, clock=lambda: self.now)

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


def test_a_loop_in_time_lets_everybody_in() -> None:
    load = Load(runs=MOST_ACTIVE - 1)
    load.look(0.001, for_s=10)
    assert load.lets_in()
    assert load.admission.limit == MOST_ACTIVE


def test_no_more_runs_than_memory_is_meant_for_are_let_in() -> None:
    load = Load(runs=MOST_ACTIVE)
    with pytest.raises(Unavailable, match="nothing was stored") as refused:
        load.admission.check("run")
    assert (refused.value.code, refused.value.retry_after_s) == ("overloaded", 1.0)
    load.runs -= 1
    assert load.lets_in()
    assert not load.lets_in("session"), "those that have a session come first"


def test_a_burst_is_let_in_whole() -> None:
    load = Load(runs=2000)
    load.look(LATE_S * 4, for_s=GRACE_S * 0.8)
    assert load.lets_in()
    load.look(0.0, for_s=1.0)
    load.look(LATE_S * 4, for_s=GRACE_S * 0.8)
    assert load.lets_in()


def test_one_long_block_refuses_nobody() -> None:
    load = Load()
    load.look(0.9)
    load.look(0.0, for_s=1.0)
    load.look(0.9)
    assert load.lets_in()


def test_a_load_that_does_not_end_is_refused_until_it_fits() -> None:
    load = Load(runs=500)
    load.look(LATE_S * 4, for_s=GRACE_S + 3)
    assert not load.lets_in()
    assert load.admission.limit == LEAST_ACTIVE
    load.runs = LEAST_ACTIVE - 1
    assert load.lets_in(), "so few are never too many"


def test_a_loop_that_hardly_turns_lets_nobody_in() -> None:
    load = Load(runs=0)
    load.look(2.0, for_s=GRACE_S + 10)
    assert not load.lets_in()
    load.look(0.0, for_s=2.0)
    assert load.lets_in()


def test_the_limit_grows_back_and_faster_when_it_is_used() -> None:
    used, unused = Load(runs=500), Load(runs=500)
    for load in (used, unused):
        load.look(LATE_S * 4, for_s=GRACE_S + 3)
    unused.runs = 0
    for _ in range(100):
        used.runs = used.admission.limit
        used.look(0.0)
        unused.look(0.0)
    assert LEAST_ACTIVE < unused.admission.limit < used.admission.limit
    unused.look(0.0, for_s=60)
    assert unused.admission.limit == MOST_ACTIVE


def test_the_limit_stays_where_the_loop_is_neither_late_nor_early() -> None:
    load = Load(runs=500)
    load.look(LATE_S * 4, for_s=GRACE_S + 1)
    load.look(LATE_S * 0.7, for_s=1.0)
    before = load.admission.limit
    load.look(LATE_S * 0.7, for_s=5.0)
    assert load.admission.limit == before


def test_what_is_being_let_in_counts_before_it_shows() -> None:
    load = Load(runs=MOST_ACTIVE - 1)
    with load.admission.entering():
        assert not load.lets_in()
    assert load.lets_in()


async def test_a_blocked_loop_refuses_new_work_alone_and_recovers(tmp_path: Path) -> None:
    agent = an_agent(ModelDouble(lambda _: Reply(text="ok", stop="end")), name="plain")
    async with serving(agent, file=tmp_path / "log.db") as client:
        session = await client.session()
        message = f"/api/sessions/{session}/messages"
        loop, blocked = asyncio.get_running_loop(), True

        def hold() -> None:  # a stranger's code that forgets whose loop it is
            until = time.perf_counter() + 0.8
            while time.perf_counter() < until:
                pass
            if blocked:
                loop.call_later(0.01, hold)

        loop.call_soon(hold)
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
