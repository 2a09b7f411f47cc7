"""What the lab measured, kept as data with the commit that it was measured on.

Invariant: a row is of one run of one family, and takes the place of the one before it.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from hostler.testing.crash.scene import Case

FEWEST = 20
"""Of fewer values, the 99th percentile would be a name for the largest."""


class Row(Struct, frozen=True, kw_only=True):
    """One family, on one kind of store."""

    family: str
    store: str
    nodes: int
    cases: int
    """Deaths, kills, cuts, restarts, jumps, faults: what a family counts."""
    violations: int
    every: int = 1
    """Of numbered places, each so-manieth one was tried; 1: all."""
    starts: int
    """How often a node was started again after it had died."""
    ready_p50_s: float | None
    """From such a start until it was ready; null: nothing was started again."""
    ready_p99_s: float | None
    """null: fewer than 20 were."""
    ready_most_s: float | None
    pause_p50_s: float | None = None
    """In which nothing was written of a run that another node took over; null: none was."""
    pause_p99_s: float | None = None
    """null: fewer than 20 were."""
    pause_most_s: float | None = None
    wait_most_s: float | None = None
    """The longest that a client asked again and again; null: none had to, or none was looked at."""
    took_s: float
    commit: str
    day: str
    cores: int
    load: float
    """Of the machine, over the minute before the end: others may have used it too."""


def row_of(family: str, store: str, nodes: int, cases: Sequence[Case], *, every: int = 1) -> Row:
    """Return what came of a family."""
    starts = sorted(one for case in cases for one in case.recoveries)
    pauses = sorted(one for case in cases for one in case.pauses)
    waits = [one for case in cases for one in case.waits]
    return Row(
        family=family,
        store=store,
        nodes=nodes,
        cases=sum(case.count for case in cases),
        every=every,
        violations=sum(len(case.found) for case in cases),
        starts=len(starts),
        ready_p50_s=round(statistics.median(starts), 2) if starts else None,
        ready_p99_s=round(_p99(starts), 2) if len(starts) >= FEWEST else None,
        ready_most_s=round(starts[-1], 2) if starts else None,
        pause_p50_s=round(statistics.median(pauses), 3) if pauses else None,
        pause_p99_s=round(_p99(pauses), 3) if len(pauses) >= FEWEST else None,
        pause_most_s=round(pauses[-1], 3) if pauses else None,
        wait_most_s=round(max(waits), 2) if waits else None,
        took_s=round(sum(case.took_s for case in cases), 1),
        commit=commit(),
        day=datetime.now(UTC).date().isoformat(),
        cores=os.cpu_count() or 1,
        load=round(os.getloadavg()[0], 1),
    )


def _p99(values: Sequence[float]) -> float:
    """Return the value that 99 of 100 are not over: one that was measured, none between two."""
    return values[math.ceil(len(values) * 0.99) - 1]


def commit() -> str:
    """Return which commit this is, and whether the code was changed since; else the version."""
    where = Path(__file__).parents[2]
    told = [_git(where, "rev-parse", "--short=10", "HEAD"), _git(where, "status", "-s", "--", ".")]
    if not told[0]:
        return "no commit"
    return f"{told[0]} and changes" if told[1] else told[0]


def _git(where: Path, *words: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(where), *words],  # noqa: S607  whichever is there
            capture_output=True,
            check=False,
            text=True,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def kept(file: Path) -> list[Row]:
    """Return the rows of a file; none of one that is not there."""
    return msgspec.json.decode(file.read_bytes(), type=list[Row]) if file.exists() else []


def keep(file: Path, row: Row) -> None:
    """Put a row in the place of the one of its family, store and number of nodes."""
    name = (row.family, row.store, row.nodes)
    others = [one for one in kept(file) if (one.family, one.store, one.nodes) != name]
    rows = sorted([*others, row], key=lambda one: (one.family, one.store, one.nodes))
    text = msgspec.json.format(msgspec.json.encode(rows), indent=1)
    file.write_bytes(text + b"\n")
