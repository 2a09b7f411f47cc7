"""Where a thread that takes jobs hands their keys to the main loop, and hears what became of them.

Jobs are taken, kept alive and ended on a thread with an event loop of its own, so a main loop that
is busy for a while loses none of them.  One that is stuck does: what it has is given up, others go
on with it, and what it was doing is cancelled as soon as it comes round.  Any engine whose jobs are
leased works like this; which queue it is, only its post knows.

Invariant: of two claims of one key, the second begins when the first one's handler has ended.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import anyio
import anyio.to_thread

from hostler.core.events import RunKey
from hostler.core.ports import Handler

log = logging.getLogger(__name__)

STUCK = 2.0
"""Leases: a main loop that did not come round for so long is taken for dead."""
TICKS = 4.0
"""In one lease."""
SILENT_S = 5.0
"""A queue that did not answer for so long cannot be reached."""
CLOSED_S = 3.0
"""How long it may take to give back what is held, before that is left to run out."""
AGAIN_S = (0.2, 1.0, 5.0)
"""Before a post that failed works again."""
NOW = 0.0
"""As the time when a key is to be handled again."""


class Post(Protocol):
    """What takes jobs from one queue.  It is made and used on the thread."""

    async def work(self, desk: Desk) -> None:
        """Take jobs while there is `room`, have their keys `handled`, until stopped."""
        ...

    def stop(self) -> None:
        """Have `work` return once all that was handled is told to the queue."""
        ...


class Claim:
    """A key that was taken from the queue; made on the thread."""

    def __init__(self, key: RunKey) -> None:
        self.key = key
        self.scope, self.over = anyio.CancelScope(), anyio.Event()
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[float | None] = self._loop.create_future()

    def end(self, again: float | None) -> None:
        """On the thread: let it be known when to handle the key again; the first word counts."""
        if not self.outcome.done():
            self.outcome.set_result(again)

    def tell(self, again: float | None) -> None:
        """On the main loop: likewise."""
        try:
            self._loop.call_soon_threadsafe(self.end, again)
        except RuntimeError:  # the thread has ended, and the lease will
            log.warning("run %s is handled again once its lease is over", self.key.run)


class Counts:
    """How many keys are due and wait, and for how many seconds the oldest, as the thread counted them."""

    waiting: tuple[int, float] = (0, 0.0)


class Desk:
    """Made by an engine; `serve` has to run for anything to be handled."""

    def __init__(self, *, lease_s: float, ahead: Callable[[], int]) -> None:
        self.lease_s, self._ahead = lease_s, ahead
        self._slots, self._is_open, self._drains = 0, False, False
        self._ticked = self._looked = 0.0
        self._held: set[Claim] = set()
        self._begun: dict[RunKey, Claim] = {}
        self._main: asyncio.AbstractEventLoop | None = None
        self._arrived, self._came = deque[Claim](), asyncio.Event()
        self._handler: Handler | None = None

    # -- on the thread -----------------------------------------------------------------------

    @property
    def takes(self) -> bool:
        """Whether anything is taken at all."""
        return self._is_open and not self._drains and not self._is_stuck()

    def looked(self) -> None:
        """Take in that the queue has answered."""
        self._looked = time.monotonic()

    def room(self) -> int:
        """Return how many keys may be taken now."""
        if not self.takes:
            return 0
        return max(0, min(self._slots - len(self._held), self._ahead()))

    def hand_over(self, key: RunKey) -> Claim:
        """Have a key handled; the claim's outcome is when to do so again, or None."""
        claim = Claim(key)
        self._held.add(claim)
        claim.outcome.add_done_callback(lambda _: self._held.discard(claim))
        self._on_main(self._begin, claim)
        return claim

    def lose(self, claim: Claim) -> None:
        """Take in that another worker has this job now."""
        if not claim.outcome.done():
            log.warning("run %s was taken over by another worker", claim.key.run)
            claim.end(None)
            self._on_main(claim.scope.cancel)

    async def watch(self) -> None:
        """Give up all that is held while the main loop is stuck, until cancelled."""
        while True:
            await anyio.sleep(self.lease_s / TICKS)
            if self._held and self._is_stuck():
                log.error("the main loop is stuck: %d run(s) are given up", len(self._held))
                for claim in [*self._held]:
                    claim.end(NOW)
                    self._on_main(claim.scope.cancel)

    def _is_stuck(self) -> bool:
        return time.monotonic() - self._ticked > STUCK * self.lease_s

    def _on_main(self, do: Callable[..., object], *given: object) -> None:
        assert self._main is not None
        try:
            self._main.call_soon_threadsafe(do, *given)
        except RuntimeError:  # it has ended, and the lease will
            log.debug("the main loop is closed")

    # -- on the main loop --------------------------------------------------------------------

    @property
    def serves(self) -> bool:
        return self.takes and time.monotonic() - self._looked < max(SILENT_S, self.lease_s)

    @property
    def live(self) -> int:
        return len(self._begun)

    def drain(self) -> None:
        """Take nothing more."""
        self._drains = True

    async def serve(self, handler: Handler, post: Callable[[], Post], *, slots: int) -> None:
        """Handle what the post takes, until cancelled; then what is held is given back at once."""
        self._handler, self._slots, self._main = handler, slots, asyncio.get_running_loop()
        self._ticked, self._is_open = time.monotonic(), True
        thread = _Thread(post, self, type(self._main))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._tick)
                thread.start()
                while True:
                    await self._came.wait()
                    self._came.clear()
                    while self._arrived:
                        tasks.start_soon(self._handle, self._arrived.popleft())
        finally:
            self._is_open = False
            while self._arrived:
                self._arrived.popleft().tell(NOW)
            with anyio.CancelScope(shield=True):
                await thread.close()

    async def _tick(self) -> None:
        while True:
            self._ticked = time.monotonic()
            await anyio.sleep(self.lease_s / TICKS)

    def _begin(self, claim: Claim) -> None:
        if self._is_open:
            self._arrived.append(claim)
            self._came.set()
        else:
            claim.tell(NOW)

    async def _handle(self, claim: Claim) -> None:
        assert self._handler is not None
        again: float | None = NOW
        before, self._begun[claim.key] = self._begun.get(claim.key), claim
        try:
            if before is not None:
                before.scope.cancel()
                await before.over.wait()
            with claim.scope:
                again = await self._handler(claim.key)
        except Exception:
            log.exception("handling run %s failed", claim.key.run)
            again = None
        finally:
            if self._begun.get(claim.key) is claim:
                del self._begun[claim.key]
            claim.over.set()
            claim.tell(again)


class _Thread:
    """On which a post works, and works again if it failed."""

    def __init__(
        self, post: Callable[[], Post], desk: Desk, kind: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        self._make, self._desk, self._kind = post, desk, kind
        self._thread = threading.Thread(target=self._run, name="postman", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._post: Post | None = None
        self._ends = threading.Event()

    def start(self) -> None:
        self._thread.start()

    async def close(self) -> None:
        """Let the post give back what is held, and end the thread."""
        self._ends.set()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop)
        await anyio.to_thread.run_sync(self._thread.join, CLOSED_S)
        if self._thread.is_alive():
            log.warning("what is held could not be given back: its lease has to run out")

    def _stop(self) -> None:
        if self._post is not None:
            self._post.stop()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._kind) as runner:
            self._loop = runner.get_loop()
            runner.run(self._work())

    async def _work(self) -> None:
        failed = 0
        while not self._ends.is_set():
            try:
                self._post = self._make()
                await self._post.work(self._desk)
            except Exception:
                log.exception("taking jobs failed")
                await anyio.sleep(AGAIN_S[min(failed, len(AGAIN_S) - 1)])
                failed += 1
