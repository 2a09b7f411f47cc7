"""Services that tests need: a PostgreSQL of their own.

Invariant: a test works in a database that was made for its run, as a role that was made for it, and
both are dropped after; nothing else that a server has is looked at.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import anyio
import pytest

from hostler.core.errors import SetupError, Unavailable
from hostler.stores.postgres_schema import migrate, steps
from hostler.stores.postgres_wire import SCHEMA, connect
from hostler.testing.crash.clusters import FAST, Cluster, binaries

GIVEN = "HOSTLER_TEST_POSTGRES"
REQUIRED = "HOSTLER_REQUIRE_SERVICES"
LOCAL = "postgresql://postgres@127.0.0.1:5432/postgres"


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
    programs = binaries()
    if programs is not None:
        with _private(programs) as url:
            yield url
        return
    try:
        apart(partial(executed, LOCAL, "SELECT 1"))
    except (SetupError, Unavailable) as error:
        told = f"no PostgreSQL: {GIVEN} is not set, no initdb is installed, and {LOCAL}: {error}"
        missing(told)
    yield LOCAL


def missing(told: object) -> NoReturn:
    """Skip a test for what this machine lacks; fail it where all of that is required."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(str(told))
    pytest.skip(str(told))


@contextmanager
def _private(programs: Path) -> Generator[str]:
    """Start a server in a folder of its own on a free port, and stop it in the end."""
    cluster = Cluster(programs, FAST)
    try:
        cluster.make()
        cluster.start()
        yield cluster.url
    finally:
        cluster.remove()


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
