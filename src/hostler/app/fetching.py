"""Fetching the weights of local models, and telling how far it is: a bar, or lines.

Invariant: whoever waits hears of it at least once a second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import anyio
import anyio.to_thread
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from hostler.models import local, weights

TELL_S = 1.0
"""Between two lines, where a bar cannot be drawn."""


async def fetch(name: str, data: Path) -> Path:
    """Return the file of weights that we know, fetched if it is not there.

    Raises:
        SetupError: see `weights.get`; or llama.cpp, without which they are of no use, is not here.
    """
    local.require()
    if await anyio.to_thread.run_sync(weights.have, name, data):
        return weights.path_of(name, data)
    with telling(f"fetching local:{name}", sys.stderr) as tell:
        return await weights.get(name, data, progress=tell)


@contextmanager
def telling(what: str, out: TextIO) -> Generator[weights.Progress]:
    """Give a way to tell how many bytes of how many are here."""
    console = Console(file=out)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lines(what, out)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    with Progress(*columns, TransferSpeedColumn(), console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def lines(what: str, out: TextIO, clock: Callable[[], float] = time.monotonic) -> weights.Progress:
    """Return a way to tell it in lines, the first at once."""
    due = clock()

    def tell(done_bytes: int, total_bytes: int) -> None:
        nonlocal due
        if clock() < due:
            return
        due = clock() + TELL_S - weights.LOOK_S  # it is called that often, and no sooner
        here = f"{done_bytes >> 20} of {total_bytes >> 20} MiB"
        print(
            f"{what}: {here if done_bytes < total_bytes else 'checking it'}", file=out, flush=True
        )

    return tell
