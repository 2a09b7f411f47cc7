"""The port of what carries messages between nodes, and how a connection lasts.

Invariant: a wire keeps nothing; who was not there when something was said reads the log.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from hostler.core.errors import HostlerError

log = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 3.0
STEADY_S = 5.0
"""A connection that held for so long was one: the next waiting begins with little again."""
_chance = random.Random()  # noqa: S311  spreads nodes, hides nothing


class Down(HostlerError):
    """The wire carries nothing now."""


class Ears(Protocol):
    """Who listens."""

    def heard(self, channel: str, data: bytes) -> None: ...
    def stands(self, channel: str) -> None:
        """From now on, all that is said on the channel is heard, until `down`."""
        ...

    def down(self) -> None:
        """Nothing is heard any more; each channel stands again when it does."""
        ...


class Wire(Protocol):
    """Channels on which all who listen hear all that is said, once, in each sender's order."""

    limit_bytes: int
    """A longer message cannot be sent."""
    join_s: float
    """Text that is not the first is joined for so long."""

    def subscribe(self, channel: str) -> None:
        """Listen, from when the channel `stands`, through every interruption."""
        ...

    def unsubscribe(self, channel: str) -> None: ...
    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Say it all, in order, as one write.  Raises Down: some of it may not have been said."""
        ...

    async def serve(self, ears: Ears) -> None:
        """Carry until cancelled, connecting as often as it takes."""
        ...


async def lasting(once: Callable[[], Awaitable[None]], down: Callable[[], None], what: str) -> None:
    """Do `once` again and again, as it raises Down, with waits between that grow."""
    wait_s, is_known = FIRST_WAIT_S, False
    while True:
        began = time.monotonic()
        try:
            await once()
        except Down as error:
            down()
            if time.monotonic() - began > STEADY_S:
                wait_s, is_known = FIRST_WAIT_S, False
            if not is_known:
                is_known = True
                log.warning(
                    "the live bus over %s is down, the log is read instead: %s", what, error
                )
        await anyio.sleep(wait_s * _chance.uniform(0.5, 1.0))
        wait_s = min(LONGEST_WAIT_S, wait_s * 2)


@asynccontextmanager
async def connected() -> AsyncGenerator[TaskGroup]:
    """Leave what is in this context, and what it starts, with the first Down of either."""
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        downs, others = group.split(Down)
        if downs is None or others is not None:
            raise
        raise Down("the connection was lost") from group


def told(error: Exception) -> str:
    """Return what an error says, or else what it is called."""
    return str(error) or type(error).__name__
