"""What processes used, read from Linux, and on which machine.

CPU time is read from the process's own clock (clock_getcpuclockid(3)): what the scheduler counted,
user and system, all threads, in nanoseconds.  The same sum in /proc/PID/stat comes in ticks of
10 ms, in which a turn of 2 ms disappears; it is read for children that have ended alone.

Invariant: what a server's children use is the server's.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import sqlite3
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
ROOT = Path(__file__).parents[1]


class Machine(Struct, frozen=True, kw_only=True):
    """Where figures come from."""

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    python: str
    sqlite: str


def this_machine() -> Machine:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES
    return Machine(
        cpu=found[1] if found else platform.machine(),
        cores=os.cpu_count() or 1,
        memory_gb=round(memory / 1e9, 1),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
    )


def allow_files() -> None:
    """Let this process, and all that it starts, have as many files open as the machine allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def this_commit() -> str:
    """Return the short hash, with a + when files differ from it."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    return told.stdout.strip() or "unknown"


def tree(pid: int) -> list[int]:
    """Return the process and all below it."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").glob("*/children"))
        below = " ".join(task.read_text() for task in tasks).split()
    except OSError:  # it ended while we looked
        return [pid]
    return [pid, *(one for child in below for one in tree(int(child)))]


def cpu_s(pid: int) -> float:
    """Return what a process and its children have used, in seconds."""
    return sum(_own_cpu_s(one) + _ended_cpu_s(one) for one in tree(pid))


def _own_cpu_s(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) returns
    except OSError:
        return 0.0


def _ended_cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) * TICK_S  # cutime and cstime of proc(5)


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process and its children."""
    return sum(_own_rss_bytes(one) for one in tree(pid))


def _own_rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


def busy_s() -> float:
    """Return what everybody on the machine has used, in core seconds."""
    fields = [int(one) for one in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * TICK_S  # without idle and iowait


@dataclass(slots=True)
class Spent:
    """What an interval cost one process; complete when it is over."""

    cpu_s: float = 0.0
    wall_s: float = 0.0


@contextmanager
def spent_by(pid: int) -> Generator[Spent]:
    spent, start, before = Spent(), time.perf_counter(), cpu_s(pid)
    yield spent
    spent.cpu_s, spent.wall_s = cpu_s(pid) - before, time.perf_counter() - start
