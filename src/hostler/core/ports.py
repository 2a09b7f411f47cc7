"""What the core asks of the world.  Protocols only: no base class, no registry.

Each docstring is the contract its adapters are tested against (`hostler.testing`): what is
promised, what may be raised, and what is *not* promised.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from hostler.core.decide import Limits
from hostler.core.errors import SetupError, ToolError
from hostler.core.events import (
    NO_USAGE,
    CallId,
    ClientTool,
    JsonObject,
    Policy,
    RunId,
    RunKey,
    Stop,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Usage,
)
from hostler.core.said import Said
from hostler.core.shown import Show, Shown, unseen
from hostler.core.terms import AS_IT_IS, Wanted

_chance = random.Random(secrets.randbits(256))  # noqa: S311  ids name things, they open none


def mint(prefix: str) -> str:
    """Return a new id: `prefix_`, then 12 hex digits of milliseconds and 16 of chance.

    Ids sort by creation, to the millisecond, and are unique for all practical purposes.
    """
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{_chance.getrandbits(64):016x}"


# -- models ----------------------------------------------------------------------------------

FaultCode: TypeAlias = Literal[
    "auth",
    "rate_limit",
    "overloaded",
    "server",
    "timeout_connect",
    "timeout_first_byte",
    "timeout_idle",
    "truncated",
    "context_overflow",
    "invalid_request",
    "content_filter",
    "bad_tool_schema",
    "unavailable",
]


class ToolSpec(Struct, frozen=True, kw_only=True):
    """How a tool looks to the model, and what may be assumed about it."""

    name: str
    description: str
    parameters: JsonObject
    """JSON Schema of the arguments object."""
    twice: Literal["safe", "never"] = "never"
    """May a call whose outcome was lost be run a second time?"""
    effects: Literal["read", "write"] = "write"
    """Readers run side by side, writers alone."""
    timeout_s: float = 60.0
    approval: bool = False
    """A person has to allow each call."""
    client: bool = False
    """Answered by a client, within `timeout_s`; the server runs nothing."""
    secrets: tuple[str, ...] = ()
    """Names of the tenant's secrets that it may use; no model is shown them."""


class Request(Struct, frozen=True, kw_only=True):
    """One question to a model.  `transcript` is only lent: read it before the first await."""

    system: str
    transcript: Sequence[Said]
    tools: Sequence[ToolSpec] = ()
    session: str = ""
    """Equal for all requests of one session: a key for the provider's prompt cache."""
    tenant: str = ""
    """Who asks: whose key may pay for it."""
    waits_s: float | None = None
    """How long it may wait for its turn before it is asked; None: as long as is good for a run."""
    max_output_tokens: int | None = None
    wanted: Wanted = AS_IT_IS
    options: JsonObject = {}
    """Passed on as they are, under the provider's own names, before all that is `wanted`."""


class Delta(Struct, gc=False):
    """Text as it is generated: what came in one wake-up of the loop comes as one delta."""

    part: Literal["text", "thinking", "arguments"]
    text: str
    call: CallId | None = None
    """Of `arguments`: which call."""
    name: str | None = None
    """Of the first `arguments` of a call: the tool's name."""
    sizes: tuple[int, ...] = ()
    """Characters of each of the deltas that were joined to this one; empty: it is one."""


class Reply(Struct, frozen=True, kw_only=True):
    """A finished model message, provider-neutral."""

    text: str
    stop: Stop
    calls: tuple[ToolCall, ...] = ()
    thinking: str | None = None
    usage: Usage = Usage()
    replay: JsonObject | None = None
    raw_usage: JsonObject | None = None
    stop_sequence: str | None = None
    """Which of `Wanted.stop` ended it, where the provider says so; `stop` is `end` then."""


class Failure(Struct, frozen=True, kw_only=True):
    """A model call that gave no reply."""

    code: FaultCode
    message: str
    again: bool
    """Asking the same model again may help."""
    retry_after_s: float | None = None
    """How long the provider asked us to wait."""
    usage: Usage = NO_USAGE
    """What it had counted until then."""


class Model(Protocol):
    @property
    def provider(self) -> str: ...
    @property
    def name(self) -> str: ...
    def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        """Yield deltas, then exactly one `Reply` or `Failure`, last.

        Never raises once started, whatever the provider sends; a stream without the provider's
        own end is a `Failure`, never a short `Reply`.  Closing the iterator closes the connection.
        """
        ...


class Catalog(Protocol):
    """The models that clients may ask themselves."""

    def names(self) -> Sequence[str]:
        """Return those that are known by name, as `provider:model`, in order."""
        ...

    def find(self, name: str) -> Model | None:
        """Return a model; None when there is none that may be asked by this name.

        Raises:
            SetupError: it cannot be opened.
        """
        ...


# -- tools -----------------------------------------------------------------------------------


def _nothing(name: str) -> None:
    del name


def _as_it_is(text: str) -> str:
    return text


class CallContext(Struct, frozen=True, kw_only=True):
    """Where a call happens.  `call` is the idempotency key to hand to whatever it touches."""

    call: CallId
    key: RunKey
    """Its tenant, session and run."""
    secrets: tuple[str, ...] = ()
    """Which of the tenant's secrets the tool said that it uses."""
    reveal: Callable[[str], str | None] = _nothing
    """How `secret` finds a value; tools ask `secret`."""
    mask: Callable[[str], str] = _as_it_is
    """Takes the tenant's secrets out of a text, before anything keeps it."""
    shows: Show = unseen
    """How `show` shows; tools ask `show`."""

    async def show(self, part: Shown) -> None:
        """Show a `DataPart`, `SourcePart`, `DocumentPart` or `FilePart` to people; no model reads it.

        It is stored when this returns, and stays shown whatever comes of the call.

        Raises:
            ToolError: it is too large, too much for one call, or no JSON; or the call is over.
        """
        await self.shows(part)

    async def secret(self, name: str) -> str:
        """Return a secret of the tenant, for this call; keep it nowhere.

        Raises:
            ToolError: the tool did not say that it uses it, there is none, or it cannot be opened.
        """
        if name not in self.secrets:
            raise ToolError(
                f"This tool may not use the secret {name}: its `secrets` do not name it."
            )
        try:
            found = self.reveal(name)
        except SetupError as error:
            raise ToolError(str(error)) from error
        if found is None:
            raise ToolError(f"There is no secret {name}: an admin sets it as `{name}`.")
        return found


class Tool(Protocol):
    @property
    def spec(self) -> ToolSpec: ...
    async def __call__(self, arguments: JsonObject, context: CallContext) -> str:
        """Act, and return what the model should read.

        Raises:
            ToolError: its text is the outcome.  Anything else is the tool's bug, told as such.
        """
        ...


class Toolbox(Protocol):
    """An agent's tools behind everything that guards them."""

    @property
    def specs(self) -> Sequence[ToolSpec]:
        """In a stable order: providers cache prompts by prefix."""
        ...

    def check(self, call: ToolCall, run: RunId) -> ToolStarted | ToolFinished:
        """Return what will be executed, names and arguments repaired; or why it will not be."""
        ...

    def may_repeat(self, started: ToolStarted) -> bool:
        """Whether a call whose outcome was lost may be run again."""
        ...

    def is_reader(self, started: ToolStarted) -> bool: ...
    def needs_approval(self, started: ToolStarted) -> bool: ...
    def client_s(self, started: ToolStarted) -> float | None:
        """Return how long a client has to answer; None for a tool that is run here."""
        ...

    def with_clients(self, tools: Sequence[ClientTool]) -> Toolbox:
        """Return these tools and those of a session's clients whose names are free here.

        Raises:
            SetupError: one of the clients' tools is wrong, or two have one name.
        """
        ...

    async def accept(
        self, started: ToolStarted, finished: ToolFinished, key: RunKey
    ) -> ToolFinished:
        """Return a client's result as it is to be written.

        Raises:
            ToolError: it is not what the call asked for; says what it should be.
        """
        ...

    async def drop(self, accepted: ToolFinished) -> None:
        """Remove what was kept of a result that was accepted and will never be written."""
        ...

    async def run(self, started: ToolStarted, context: CallContext) -> ToolFinished:
        """Run a checked call to its outcome, within its time-out.  Never raises.

        What it says was masked (`context.mask`) before it was kept anywhere.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """What a run needs and the log does not hold."""

    name: str
    instructions: str
    models: Sequence[Model]
    """First choice first."""
    tools: Toolbox
    limits: Limits = field(default_factory=Limits)
    policy: Policy = "queue"
    max_output_tokens: int | None = None
    options: JsonObject = field(default_factory=dict[str, object])
    description: str = ""


# -- who drives ------------------------------------------------------------------------------


class Job(NamedTuple):
    """The key of some work, never its state."""

    key: RunKey
    not_before: float = 0.0
    """Unix seconds; 0: at once."""
    priority: int = 0
    """-1, 0 or 1.  Of jobs that are due, those of a higher one go first, where an engine can.  A job
    that is queued already is lifted to it, and never put back."""


Handler: TypeAlias = Callable[[RunKey], Awaitable[float | None]]
"""Drives a run; returns when to be called again (Unix seconds), or None when it rests."""


class Engine(Protocol):
    """Delivery only: holds keys, never state.

    Each job is handed to one live worker at a time, at least once, and again if that dies.  A
    job may ring twice or late; the fence, not the engine, keeps history right.
    """

    async def enqueue(self, job: Job) -> None:
        """See that the key is handled once more after now, or after its `not_before`.

        Idempotent: a key that is queued already is not queued twice; one that is being handled is
        handled once more.  An earlier time wins over a later one.

        Raises:
            Unavailable: not now; the reconciler will do it.
        """
        ...

    async def idle(self, keys: Sequence[RunKey]) -> Sequence[RunKey]:
        """Return those without a job, queued, delayed or running, anywhere.  Raises Unavailable."""
        ...

    async def serve(self, handler: Handler, *, slots: int) -> None:
        """Handle up to `slots` keys at once, until cancelled.

        Handlers in flight are cancelled, and their keys are anybody's at once.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what it has open, when nobody rings any more.  A second time does nothing."""
        ...

    def drain(self) -> None:
        """Take no more keys; those that are being handled go on."""
        ...

    @property
    def serves(self) -> bool:
        """Whether keys are handed out here: it is served, drains not, and its queue answered of late."""
        ...

    @property
    def live(self) -> int:
        """Return how many keys are in this process's hands."""
        ...

    def waiting(self) -> tuple[int, float]:
        """Return how many keys are due and wait for a worker, and for how many seconds the oldest.

        As of some seconds ago, if others have a part in it.
        """
        ...


class World(NamedTuple):
    """Time and chance, passed in so that tests can own them."""

    worker: str
    clock: Callable[[], float] = time.time
    mint: Callable[[str], str] = mint
    chance: Callable[[], float] = _chance.random


Agents: TypeAlias = Callable[[str], AgentSpec | None]
"""An agent by name.  Of a name that is not served here: one that says so and fails, or None to
leave its runs alone."""
