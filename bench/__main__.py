"""The command line of the bench: asks the questions, keeps the result, prints the table."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import anyio

from bench import (
    big,
    burst,
    bus,
    first_token,
    fleet,
    gateway,
    guards,
    idle,
    limited,
    long_session,
    masking,
    metrics,
    models_stream,
    overload,
    paced,
    processes,
    responses,
    start,
    table,
    turn,
    watchers,
)
from bench.machine import busy_s, this_commit, this_machine
from bench.setting import Row, Setting, Size, set_up
from bench.table import Result

QUESTIONS: dict[str, Callable[[Setting], Awaitable[list[Row]]]] = {
    "turn": turn.run,
    "processes": processes.run,
    "fleet": fleet.run,
    "bus": bus.run,
    "burst": burst.run,
    "paced": paced.run,
    "gateway": gateway.run,
    "responses": responses.run,
    "first_token": first_token.run,
    "start": start.run,
    "long_session": long_session.run,
    "models": models_stream.run,
    "guards": guards.run,
    "limited": limited.run,
    "masking": masking.run,
    "watchers": watchers.run,
    "streams": paced.run_many,
    "idle": idle.run,
    "big": big.run,
    "overload": overload.run,
    "metrics": metrics.run,
}
RESULTS = Path(__file__).parent / "results"


async def measure(questions: Sequence[str], size: Size) -> Result:
    """Ask the questions, each of servers started anew, so that none is heir to another's load."""
    rows = list[Row]()
    began, busy, own = time.perf_counter(), busy_s(), _own_s()
    for question in questions:
        print(f"{question} …", file=sys.stderr, flush=True)
        async with set_up(size) as setting:
            rows += await QUESTIONS[question](setting)
    others_s = (busy_s() - busy) - (_own_s() - own)
    return Result(
        at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M}",
        commit=this_commit(),
        machine=this_machine(),
        size=size,
        others_cores=round(max(0.0, others_s / (time.perf_counter() - began)), 2),
        rows=rows,
    )


def _own_s() -> float:
    """Return what this process and all that it started and ended have used."""
    return sum(os.times()[:4])


def main() -> None:
    sizes = Size()
    parse = argparse.ArgumentParser(prog="python -m bench", description="Measure Hostler.")
    parse.add_argument("questions", nargs="*", metavar="question", help=", ".join(QUESTIONS))
    parse.add_argument("--reps", type=int, default=sizes.reps, help="repetitions")
    parse.add_argument(
        "--secs", type=float, default=sizes.secs, help="of each closed loop and stream"
    )
    parse.add_argument("--against", type=Path, metavar="RESULT.json", help="an older result")
    asked = parse.parse_args()
    questions = asked.questions or list(QUESTIONS)
    if unknown := set(questions) - set(QUESTIONS):
        parse.error(f"no question {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
    against = table.read(asked.against) if asked.against else None
    size = Size(reps=asked.reps, secs=asked.secs)
    result = anyio.run(measure, questions, size, backend_options={"use_uvloop": True})
    print(table.show(result, against=against))
    print(f"\nkept in {os.path.relpath(table.keep(result, RESULTS))}")


if __name__ == "__main__":
    main()
