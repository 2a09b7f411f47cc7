"""Services that tests need: a PostgreSQL of their own.

Invariant: a test works in a database that was made for its run, as a role that was made for it, and
both are dropped after; nothing else that a server has is looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import anyio
import pytest
from tests.programs import free_port

from hostler.core.errors import SetupError, Unavailable
from hostler.stores.postgres_schema import migrate, steps
from hostler.stores.postgres_wire import SCHEMA, connect

GIVEN = "HOSTLER_TEST_POSTGRES"
REQUIRED = "HOSTLER_REQUIRE_SERVICES"
LOCAL = "postgresql://postgres@127.0.0.1:5432/postgres"
FOLDERS = ("/usr/lib/postgresql", "/usr/local/opt", "/opt/homebrew/opt")
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60")
"""A server that nobody keeps anything on."""


@dataclass(frozen=True, slots=True)
class Database:
    """One database: as its owner, who is no superuser, and as whoever made it."""

    url: str
    admin: str

    async def run(self, *statements: str) -> Sequence[Sequence[object]]:
        """Run statements as the superuser, for whom no row is hidden; return what the last gives."""
        return await executed(self.admin, f"SET search_path = {SCHEMA}", *statements)


async def executed(url: str, *statements: str) -> Sequence[Sequence[object]]:
    """Run statements on a connection of their own; return what the last one gives."""
    wire = await connect(url)
    try:
        for statement in statements[:-1]:
            await wire.execute(statement)
        return await wire.fetch(statements[-1])
    finally:
        await wire.db.close()


def apart(work: Callable[[], Awaitable[object]]) -> None:
    """Do something on an event loop of its own: fixtures are made beside a running one, too."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(anyio.run, work).result()


@contextmanager
def a_server() -> Generator[str]:
    """Yield the URL of a superuser; skip, or fail where services are required, without a server."""
    given = os.environ.get(GIVEN)
    if given:
        yield given
        return
    binaries = _binaries()
    if binaries is not None:
        with _private(binaries) as url:
            yield url
        return
    try:
        apart(partial(executed, LOCAL, "SELECT 1"))
    except (SetupError, Unavailable) as error:
        told = f"no PostgreSQL: {GIVEN} is not set, no initdb is installed, and {LOCAL}: {error}"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(told)
        pytest.skip(told)
    yield LOCAL


def _binaries() -> Path | None:
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


@contextmanager
def _private(binaries: Path) -> Generator[str]:
    """Start a server in a folder of its own on a free port, and stop it in the end."""
    user, port = _user(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="hostler-pg-"))
    if user is not None:
        shutil.chown(folder, user)
    data = folder / "data"

    def run(*argv: str | Path) -> None:
        done = subprocess.run(
            [str(one) for one in argv],
            user=user,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    run(
        *(binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust"),
        *("-E", "UTF8", "--no-locale", "--no-sync"),
    )
    options = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1"]
    options += ["-c", f"unix_socket_directories={folder}"]
    options += [word for one in FAST for word in ("-c", one)]
    ctl: Sequence[str | Path] = (binaries / "pg_ctl", "-D", data, "-w", "-s")
    try:
        run(*ctl, "-l", folder / "log", "-o", " ".join(options), "start")
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        with suppress(AssertionError):
            run(*ctl, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def a_database(server: str) -> Generator[Database]:
    """Make a database and its owner, and drop both in the end."""
    name = f"hostler_test_{uuid4().hex[:16]}"
    parts = urlsplit(server)
    where = parts.netloc.rpartition("@")[2]
    admin = urlunsplit(parts._replace(path=f"/{name}"))
    owner = urlunsplit(parts._replace(netloc=f"{name}:{name}@{where}", path=f"/{name}"))

    def run(*statements: str) -> None:
        apart(partial(executed, server, *statements))

    run(
        f"CREATE ROLE {name} LOGIN PASSWORD '{name}'",
        f"CREATE DATABASE {name} OWNER {name} TEMPLATE template0",
    )
    try:
        yield Database(owner, admin)
    finally:
        run(f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


def emptied(database: Database) -> Database:
    """Return a database with today's schema, and nothing in it but what every store begins with."""

    async def empty() -> None:
        ((there,),) = await database.run(f"SELECT to_regclass('{SCHEMA}.migrations')::text")
        if there is not None:
            newest = steps()[-1].number
            later = await database.run(f"SELECT 1 FROM migrations WHERE number > {newest}")
            if later:
                await database.run(f"DROP SCHEMA {SCHEMA} CASCADE")
        await migrate(database.url)
        tables = await database.run(
            f"SELECT tablename FROM pg_tables WHERE schemaname = '{SCHEMA}' AND tablename <> 'migrations'"
        )
        deleted = [f"DELETE FROM {table}" for (table,) in tables]
        default = "INSERT INTO tenants (tenant, created_at, settings) VALUES ('default', 0, '{}')"
        await database.run(";".join(deleted), default)

    apart(empty)
    return database
