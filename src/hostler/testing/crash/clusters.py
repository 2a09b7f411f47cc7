"""Servers that nodes lean on, each private and for one use: PostgreSQL, a database in it, Redis.

Invariant: what is started here is stopped here, and no server that somebody has is touched but for
databases and roles that were made here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import anyio
import anyio.to_thread

from hostler.core.errors import SetupError
from hostler.stores.postgres_wire import connect
from hostler.testing.crash.nodes import free_port
from hostler.testing.crash.waiting import LOOK_S

FOLDERS = ("/usr/lib/postgresql", "/usr/local/opt", "/opt/homebrew/opt")
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60")
"""Of a server that nobody keeps anything on."""
DURABLE = ("max_connections=200",)
"""Of one that is killed: what it has said to be there must be there."""
STARTED_S = 30.0
Way: TypeAlias = Literal["smart", "fast", "immediate"]
"""How PostgreSQL is stopped; `immediate` is a crash, after which it recovers."""


def binaries() -> Path | None:
    """Return where the programs of the newest PostgreSQL are that is installed."""
    found = [one for folder in FOLDERS for one in Path(folder).glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    if not found and on_path is not None:
        found = [Path(on_path).resolve()]
    return max(found).parent if found else None


def _user() -> str | None:
    """Return as whom a server is started: PostgreSQL refuses to be run by root."""
    if os.geteuid() != 0:
        return None
    known = Path("/etc/passwd").read_text(encoding="utf-8")
    return "postgres" if "\npostgres:" in known else "nobody"


@dataclass
class Cluster:
    """A private PostgreSQL; ended with `remove`."""

    programs: Path
    settings: Sequence[str] = FAST
    port: int = field(default_factory=free_port)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="hostler-pg-")))
    _user: str | None = field(default_factory=_user)

    @property
    def url(self) -> str:
        """Of its superuser."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def make(self) -> None:
        """Raises SetupError."""
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self._run(
            *(self.programs / "initdb", "-D", self.folder / "data", "-U", "postgres"),
            *("-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"),
        )

    def start(self) -> None:
        options = [f"port={self.port}", "listen_addresses=127.0.0.1", *self.settings]
        options.append(f"unix_socket_directories={self.folder}")
        words = " ".join(f"-c {one}" for one in options)
        self._control("-l", self.folder / "log", "-o", words, "start")

    def stop(self, way: Way = "fast") -> None:
        self._control("-m", way, "stop")

    def remove(self) -> None:
        with suppress(SetupError):  # it may be down
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _control(self, *words: str | Path) -> None:
        self._run(self.programs / "pg_ctl", "-D", self.folder / "data", "-w", "-s", *words)

    def _run(self, *argv: str | Path) -> None:
        done = subprocess.run(  # noqa: S603  programs of PostgreSQL
            [str(one) for one in argv],
            user=self._user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
        )
        if done.returncode != 0:
            raise SetupError(f"{Path(argv[0]).name}: {done.stderr}")


@asynccontextmanager
async def a_cluster(settings: Sequence[str] = DURABLE) -> AsyncGenerator[Cluster]:
    """Yield a private PostgreSQL that runs.

    Raises:
        SetupError: none is installed.
    """
    programs = binaries()
    if programs is None:
        raise SetupError("PostgreSQL is not installed here: there is no initdb")
    cluster = Cluster(programs, settings)
    try:
        await anyio.to_thread.run_sync(cluster.make)
        await anyio.to_thread.run_sync(cluster.start)
        yield cluster
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(cluster.remove)


@dataclass(frozen=True, slots=True)
class Database:
    """One database: as its owner, who is no superuser, and as whoever made it."""

    name: str
    url: str
    admin: str


@asynccontextmanager
async def a_database(server: str) -> AsyncGenerator[Database]:
    """Make a database and its owner on a server, by its superuser's URL; drop both in the end."""
    name = f"hostler_test_{uuid4().hex[:16]}"
    parts = urlsplit(server)
    where = parts.netloc.rpartition("@")[2]
    admin = urlunsplit(parts._replace(path=f"/{name}"))
    owner = urlunsplit(parts._replace(netloc=f"{name}:{name}@{where}", path=f"/{name}"))
    await _run(
        server,
        f"CREATE ROLE {name} LOGIN PASSWORD '{name}'",
        f"CREATE DATABASE {name} OWNER {name} TEMPLATE template0",
    )
    try:
        yield Database(name, owner, admin)
    finally:
        with anyio.CancelScope(shield=True):
            await _run(server, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


async def _run(url: str, *statements: str) -> None:
    wire = await connect(url)
    try:
        for statement in statements:
            await wire.execute(statement)
    finally:
        await wire.db.close()


@dataclass
class PrivateRedis:
    """A Redis that keeps nothing; it may be killed and started again."""

    folder: Path
    port: int = field(default_factory=free_port)
    _running: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it takes connections.  Raises SetupError, TimeoutError."""
        program = shutil.which("redis-server")
        if program is None:
            raise SetupError("Redis is not installed here: there is no redis-server")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._running = subprocess.Popen(  # noqa: ASYNC220, S603  it is there at once
            [
                *(program, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", str(self.folder)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with anyio.fail_after(STARTED_S):
            while True:
                try:
                    stream = await anyio.connect_tcp("127.0.0.1", self.port)
                except OSError:
                    await anyio.sleep(LOOK_S)
                else:
                    await stream.aclose()
                    return

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            self._running = None
