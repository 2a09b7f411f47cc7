"""The bench itself: at its smallest it measures all it says, and it keeps and compares results."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import anyio
import msgspec
import pytest
from bench.__main__ import QUESTIONS
from bench.machine import TICK_S, cpu_s, this_machine
from bench.postgres import NAMED, REDIS
from bench.setting import SMALLEST, Row, Size, set_up
from bench.table import Result, keep, read, show
from tests.fleets import a_redis

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

ANSWERS = {
    "turn": {"CPU per turn", "turns", "turn p50", "turn p99"},
    "burst": {"CPU per token", "tokens"},
    "paced": {"CPU per token", "wall", "gap p99", "first token p99", "errors"},
    "first_token": {"added p50"},
    "start": {"RSS", "RSS each", "database each", "CPU per second"},
    "long_session": {"CPU per turn", "turn p50"},
    "models": {"CPU per token"},
    "guards": {"CPU per token", "CPU each"},
    "streams": {"CPU per token", "wall", "errors"},
}
ONLY_OURS = {
    "gateway": {
        "1 tokens",
        "50 tokens streamed",
        f"{SMALLEST.burst} tokens at once",
        "agent: 50 tokens streamed",
    },
    "responses": {
        "1 token, kept",
        f"{SMALLEST.burst} tokens at once, not kept",
        f"{SMALLEST.streams} streams, kept",
    },
    "watchers": {f"{SMALLEST.watchers} watchers"},
    "idle": {f"{SMALLEST.idle_sessions} idle sessions", f"{SMALLEST.idle_streams} open streams"},
    "big": {f"{SMALLEST.events} events", "anywhere", "status=waiting (0.1 %)", "a word in all"},
    "overload": {"5 x rated"},
    "metrics": {f"{SMALLEST.live_runs} live runs", "a turn"},
    "start": {"import hostler", "import what serves"},
    "long_session": {f"{SMALLEST.events} events"},
}


def a_row(server: str, *samples: float) -> Row:
    return Row(
        question="turn",
        case="16 at once",
        figure="CPU per turn",
        unit="ms",
        server=server,
        samples=list(samples),
    )


def a_result(*rows: Row, others_cores: float = 0.0) -> Result:
    return Result(
        at="2026-11-21T12:00",
        commit="abc1234+",
        machine=this_machine(),
        size=Size(),
        others_cores=others_cores,
        rows=list(rows),
    )


def cells(told: str) -> list[str]:
    """Return what stands in the one line, after the unit."""
    return told.splitlines()[-1].partition(" ms ")[2].split()


async def test_every_question_is_answered_for_hostler_and_for_the_floor() -> None:
    rows = list[Row]()

    with anyio.fail_after(50):
        async with set_up(SMALLEST) as setting:
            for question in QUESTIONS.values():
                rows += await question(setting)

    servers: dict[tuple[str, str, str], set[str]] = {}
    for row in rows:
        servers.setdefault((row.question, row.case, row.figure), set()).add(row.server)
    for question, figures in ANSWERS.items():
        both = {f for (q, _, f), names in servers.items() if q == question and len(names) == 2}
        assert both >= figures
    for question, cases in ONLY_OURS.items():
        assert {case for (q, case, _) in servers if q == question} >= cases
    # a load as small as this one is not refused
    told = [row for row in rows if not row.figure.startswith("refused in")]
    assert {(row.figure, len(row.samples)) for row in told if len(row.samples) != 1} == set()
    assert all(math.isfinite(row.median) for row in told)
    assert all(row.median > 0 for row in rows if row.figure in ("CPU per turn", "CPU per token"))
    assert not any(row.median for row in rows if row.figure == "errors")


async def test_what_a_fleet_costs_is_measured_where_its_services_are_named(
    monkeypatch: pytest.MonkeyPatch, postgres_server: str, tmp_path: Path
) -> None:
    rows = list[Row]()
    with anyio.fail_after(100):
        async with a_redis(tmp_path) as redis:
            monkeypatch.setenv(NAMED, postgres_server)
            monkeypatch.setenv(REDIS, redis.url)
            async with set_up(SMALLEST) as setting:
                for question in ("turn", "processes", "fleet", "bus"):
                    rows += await QUESTIONS[question](setting)

    found = {(row.question, row.server, row.figure) for row in rows if row.median > 0}
    for server in ("postgres", "postgres+redis", "queue in redis"):
        assert ("turn", server, "CPU per turn") in found
    for server in ("1 process", "2 processes"):
        assert ("processes", server, "CPU per turn") in found
    for figure in ("resumed p99", "write transactions", "a look at the queue"):
        assert ("fleet", "postgres", figure) in found
    for server in ("redis", "listen/notify"):
        assert ("bus", server, "delay p50") in found


def test_cpu_time_is_read_finer_than_a_tick_of_the_clock() -> None:
    before, mine = cpu_s(os.getpid()), time.process_time()

    while time.process_time() < mine + TICK_S / 5:
        pass

    used = cpu_s(os.getpid()) - before
    assert TICK_S / 5 <= used < 5


def test_a_result_that_was_kept_is_read_as_it_was(tmp_path: Path) -> None:
    result = a_result(a_row("hostler", 3.0, 2.0, 4.0))

    file = keep(result, tmp_path)

    assert file.name == "2026-11-21T1200-abc1234.json"
    assert read(file) == result
    (row,) = msgspec.json.decode(file.read_bytes())["rows"]
    assert (row["median"], row["spread"]) == (3.0, 1.0)


def test_a_ratio_is_the_median_of_the_ratios_of_each_repetition() -> None:
    # a machine that got busy in the second repetition made both servers three times as slow
    told = show(a_result(a_row("hostler", 4.0, 12.0, 4.2), a_row("floor", 2.0, 6.0, 2.1)))

    assert cells(told) == ["4.20", "4.00", "2.10", "2.00", "2.00"]


def test_a_comparison_tells_how_the_ratio_to_the_floor_changed() -> None:
    before = a_result(a_row("hostler", 4.0), a_row("floor", 1.0))
    after = a_result(a_row("hostler", 4.0), a_row("floor", 2.0))

    told = show(after, against=before)

    assert cells(told)[-3:] == ["4.00", "4.00", "-50%"]


def test_figures_that_are_only_in_one_of_two_results_compare_with_nothing() -> None:
    told = show(a_result(a_row("hostler", 4.0)), against=a_result())

    assert cells(told) == ["4.00", "0"]


def test_a_table_says_when_the_machine_was_too_busy_to_measure() -> None:
    row = a_row("hostler", 4.0)

    assert "busy" in show(a_result(row, others_cores=1.0))
    assert "busy" not in show(a_result(row, others_cores=0.1))
