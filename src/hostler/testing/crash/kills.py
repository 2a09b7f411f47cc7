"""Killing nodes at random moments, under load, behind a balancer that routes by chance.

Invariant: a node is killed only after it had been ready, so that each kill interrupts work.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import anyio

from hostler.testing.crash.balancer import balancing
from hostler.testing.crash.load import CLIENTS, Load
from hostler.testing.crash.nodes import Node, Site
from hostler.testing.crash.play import Play
from hostler.testing.crash.scene import Case, staged

KILLS = 200
SOONEST_S, LATEST_S = 0.2, 1.5
"""After a node is ready."""
KILL_S = 30.0
"""What one kill may take, with all that comes of it."""


@dataclass(kw_only=True)
class Killing:
    """How many nodes, clients and kills; `seed` says when and whom."""

    nodes: int = 1
    clients: int = CLIENTS
    kills: int = KILLS
    seed: int = 0
    soonest_s: float = SOONEST_S
    latest_s: float = LATEST_S
    tell: Callable[[int], object] = lambda _: None
    """Called with the number of each node that was killed."""
    killed: list[int] = field(default_factory=list[int])
    """Numbers of nodes, in order."""

    async def on(self, site: Site) -> Case:
        """Do it.  Several nodes need a database that takes several."""
        chance = random.Random(self.seed)  # noqa: S311  a seed tells it all
        nodes = [Node(site=site, number=number + 1) for number in range(self.nodes)]
        async with balancing(
            lambda: [node.port for node in nodes if node.is_up], chance=chance
        ) as balancer:
            case = await staged(
                f"{self.kills} kills, seed {self.seed}",
                site,
                nodes,
                partial(self._work, nodes=nodes, chance=chance),
                url=balancer.url,
                seconds=60 + KILL_S * self.kills,
            )
        case.count = len(self.killed)
        return case

    async def _work(self, play: Play, *, nodes: list[Node], chance: random.Random) -> None:
        load = Load(play, self.clients)
        await load.during(partial(self._kill_all, nodes, chance))

    async def _kill_all(self, nodes: list[Node], chance: random.Random) -> None:
        for _ in range(self.kills):
            node = chance.choice(nodes)
            await node.ready()
            await anyio.sleep(chance.uniform(self.soonest_s, self.latest_s))
            node.kill()
            node.is_up = False
            self.killed.append(node.number)
            self.tell(node.number)
        for node in nodes:
            await node.ready()
