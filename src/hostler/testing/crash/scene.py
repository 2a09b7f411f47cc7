"""A scene: nodes, some work on them, whatever happens meanwhile, and the checker at the end.

Invariant: a scene that does not end is a violation, and so is a node that ended by itself.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, cast

import aiohttp
import anyio

from hostler.testing.crash.caller import Caller, Failed, Told
from hostler.testing.crash.invariants import Evidence, Found, Violation, violations
from hostler.testing.crash.nodes import Node, Site, kept
from hostler.testing.crash.play import Play, receiving
from hostler.testing.crash.reading import read
from hostler.testing.crash.served import effects
from hostler.testing.crash.settling import at_least, learned, more_than, settle

SCENE_S = 900.0
Work: TypeAlias = Callable[[Play], Awaitable[None]]


@dataclass
class Case:
    """What came of one scene."""

    name: str
    found: list[Violation] = field(default_factory=list[Violation])
    recoveries: list[float] = field(default_factory=list[float])
    """Seconds from each start after a death until the node was ready."""
    waits: list[float] = field(default_factory=list[float])
    """Seconds that clients waited for an answer, of those that had to ask again."""
    pauses: list[float] = field(default_factory=list[float])
    """Seconds in which nothing was written of a run, as another node took it over."""
    exits: list[int] = field(default_factory=list[int])
    took_s: float = 0.0
    count: int = 1
    """How many things happened in it."""
    places: Sequence[str] = ()
    """What the first life of the first node came past."""


async def staged(
    name: str,
    site: Site,
    nodes: Sequence[Node],
    work: Work,
    *,
    url: str | None = None,
    seconds: float = SCENE_S,
    looks_at_what_is_held: bool = False,
    looks: Callable[[Evidence, Case], None] = lambda _evidence, _case: None,
) -> Case:
    """Have nodes run while some work is done; let all come to rest, stop them, and check.

    `url`: what stands before the nodes; else the first of them is asked.  `looks` adds to the case.
    """
    began, case, trouble = time.monotonic(), Case(name), list[str]()
    evidence = Evidence(told=Told(), found=Found())
    with anyio.move_on_after(seconds) as scope:
        async with playing(site, url or nodes[0].url) as play, kept(*nodes):
            evidence.told, evidence.canaries = play.caller.told, play.canaries
            with _told(trouble):
                await work(play)
                await settle(play)
                evidence.learned = await learned(play)
                if looks_at_what_is_held:
                    evidence.left = await _left(play, nodes[0])
            evidence.delivered = play.receiver.came
    if scope.cancelled_caught:
        trouble.append(f"the scene did not end within {seconds:g} s")
    evidence.effects = effects(site.folder)
    evidence.trouble = [*trouble, *(one for node in nodes for one in node.trouble)]
    evidence.found = await read(site, evidence.canaries)
    case.found = violations(evidence)
    case.recoveries = [one for node in nodes for one in node.recoveries]
    case.exits = [one for node in nodes for one in node.exits]
    looks(evidence, case)
    case.waits, case.took_s = evidence.told.waits, time.monotonic() - began
    return case


@contextmanager
def _told(trouble: list[str]) -> Generator[None]:
    """Take down what was answered wrongly, or not in time, by itself or among several."""
    try:
        yield
    except (Failed, TimeoutError) as error:
        trouble.append(str(error) or "something did not come in time")
    except BaseExceptionGroup as group:
        if group.split((Failed, TimeoutError))[1] is not None:
            raise
        trouble += _leaves(group)


def _leaves(error: BaseException) -> list[str]:
    """Return what exceptions say that came together."""
    if not isinstance(error, BaseExceptionGroup):
        return [str(error) or type(error).__name__]
    several = cast("Sequence[BaseException]", error.exceptions)
    return [told for one in several for told in _leaves(one)]


@asynccontextmanager
async def playing(site: Site, url: str) -> AsyncGenerator[Play]:
    """Yield a play at an address, with a receiver of webhooks and a follower on each session."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        receiving() as receiver,
        anyio.create_task_group() as tasks,
    ):
        site.allow = (*site.allow, f"127.0.0.1:{receiver.port}")
        play = Play(Caller(http, url, site.key), receiver)
        play.canaries.values["the admin key"] = site.key
        play.began = partial(tasks.start_soon, play.follow)
        yield play
        tasks.cancel_scope.cancel()


async def _left(play: Play, node: Node) -> Sequence[str]:
    """Return what a node holds at rest, when nobody watches, that one does not hold anew."""
    play.stop_following()
    before = await at_least(node.pid)
    await node.restart()
    return more_than(await at_least(node.pid), before)
