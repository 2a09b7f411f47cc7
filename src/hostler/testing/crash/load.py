"""Many clients at once, each of which speaks and waits, for as long as something happens to servers.

Invariant: a client leaves a session only when it is at rest, and when its follower has seen all of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from hostler.testing.crash.play import Play, at_rest

MESSAGES = 4
"""Of one session: the checker folds a log at each of its cuts, which takes the square of it."""
CLIENTS = 50


@dataclass
class Load:
    """Clients of a play."""

    play: Play
    clients: int = CLIENTS
    agent: str = "busy"
    is_over: bool = False
    rounds: int = 0
    """Messages that came to their end."""

    async def during(self, what: Callable[[], Awaitable[None]]) -> None:
        """Have the clients work while something happens, and until each has come to rest after it."""
        self.play.caller.is_quiet = self._is_quiet
        async with anyio.create_task_group() as tasks:
            for _ in range(self.clients):
                tasks.start_soon(self._work)
            await what()
            self.is_over = True

    def _is_quiet(self) -> bool:
        return self.is_over

    async def _work(self) -> None:
        while not self.is_over:
            session = await self.play.session(self.agent)
            for number in range(MESSAGES):
                await self.play.speaks(session, f"message {number}", twice=number == 0)
                await at_rest(self.play.caller, session, is_quiet=self._is_quiet)
                self.rounds += 1
                if self.is_over:
                    break
            await self.play.leave(session)
