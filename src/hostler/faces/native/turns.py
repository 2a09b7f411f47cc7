"""Turns at what takes much memory: a few at a time, and the others wait a moment.

Invariant: whoever waits for a turn has sent nothing yet that is held here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from hostler.core.errors import Unavailable

MOST_IMPORTS = 2
"""Each holds a file of `LARGEST_ARCHIVE` bytes, as facts, until it is stored."""
LONGEST_S = 10.0
"""A client that waits longer is told to come back, so that it need not guess."""


@dataclass(frozen=True, slots=True)
class Turns:
    longest_s: float = LONGEST_S
    _free: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(MOST_IMPORTS))

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[None]:
        """Wait for a turn, and have it while in this context.

        Raises:
            Unavailable: it did not come in time.
        """
        has_it = False
        with anyio.move_on_after(self.longest_s):
            await self._free.acquire()
            has_it = True
        if not has_it:
            raise Unavailable("others are importing sessions; try again", retry_after_s=5.0)
        try:
            yield
        finally:
            self._free.release()
