"""What the core asks of the world.  Protocols only: no base class, no registry.

Each docstring is the contract its adapters are tested against (`hostler.testing`): what is
promised, what may be raised, and what is *not* promised.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from hostler.core.decide import Limits
from hostler.core.events import (
    AttemptId,
    CallId,
    Event,
    Fact,
    InputId,
    JsonObject,
    Key,
    Policy,
    PrincipalId,
    RunId,
    RunKey,
    RunStatus,
    Said,
    Seq,
    SessionId,
    Stop,
    TenantId,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Unknown,
    Usage,
)
from hostler.core.state import Head

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


class Request(Struct, frozen=True, kw_only=True):
    """One question to a model.  `transcript` is only lent: read it before the first await."""

    system: str
    transcript: Sequence[Said]
    tools: Sequence[ToolSpec] = ()
    session: str = ""
    """Equal for all requests of one session: a key for the provider's prompt cache."""
    max_output_tokens: int | None = None
    options: JsonObject = {}
    """Passed on as they are, under the provider's own names."""


class Delta(Struct, gc=False):
    """Text as it is generated: what came in one wake-up of the loop comes as one delta."""

    part: Literal["text", "thinking", "arguments"]
    text: str
    call: CallId | None = None
    """Of `arguments`: which call."""
    name: str | None = None
    """Of the first `arguments` of a call: the tool's name."""


class Reply(Struct, frozen=True, kw_only=True):
    """A finished model message, provider-neutral."""

    text: str
    stop: Stop
    calls: tuple[ToolCall, ...] = ()
    thinking: str | None = None
    usage: Usage = Usage()
    replay: JsonObject | None = None
    raw_usage: JsonObject | None = None


class Failure(Struct, frozen=True, kw_only=True):
    """A model call that gave no reply."""

    code: FaultCode
    message: str
    again: bool
    """Asking the same model again may help."""
    retry_after_s: float | None = None
    """How long the provider asked us to wait."""


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


# -- tools -----------------------------------------------------------------------------------


class CallContext(Struct, frozen=True, kw_only=True):
    """Where a call happens.  `call` is the idempotency key to hand to whatever it touches."""

    call: CallId
    key: RunKey
    """Its tenant, session and run."""


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
    async def run(self, started: ToolStarted, context: CallContext) -> ToolFinished:
        """Run a checked call to its outcome, within its time-out.  Never raises."""
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


# -- the log ---------------------------------------------------------------------------------


class Session(Struct, kw_only=True):
    """A session's labels, which are not facts, beside its head."""

    tenant: TenantId
    id: SessionId
    agent: str
    principal: PrincipalId
    created_at: float
    updated_at: float
    title: str | None = None
    metadata: JsonObject = {}
    head: Head = Head()


class RunRow(Struct, kw_only=True):
    """A run as the log tells it, kept up with each append."""

    tenant: TenantId
    session: SessionId
    id: RunId
    input: InputId
    agent: str
    status: Literal["queued", "running"] | RunStatus
    created_at: float
    first_seq: Seq
    reason: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    last_seq: Seq | None = None
    usage: Usage | None = None


class Hit(NamedTuple):
    session: SessionId
    seq: Seq
    kind: str
    snippet: str
    """The words around the first match, matches in **double stars**."""


class Appended(NamedTuple):
    events: Sequence[Event]
    head: Head


class Recall(NamedTuple):
    head: Head
    agent: str
    past: Sequence[tuple[Seq, Fact | Unknown]]
    events: Sequence[Event]


class Store(Protocol):
    """The log and the tables kept from it.  Every key carries its tenant.

    All methods raise NotFound for a session that is absent, Unavailable when the storage cannot
    serve now.  Cancelling a call does not tell whether it took effect.
    """

    async def create(self, session: Session) -> bool:
        """Make an empty session; return False, and change nothing, if the id is taken."""
        ...

    async def session(self, key: Key) -> Session: ...
    async def sessions(
        self, tenant: TenantId, *, agent: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[Session]:
        """Return sessions, newest first, past the id `after` ("" for the newest)."""
        ...

    async def relabel(self, key: Key, *, title: str | None, metadata: JsonObject) -> Session:
        """Set both labels."""
        ...

    async def delete(self, key: Key) -> None:
        """Remove the session with its log, runs and search entries.  Absent ones are fine."""
        ...

    async def append(
        self,
        key: Key,
        facts: Sequence[Fact],
        *,
        fence: int | None = None,
        expected: Seq | None = None,
    ) -> Appended:
        """Write `facts` atomically and durably, in order, with head, runs and search index.

        Then, in commit order and before this returns, tell the observer (`Observer`); a run that
        became active is handed to the outbox.  Without `fence` anybody may write.  One refused
        append never fails others that share its commit.

        Raises:
            Fenced: `fence` is not the session's; nothing was written.
            Moved: the head is past `expected`; nothing was written.
        """
        ...

    async def head(self, key: Key) -> Head: ...
    async def read(self, key: Key, *, after: Seq, limit: int) -> Sequence[Event]:
        """Return up to `limit` events past `after`, in order."""
        ...

    async def recall(self, key: Key) -> Recall:
        """Return all that a worker needs to know, in one consistent read.

        `past`: the facts before `head.base` whose kind is in `state.SPOKEN`, for `remember`;
        `events`: all from `head.base` on, for `fold`.  Their `raw` may be empty.
        """
        ...

    async def unfinished(self) -> Sequence[RunKey]:
        """Return every active run of every tenant: what the reconciler rings for."""
        ...

    async def run(self, tenant: TenantId, run: RunId) -> RunRow: ...
    async def runs(
        self, tenant: TenantId, *, session: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[RunRow]:
        """Return runs, newest first, past the id `after` ("" for the newest)."""
        ...

    async def search(self, tenant: TenantId, query: str, *, limit: int) -> Sequence[Hit]:
        """Return the newest places where all the words were said, by users or models."""
        ...


Observer: TypeAlias = Callable[[Key, Sequence[Event]], None]
"""Told of each append, after its commit, on the event loop; must not block or raise."""
Outbox: TypeAlias = Callable[[RunKey], Awaitable[None]]
"""Asked to see that the run is driven; losing it costs time, not the run (the reconciler)."""


# -- what is new, and who drives ---------------------------------------------------------------


class Piece(Struct, kw_only=True):
    """Text of the attempt in flight.  Positions count characters since the attempt began."""

    session: SessionId
    run: RunId
    asked: Seq
    """Where the attempt was written: names it within its session."""
    attempt: AttemptId
    seq: Seq
    """The last fact before it."""
    start: int
    delta: Delta
    wire: bytes | None = None
    """As `Event.wire`."""

    @property
    def end(self) -> int:
        return self.start + len(self.delta.text)


class Watch(Protocol):
    """One watcher's view of one session, from the moment it was made."""

    def begin(self) -> Sequence[Piece]:
        """Return the text of the attempt in flight so far; `next` goes on from here."""
        ...

    async def next(self) -> Sequence[Event | Piece] | None:
        """Wait for something new and return all of it, in order.

        Empty: nothing came for the watch's `quiet_s`.  None: more came than is kept for one
        watcher; read the log, then `begin` again.
        """
        ...


class Signals(Protocol):
    """News of a session.  Lossy by contract: what is lost costs latency, never a fact."""

    def publish(self, key: Key, events: Sequence[Event]) -> None:
        """Pass on what was committed, in order; stamps each event with its `offset`."""
        ...

    def delta(self, key: RunKey, asked: Seq, attempt: AttemptId, delta: Delta) -> None: ...
    def watch(self, key: Key, *, quiet_s: float) -> AbstractContextManager[Watch]: ...
    def on_cancel(self, key: RunKey, ring: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `ring` for each `cancel_requested` of the run that is published from now on."""
        ...


class Job(NamedTuple):
    """The key of some work, never its state."""

    key: RunKey
    not_before: float = 0.0
    """Unix seconds; 0: at once."""


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
        """
        ...

    def is_live(self, key: RunKey) -> bool:
        """Whether there is a job for the key, queued, delayed or running."""
        ...

    async def serve(self, handler: Handler, *, slots: int) -> None:
        """Handle up to `slots` keys at once, until cancelled; handlers in flight are cancelled."""
        ...


class World(NamedTuple):
    """Time and chance, passed in so that tests can own them."""

    worker: str
    clock: Callable[[], float] = time.time
    mint: Callable[[str], str] = mint
    chance: Callable[[], float] = _chance.random


Agents: TypeAlias = Callable[[str], AgentSpec]
"""An agent by name; for a name that is not served here, one that says so and fails."""
