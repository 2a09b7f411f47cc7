"""Servers in processes of their own, which may die at any time and are started again.

Invariant: a node that ended in another way than it was made to is told as a violation; only its own
process is ever signalled.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import anyio
from anyio.abc import Process

from hostler.faults import DIES_AT, KILLED, TOLD
from hostler.testing.crash.served import put
from hostler.testing.crash.waiting import LOOK_S, until

SOURCE = Path(__file__).parents[3]
"""Where this very package is imported from: a node is of the same build."""
READY_S = 180.0
"""After which a node that is not ready never will be: on a starved machine Python starts for a minute."""
STOPPED_S = 30.0
EXPECTED = frozenset({KILLED, -signal.SIGKILL})
"""How a node may end that the lab makes die."""
TAIL = 4000
"""Characters of a dead node's lines that are told."""


def free_port() -> int:
    """Return a port of loopback that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@dataclass(kw_only=True)
class Site:
    """What the nodes of a fleet have in common: a folder, a database, a key."""

    folder: Path
    database: str | None = None
    """A URL; without it, a SQLite file in the folder."""
    redis: str | None = None
    key: str = field(default_factory=lambda: f"hk_{secrets.token_urlsafe(32)}", repr=False)
    allow: Sequence[str] = ()
    """Places that tenants may name: `HOST:PORT`."""
    environ: Mapping[str, str] = field(default_factory=dict[str, str])
    """Variables of every life of every node."""
    target: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.target = put(self.folder)

    def data(self, number: int) -> Path:
        """Return a node's data folder: with a database there is nothing in it that others need."""
        return self.folder / ("data" if self.database is None else f"data-{number}")

    def log(self, number: int) -> Path:
        return self.folder / f"node-{number}.log"

    def variables(self) -> dict[str, str]:
        """Return the environment of a node; little of ours is in it."""
        path = os.pathsep.join([str(SOURCE), *sys.path])
        allowed = ",".join(f'"{one}"' for one in self.allow)
        given = {
            "HOME": str(self.folder),
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": path,
            "HOSTLER_ADMIN_KEY": self.key,
            "HOSTLER_EGRESS": f'{{"allow": [{allowed}]}}',
            "HOSTLER_LOG": "json",
        }
        if self.database is not None:
            given["HOSTLER_DATABASE"] = self.database
            # All nodes have to open what any of them sealed.
            given["HOSTLER_MASTER_KEY_FILE"] = str(self._master_key())
        if self.redis is not None:
            given["HOSTLER_REDIS"] = self.redis
        return {**given, **self.environ}

    def _master_key(self) -> Path:
        path = self.folder / "master-key"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(32), encoding="ascii")
        return path


@dataclass(kw_only=True)
class Node:
    """One server: `keep` starts it, and again whenever it has died, until it is stopped."""

    site: Site
    number: int = 1
    first_life: Mapping[str, str] = field(default_factory=dict[str, str])
    """More variables, of the first process alone."""
    expected: frozenset[int] = EXPECTED
    port: int = field(default_factory=free_port)
    exits: list[int] = field(default_factory=list[int])
    recoveries: list[float] = field(default_factory=list[float])
    """Seconds from each start after a death until it was ready."""
    trouble: list[str] = field(default_factory=list[str])
    is_up: bool = False
    """Whether connections may be sent here."""
    _process: Process | None = None
    _is_stopping: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of its process now; it has to be up."""
        assert self._process is not None
        return self._process.pid

    async def keep(self) -> None:
        """Have it run until it is stopped."""
        while not self._is_stopping:
            with self.site.log(self.number).open("ab") as log:
                command = ["serve", self.site.target, "--port", str(self.port)]
                command += ["--data", str(self.site.data(self.number))]
                life = dict[str, str]() if self.exits else self.first_life
                self._process = await anyio.open_process(
                    [sys.executable, "-m", "hostler", *command],
                    cwd=self.site.folder,
                    env={**self.site.variables(), **life},
                    stdin=None,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, time.monotonic())
                await self._process.wait()
                tasks.cancel_scope.cancel()
            self._ended(self._process.returncode or 0)

    async def ready(self) -> None:
        """Wait until it serves.  Raises TimeoutError."""
        with anyio.fail_after(READY_S):
            await until(lambda: self.is_up)

    def kill(self) -> None:
        """End it with no warning."""
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """Let it do nothing, with its connections open."""
        self.is_up = False
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)
        self.is_up = True

    async def restart(self) -> None:
        """Ask it to stop, and wait for its next life.  Raises TimeoutError."""
        process = self._process
        self.expected |= {0}
        self.is_up = False
        self._signal(signal.SIGTERM)
        with anyio.fail_after(STOPPED_S):
            if process is not None:
                await process.wait()
        await self.ready()

    async def stop(self) -> None:
        """Ask it to stop, and see that it does; what it does not, is told."""
        self._is_stopping, self.is_up = True, False
        if self._process is None or self._process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        with anyio.move_on_after(STOPPED_S):
            await self._process.wait()
            return
        self.trouble.append(f"node {self.number} does not stop within {STOPPED_S:g} s")
        self.kill()

    def _signal(self, what: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(what)

    async def _watch(self, began: float) -> None:
        async with aiohttp.ClientSession() as http:
            while not await is_ready(http, self.url):
                if time.monotonic() - began > READY_S:
                    self.trouble.append(f"node {self.number} was not ready: {self._tail()}")
                    self.kill()
                    return
                await anyio.sleep(LOOK_S)
        if self.exits:
            self.recoveries.append(time.monotonic() - began)
        if not self._is_stopping:
            self.is_up = True

    def _ended(self, code: int) -> None:
        self.is_up = False
        self.exits.append(code)
        is_fine = code in self.expected or (self._is_stopping and code in (0, *EXPECTED))
        if not is_fine:
            self.trouble.append(f"node {self.number} ended with {code}: {self._tail()}")
            self._is_stopping = True

    def _tail(self) -> str:
        text = self.site.log(self.number).read_text(encoding="utf-8", errors="replace")
        return text[-TAIL:]


async def is_ready(http: aiohttp.ClientSession, url: str) -> bool:
    """Whether a server says that it is ready to serve."""
    try:
        async with http.get(f"{url}/readyz", timeout=aiohttp.ClientTimeout(5)) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


def dying(at: int, told: Path) -> Mapping[str, str]:
    """Return the variables of a life that ends at the n-th place; 0: it counts, and lives."""
    return {DIES_AT: str(at), TOLD: str(told)}


@asynccontextmanager
async def kept(*nodes: Node) -> AsyncGenerator[None]:
    """Have nodes run inside, and stop them all in the end."""
    async with anyio.create_task_group() as tasks:
        for node in nodes:
            tasks.start_soon(node.keep)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as stops:
                    for node in nodes:
                        stops.start_soon(partial(node.stop))
