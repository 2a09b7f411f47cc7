"""All scenes at once on a fleet with trouble, and what is left of it for tests to judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import anyio
from tests.fleet.nodes import NODES, Fleet, How, a_fleet, asks, patiently, trouble
from tests.fleet.scenes import SCENES, Scene
from tests.receivers import Came
from tests.serving import Json

from hostler.testing.crash.served import Effect
from hostler.testing.crash.waiting import breath, until

HITS = NODES
"""Each node has to go once, at least."""
REST_S = 60.0
TOLD_S = 90.0
"""Until a webhook that a node took which then died is tried by another one, and once more."""


@dataclass
class Played:
    """What came of a play."""

    how: How
    rounds: dict[str, int] = field(default_factory=dict[str, int])
    """By scene: how often it was played."""
    wrong: dict[str, list[BaseException]] = field(default_factory=dict[str, "list[BaseException]"])
    hits: Sequence[int] = ()
    exits: Sequence[int] = ()
    sent: Mapping[int, int] = field(default_factory=dict[int, int])
    """How many requests each node was sent."""
    logs: dict[str, list[Json]] = field(default_factory=dict[str, list[Json]])
    """By session: all its facts, asked for when all was over."""
    effects: Sequence[Effect] = ()
    deliveries: Sequence[Came] = ()
    secret: str = ""


async def _again_and_again(fleet: Fleet, scene: Scene, played: Played, enough: anyio.Event) -> None:
    """Play a scene, and again after each change of the fleet, so that it meets all of them."""
    name = scene.__name__
    while not (enough.is_set() and played.rounds[name]):
        changed = fleet.changed
        fleet.playing += 1
        try:
            await scene(fleet)
        except Exception as error:  # noqa: BLE001  it is for this scene's test to raise
            played.wrong[name].append(error)
            return
        finally:
            played.rounds[name] += 1
            fleet.playing -= 1
        await changed.wait()


async def _all_scenes(fleet: Fleet, played: Played) -> None:
    enough, over = anyio.Event(), anyio.Event()

    async def count() -> None:
        await until(lambda: len(fleet.hits) >= HITS)
        enough.set()
        fleet.change()

    async with anyio.create_task_group() as troubled:
        troubled.start_soon(trouble, fleet, over)
        troubled.start_soon(count)
        async with anyio.create_task_group() as tasks:
            for scene in SCENES:
                tasks.start_soon(_again_and_again, fleet, scene, played, enough)
        over.set()


async def _log(fleet: Fleet, session: str) -> list[Json]:
    """Return all facts of a session, once nothing is going on in it."""

    async def is_idle() -> bool:
        _, told = await asks(fleet, "GET", f"/api/sessions/{session}")
        return told.get("status") == "idle"

    with anyio.fail_after(REST_S):
        while not await is_idle():
            await breath()
    _, page = await asks(fleet, "GET", f"/api/sessions/{session}/events?limit=1000")
    return [one["data"] for one in cast("list[dict[str, Json]]", page["events"])]


async def play(folder: Path, database: str, how: How, *, has_redis: bool, seed: int) -> Played:
    """Play all scenes, again and again, until each node has gone and come back."""
    names = [one.__name__ for one in SCENES]
    played = Played(how, dict.fromkeys(names, 0), {name: [] for name in names})
    async with a_fleet(folder, database, how, has_redis=has_redis, seed=seed) as fleet:
        _, hook = await asks(fleet, "POST", "/api/webhooks", {"url": fleet.receiver.url})
        played.secret = str(hook["secret"])
        await _all_scenes(fleet, played)
        for node in fleet.nodes:
            await node.ready()
        for session in fleet.sessions:
            played.logs[session] = await patiently(lambda one=session: _log(fleet, one))
        with anyio.move_on_after(TOLD_S):
            await until(lambda: set(ends(played)) <= told_of(fleet.receiver.came))
        played.hits, played.sent = fleet.hits, fleet.balancer.sent
        played.effects = await fleet.effects()
    played.deliveries = fleet.receiver.came
    played.exits = [code for node in fleet.nodes for code in node.exits]
    return played


def ends(played: Played) -> dict[str, Json]:
    """Return the ends of all runs, by run: of a fork, those that are its own."""
    return {
        str(fact["run"]): fact
        for log in played.logs.values()
        for fact in log
        if fact["kind"] == "run_ended"
    }


def told_of(came: Sequence[Came]) -> set[str]:
    """Return the runs of whose ends a program was told."""
    return {str(cast("Json", one.json["data"]).get("run")) for one in came}
