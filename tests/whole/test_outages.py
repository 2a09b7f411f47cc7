"""An outage, a rate limit, a tool that is down: many sessions, and how often the other side is asked."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import anyio
import pytest
from tests.canaries import canary

from hostler.core import loop
from hostler.core.decide import Limits
from hostler.core.errors import ToolDown, ToolError
from hostler.core.events import (
    CallId,
    InputId,
    JsonObject,
    Key,
    PrincipalId,
    RunEnded,
    RunId,
    RunKey,
    SessionId,
    TenantId,
    ToolStarted,
    UserSpoke,
)
from hostler.core.loop import Drive, Interrupt
from hostler.core.ports import (
    AgentSpec,
    CallContext,
    Failure,
    Reply,
    Request,
    Tool,
    ToolSpec,
    World,
    mint,
)
from hostler.core.said import UserSaid
from hostler.harness.breakers import Breakers, Rules
from hostler.harness.key_limits import KeyLimits
from hostler.harness.toolbox import Toolbox
from hostler.models.breaker import Breaking
from hostler.models.openai_chat import OpenAIChat
from hostler.models.transport import Aiohttp
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.testing.doubles import a_session, an_agent, whole_log
from hostler.testing.model_script import End, FaultKind, Text
from hostler.testing.provider_server import (
    Asked,
    Play,
    ProviderServer,
    Send,
    chunk,
    head,
    provider_server,
)
from hostler.testing.wire_chat import CHAT

pytestmark = pytest.mark.anyio
KEY, OTHER_KEY = canary("key of an adapter", "sk-1"), canary("another key of it", "sk-2")
MANY = 200
KINDS: Mapping[int, FaultKind] = {429: "rate_limit", 503: "overloaded", 401: "auth"}


@pytest.fixture(autouse=True)
def _every_wait_leaves_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests' clock decides how long it takes, and no test waits."""
    monkeypatch.setattr(loop, "PATIENCE_S", -1.0)


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


def answers(*, status: int = 200, headers: tuple[str, ...] = ()) -> Play:
    if status == 200:
        body = b"".join(CHAT.events([Text("Hi."), End()]))
        return [Send(head()), Send(chunk(body) + chunk(b""))]
    start = head(status, content_type="application/json", headers=headers)
    said = CHAT.refusal(KINDS.get(status, "invalid"), "no")
    return [Send(start), Send(chunk(said) + chunk(b""))]


@dataclass
class Provider:
    """A provider on loopback with an outage, as its clock says."""

    clock: Clock
    down_until: float = 0.0
    status: int = 503
    headers: tuple[str, ...] = ()
    refused: int = 0
    limited: frozenset[str] = frozenset()
    """Models it refuses; none: all."""

    def play(self, asked: Asked) -> Play:
        if self.clock.now < self.down_until and (
            not self.limited or str(asked.json["model"]) in self.limited
        ):
            self.refused += 1
            return answers(status=self.status, headers=self.headers)
        return answers()


@dataclass
class Sessions:
    """Sessions and the workers that drive them, on a clock of their own."""

    clock: Clock
    limits: KeyLimits
    url: str
    transport: Aiohttp
    due: dict[RunKey, float] = field(default_factory=dict[RunKey, float])
    store: MemoryStore = field(init=False)

    @property
    def breakers(self) -> Breakers:
        return self.limits.breakers

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock)

    def model(self, name: str = "m", key: str = KEY) -> Breaking:
        made = OpenAIChat(
            name=name, base_url=self.url, transport=self.transport, key=lambda _: key, provider="p"
        )
        return Breaking(made, self.limits, place=self.url, key=lambda _: key)

    async def begin(self, count: int) -> None:
        for _ in range(count):
            key = await a_session(self.store)
            run = RunId(mint("run"))
            await self.store.append(key, [spoke(run)])
            self.due[RunKey(*key, run)] = self.clock.now

    async def go_on(self, agent: AgentSpec) -> None:
        """Drive all that is due, side by side."""
        async with anyio.create_task_group() as tasks:
            for key in [key for key, at in self.due.items() if at <= self.clock.now]:
                tasks.start_soon(self._drive, key, agent)

    async def to_the_end(self, agent: AgentSpec) -> None:
        """Let time pass, half a second at once, until nothing is left to do."""
        for _ in range(1_000):
            await self.go_on(agent)
            if not self.due:
                return
            self.clock.now = math.ceil(min(self.due.values()) * 2.0) / 2.0
        raise AssertionError("they never came to rest")

    async def _drive(self, key: RunKey, agent: AgentSpec) -> None:
        until = await Drive(
            key=key,
            agents=lambda _: agent,
            store=self.store,
            signals=LocalSignals(),
            interrupt=Interrupt(),
            world=World("w", clock=self.clock, chance=lambda: 0.5),
        ).run()
        if until is None:
            del self.due[key]
        else:
            self.due[key] = until

    async def ends(self) -> list[tuple[str, str | None]]:
        """Return status and reason of each run that ended."""
        keys = await self.store.sessions(
            TenantId("default"), agent=None, status=None, after="", limit=1_000
        )
        logs = [await whole_log(self.store, Key(one.tenant, one.id)) for one in keys]
        facts = [log[-1].fact for log in logs]
        return [(one.status, one.reason) for one in facts if isinstance(one, RunEnded)]


def spoke(run: RunId) -> UserSpoke:
    return UserSpoke(
        run=run,
        input=InputId(mint("inp")),
        content="Hello.",
        policy="queue",
        principal=PrincipalId("p"),
        metadata={},
    )


@asynccontextmanager
async def served(
    rules: Rules | None = None,
) -> AsyncGenerator[tuple[Provider, Sessions, ProviderServer]]:
    clock, transport = Clock(), Aiohttp()
    provider = Provider(clock)
    async with provider_server(provider.play) as server:
        limits = KeyLimits(Breakers(rules, clock=clock), clock=clock)
        try:
            yield provider, Sessions(clock, limits, server.url, transport), server
        finally:
            await transport.aclose()


@pytest.mark.parametrize(("down_s", "probes"), [(2.0, 2), (60.0, 7)])
async def test_an_outage_costs_a_probe_now_and_then_and_not_a_storm(
    down_s: float, probes: int
) -> None:
    async with served() as (provider, sessions, server):
        provider.down_until = sessions.clock.now + down_s
        agent = an_agent(sessions.model())

        await sessions.begin(5)
        await sessions.go_on(agent)
        assert provider.refused == 5, "until it opens"
        await sessions.begin(MANY - 5)
        await sessions.go_on(agent)
        assert provider.refused == 5, "no session touched the network"
        await sessions.to_the_end(agent)

        (outage,) = [one for one in sessions.breakers.states() if one.kind == "model"]
        assert await sessions.ends() == [("done", None)] * MANY
        assert provider.refused == 5 + outage.probes - 1, "the last probe was answered"
        assert outage.probes <= probes
        assert len(server.asked) == provider.refused + MANY


async def test_a_key_that_is_told_to_wait_waits_in_all_sessions() -> None:
    async with served() as (provider, sessions, server):
        provider.down_until = sessions.clock.now + 29.0
        provider.status, provider.headers = 429, ("Retry-After: 30",)
        agent = an_agent(sessions.model())

        await sessions.begin(1)
        await sessions.go_on(agent)
        await sessions.begin(MANY - 1)
        await sessions.to_the_end(agent)

        assert await sessions.ends() == [("done", None)] * MANY
        assert provider.refused == 1
        assert len(server.asked) == 1 + MANY


async def test_another_key_and_another_model_are_not_told_to_wait() -> None:
    async with served() as (provider, sessions, _):
        provider.down_until = math.inf
        provider.limited = frozenset({"large"})
        provider.status, provider.headers = 429, ("Retry-After: 600",)
        chain = an_agent(sessions.model("large"), sessions.model("small"))
        await sessions.begin(20)
        await sessions.to_the_end(chain)
        await sessions.begin(1)
        await sessions.to_the_end(an_agent(sessions.model("small", key=OTHER_KEY)))

        assert await sessions.ends() == [("done", None)] * 21
        assert provider.refused <= 20
        assert sessions.clock.now == 1_000.0, "who has a fallback does not wait ten minutes"


async def test_a_run_takes_the_next_model_while_the_first_one_is_left_alone() -> None:
    async with served(Rules(first_s=100.0, longest_s=100.0)) as (provider, sessions, _):
        provider.down_until = math.inf
        provider.limited = frozenset({"large"})
        async with provider_server(lambda _: answers()) as other:
            spare = OpenAIChat(
                name="spare",
                base_url=other.url,
                transport=sessions.transport,
                key=lambda _: None,
                provider="q",
            )
            await sessions.begin(1)
            await sessions.to_the_end(an_agent(sessions.model("large"), spare))
            refused, then = provider.refused, sessions.clock.now
            await sessions.begin(MANY)
            await sessions.to_the_end(an_agent(sessions.model("large"), spare))

        assert await sessions.ends() == [("done", None)] * (MANY + 1)
        assert refused == provider.refused == 5
        assert sessions.clock.now == then, "nobody waited"


@pytest.mark.parametrize("status", [400, 401, 404, 422])
async def test_what_the_caller_did_wrong_opens_nothing(status: int) -> None:
    async with served() as (provider, sessions, _):
        provider.down_until, provider.status = sessions.clock.now + 1.0, status
        await sessions.begin(20)
        await sessions.to_the_end(an_agent(sessions.model()))

        assert provider.refused == 20
        assert {one.state for one in sessions.breakers.states()} == {"closed"}


async def test_a_question_that_is_given_up_tells_nothing_and_frees_the_probe() -> None:
    async with served() as (provider, sessions, _):
        provider.down_until = sessions.clock.now + 1.0
        model = sessions.model()
        for _ in range(5):
            assert [part async for part in model.stream(QUESTION)]
        sessions.clock.now += 15.0

        probe = model.stream(QUESTION)
        await anext(probe)
        refused = [part async for part in sessions.model("other").stream(QUESTION)]
        await probe.aclose()

        assert isinstance(refused[-1], Reply), "the first delta of the probe was enough"


async def test_a_refusal_says_who_why_and_how_long() -> None:
    async with served() as (provider, sessions, _):
        provider.down_until = math.inf
        model = sessions.model()
        for _ in range(5):
            assert [part async for part in model.stream(QUESTION)]

        (refused,) = [part async for part in model.stream(QUESTION)]

        assert isinstance(refused, Failure)
        assert (refused.code, refused.again) == ("overloaded", True)
        assert refused.retry_after_s is not None
        assert refused.message.startswith("p failed too often, and is not asked for another ")
        assert provider.refused == 5


async def test_no_breaker_s_name_holds_a_key_or_what_is_in_a_url() -> None:
    secret = canary("key in a URL", "sk-very-secret")
    async with served() as (_, sessions, _):
        url = f"http://user:{secret}@127.0.0.1:1/v1?key={secret}"
        model = OpenAIChat(
            name="m",
            base_url=url,
            transport=sessions.transport,
            key=lambda _: secret,
            provider="p",
        )
        ring = Breaking(model, sessions.limits, place=url, key=lambda _: secret)
        assert [part async for part in ring.stream(QUESTION)]

        assert len(sessions.breakers.states()) == 2
        assert secret not in str(sessions.breakers.states())


async def test_a_longer_wait_than_the_run_has_time_for_ends_it_with_the_reason() -> None:
    async with served() as (provider, sessions, _):
        provider.down_until = math.inf
        provider.status, provider.headers = 429, ("Retry-After: 120",)
        agent = an_agent(sessions.model(), limits=Limits(max_seconds=60.0))
        await sessions.begin(1)
        await sessions.to_the_end(agent)

        assert await sessions.ends() == [("failed", "wait_too_long")]
        assert provider.refused == 1
        assert sessions.clock.now == 1_000.0, "at once, and not when its time is over"


QUESTION = Request(system="", transcript=[UserSaid("Hi.")])

# -- tools -----------------------------------------------------------------------------------------


WEATHER = ToolSpec(name="weather", description="", parameters={"type": "object"})


@dataclass
class Weather:
    """A tool that ends as it is told."""

    error: BaseException | None = None
    asked: int = 0
    spec: ToolSpec = WEATHER

    async def __call__(self, arguments: JsonObject, context: CallContext) -> str:
        del arguments, context
        self.asked += 1
        if self.error is not None:
            raise self.error
        return "sunny"


Call: TypeAlias = Callable[..., Awaitable[tuple[str, str]]]


def calls(tool: Tool, clock: Clock, *, breakers: Breakers | None = None, owner: str = "a") -> Call:
    box = Toolbox(
        [tool], spill_folder=None, breakers=breakers or Breakers(Rules(), clock=clock), owner=owner
    )

    async def call(tenant: str = "default") -> tuple[str, str]:
        run = RunKey(TenantId(tenant), SessionId("ses"), RunId("run"))
        started = ToolStarted(run=run.run, call=CallId(mint("call")), name="weather", arguments={})
        done = await box.run(started, CallContext(call=started.call, key=run))
        return done.outcome, done.output

    return call


def caused(error: BaseException) -> BaseException:
    made = RuntimeError("the request failed")
    made.__cause__ = error
    return made


DOWN = [
    ToolDown("the weather service is closed"),
    ConnectionRefusedError(111, "refused"),
    TimeoutError(),
    caused(ConnectionResetError()),
    ExceptionGroup("two", [ValueError(), TimeoutError()]),
]
FAULTY = [ToolError("no such city"), ValueError("x"), FileNotFoundError("x"), KeyError("x")]


@pytest.mark.parametrize("error", DOWN, ids=repr)
async def test_a_tool_that_does_not_answer_is_paused_and_tried_once_later(
    error: BaseException,
) -> None:
    clock, weather = Clock(), Weather(error)
    call = calls(weather, clock)
    outcomes = [await call() for _ in range(20)]
    assert {outcome for outcome, _ in outcomes} == {"error"}
    told = outcomes[-1][1]
    assert weather.asked == 5
    assert told.startswith("Not run: weather does not answer at present, and is paused; ")

    clock.now += 15.0
    weather.error = None
    assert await call() == ("ok", "sunny")
    assert await call() == ("ok", "sunny")


@pytest.mark.parametrize("error", FAULTY, ids=repr)
async def test_a_tool_that_was_called_wrongly_is_not_paused(error: Exception) -> None:
    weather = Weather(error)
    call = calls(weather, Clock())
    for _ in range(20):
        await call()
    assert weather.asked == 20


async def test_a_tool_is_paused_for_the_tenant_and_agent_that_found_it_down() -> None:
    clock, weather = Clock(), Weather(TimeoutError())
    breakers = Breakers(Rules(), clock=clock)
    for _ in range(6):
        await calls(weather, clock, breakers=breakers)("acme")
    assert weather.asked == 5
    await calls(weather, clock, breakers=breakers)("other")
    await calls(weather, clock, breakers=breakers, owner="b")("acme")
    assert weather.asked == 7
