"""Numbered places around each durable write, at which the crash lab ends the process.

A server that the lab starts is told by its environment at which one it dies; it counts how often it
comes past any.  Where they are is written by hand, as `before X` and `after X`: a write that is not
between two of them is one that no death is tried at.

Invariant: without the lab's variables, and so in each server that somebody runs, nothing happens
here, and that cannot be changed while a process lives.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Final

DIES_AT: Final = "CRASH_LAB_DIES_AT"
"""The number of the place; 0 counts and never dies."""
TOLD: Final = "CRASH_LAB_TOLD"
"""A file, to which each place is appended, a line each: its name."""
KILLED: Final = 137
"""How a shell tells of a process that was ended by SIGKILL."""


def _nothing(place: str) -> None:
    del place


def made(environ: Mapping[str, str]) -> Callable[[str], None]:
    """Return what is done at each place, in a process with these variables."""
    if DIES_AT not in environ:
        return _nothing
    dies_at, told = int(environ[DIES_AT]), environ.get(TOLD, os.devnull)
    fd = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    passed, turn = 0, threading.Lock()

    def counted(place: str) -> None:
        nonlocal passed
        with turn:  # whoever comes second while the first one dies goes no further
            passed += 1
            os.write(fd, f"{place}\n".encode())
            if passed == dies_at:
                os._exit(KILLED)

    return counted


fault_point: Final = made(os.environ)
