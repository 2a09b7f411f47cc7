"""Our client for TypeScript, as npm would install it, and programs that use it under Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream
from tests.programs import node
from tests.serving import Json

SOURCES = Path(__file__).parents[1] / "clients" / "typescript"


def node_modules() -> Path:
    """Return where the packages are that our client is made and tested with."""
    there = (SOURCES / "node_modules").is_dir()
    assert there, "this test needs the packages of clients/typescript: `make setup` makes them"
    return SOURCES / "node_modules"


def ran(*arguments: str, folder: Path) -> str:
    """Return what a program under Node prints; it must end well."""
    done = subprocess.run(
        [node(), *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(folder: Path) -> Path:
    """Build the package in a folder, beside what it is tested with, and return the folder."""
    # Copies: Node looks for a module beside the file that a link leads to.
    shutil.copytree(SOURCES / "test", folder / "test")
    shutil.copy(SOURCES / "package.json", folder)
    (folder / "node_modules").symlink_to(node_modules())
    tsc = str(node_modules() / "typescript" / "bin" / "tsc")
    ran(tsc, "--project", str(SOURCES), "--outDir", str(folder / "dist"), folder=folder)
    return folder


class Failed(Exception):
    """An error of the client, as it was told."""

    def __init__(self, told: Json) -> None:
        super().__init__(str(told))
        self.told = told


@dataclass
class Driven:
    """A client that does what it is told."""

    process: anyio.abc.Process
    frames: dict[str, list[Json]] = field(default_factory=dict[str, list[Json]])
    connections: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    results: dict[str, Json] = field(default_factory=dict[str, Json])
    news: anyio.Event = field(default_factory=anyio.Event)

    async def begin(self, name: str, do: str, **more: object) -> None:
        """Give an order under a name, and wait for nothing."""
        assert self.process.stdin is not None
        self.frames[name], self.connections[name] = [], []
        self.results.pop(name, None)
        await self.process.stdin.send(json.dumps({"do": do, "id": name, **more}).encode() + b"\n")

    async def result(self, name: str) -> object:
        """Wait until an order is carried out.  Raises Failed."""
        with anyio.fail_after(20):
            while name not in self.results:
                await self.news.wait()
        told = self.results[name]
        if "error" in told:
            raise Failed(cast("Json", told["error"]))
        return told["value"]

    async def call(self, method: str, *args: object) -> object:
        """Return what a method of the client gives.  Raises Failed."""
        await self.begin(method, "call", method=method, args=args)
        return await self.result(method)

    async def sees(self, name: str, event: str, *, count: int = 1) -> Sequence[Json]:
        """Wait for a frame of a kind, and return all frames of that order."""
        with anyio.fail_after(20):
            while sum(one["event"] == event for one in self.frames[name]) < count:
                await self.news.wait()
        return self.frames[name]

    async def listen(self) -> None:
        assert self.process.stdout is not None
        lines = BufferedByteReceiveStream(self.process.stdout)
        while True:
            told = json.loads(await lines.receive_until(b"\n", 1 << 24))
            name = told["id"]
            match told["event"]:
                case "frame":
                    self.frames[name].append(told["frame"])
                case "connection":
                    self.connections[name].append(told["is"])
                case _:
                    self.results[name] = told
            self.news.set()
            self.news = anyio.Event()


@asynccontextmanager
async def driven(package: Path, url: str, key: str) -> AsyncGenerator[Driven]:
    """Run a client of the server at `url`; leaving it ends it."""
    command = [node(), str(package / "test" / "drive.mjs"), url, key]
    async with await anyio.open_process(command, stderr=None) as process:
        one = Driven(process)
        async with anyio.create_task_group() as tasks:
            try:
                tasks.start_soon(one.listen)
                yield one
            finally:
                tasks.cancel_scope.cancel()
                process.kill()
