"""Threads that work for the event loop in batches: one hand-over each way, however many asked.

A store's connection is only ever used by the one thread of its lane.

Invariant: every future that was handed in is answered, whatever happens to the batch.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from hostler.core.errors import Unavailable

Order = TypeVar("Order")
Answer = TypeVar("Answer")
Timed: TypeAlias = Callable[[float, int], None]
"""Told, on the lane's thread, how many seconds a batch took, and of how many orders it was."""
CLOSED = "the store is closed"
_Asked: TypeAlias = "list[tuple[Order, asyncio.Future[Answer]]]"


class Lane(Generic[Order, Answer]):
    """Runs `work` on batches of orders, in order, on a thread of its own.

    `work` returns an answer or an exception per order; `deliver` is then called once per batch,
    on the event loop, before anybody who asked goes on.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Order]], Sequence[Answer | Exception]],
        deliver: Callable[[Sequence[Answer | Exception]], None] | None = None,
        *,
        largest: int = 256,
        timed: Timed | None = None,
    ) -> None:
        self._work, self._deliver, self._largest = work, deliver, largest
        self._timed = timed
        self._loop = asyncio.get_running_loop()
        self._gathered: _Asked[Order, Answer] = []
        self._inbox: queue.SimpleQueue[_Asked[Order, Answer] | None] = queue.SimpleQueue()
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def ask(self, order: Order) -> Answer:
        """Return the answer to `order`, or raise the exception that came instead.

        Raises:
            Unavailable: the lane has ended.
        """
        if self._has_ended:
            raise Unavailable(CLOSED)
        future: asyncio.Future[Answer] = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append((order, future))
        return await future

    def close(self) -> None:
        """Finish what was asked for, then end the thread."""
        self._hand_over()
        self._has_ended = True
        self._inbox.put(None)
        self._thread.join()

    def _hand_over(self) -> None:
        if self._gathered:
            self._inbox.put(self._gathered)
            self._gathered = []

    def _run(self) -> None:
        try:
            self._serve_all()
        finally:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        """Answer those who asked and were not served.  On the loop, as all that fills the inbox."""
        self._has_ended = True
        self._hand_over()
        while not self._inbox.empty():
            batch = self._inbox.get_nowait() or []
            self._answer(batch, [Unavailable(CLOSED)] * len(batch))

    def _serve_all(self) -> None:
        while (batch := self._inbox.get()) is not None:
            ended = False
            while len(batch) < self._largest and not ended:
                try:
                    more = self._inbox.get_nowait()
                except queue.Empty:
                    break
                ended = more is None
                batch += more or ()
            self._serve(batch)
            if ended:
                return

    def _serve(self, batch: _Asked[Order, Answer]) -> None:
        answers: Sequence[Answer | Exception] = [Unavailable("the store failed")] * len(batch)
        began = time.perf_counter()
        try:
            answers = self._work([order for order, _ in batch])
            if self._timed is not None:
                self._timed(time.perf_counter() - began, len(batch))
        finally:  # `work` answers what it expects; a bug in it ends this lane, and nobody waits
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._resolve, batch, answers)

    def _resolve(self, batch: _Asked[Order, Answer], answers: Sequence[Answer | Exception]) -> None:
        try:
            if self._deliver is not None:
                self._deliver(answers)
        finally:
            self._answer(batch, answers)

    def _answer(self, batch: _Asked[Order, Answer], answers: Sequence[Answer | Exception]) -> None:
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue  # whoever asked was cancelled; what was written stays written
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
