"""A provider that limits its key, and sessions that need it, on a clock that a test moves.

A second of that clock is a *round*: what the provider took in one it answers at its end.  A round is
over when every session is heard, stands in line, or was sent away.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup
from tests.canaries import canary
from tests.fleets import until

from hostler.core.events import (
    CancelRequested,
    InputId,
    Key,
    PrincipalId,
    RunEnded,
    RunId,
    RunKey,
    UserSpoke,
)
from hostler.core.loop import Drive, Interrupt
from hostler.core.ports import AgentSpec, Delta, Failure, Model, Reply, Request, World, mint
from hostler.harness.breakers import Breakers
from hostler.harness.key_limits import KeyLimits
from hostler.harness.limit_news import LimitNews
from hostler.models.breaker import Breaking
from hostler.models.openai_chat import OpenAIChat
from hostler.models.transport import Aiohttp
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.testing.doubles import a_session, an_agent, whole_log
from hostler.testing.model_script import End, Text
from hostler.testing.provider_server import Asked, Play, Send, Wait, chunk, head, provider_server
from hostler.testing.wire_chat import CHAT

KEY = canary("key that is limited", "sk-limited")


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Limiting:
    """A provider that takes so many questions at once, or so many in a round."""

    at_once: int = 1_000_000
    each_round: int = 1_000_000
    headers: tuple[str, ...] = ()
    """Of a refusal."""
    held: int = 0
    taken: int = 0
    """In this round."""
    refused: int = 0
    answered: int = 0
    over: anyio.Event = field(default_factory=anyio.Event)

    def play(self, asked: Asked) -> Play:
        del asked
        if self.held >= self.at_once or self.taken >= self.each_round:
            self.refused += 1
            start = head(429, content_type="application/json", headers=self.headers)
            return [Send(start), Send(chunk(CHAT.refusal("rate_limit", "no")) + chunk(b""))]
        self.held, self.taken = self.held + 1, self.taken + 1
        begun, whole = CHAT.events([Text("Hi.")]), CHAT.events([Text("Hi."), End()])
        rest = b"".join(whole[len(begun) :])
        return [
            *(Send(head()), Send(chunk(b"".join(begun)))),
            *(Wait(self.over), Send(chunk(rest) + chunk(b""))),
        ]

    def end_round(self) -> None:
        self.answered += self.held
        self.held = self.taken = 0
        over, self.over = self.over, anyio.Event()
        over.set()


@dataclass
class Heard:
    """A ring that counts the answers that have begun and not ended."""

    model: Model
    now: int = 0
    sessions: set[str] = field(default_factory=set[str])

    @property
    def provider(self) -> str:
        return self.model.provider

    @property
    def name(self) -> str:
        return self.model.name

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        is_heard, session = False, request.session
        try:
            async with aclosing(self.model.stream(request)) as parts:
                async for part in parts:
                    if isinstance(part, Delta) and not is_heard:
                        is_heard = True
                        self.now += 1
                        self.sessions.add(session)
                    yield part
        finally:
            self.now -= is_heard


@dataclass
class Node:
    """Sessions, and what drives them."""

    clock: Clock
    limits: KeyLimits
    model: Heard
    store: MemoryStore
    agent: AgentSpec
    due: dict[RunKey, float] = field(default_factory=dict[RunKey, float])
    driving: set[RunKey] = field(default_factory=set[RunKey])
    ended: list[RunKey] = field(default_factory=list[RunKey])
    interrupts: dict[RunKey, Interrupt] = field(default_factory=dict[RunKey, Interrupt])

    @property
    def waiting(self) -> int:
        return sum(one.waiting for one in self.limits)

    @property
    def heard(self) -> set[RunKey]:
        """Return what is being driven and was answered, in part or whole."""
        return {key for key in self.driving if key.session in self.model.sessions}

    async def cancel(self, key: RunKey) -> None:
        asked = CancelRequested(run=key.run, principal=PrincipalId("p"), reason=None)
        await self.store.append(Key(key.tenant, key.session), [asked])
        self.interrupts[key].ring()

    @property
    def is_quiet(self) -> bool:
        return len(self.driving) == self.model.now + self.waiting

    async def begin(self, count: int, tenant: str = "default") -> None:
        for _ in range(count):
            key = await a_session(self.store, tenant=tenant)
            run = RunId(mint("run"))
            spoke = UserSpoke(
                run=run,
                input=InputId(mint("inp")),
                content="Hello.",
                policy="queue",
                principal=PrincipalId("p"),
                metadata={},
            )
            await self.store.append(key, [spoke])
            self.due[RunKey(*key, run)] = self.clock.now

    def start_due(self, tasks: TaskGroup) -> None:
        for key in [key for key, at in self.due.items() if at <= self.clock.now]:
            del self.due[key]
            self.driving.add(key)
            tasks.start_soon(self._drive, key)

    async def _drive(self, key: RunKey) -> None:
        self.interrupts[key] = Interrupt()
        until_s = await Drive(
            key=key,
            agents=lambda _: self.agent,
            store=self.store,
            signals=LocalSignals(),
            interrupt=self.interrupts[key],
            world=World("w", clock=self.clock, chance=lambda: 0.5),
        ).run()
        self.driving.discard(key)
        if until_s is None:
            self.ended.append(key)
        else:
            self.due[key] = until_s

    async def ends(self) -> list[tuple[str, str | None]]:
        logs = [await whole_log(self.store, Key(one.tenant, one.session)) for one in self.ended]
        facts = [log[-1].fact for log in logs]
        return [(one.status, one.reason) for one in facts if isinstance(one, RunEnded)]


@dataclass
class Scene:
    """Nodes of one provider."""

    clock: Clock
    provider: Limiting
    nodes: list[Node]
    rounds: int = 0

    @property
    def is_quiet(self) -> bool:
        heard = sum(node.model.now for node in self.nodes)
        return self.provider.held == heard and all(node.is_quiet for node in self.nodes)

    @property
    def is_over(self) -> bool:
        return not any(node.due or node.driving for node in self.nodes)

    async def settled(self) -> None:
        await until(lambda: self.is_quiet)

    def end_round(self, tasks: TaskGroup) -> None:
        self.rounds += 1
        self.clock.now += 1.0
        self.provider.end_round()
        for node in self.nodes:
            for limit in node.limits:
                limit.look()
            node.start_due(tasks)

    async def to_the_end(self, *, most: int = 1_000) -> None:
        """Let rounds pass until nothing is left to do."""
        async with anyio.create_task_group() as tasks:
            for node in self.nodes:
                node.start_due(tasks)
            await self.settled()
            while not self.is_over:
                assert self.rounds < most, "they never came to rest"
                self.end_round(tasks)
                await self.settled()


@asynccontextmanager
async def limited(
    provider: Limiting,
    *,
    at_once: int | None = None,
    news: Callable[[int, Clock], LimitNews] | None = None,
    nodes: int = 1,
) -> AsyncGenerator[Scene]:
    """Yield a scene; `news`: of the node with this number."""
    clock, transport = Clock(), Aiohttp()
    async with provider_server(provider.play) as server:

        def node(number: int) -> Node:
            told = None if news is None else news(number, clock)
            limits = KeyLimits(Breakers(clock=clock), told, clock=clock)
            made = OpenAIChat(
                name="m", base_url=server.url, transport=transport, key=lambda _: KEY, provider="p"
            )
            ring = Breaking(made, limits, place=server.url, key=lambda _: KEY, at_once=at_once)
            heard = Heard(ring)
            return Node(clock, limits, heard, MemoryStore(clock=clock), an_agent(heard))

        try:
            yield Scene(clock, provider, [node(number) for number in range(nodes)])
        finally:
            await transport.aclose()
