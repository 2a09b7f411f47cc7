"""Three servers of one database behind a balancer, one of which is always on its way out or in.

Servers, balancer and what kills are the crash lab's; the agent is ours: it does what it is told.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import aiohttp
import anyio
from tests import serving
from tests.receivers import Receiver, receiving
from tests.viewers import ConnectionLost

from hostler import Client
from hostler.core.errors import SetupError, Unavailable
from hostler.testing.crash.balancer import Balancer, balancing
from hostler.testing.crash.clusters import PrivateRedis
from hostler.testing.crash.nodes import Node, Site, kept
from hostler.testing.crash.served import Effect, effects
from hostler.testing.crash.waiting import breath, until

T = TypeVar("T")
How: TypeAlias = Literal["killed", "rolled"]
"""A node dies with no warning, or is asked to stop."""
NODES = 3
PATIENCE_S = 90.0
REQUESTS = 5
"""That a node is sent after it is ready, before it has to go."""
AGENTS = '''
import os
from pathlib import Path

from hostler import Agent, CallContext, tool
from hostler.core.said import UserSaid
from hostler.core.ports import Request
from hostler.models.scripted import Scripted, ScriptedCall, ScriptedReply

HERE = Path(__file__).parent


def begins(name: str, context: CallContext) -> None:
    fd = os.open(HERE / "effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{name} {context.key.run} {context.call}\\n".encode())
    os.close(fd)


@tool
async def note(context: CallContext) -> str:
    """Write something down.  Never twice."""
    begins("note", context)
    return "noted"


@tool(approval=True)
async def deploy(context: CallContext) -> str:
    """Do what a person has to allow."""
    begins("deploy", context)
    return "deployed"


def obeys(request: Request) -> ScriptedReply:
    """Do what was said last: `call NAME`, or `say WORDS SECONDS`."""
    last = request.transcript[-1]
    order = str(last.content).split() if isinstance(last, UserSaid) else ["say", "2", "0"]
    if order[0] == "call":
        return ScriptedReply(calls=(ScriptedCall(name=order[1]),))
    words = "".join(f"word{number} " for number in range(int(order[1])))
    return ScriptedReply(text=words, delay_s=float(order[2]))


agents = [Agent("obedient", model=Scripted("obeys", obeys), tools=[note, deploy])]
'''


class Passing(Exception):
    """What an answer was that says: later."""


LATER = (*ConnectionLost, TimeoutError, Unavailable, Passing)


@dataclass
class Fleet:
    """Nodes, what stands before them, and what clients need to know."""

    site: Site
    nodes: Sequence[Node]
    balancer: Balancer
    receiver: Receiver
    how: How
    http: aiohttp.ClientSession
    chance: random.Random
    sessions: list[str] = field(default_factory=list[str])
    """All that were made, for whoever reads them in the end."""
    hits: list[int] = field(default_factory=list[int])
    """Numbers of nodes that had to go, in order."""
    playing: int = 0
    """How many scenes are."""
    changed: anyio.Event = field(default_factory=anyio.Event)
    """Set when a node goes or has come back."""

    def change(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    @property
    def key(self) -> str:
        return self.site.key

    @property
    def raw(self) -> serving.Client:
        """What speaks plain HTTP to any node."""
        return serving.Client(self.http, self.balancer.url, self.key, ears=None)

    def at(self, node: Node, key: str | None = None) -> serving.Client:
        """Return what speaks plain HTTP to one node."""
        return serving.Client(self.http, node.url, key or self.key, ears=None)

    @property
    def up(self) -> list[Node]:
        return [node for node in self.nodes if node.is_up]

    def client(self) -> Client:
        """Return our client for programs, at any node."""
        return Client(self.balancer.url, self.key)

    async def two(self) -> tuple[Node, Node]:
        """Return two nodes that live now, in any order."""
        await until(lambda: len(self.up) > 1)
        one, other = self.chance.sample(self.up, 2)
        return one, other

    async def another(self, pid: int) -> Node:
        """Return a node that lives, and whose process is not this one."""

        def others() -> list[Node]:
            return [node for node in self.up if node.pid != pid]

        await until(lambda: bool(others()))
        return self.chance.choice(others())

    async def session(self, **more: object) -> str:
        async with self.client() as client:
            session = (await client.create_session(**more)).id  # type: ignore[arg-type]
        self.sessions.append(session)
        return session

    async def effects(self) -> Sequence[Effect]:
        return effects(self.site.folder)


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Ask again while nobody answers, as whoever asks through a balancer does."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            try:
                return await work()
            except LATER:
                await breath()


async def answered(
    client: serving.Client, method: str, path: str, body: object = None, once: str | None = None
) -> tuple[int, serving.Json]:
    """Return an answer of one node; raises one of LATER when there is none, or one that says later."""
    headers = {} if once is None else {"Idempotency-Key": once}
    try:
        status, told = await client.call(method, path, body, headers=headers)
    except aiohttp.ClientPayloadError as error:
        raise Passing from error
    if status in (502, 503, 504) or told.get("code") == "in_progress":
        raise Passing(told)
    return status, told


async def asks(
    fleet: Fleet, method: str, path: str, body: object = None, once: str | None = None
) -> tuple[int, serving.Json]:
    """Return the answer of some node."""
    return await patiently(lambda: answered(fleet.raw, method, path, body, once))


async def trouble(fleet: Fleet, over: anyio.Event) -> None:
    """Let one node after the other go, each once it has work, until it is over."""
    for node in cycle(fleet.nodes):
        await node.ready()
        fleet.change()
        before = fleet.balancer.sent.get(node.port, 0)
        await until(
            lambda n=node, b=before: (
                over.is_set()
                or not fleet.playing
                or fleet.balancer.sent.get(n.port, 0) >= b + REQUESTS
            )
        )
        if over.is_set():
            return
        fleet.change()
        if fleet.how == "killed":
            lives = len(node.exits)
            node.kill()
            node.is_up = False
            await until(lambda n=node, lives=lives: len(n.exits) > lives)
        else:
            await node.restart()
        fleet.hits.append(node.number)
        await node.ready()


@asynccontextmanager
async def a_fleet(
    folder: Path, database: str, how: How, *, has_redis: bool, seed: int
) -> AsyncGenerator[Fleet]:
    """Run a fleet until it is left; what has gone wrong with a node by itself is raised."""
    chance = random.Random(seed)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        receiver = await enter(receiving())
        site = Site(folder=folder, database=database)
        site.allow = (receiver.url.removeprefix("http://").removesuffix("/hook"),)
        (folder / "fleet_agents.py").write_text(AGENTS, encoding="utf-8")
        site.target = "fleet_agents:agents"
        if has_redis:
            redis = PrivateRedis(folder / "redis")
            stack.callback(redis.kill)
            await redis.start()
            site.redis = redis.url
        nodes = [Node(site=site, number=number + 1) for number in range(NODES)]
        balancer = await enter(
            balancing(lambda: [node.port for node in nodes if node.is_up], chance=chance)
        )
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        http = await enter(aiohttp.ClientSession(connector=connector))
        await enter(kept(*nodes))
        fleet = Fleet(site, nodes, balancer, receiver, how, http, chance)
        for node in nodes:
            await node.ready()
        yield fleet
    trouble = [one for node in nodes for one in node.trouble]
    if trouble:
        raise SetupError("\n".join(trouble))
