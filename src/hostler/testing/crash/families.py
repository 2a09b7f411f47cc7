"""The families of the lab: what can happen, on which stores, and how often it does by default.

Invariant: a case begins on a store that has nothing in it.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from hostler.core.errors import SetupError
from hostler.testing.crash import clocks, disks, outages, points
from hostler.testing.crash.clusters import (
    DURABLE,
    FAST,
    PrivateRedis,
    a_cluster,
    a_database,
)
from hostler.testing.crash.kills import Killing
from hostler.testing.crash.nodes import Site
from hostler.testing.crash.relay import relaying
from hostler.testing.crash.rolling import Rolling
from hostler.testing.crash.scene import Case

Store: TypeAlias = Literal["sqlite", "postgres"]
Family: TypeAlias = Literal[
    "points", "kills", "rolling", "restarts", "cuts", "redis", "clock", "disk"
]
FAMILIES: tuple[Family, ...] = get_args(Family)
ON: Mapping[Family, tuple[Store, ...]] = {
    "points": ("sqlite", "postgres"),
    "kills": ("sqlite", "postgres"),
    "rolling": ("postgres",),
    "restarts": ("postgres",),
    "cuts": ("postgres",),
    "redis": ("sqlite",),
    "clock": ("sqlite", "postgres"),
    "disk": ("sqlite",),
}
"""What a family is about decides on what it can be tried."""
COUNTS: Mapping[Family, int] = {
    "kills": 200,
    "rolling": 15,
    "restarts": 25,
    "cuts": 100,
    "redis": 10,
}
"""How often it happens, unless somebody says; the others try all that there is."""


@dataclass(kw_only=True)
class Lab:
    """Where cases are tried.  Folders of those that found something stay."""

    store: Store
    nodes: int | None = None
    """For kills; without it three where several can have one store."""
    count: int | None = None
    seed: int = 0
    every: int = 1
    """Of numbered places, each so-manieth one; 1: all."""
    folder: Path
    postgres: str | None = None
    """The URL of a superuser; without it, a private server is started."""

    def nodes_of(self, family: Family) -> int:
        """Return how many nodes a family has."""
        if family == "rolling":
            return self.nodes or 3
        if family != "kills":
            return 1
        return self.nodes or (1 if self.store == "sqlite" else 3)

    def cases(self, family: Family) -> AsyncGenerator[Case]:
        """Yield what comes of a family, case by case.

        Raises:
            SetupError: something that it needs is not installed.
        """
        if self.store not in ON[family]:
            raise SetupError(f"{family} cannot be tried on {self.store}")
        match family:
            case "points":
                return self._points()
            case "clock":
                return self._clock()
            case "disk":
                return self._disk()
            case "kills" | "rolling" | "restarts" | "cuts" | "redis":
                return self._once(family, COUNTS[family] if self.count is None else self.count)

    async def _points(self) -> AsyncGenerator[Case]:
        async with AsyncExitStack() as stack:
            server = await self._server(stack, FAST)
            n, case = 0, None
            while case is None or len(case.places) == n:
                n += 1 if case is None else self.every
                async with self._site(f"death-{n}", server) as site:
                    case = await points.one_death(site, n)
                yield case
                self._tidy(f"death-{n}", case)
            async with self._site("no-death", server) as site:
                case = await points.one_death(site, 0)
            yield case
            self._tidy("no-death", case)

    async def _clock(self) -> AsyncGenerator[Case]:
        async with AsyncExitStack() as stack:
            server = await self._server(stack, FAST)
            for number, name in enumerate(clocks.JUMPS):
                async with self._site(f"clock-{number}", server) as site:
                    case = await clocks.jump(site, name)
                yield case
                self._tidy(f"clock-{number}", case)

    async def _disk(self) -> AsyncGenerator[Case]:
        for what in get_args(disks.Trouble):
            async with self._site(f"disk-{what}", None) as site:
                case = await disks.trouble(site, what)
            yield case
            self._tidy(f"disk-{what}", case)

    async def _once(self, family: Family, count: int) -> AsyncGenerator[Case]:
        async with AsyncExitStack() as stack:
            case = await self._tried(family, count, stack)
        yield case
        self._tidy(family, case)

    async def _tried(self, family: Family, count: int, stack: AsyncExitStack) -> Case:
        enter = stack.enter_async_context
        if family == "restarts":  # of a server of its own, whoever else has one
            cluster = await enter(a_cluster(DURABLE))
            site = await enter(self._site(family, cluster.url))
            return await outages.restarts(site, cluster, times=count)
        site = await enter(self._site(family, await self._server(stack, DURABLE)))
        if family == "cuts":
            relay = await enter(relaying(site.database or ""))
            site.database = relay.url(site.database or "")
            return await outages.cuts(site, relay, times=count, seed=self.seed)
        if family == "redis":
            redis = PrivateRedis(site.folder / "redis")
            stack.callback(redis.kill)
            await redis.start()
            site.redis = redis.url
            return await outages.redis_outages(site, redis, times=count)
        if family == "rolling":
            nodes = self.nodes_of(family)
            return await Rolling(nodes=nodes, rounds=-(-count // nodes), seed=self.seed).on(site)
        return await Killing(nodes=self.nodes_of(family), kills=count, seed=self.seed).on(site)

    async def _server(self, stack: AsyncExitStack, settings: Sequence[str]) -> str | None:
        """Return the URL of a PostgreSQL, if one is needed.  Raises SetupError."""
        if self.store == "sqlite" or self.postgres is not None:
            return self.postgres
        return (await stack.enter_async_context(a_cluster(settings))).url

    @asynccontextmanager
    async def _site(self, name: str, server: str | None) -> AsyncGenerator[Site]:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        if self.store == "sqlite":
            yield Site(folder=folder)
            return
        assert server is not None
        async with a_database(server) as database:
            yield Site(folder=folder, database=database.url)

    def _tidy(self, name: str, case: Case) -> None:
        if not case.found:
            shutil.rmtree(self.folder / name, ignore_errors=True)
