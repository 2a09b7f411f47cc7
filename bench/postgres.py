"""Hostler on PostgreSQL beside the others, where a server is named: HOSTLER_BENCH_POSTGRES; with
Redis as its bus, and as its queue, too, where one is: HOSTLER_BENCH_REDIS.

Invariant: it works in a database that was made for it, as a role that was made for it; both are
dropped after; in Redis, in names that nobody else has, which are deleted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

from redis.asyncio import Redis

from bench import servers
from bench.setting import Setting
from hostler.stores.postgres_wire import connect

NAMED = "HOSTLER_BENCH_POSTGRES"
NAME = "postgres"
REDIS, BUS, QUEUE = "HOSTLER_BENCH_REDIS", "postgres+redis", "queue in redis"


@asynccontextmanager
async def with_postgres(setting: Setting) -> AsyncGenerator[Setting]:
    """Yield the setting with one more server; as it is, where no PostgreSQL is named."""
    url = os.environ.get(NAMED)
    if not url:
        print(f"{NAMED} names no superuser's URL: no column for PostgreSQL", file=sys.stderr)
        yield setting
        return
    async with _with_one(setting, url, NAME, {}) as one:
        redis = os.environ.get(REDIS)
        if not redis:
            yield one
            return
        async with (
            names_in(redis) as bus,
            _with_one(one, url, BUS, bus) as two,
            names_in(redis) as queue,
            _with_one(two, url, QUEUE, {**queue, "HOSTLER_ENGINE": "redis"}) as all_of_them,
        ):
            yield all_of_them


@asynccontextmanager
async def names_in(redis: str) -> AsyncGenerator[Mapping[str, str]]:
    """Yield the settings of a fleet with this Redis; what it has there is deleted."""
    fleet = f"bench-{uuid4().hex[:12]}"
    yield {"HOSTLER_REDIS": redis, "HOSTLER_FLEET": fleet}
    async with Redis.from_url(redis) as client:  # pyright: ignore[reportUnknownMemberType]
        found = client.scan_iter(f"{fleet}:*")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        names = cast("list[bytes]", [name async for name in found])  # pyright: ignore[reportUnknownVariableType]
        if names:
            await client.delete(*names)


@asynccontextmanager
async def _with_one(
    setting: Setting, url: str, column: str, settings: Mapping[str, str]
) -> AsyncGenerator[Setting]:
    folder = setting.folder / column
    folder.mkdir()
    async with a_database(url) as own:
        one = servers.hostler(
            folder, setting.model_port, name=column, database=own, settings=settings
        )
        async with one as server:
            yield replace(setting, servers=[*setting.servers, server])


@asynccontextmanager
async def a_database(url: str) -> AsyncGenerator[str]:
    """Make a database and a role for it; yield its URL, and drop both."""
    name, parts = f"hostler_bench_{uuid4().hex[:16]}", urlsplit(url)
    where = parts.netloc.rpartition("@")[2]
    own = urlunsplit(parts._replace(netloc=f"{name}:{name}@{where}", path=f"/{name}"))
    await _run(
        url,
        f"CREATE ROLE {name} LOGIN PASSWORD '{name}'",
        f"CREATE DATABASE {name} OWNER {name} TEMPLATE template0",
    )
    try:
        yield own
    finally:
        await _run(url, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


async def _run(url: str, *statements: str) -> None:
    wire = await connect(url)
    for statement in statements:
        await wire.execute(statement)
    await wire.db.close()
