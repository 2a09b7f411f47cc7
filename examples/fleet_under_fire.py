"""Three nodes on one PostgreSQL, fifty clients, and somebody who kills a node every few seconds.

    python examples/fleet_under_fire.py                 # three nodes, ten kills
    python examples/fleet_under_fire.py --nodes 1 --kills 5

It starts all of it itself: a private PostgreSQL, a Redis if one is installed, the nodes, and a
balancer that sends each request to another one.  In the end it says which promises held.  It needs
`pip install 'hostler[fleet]'` and PostgreSQL's programs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from hostler.core.errors import SetupError
from hostler.testing.crash.clusters import PrivateRedis, a_cluster, a_database
from hostler.testing.crash.kills import Killing
from hostler.testing.crash.nodes import Site
from hostler.testing.crash.scene import Case

PROMISES = [f"I{number}" for number in range(1, 11)]


async def fire(nodes: int, kills: int, clients: int, folder: Path) -> Case:
    """Start everything, let it burn, and return what is left."""
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(a_cluster())
        database = await stack.enter_async_context(a_database(cluster.url))
        site = Site(folder=folder, database=database.url)
        redis = PrivateRedis(folder / "redis")
        try:
            await redis.start()
            stack.callback(redis.kill)
            site.redis = redis.url
        except SetupError as error:
            print(f"without a live bus: {error}")

        def tell(number: int) -> None:
            print(f"killed node {number}", flush=True)

        print(
            f"{nodes} node(s), {clients} clients, {kills} kills; lines are in {folder}", flush=True
        )
        killing = Killing(
            nodes=nodes, clients=clients, kills=kills, soonest_s=1, latest_s=4, tell=tell
        )
        return await killing.on(site)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--clients", type=int, default=50)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hostler-fire-"))
    case = anyio.run(fire, asked.nodes, asked.kills, asked.clients, folder)

    broken = Counter(one.promise for one in case.found)
    for promise in PROMISES:
        print(
            f"{promise:4} {'holds' if not broken[promise] else f'BROKEN {broken[promise]} times'}"
        )
    for one in case.found[:10]:
        print(f"  {one.promise}: {one.what[:300]}")
    if case.recoveries:
        print(f"a killed node was ready again in {max(case.recoveries):.1f} s at most")
    if case.waits:
        print(f"a client waited {max(case.waits):.1f} s at most for an answer")
    return 1 if case.found else 0


if __name__ == "__main__":
    sys.exit(main())
