"""Several servers on one machine that listen on one socket: a parent that starts them, and starts
them again.

Each is `hostler serve` by itself, a node of a fleet like any other.  The parent holds the socket
and serves nothing: a child that dies loses its own connections, and none that is about to come.

Invariant: no child outlives its parent, whose end each of them sees.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio
from anyio.abc import Process

from hostler.core.errors import SetupError

log = logging.getLogger("hostler")

AGAIN_S = (0.0, 1.0, 2.0, 5.0, 15.0)
"""Before a child is started again that ended so often in a row without having served."""


@dataclass(frozen=True, slots=True)
class Born:
    """What a child has of its parent: numbers of open files."""

    socket: int
    life: int
    """A pipe into which nobody can write any more once the parent is gone."""
    ready: int
    """A pipe in which the child says that it serves."""

    @staticmethod
    def read(text: str) -> Born:
        """Return what `__str__` wrote.  Raises SetupError."""
        try:
            one, two, three = map(int, text.split(","))
        except ValueError as error:
            raise SetupError("--born is for processes that hostler serve starts itself") from error
        return Born(one, two, three)

    def __str__(self) -> str:
        return f"{self.socket},{self.life},{self.ready}"

    def listening(self) -> socket.socket:
        """Return the socket of all children."""
        return socket.socket(fileno=self.socket)

    def say_ready(self) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, which is seen elsewhere
            os.write(self.ready, b".")

    async def end_alone(self) -> None:
        """Tell this process to stop when its parent is gone."""
        await anyio.wait_readable(self.life)
        os.kill(os.getpid(), signal.SIGTERM)


@dataclass(slots=True)
class Children:
    """The servers of one socket."""

    command: Sequence[str]
    """How each is started, but for `--born`."""
    listening: socket.socket
    _life: tuple[int, int] = (-1, -1)
    _running: list[Process] = field(default_factory=list[Process])
    _begun: int = 0
    """How often one of them began to serve."""
    _changed: anyio.Event = field(default_factory=anyio.Event)
    _stops: bool = False
    _code: int = 0

    async def serve(self, count: int, ready: Callable[[], None]) -> int:
        """Keep `count` of them until told to stop; return the code to exit with.

        SIGTERM and SIGINT stop all; SIGHUP replaces one after the other.  `ready` is called when
        all serve for the first time; what is to be replaced before that waits for it.  If the first
        ones cannot be started at all, that is the end.
        """
        self._life = os.pipe()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hear, count)
                async with anyio.create_task_group() as places:
                    for _ in range(count):
                        places.start_soon(self._keep)
                    await self._until_begun(count)
                    if not self._stops:
                        ready()
                tasks.cancel_scope.cancel()
        finally:
            for one in self._life:
                os.close(one)
        return self._code

    async def _keep(self) -> None:
        """See that there is one in one place, until all stop."""
        failures = 0
        while not self._stops:
            code, served = await self._one()
            if self._stops:
                return
            if not self._begun:  # none could be started yet, and it has said why
                self._code = code or 1
                self._stop()
                return
            failures = 0 if served else failures + 1
            log.log(
                logging.WARNING if code else logging.INFO,
                "a server process ended (%s); another one is started",
                code,
            )
            with anyio.move_on_after(AGAIN_S[min(failures, len(AGAIN_S) - 1)]):
                while not self._stops:
                    await self._changed.wait()

    async def _one(self) -> tuple[int, bool]:
        """Run one; return its code, and whether it served."""
        reads, writes = os.pipe()
        born = Born(self.listening.fileno(), self._life[0], writes)
        process = await anyio.open_process(
            [*self.command, "--born", str(born)],
            stdin=None,
            stdout=None,
            stderr=None,
            start_new_session=True,  # a terminal's Ctrl-C is the parent's to tell, once
            pass_fds=(born.socket, born.life, born.ready),
        )
        os.close(writes)
        self._running.append(process)
        if self._stops:  # since it was about to be started
            process.terminate()
        try:
            await anyio.wait_readable(reads)
            served = os.read(reads, 1) == b"."
            if served:
                self._begun += 1
                self._change()
            return await process.wait(), served
        finally:
            os.close(reads)
            self._running.remove(process)
            self._change()

    async def _hear(self, count: int) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            async with anyio.create_task_group() as tasks:
                async for one in received:
                    if one == signal.SIGHUP:
                        tasks.start_soon(self._renew, count)
                    else:
                        self._stop()

    async def _renew(self, count: int) -> None:
        """Replace one after the other, so that there is always one that serves."""
        await self._until_begun(count)
        for one in list(self._running):
            if one not in self._running:  # it has ended by itself, and another one is in its place
                continue
            begun = self._begun
            with contextlib.suppress(ProcessLookupError):
                one.terminate()
            await self._until_begun(begun + 1)

    async def _until_begun(self, count: int) -> None:
        while self._begun < count and not self._stops:
            await self._changed.wait()

    def _stop(self) -> None:
        """Tell all to stop; a second time, to stop at once."""
        self._stops = True
        self._change()
        for one in self._running:
            with contextlib.suppress(ProcessLookupError):
                one.terminate()

    def _change(self) -> None:
        changed, self._changed = self._changed, anyio.Event()  # for all who wait
        changed.set()
