"""Servers of one database, as processes that tests start, stop and kill."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL

import anyio
import anyio.lowlevel
import anyio.to_thread
from tests.canaries import Process, provider_keys
from tests.programs import free_port
from tests.serving import KEY

from hostler import Client
from hostler.core.errors import HostlerError

PATIENCE_S = 60.0
AGENT = """
import pathlib
from hostler import Agent, tool

@tool(effects="read")
def look(number: int) -> str:
    "Look."
    return f"seen {number}"

agent = Agent("served", model=f"scripted:{pathlib.Path(__file__).parent / 'script.json'}", tools=[look])
"""


def script(steps: int, delay_s: float) -> list[dict[str, object]]:
    """Return what a model says that calls a tool in each step but the last."""
    calls = [{"name": "look", "arguments": {"number": number}} for number in range(steps - 1)]
    return [
        *({"calls": [call], "delay_s": delay_s} for call in calls),
        {"text": "done", "delay_s": delay_s},
    ]


@dataclass
class Server:
    """One `hostler serve`."""

    folder: Path
    options: Sequence[str]
    port: int = field(default_factory=free_port)
    process: Process | None = None

    @property
    def log(self) -> Path:
        """Return the file with what it logs."""
        return self.folder / f"{self.port}.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> Client:
        return Client(self.url, KEY)

    def prepare(self) -> None:
        """Write what it serves."""
        (self.folder / "served_agent.py").write_text(AGENT)
        if not (self.folder / "script.json").exists():
            (self.folder / "script.json").write_text(json.dumps(script(2, 0.0)))

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.launch()
        await self.ready()

    def launch(self) -> None:
        command = [sys.executable, "-m", "hostler", "serve", "served_agent:agent"]
        with self.log.open("a") as log:
            self.process = Process(
                [
                    *command,
                    *("--port", str(self.port), "--data", str(self.folder / "data")),
                    *self.options,
                ],
                cwd=self.folder,
                env={"HOSTLER_ADMIN_KEY": KEY, "PATH": "", **provider_keys(), **_python_path()},
                stdin=DEVNULL,
                stderr=log,
            )

    async def ready(self) -> None:
        async with self.client() as client:
            with anyio.fail_after(PATIENCE_S):
                while True:
                    assert self.process is not None
                    assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
                    try:
                        await client.api.get("/readyz")
                    except HostlerError:
                        await anyio.lowlevel.checkpoint()
                    else:
                        return

    async def stopped(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to stop; return its exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        with anyio.fail_after(PATIENCE_S):
            return await anyio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)


def _python_path() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(one for one in sys.path if one)}


@asynccontextmanager
async def a_server(folder: Path, database: str, *options: str) -> AsyncGenerator[Server]:
    """Run a server; in the end it is killed, whatever became of it."""
    server = Server(folder, ("--database", database, *options))
    server.prepare()
    try:
        await server.start()
        yield server
    finally:
        if server.process is not None:
            server.process.kill()
            server.process.wait()
