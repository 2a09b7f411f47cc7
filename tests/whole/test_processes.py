"""The parent of several servers: what it is told reaches it, whatever its children are doing."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from hostler.app import processes
from hostler.app.processes import Children

pytestmark = pytest.mark.anyio
WITHIN_S = 60.0
CHILD = """
import fcntl, os, pathlib, signal, sys

folder = pathlib.Path(__file__).parent
(folder / f"{os.getpid()}.born").touch()
with (folder / "gate").open() as gate:
    fcntl.flock(gate, fcntl.LOCK_SH)
"""
SERVES = """
os.write(int(sys.argv[-1].split(",")[2]), b".")
signal.pause()
"""
ONE_SERVES_AND_ENDS = """
if len([*folder.glob("*.born")]) == 1:
    os.write(int(sys.argv[-1].split(",")[2]), b".")
"""


@dataclass
class Parent:
    """One that runs in this process, so that this is what is sent signals."""

    folder: Path
    ready: anyio.Event = field(default_factory=anyio.Event)
    codes: list[int] = field(default_factory=list[int])

    @property
    def born(self) -> int:
        """Return how many children there were."""
        return len([*self.folder.glob("*.born")])

    def told(self, what: signal.Signals) -> None:
        os.kill(os.getpid(), what)

    async def until(self, true: Callable[[], bool]) -> None:
        with anyio.fail_after(WITHIN_S):
            while not true():
                await anyio.lowlevel.checkpoint()

    async def work(self, count: int) -> None:
        command = [sys.executable, str(self.folder / "child.py")]
        with socket.socket() as listening:
            children = Children(command, listening)
            self.codes.append(await children.serve(count, self.ready.set))


@asynccontextmanager
async def a_parent(folder: Path, child: str, *, count: int = 1) -> AsyncGenerator[Parent]:
    """Yield a parent whose children have begun, and wait while the gate is locked."""
    (folder / "child.py").write_text(CHILD + child)
    (folder / "gate").touch()
    parent = Parent(folder)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(parent.work, count)
        await parent.until(lambda: parent.born >= count)
        yield parent
        await parent.until(lambda: bool(parent.codes))


async def test_children_that_are_to_be_replaced_before_they_serve_are_replaced_once_they_do(
    tmp_path: Path,
) -> None:
    with (tmp_path / "gate").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        async with a_parent(tmp_path, SERVES, count=2) as parent:
            parent.told(signal.SIGHUP)
            for _ in range(20):  # turns of the loop: in the first ones it hears of the signal
                await anyio.lowlevel.checkpoint()
            assert (parent.born, parent.ready.is_set()) == (2, False)
            fcntl.flock(gate, fcntl.LOCK_UN)
            await parent.until(lambda: parent.born == 4)
            parent.told(signal.SIGTERM)

    assert parent.ready.is_set()
    assert parent.codes == [0]


async def test_a_parent_that_waits_to_start_a_child_again_stops_when_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "AGAIN_S", (0.0, 3600.0))
    caplog.set_level("INFO", logger="hostler")

    async with a_parent(tmp_path, ONE_SERVES_AND_ENDS) as parent:
        await parent.until(lambda: len(caplog.records) == 2)
        parent.told(signal.SIGTERM)

    assert (parent.born, parent.codes) == (2, [0])
