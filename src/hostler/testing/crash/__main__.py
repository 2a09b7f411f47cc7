"""`python -m hostler.testing.crash [FAMILY ...]`: try what can happen, and say what was found.

Ends with 1 when a promise was broken; the folders of those cases stay, with the servers' lines.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import cast, get_args

import anyio

from hostler.core.errors import SetupError
from hostler.testing.crash.families import FAMILIES, ON, Family, Lab, Store
from hostler.testing.crash.results import Row, keep, row_of
from hostler.testing.crash.scene import Case

SHOWN = 10
"""Violations of one case."""
LONGEST = 600


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status."""
    asked = _parser().parse_args(arguments)
    # Told to end, it ends what it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(asked.folder or tempfile.mkdtemp(prefix="hostler-crash-"))
    broken = 0
    for family in cast("Sequence[Family]", asked.family or FAMILIES):
        for store in ON[family]:
            if asked.store not in (None, store):
                continue
            lab = Lab(
                store=store,
                nodes=asked.nodes,
                count=asked.count,
                seed=asked.seed,
                every=asked.every,
                folder=folder / f"{family}-{store}",
                postgres=asked.postgres,
            )
            try:
                row = anyio.run(tried, lab, family)
            except SetupError as error:
                _say(f"{family} on {store} was not tried: {error}")
                broken += 1
                continue
            broken += row.violations
            _say(told(row))
            if asked.results:
                keep(Path(asked.results), row)
    _say(f"{broken} violations; folders are in {folder}" if broken else "no violation")
    return 1 if broken else 0


async def tried(lab: Lab, family: Family) -> Row:
    """Do a family, and say what was found as it is.  Raises SetupError."""
    cases = list[Case]()
    async with aclosing(lab.cases(family)) as found:
        async for case in found:
            cases.append(case)
            for one in case.found[:SHOWN]:
                _say(f"{family} on {lab.store}, {case.name}: {one.promise}: {one.what[:LONGEST]}")
    every = lab.every if family == "points" else 1
    return row_of(family, lab.store, lab.nodes_of(family), cases, every=every)


def told(row: Row) -> str:
    """Return a row in one line."""
    ready = "" if row.ready_p50_s is None else f", ready again in {row.ready_p50_s} s (median)"
    return (
        f"{row.family} on {row.store}, {row.nodes} node(s): {row.cases} cases, "
        f"{row.violations} violations{ready}, {row.took_s:g} s"
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hostler.testing.crash", description=__doc__)
    parser.add_argument("family", nargs="*", choices=[[], *FAMILIES], help="all, if none is named")
    parser.add_argument("--store", choices=get_args(Store), help="both, if none is named")
    parser.add_argument("--nodes", type=int, help="for kills; default: 3 on PostgreSQL, else 1")
    parser.add_argument("--count", type=int, help="how many kills, restarts, cuts or outages")
    parser.add_argument("--every", type=int, default=1, help="of places: each so-manieth one")
    parser.add_argument("--seed", type=int, default=0, help="of chance")
    parser.add_argument("--folder", help="where cases are tried; default: a new one")
    parser.add_argument("--postgres", help="URL of a superuser; default: a private server")
    parser.add_argument("--results", help="a JSON file to keep the figures in")
    return parser


if __name__ == "__main__":
    sys.exit(main())
