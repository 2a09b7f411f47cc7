"""Waiting for what nobody tells: other processes.

Invariant: whoever waits sets the deadline.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

LOOK_S = 0.01
AGAIN_S = 0.05


async def breath() -> None:
    """Wait before asking again: whoever asks at once keeps the asked from their work."""
    await anyio.sleep(AGAIN_S)


async def until(is_so: Callable[[], bool]) -> None:
    """Look again and again, until something is so."""
    while not is_so():  # noqa: ASYNC110  processes set no events
        await anyio.sleep(LOOK_S)
