"""Whether the event loop keeps its time, and who holds it when it does not.

The loop ticks; a thread looks whether it did.  When it has not for `BLOCKED_S`, whatever the
loop's thread is doing is what blocks all streams, and the frame is named in a warning.

Invariant: one blockage is counted once, and costs one look at one stack.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

import anyio

log = logging.getLogger(__name__)

TICK_S = 0.05
BLOCKED_S = 0.1
"""As asyncio's own `slow_callback_duration`."""
_STDLIB = sysconfig.get_path("stdlib")


@dataclass(slots=True)
class LoopWatch:
    """Ticks and looks while `watch` runs."""

    late: Callable[[float], None]
    """Told at each tick how late it was, in seconds."""
    blocked: Callable[[], None]
    """Told of each blockage, on whichever thread saw it."""
    _ticked: float = field(default_factory=time.monotonic)
    _seen: float = 0.0
    """The tick after which a blockage was seen."""

    async def watch(self) -> None:
        """Watch this thread's loop until cancelled."""
        over = threading.Event()
        self._ticked = time.monotonic()
        looking = threading.Thread(
            target=self._look, args=(over, threading.get_ident()), name="loop-watch", daemon=True
        )
        looking.start()
        try:
            await self._tick()
        finally:
            over.set()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_S
            await anyio.sleep(TICK_S)
            late_s, last = loop.time() - due, self._ticked
            self._ticked = time.monotonic()
            self.late(max(0.0, late_s))
            if late_s >= BLOCKED_S and self._seen != last:
                # Too short for a look, or the interpreter lock was held, too: nobody could look.
                self.blocked()
                log.warning("the event loop was late by %d ms, nobody saw why", late_s * 1000)

    def _look(self, over: threading.Event, thread: int) -> None:
        while not over.wait(TICK_S):
            last = self._ticked
            held_s = time.monotonic() - last - TICK_S
            if held_s < BLOCKED_S or self._seen == last:
                continue
            frames = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  documented
            frame = frames.get(thread)
            if frame is None or self._ticked != last:
                continue
            self._seen = last
            where = culprit(frame)
            log.warning(
                "the event loop is blocked by %s",
                where,
                extra={"frame": where, "blocked_ms": round(held_s * 1000)},
            )
            self.blocked()


def culprit(frame: FrameType) -> str:
    """Return where the loop is held: `module:line function`, past the standard library's frames."""
    at: FrameType | None = frame
    while at is not None and _is_stdlib(at) and not _module(at).startswith("asyncio"):
        at = at.f_back
    if at is None or _is_stdlib(at):
        at = frame  # the loop called it itself
    return f"{_module(at)}:{at.f_lineno} {at.f_code.co_qualname}"


def _is_stdlib(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith((_STDLIB, "<frozen")) and "site-packages" not in file


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))
