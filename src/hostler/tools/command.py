"""Programs that tools start: each in a process group of its own, which ends with the call.

    call is cancelled or late ──▶ SIGTERM to the group ──GRACE_S──▶ SIGKILL to the group

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
    those that it leaves behind when it ends by itself.

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
    try:
        assert process.stdout is not None
        said, left_out = await _read(process.stdout, limit_bytes)
        exit_code = await process.wait()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
    return Finished(exit_code, said.decode(errors="replace"), left_out)


async def _read(stream: ByteReceiveStream, limit_bytes: int) -> tuple[bytes, int]:
    """Return what is said up to the limit, and how much more was; a full pipe would stop it."""
    said, size = list[bytes](), 0
    async for piece in stream:
        if size < limit_bytes:
            said.append(piece[: limit_bytes - size])
        size += len(piece)
    return b"".join(said), max(0, size - limit_bytes)


async def _end(process: Process) -> None:
    """End the group, and the program with it."""
    if _signal(process.pid, signal.SIGTERM):
        with anyio.move_on_after(GRACE_S):
            while _signal(process.pid, 0):  # a group tells nobody when it is gone
                await _reap(process)
        _signal(process.pid, signal.SIGKILL)
    await process.aclose()


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
