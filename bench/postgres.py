"""Hostler on PostgreSQL beside the others, where a server is named: HOSTLER_BENCH_POSTGRES.

Invariant: it works in a database that was made for it, as a role that was made for it; both are
dropped after.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

from bench import servers
from bench.setting import Setting
from hostler.stores.postgres_wire import connect

NAMED = "HOSTLER_BENCH_POSTGRES"
NAME = "postgres"


@asynccontextmanager
async def with_postgres(setting: Setting) -> AsyncGenerator[Setting]:
    """Yield the setting with one more server; as it is, where no PostgreSQL is named."""
    url = os.environ.get(NAMED)
    if not url:
        print(f"{NAMED} names no superuser's URL: no column for PostgreSQL", file=sys.stderr)
        yield setting
        return
    name, folder = f"hostler_bench_{uuid4().hex[:16]}", setting.folder / NAME
    folder.mkdir()
    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2]
    own = urlunsplit(parts._replace(netloc=f"{name}:{name}@{where}", path=f"/{name}"))
    await _run(
        url,
        f"CREATE ROLE {name} LOGIN PASSWORD '{name}'",
        f"CREATE DATABASE {name} OWNER {name} TEMPLATE template0",
    )
    try:
        one = servers.hostler(folder, setting.model_port, name=NAME, database=own)
        async with one as server:
            yield replace(setting, servers=[*setting.servers, server])
    finally:
        await _run(url, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


async def _run(url: str, *statements: str) -> None:
    wire = await connect(url)
    for statement in statements:
        await wire.execute(statement)
    await wire.db.close()
