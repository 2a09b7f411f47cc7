"""The processes of a measurement: the model server, Hostler as users start it, and the floor.

Invariant: each works in a folder of its own, and is gone when its context is left.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from bench.bare import HOST, BrokenError, Client
from bench.machine import ROOT, Spent, rss_bytes, spent_by

KEY = "hk_bench_0123456789abcdef0123456789abcdef"
START_S = 60.0
STOP_S = 10.0
LOOK_AGAIN_S = 0.002
AGENT = '''
from hostler import Agent, tool

@tool
async def noop(x: str) -> str:
    """A no-op tool."""
    return "ok"

agent = Agent("bench", model="openai:mock", tools=[noop])
'''


class DidNotStartError(Exception):
    """A server ended or said nothing; holds what is in its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs, and a client of it."""

    name: str
    pid: int
    client: Client
    database: Path
    start_s: float
    """From its start as a process to its first answer."""

    def spent(self) -> AbstractContextManager[Spent]:
        """Measure what the server uses within the context."""
        return spent_by(self.pid)

    @property
    def rss_bytes(self) -> int:
        return rss_bytes(self.pid)


@asynccontextmanager
async def mock(folder: Path) -> AsyncGenerator[int]:
    """Run the model server and yield its port."""
    with _process(["-m", "bench.mock"], folder, {"PYTHONPATH": str(ROOT)}) as process:
        yield await _port(process, folder, r"^(\d+)\n")


@asynccontextmanager
async def hostler(
    folder: Path,
    model_port: int,
    *,
    name: str = "hostler",
    database: str | None = None,
    settings: Mapping[str, str] | None = None,
    flags: Sequence[str] = (),
) -> AsyncGenerator[Server]:
    """Run `hostler serve` with one agent, which has one tool, which does nothing."""
    (folder / "benched.py").write_text(AGENT)
    data = folder / "data"
    command = ["-m", "hostler", "serve", "benched:agent", "--port", "0", "--data", str(data)]
    command += flags
    environ = {
        "PYTHONPATH": str(ROOT / "src"),  # what is beside this, whatever is installed
        "HOSTLER_ADMIN_KEY": KEY,
        "OPENAI_API_KEY": "sk-bench",
        "OPENAI_BASE_URL": f"http://{HOST}:{model_port}/v1",
        **({} if database is None else {"HOSTLER_DATABASE": database}),
        **(settings or {}),
    }
    began = time.perf_counter()
    with _process(command, folder, environ) as process:
        port = await _port(process, folder, r" on http://[^\s\"]+:(\d+)\b")
        client = await _healthy(port)
        start_s = time.perf_counter() - began
        yield Server(name, process.pid, client, data / "hostler.db", start_s)
        client.close()


@asynccontextmanager
async def floor(folder: Path, model_port: int) -> AsyncGenerator[Server]:
    """Run the yardstick."""
    database, began = folder / "floor.db", time.perf_counter()
    command = ["-m", "bench.floor", str(database), str(model_port)]
    with _process(command, folder, {"PYTHONPATH": str(ROOT)}) as process:
        port = await _port(process, folder, r"^(\d+)\n")
        client = await _healthy(port)
        yield Server("floor", process.pid, client, database, time.perf_counter() - began)
        client.close()


@contextmanager
def _process(
    arguments: Sequence[str], folder: Path, environ: Mapping[str, str]
) -> Generator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder), **environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _port(process: subprocess.Popen[bytes], folder: Path, line: str) -> int:
    """Return the port that the server's log tells."""
    with anyio.move_on_after(START_S):
        while process.poll() is None:
            if found := re.search(line, (folder / "log").read_text()):
                return int(found[1])
            await anyio.sleep(LOOK_AGAIN_S)
    raise DidNotStartError((folder / "log").read_text()[-2000:])


async def _healthy(port: int) -> Client:
    client = Client(port, {"Authorization": f"Bearer {KEY}"})
    with anyio.fail_after(START_S):
        while True:
            try:
                await client.request("GET", "/healthz")
            except (OSError, BrokenError):
                await anyio.sleep(LOOK_AGAIN_S)
            else:
                return client
