"""What nodes lean on goes away and comes back: PostgreSQL, Redis, the network to them.

Invariant: the nodes live through all of it; that one ended is a violation.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import anyio
import anyio.to_thread

from hostler.testing.crash.clusters import Cluster, PrivateRedis
from hostler.testing.crash.load import Load
from hostler.testing.crash.nodes import Node, Site
from hostler.testing.crash.play import Play
from hostler.testing.crash.relay import Relay
from hostler.testing.crash.scene import Case, staged
from hostler.testing.crash.waiting import until

CLIENTS = 20
Happening: TypeAlias = Callable[[], Awaitable[None]]
OUTAGE_S = 30.0
"""What one outage may take, with all that comes of it."""
BETWEEN_S = 1.0
LARGEST_CUT = 4000
"""Bytes: some messages of PostgreSQL's protocol, some parts of one."""


async def restarts(site: Site, cluster: Cluster, *, times: int) -> Case:
    """Restart PostgreSQL under load: by turns as it should be done, and as a crash."""

    async def restart() -> None:
        for number in range(times):
            await anyio.sleep(BETWEEN_S)
            way = "immediate" if number % 2 else "fast"
            await anyio.to_thread.run_sync(partial(cluster.stop, way))
            await anyio.to_thread.run_sync(cluster.start)
        await anyio.sleep(BETWEEN_S)

    return await _under_load(f"{times} restarts", site, restart, times)


async def cuts(site: Site, relay: Relay, *, times: int, seed: int) -> Case:
    """Cut connections at a random byte, going or coming; the site's database is behind the relay."""
    chance = random.Random(seed)  # noqa: S311  a seed tells it all

    async def cut() -> None:
        for _ in range(times):
            before = relay.cuts
            relay.cut_at(chance.choice(("up", "down")), chance.randint(1, LARGEST_CUT))
            with anyio.fail_after(OUTAGE_S):
                await until(partial(_has_cut, relay, before))

    return await _under_load(f"{times} cuts, seed {seed}", site, cut, times)


def _has_cut(relay: Relay, before: int) -> bool:
    return relay.cuts > before


async def redis_outages(site: Site, redis: PrivateRedis, *, times: int) -> Case:
    """Kill Redis under load, and start it again; the site names it."""

    async def kill() -> None:
        for _ in range(times):
            await anyio.sleep(BETWEEN_S)
            redis.kill()
            await anyio.sleep(BETWEEN_S)
            await redis.start()
        await anyio.sleep(BETWEEN_S)

    return await _under_load(f"{times} outages", site, kill, times)


async def _under_load(name: str, site: Site, what: Happening, times: int) -> Case:
    node = Node(site=site)

    async def work(play: Play) -> None:
        await node.ready()
        await play.keeps_a_secret()
        await Load(play, CLIENTS).during(what)
        await play.works()

    case = await staged(name, site, [node], work, seconds=120 + OUTAGE_S * times)
    case.count = times
    return case
