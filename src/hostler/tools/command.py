"""Programs that tools start: each in a process group of its own, which ends with the call.

    call is cancelled or late, or its program has ended
        ──▶ SIGTERM to the group ──GRACE_S──▶ SIGKILL to the group

Invariant: when `run_command` is left, by whichever way, no process of its group is alive.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import anyio
from anyio.abc import ByteReceiveStream, Process

from hostler.core.errors import ToolError

GRACE_S = 1.0
"""From asking the group to end to killing it: a stopped run has ended within two seconds."""
LOOK_S = 0.02
LIMIT_BYTES = 1024 * 1024


class Finished(NamedTuple):
    """What a program said and how it ended."""

    exit_code: int
    """Negative: ended by that signal."""
    output: str
    """Standard output and error in the order they came; what is no UTF-8 is replaced."""
    left_out: int = 0
    """Bytes past the limit, which are not in `output`."""


async def run_command(
    argv: Sequence[str],
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    limit_bytes: int = LIMIT_BYTES,
) -> Finished:
    """Run a program to its end and return what it said.

    It reads nothing: its standard input is empty.  Without `env`, it has this process's
    environment.  When the tool call that awaits this is cancelled or out of time, the program and
    all that it started in its process group are asked to end, and killed a second later; so are
    those that it leaves behind when it ends by itself.  What leaves the group, as daemons do, goes on,
    and what it says is not waited for.

    Raises:
        ToolError: there is no such program, or it may not be run.
    """
    try:
        process = await anyio.open_process(
            argv,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        raise ToolError(f"{argv[0]} cannot be run: {error.strerror}") from error
    said = _Said(limit_bytes)
    try:
        async with anyio.create_task_group() as tasks:
            assert process.stdout is not None
            tasks.start_soon(said.read, process.stdout)
            try:
                await process.wait()
            finally:  # before the end of the pipe is awaited, which the group may hold open
                with anyio.CancelScope(shield=True):
                    await _end_group(process)
            with anyio.move_on_after(GRACE_S):
                await said.all.wait()
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await process.aclose()
    output = b"".join(said.pieces).decode(errors="replace")
    return Finished(await process.wait(), output, max(0, said.size - limit_bytes))


class _Said:
    """What is said up to the limit, and how much it was."""

    def __init__(self, limit_bytes: int) -> None:
        self.pieces, self.size, self.all = list[bytes](), 0, anyio.Event()
        self._limit = limit_bytes

    async def read(self, stream: ByteReceiveStream) -> None:
        """Read to the end, whatever the limit: a full pipe would stop the program."""
        async for piece in stream:
            if self.size < self._limit:
                self.pieces.append(piece[: self._limit - self.size])
            self.size += len(piece)
        self.all.set()


async def _end_group(process: Process) -> None:
    if _signal(process.pid, signal.SIGTERM):
        with anyio.move_on_after(GRACE_S):
            while _signal(process.pid, 0):  # a group tells nobody when it is gone
                await _reap(process)
        _signal(process.pid, signal.SIGKILL)


async def _reap(process: Process) -> None:
    """Wait a little; a dead leader that nobody waited for counts as alive."""
    with anyio.move_on_after(LOOK_S):
        await process.wait()
        await anyio.sleep(LOOK_S)


def _signal(group: int, number: int) -> bool:
    """Send a signal to a group; False if nobody is left in it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False
