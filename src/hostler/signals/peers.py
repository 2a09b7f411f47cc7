"""Which other nodes there are: those that were heard of late.

A node that is alone says nothing of its sessions: over PostgreSQL each word is a commit.

Invariant: a node that was not known a moment ago is told to read the logs of what is watched on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

HERE = "here"
"""The kind of what nodes tell all others when they begin to listen, and from time to time."""
GONE_S = 35.0
"""Of three words of a node, two may be lost."""
MOST = 1000
"""More are noise on the bus."""


class Peers:
    """The other nodes, by name."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard = dict[str, float]()

    def __len__(self) -> int:
        return len(self._heard)

    def hear(self, name: str) -> bool:
        """Take in that a node said something; return whether it was not known."""
        is_new = name not in self._heard
        self._heard[name] = self._clock()
        if len(self._heard) > MOST:
            del self._heard[next(iter(self._heard))]
        return is_new

    def forget_old(self) -> None:
        """Forget those that said nothing for long."""
        since = self._clock() - GONE_S
        for name in [one for one, at in self._heard.items() if at < since]:
            del self._heard[name]
