"""The page on what the crash lab found, made of the rows that it kept.

`make crash` runs all of the lab and writes `reliability.json`.

Invariant: no figure is here that was not measured, and each has the commit that it was measured on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from docs.build.markdown import code, page, table
from docs.build.source import Undocumented

from hostler.testing.crash.families import FAMILIES, ON, Family
from hostler.testing.crash.results import Row, kept

RECORD = Path(__file__).with_suffix(".json")
INTRO = """
The crash lab (`python -m hostler.testing.crash`) lets real servers die, takes from them what they lean
on, and has clients go on meanwhile that ask until they are answered. Then one checker reads the store,
what the clients were told and what tools did, and looks for ten promises that were broken.
[What is tried how](../howto/verify-reliability.md) has more. `make crash` tries all of it again and
writes this page; a share of each family is in `make test`.
"""
READING = """
*Ready again* is from the start of a process that follows one that died until it serves, with the start
of Python in it. There is no 99th percentile of fewer than twenty. *Load* is the machine's at the end:
where it is over the number of cores, others used the machine as well, and the times say little.
"""
PAUSES = """
A run *stands still* from the last that was written of it on the node that stops until another node has
taken it over. The last column is for how long a client asked again, with the same key, for one thing.
"""
WHAT: Mapping[Family, str] = {
    "points": "death before and after each durable write, one at a time",
    "kills": "`kill -9` at random moments, 50 clients at work, each request to a node by chance",
    "rolling": "each node in turn is asked to stop, and comes back, 20 clients at work; no run may fail",
    "restarts": "PostgreSQL restarted under load, each second time as by a crash",
    "cuts": "connections to PostgreSQL cut at a random byte, going or coming",
    "redis": "Redis killed and started again under load",
    "clock": "the clock jumps an hour on, back, past 2038, or stands still",
    "disk": "no space left, a short write, an error in writing, an error in syncing",
}
PROMISES = (
    "What was acknowledged is there.",
    "A run that was accepted has one end.",
    "Positions have no gaps; a client that comes back with its last one sees each fact once.",
    "A call that may not be run twice begins once at most, after it was written that it would.",
    "A call has one result before the model is asked again.",
    "What runs are said to have used is what the models reported.",
    "No secret is in an answer, a file, a table, a line of the log or a delivery.",
    "Another tenant is told of nothing.",
    "Nothing is left: descriptors and processes of a server at rest, files, messages to be said.",
    "No death needs a person.",
)


def reliability() -> str:
    """Return the page.  Raises Undocumented: a family was never tried."""
    rows = kept(RECORD)
    for family in FAMILIES:
        for store in ON[family]:
            if not any((one.family, one.store) == (family, store) for one in rows):
                raise Undocumented(f"{family} on {store} was never tried: run `make crash`")
    return page(
        "Reliability",
        INTRO,
        table(
            [
                *("family", "store", "nodes", "cases", "broken promises"),
                *("ready again, p50", "p99", "most", "commit", "load"),
            ],
            (_line(one) for one in rows),
        ),
        READING,
        "## A rolling restart",
        PAUSES,
        table(
            [
                "nodes",
                "restarts",
                "runs stood still, p50",
                "p99",
                "most",
                "longest without an answer",
            ],
            (_paused(one) for one in rows if one.family == "rolling"),
        ),
        "## The families",
        table(["family", "what happens"], ([code(name), told] for name, told in WHAT.items())),
        "## The promises",
        "\n".join(f"{number}. {told}" for number, told in enumerate(PROMISES, start=1)),
    )


def _line(row: Row) -> list[str]:
    cases = str(row.cases) if row.every == 1 else f"{row.cases}: one place in {row.every}"
    return [
        *(code(row.family), row.store, str(row.nodes), cases, str(row.violations)),
        *map(_seconds, (row.ready_p50_s, row.ready_p99_s, row.ready_most_s)),
        *(f"{code(row.commit)}, {row.day}", f"{row.load:g} on {row.cores} cores"),
    ]


def _paused(row: Row) -> list[str]:
    times = (row.pause_p50_s, row.pause_p99_s, row.pause_most_s, row.wait_most_s)
    return [str(row.nodes), str(row.cases), *map(_seconds, times)]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:g} s"
