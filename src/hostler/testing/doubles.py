"""Stand-ins that a test scripts: no network, no sleep, no surprise.

They implement the ports in full; what they leave out is the world.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from hostler.core.decide import Limits
from hostler.core.errors import ToolError
from hostler.core.events import (
    CallId,
    ClientTool,
    Event,
    Fact,
    JsonObject,
    Key,
    PrincipalId,
    RunId,
    RunKey,
    Seq,
    SessionId,
    TenantId,
    ToolCall,
    ToolFinished,
    ToolStarted,
)
from hostler.core.ports import (
    AgentSpec,
    CallContext,
    Delta,
    Failure,
    Model,
    Reply,
    Request,
    ToolSpec,
    mint,
)
from hostler.core.records import Appended, Once, Session
from hostler.core.store import Store

Answer = Callable[[Request], Reply | Failure]


@dataclass(slots=True)
class ModelDouble:
    """Answers each request with what `answer` makes of it, word by word."""

    answer: Answer
    provider: str = "double"
    name: str = "double"
    asked: list[Request] = field(default_factory=list[Request])
    """Every request so far; its transcript as it was then."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        self.asked.append(
            Request(
                system=request.system,
                transcript=tuple(request.transcript),
                tools=request.tools,
                session=request.session,
            )
        )
        last = self.answer(request)
        if isinstance(last, Reply):
            for word in last.text.split():
                yield Delta("text", f"{word} ")
        yield last


Effect = Callable[[ToolStarted], Awaitable[str]]


async def _says_its_arguments(started: ToolStarted) -> str:
    return str(started.arguments)


@dataclass(slots=True)
class ToolboxDouble:
    """Tools by name with what they do; counts what was done."""

    tools: Mapping[str, ToolSpec]
    effects: Mapping[str, Effect] = field(default_factory=dict[str, Effect])
    done: list[tuple[str, CallId]] = field(default_factory=list[tuple[str, CallId]])
    """(tool, call) of every effect that began."""

    @property
    def specs(self) -> Sequence[ToolSpec]:
        return list(self.tools.values())

    def check(self, call: ToolCall, run: RunId) -> ToolStarted | ToolFinished:
        if call.name not in self.tools:
            told = f"no tool named {call.name}"
            return ToolFinished(run=run, call=call.id, outcome="error", output=told)
        return ToolStarted(run=run, call=call.id, name=call.name, arguments=call.arguments)

    def may_repeat(self, started: ToolStarted) -> bool:
        spec = self.tools.get(started.name)
        return spec is not None and spec.twice == "safe"

    def is_reader(self, started: ToolStarted) -> bool:
        return self.tools[started.name].effects == "read"

    def needs_approval(self, started: ToolStarted) -> bool:
        return self.tools[started.name].approval

    def client_s(self, started: ToolStarted) -> float | None:
        spec = self.tools[started.name]
        return spec.timeout_s if spec.client else None

    def with_clients(self, tools: Sequence[ClientTool]) -> ToolboxDouble:
        of_clients = {
            tool.name: ToolSpec(
                name=tool.name,
                description=tool.description,
                parameters=tool.parameters,
                timeout_s=tool.timeout_s,
                client=True,
            )
            for tool in tools
        }
        return replace(self, tools={**of_clients, **self.tools}) if of_clients else self

    async def drop(self, accepted: ToolFinished) -> None:
        del accepted

    async def accept(
        self, started: ToolStarted, finished: ToolFinished, key: RunKey
    ) -> ToolFinished:
        del started, key
        return finished

    async def run(self, started: ToolStarted, context: CallContext) -> ToolFinished:
        self.done.append((started.name, context.call))
        effect = self.effects.get(started.name, _says_its_arguments)
        try:
            output, failed = await effect(started), False
        except ToolError as error:
            output, failed = str(error), True
        outcome = "error" if failed else "ok"
        return ToolFinished(run=started.run, call=started.call, outcome=outcome, output=output)


def a_tool(name: str, **changes: object) -> ToolSpec:
    """Return a tool's description; without more said it writes and may not be repeated."""
    parameters: JsonObject = {"type": "object", "properties": {}}
    values: dict[str, object] = {"name": name, "description": "", "parameters": parameters}
    return ToolSpec(**(values | changes))  # type: ignore[arg-type]


def an_agent(
    *models: Model,
    tools: ToolboxDouble | None = None,
    limits: Limits | None = None,
    name: str = "double",
) -> AgentSpec:
    """Return an agent with these models, first choice first."""
    return AgentSpec(
        name=name,
        instructions="",
        models=models,
        tools=tools or ToolboxDouble({}),
        limits=limits or Limits(models=len(models)),
    )


def a_call(name: str, **arguments: object) -> ToolCall:
    """Return a model's wish to call a tool."""
    return ToolCall(id=CallId(mint("call")), name=name, arguments=arguments)


async def a_session(store: Store, *, agent: str = "double", tenant: str = "default") -> Key:
    """Make a session and return its key."""
    session = Session(
        tenant=TenantId(tenant),
        id=SessionId(mint("ses")),
        agent=agent,
        principal=PrincipalId("admin"),
        created_at=1.0,
        updated_at=1.0,
    )
    assert await store.create(session)
    return Key(session.tenant, session.id)


async def whole_log(store: Store, key: Key) -> list[Event]:
    """Return every event of a session."""
    events: list[Event] = []
    while page := await store.read(key, after=Seq(len(events)), limit=1000):
        events += page
    return events


class Crash(BaseException):
    """The worker's process is gone: nothing may catch it."""


class Append(Protocol):
    """`Store.append`, by itself."""

    async def __call__(
        self,
        key: Key,
        facts: Sequence[Fact],
        *,
        fence: int | None = None,
        expected: Seq | None = None,
        once: Once | None = None,
    ) -> Appended: ...


def dying(append: Append, *, at: int, after: bool) -> Append:
    """Return an `append` whose fenced calls end in a crash, once, at the `at`-th of them.

    `after` says whether what it was to write is written.  Only a worker's appends have a fence.
    """
    left = at

    async def wrapped(
        key: Key,
        facts: Sequence[Fact],
        *,
        fence: int | None = None,
        expected: Seq | None = None,
        once: Once | None = None,
    ) -> Appended:
        nonlocal left
        left -= fence is not None
        dies = fence is not None and left == 0
        if dies and not after:
            raise Crash
        appended = await append(key, facts, fence=fence, expected=expected, once=once)
        if dies:
            raise Crash
        return appended

    return wrapped
