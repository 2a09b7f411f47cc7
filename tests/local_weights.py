"""The weights that tests of local models run on: real ones, fetched once for all of them."""

from __future__ import annotations

import fcntl
import os
from functools import partial
from pathlib import Path

import anyio

from hostler.models import weights

NAME = "smollm2"


def folder_with_weights() -> Path:
    """Return a data folder that has the weights; it stays, and test workers share it."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache) / "hostler-tests"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        anyio.run(partial(weights.get, NAME, folder))
    return folder
