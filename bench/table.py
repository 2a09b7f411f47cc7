"""Results as data, and as one table for people.

Invariant: a ratio is of figures that were measured in turns, in one run.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.machine import Machine
from bench.setting import Row, Size

UNCHANGED = 0.05
"""Smaller changes are not told: the same build differs by as much from run to run."""

BUSY_CORES = 0.3
BUSY = (
    "The machine was busy with other things: times are worth little, and CPU of paced streams is "
    "too low, because tokens that wait are sent on together."
)


class Result(Struct, frozen=True, kw_only=True):
    """One run of the bench."""

    at: str
    commit: str
    machine: Machine
    size: Size
    others_cores: float
    """What other programs used meanwhile, on average: much of it makes seconds worth little."""
    rows: list[Row]


def keep(result: Result, folder: Path) -> Path:
    """Write a result, medians and spread included, and return where."""
    data = msgspec.to_builtins(result)
    data["rows"] = [
        {
            **msgspec.to_builtins(row),
            "samples": [_rounded(one) for one in row.samples],
            "median": _rounded(row.median),
            "spread": _rounded(row.spread),
        }
        for row in result.rows
    ]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{result.at.replace(':', '')}-{result.commit.removesuffix('+')}.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(data), indent=1) + b"\n")
    return file


def read(file: Path) -> Result:
    return msgspec.json.decode(file.read_bytes(), type=Result)


def show(result: Result, *, against: Result | None = None) -> str:
    """Return the table: a line for each figure, Hostler, floor, and their ratio."""
    machine = result.machine
    about = (
        f"{result.at}  commit {result.commit}  {machine.cpu}, {machine.cores} cores, "
        f"{machine.kernel}, Python {machine.python}, SQLite {machine.sqlite}; "
        f"others used {result.others_cores:.1f} cores"
    )
    head = ["question", "case", "figure", "unit", "hostler", "±", "floor", "±", "ratio"]
    others = [one for one in dict.fromkeys(row.server for row in result.rows) if one not in ALWAYS]
    head += [cell for one in others for cell in (one, "±")]
    head += ["before", "ratio", "change"] if against else []
    old = _by_figure(against.rows) if against else {}
    lines = [head]
    for key, servers in _by_figure(result.rows).items():
        line = [*key, *_cells(servers), *(cell for one in others for cell in _cell(servers, one))]
        lines.append([*line, *_compared(servers, old.get(key, {}))] if against else line)
    busy = [BUSY] if result.others_cores > BUSY_CORES else []
    return "\n".join([about, *busy, "", *_aligned(lines)])


Servers = dict[str, Row]
ALWAYS = ("hostler", "floor")
"""Servers that have columns in each table; others have them where they were measured."""
FigureKey = tuple[str, str, str, str]


def _by_figure(rows: Iterable[Row]) -> dict[FigureKey, Servers]:
    found: dict[FigureKey, Servers] = {}
    for row in rows:
        found.setdefault((row.question, row.case, row.figure, row.unit), {})[row.server] = row
    return found


def _cells(servers: Servers) -> list[str]:
    cells = list[str]()
    for name in ALWAYS:
        cells += _cell(servers, name)
    ratio = _ratio(servers)
    return [*cells, "" if ratio is None else f"{ratio:.2f}"]


def _cell(servers: Servers, name: str) -> list[str]:
    row = servers.get(name)
    return [_number(row.median), _number(row.spread)] if row else ["", ""]


def _ratio(servers: Servers) -> float | None:
    """Return Hostler's figure over the floor's, of the same repetition: the median of those."""
    if not {*ALWAYS} <= {*servers} or not all(servers["floor"].samples):
        return None
    pairs = zip(servers["hostler"].samples, servers["floor"].samples, strict=True)
    return statistics.median(ours / floor for ours, floor in pairs)


def _compared(servers: Servers, old: Servers) -> list[str]:
    """Return the older figure, its ratio, and what changed: the ratio where there is one."""
    ours, before = servers.get("hostler"), old.get("hostler")
    if ours is None or before is None:
        return ["", "", ""]
    ratio, ratio_before = _ratio(servers), _ratio(old)
    if ratio is None or ratio_before is None:
        now, then = ours.median, before.median
    else:
        now, then = ratio, ratio_before
    change = now / then - 1 if then else 0.0
    told = f"{change:+.0%}" if abs(change) >= UNCHANGED else "="
    return [_number(before.median), "" if ratio_before is None else f"{ratio_before:.2f}", told]


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < 4 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
