"""The way out for spans: a bounded queue, a thread, an exporter.

Invariant: whoever hands a span over never waits; what finds no room, or no collector that takes
it, is counted and gone.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

log = logging.getLogger(__name__)

ROOM = 8192
"""What waits at most: at 5 spans a turn, some seconds of a loaded server."""
BATCH, EVERY_S = 512, 1.0
FLUSH_S = 3.0
"""What is left gets this long when the server stops."""

Item = TypeVar("Item")
Made = TypeVar("Made")
Made_contra = TypeVar("Made_contra", contravariant=True)


class Out(Protocol[Made_contra]):
    """Where spans go: one of OpenTelemetry's exporters, behind what says whether they got there."""

    def send(self, spans: Sequence[Made_contra]) -> bool: ...
    def close(self) -> None: ...


class Export(Generic[Item, Made]):
    """Hands items to a thread, which makes spans of them and sends them, a batch at a time."""

    def __init__(
        self,
        make: Callable[[Item], Made],
        out: Out[Made],
        *,
        room: int = ROOM,
        every_s: float = EVERY_S,
    ) -> None:
        self._make, self._out, self._every_s = make, out, every_s
        self._queue: queue.Queue[Item | None] = queue.Queue(room)
        self.exported = 0
        self.dropped = 0
        self._refused = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hostler-spans", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Take an item, or drop it."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self._refused += 1

    @property
    def lost(self) -> int:
        """How many spans were dropped, for want of room or of a collector that takes them."""
        return self.dropped + self._refused

    def close(self, flush_s: float = FLUSH_S) -> None:
        """Send what is left, for so long; blocks."""
        self._over.set()
        with suppress(queue.Full):  # then the thread has enough to wake up for
            self._queue.put_nowait(None)
        self._thread.join(flush_s)
        self._out.close()

    def _run(self) -> None:
        while True:
            batch = self._gather()
            if batch:
                self._send(batch)
            elif self._over.is_set():
                return

    def _gather(self) -> list[Item]:
        """Return a batch: full, or what came within `every_s` after its first."""
        try:
            first = self._queue.get(block=not self._over.is_set())
        except queue.Empty:
            return []
        batch = [] if first is None else [first]
        until = time.monotonic() + self._every_s
        while len(batch) < BATCH:
            left_s = 0.0 if self._over.is_set() else until - time.monotonic()
            try:
                item = self._queue.get(timeout=left_s) if left_s > 0 else self._queue.get_nowait()
            except queue.Empty:
                return batch
            if item is not None:
                batch.append(item)
        return batch

    def _send(self, batch: Sequence[Item]) -> None:
        try:
            sent = self._out.send([self._make(item) for item in batch])
        except Exception:  # a stranger's exporter, or a span it cannot take
            log.warning("spans could not be exported", exc_info=True)
            sent = False
        if sent:
            self.exported += len(batch)
        else:
            self.dropped += len(batch)
