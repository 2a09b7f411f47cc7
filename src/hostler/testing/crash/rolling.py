"""A rolling restart: each node in turn is asked to stop, and comes back, while clients work.

Beside the promises that hold whatever happens, nothing may fail here, and nothing be asked twice: a
node that is told has the time to end its steps.

Invariant: a node is asked only when all are ready, as whoever upgrades a fleet does it.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import anyio

from hostler.core.events import AttemptDropped, Event, RunClaimed, RunEnded, RunId
from hostler.testing.crash.balancer import balancing
from hostler.testing.crash.caller import Told
from hostler.testing.crash.invariants import Evidence, Violation
from hostler.testing.crash.load import Load
from hostler.testing.crash.nodes import Node, Site
from hostler.testing.crash.play import Play
from hostler.testing.crash.scene import Case, staged
from hostler.testing.crash.waiting import until

ROUNDS = 5
CLIENTS = 20
AT_WORK_S = 20.0
"""How long it is waited until a node drives something that it has to hand over."""
RESTART_S = 120.0
"""What one restart may take, with all that comes of it."""


@dataclass(kw_only=True)
class Rolling:
    """How many nodes and clients, and how often all nodes are restarted."""

    nodes: int = 3
    clients: int = CLIENTS
    rounds: int = ROUNDS
    seed: int = 0
    restarted: list[int] = field(default_factory=list[int])
    """Numbers of nodes, in order."""

    async def on(self, site: Site) -> Case:
        """Do it.  Several nodes need a database that takes several."""
        chance = random.Random(self.seed)  # noqa: S311  a seed tells it all
        nodes = [Node(site=site, number=number + 1) for number in range(self.nodes)]
        async with balancing(
            lambda: [node.port for node in nodes if node.is_up], chance=chance
        ) as balancer:
            case = await staged(
                f"{self.rounds} rounds of {self.nodes} restarts",
                site,
                nodes,
                partial(self._work, nodes=nodes),
                url=balancer.url,
                seconds=60 + RESTART_S * self.rounds * self.nodes,
                looks=judged,
            )
        case.count = len(self.restarted)
        return case

    async def _work(self, play: Play, *, nodes: Sequence[Node]) -> None:
        for node in nodes:
            await node.ready()
        load = Load(play, self.clients, agent="long")
        await load.during(partial(self._restart_all, nodes, play.caller.told))

    async def _restart_all(self, nodes: Sequence[Node], told: Told) -> None:
        for _ in range(self.rounds):
            for node in nodes:
                with anyio.move_on_after(AT_WORK_S):
                    await until(partial(is_at_work, node.pid, told))
                await node.restart()
                self.restarted.append(node.number)


def judged(evidence: Evidence, case: Case) -> None:
    """Add what a rolling restart must not do, and how long runs stood still for it."""
    logs = evidence.found.logs
    case.found += [Violation("rolling", what) for what in lost(logs)]
    case.pauses = sorted(pause for log in logs.values() for pause in pauses(log))


def is_at_work(pid: int, told: Told) -> bool:
    """Whether a process drives a run that has had its first step, and has more of them to come."""
    return any(
        replies == 1 and worker.endswith(f"-{pid}") for worker, replies in told.claims.values()
    )


def lost(logs: Mapping[str, Sequence[Event]]) -> Generator[str]:
    """Yield runs that failed, and replies that came to nothing."""
    for session, log in logs.items():
        for event in log:
            if isinstance(event.fact, RunEnded) and event.fact.status != "done":
                yield f"{event.fact.run} of {session} ended {event.fact.status}"
            if isinstance(event.fact, AttemptDropped):
                yield f"{event.fact.attempt} of {session} came to nothing: {event.fact.reason}"


def pauses(log: Sequence[Event]) -> Generator[float]:
    """Yield, for each time that a run was taken over, how long nothing was written before."""
    claimed = set[RunId | None]()
    for before, event in pairwise(log):
        if isinstance(event.fact, RunClaimed):
            if event.fact.run in claimed:
                yield event.at - before.at
            claimed.add(event.fact.run)
