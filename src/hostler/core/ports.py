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
from hostler.core.events import (
    CallId,
    Event,
    Fact,
    JsonObject,
    Key,
    Policy,
    RunId,
    RunKey,
    Said,
    Seq,
    SessionId,
    Stop,
    TenantId,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Usage,
)
from hostler.core.head import Head
from hostler.core.records import (
    Appended,
    Approval,
    ClientTool,
    Hit,
    Kept,
    Once,
    Recall,
    RunRow,
    Session,
    Share,
    Storage,
)

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


class Store(Protocol):
    """The log and the tables kept from it.  Every key carries its tenant.

    All methods raise NotFound for a session that is absent, Unavailable when the storage cannot
    serve now.  Cancelling a call does not tell whether it took effect.
    """

    async def create(
        self, session: Session, facts: Sequence[Fact] = (), *, once: Once | None = None
    ) -> bool:
        """Make a session that begins with `facts`; return False, and change nothing, if it exists.

        With `lineage`, its log begins with that history: its head starts there.

        Raises:
            Repeated: `once` was done before; nothing was written.
            Conflict: forks still read what a deleted session of this id had said.
            NotFound: what `lineage` names is gone.
        """
        ...

    async def restore(self, session: Session, events: Sequence[Event]) -> bool:
        """Make a session with a log written elsewhere, at the times that its events have.

        Return False, and change nothing, if the id is taken.

        Raises:
            Conflict: another session has one of the runs, or as `create`.
        """
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

    async def delete(self, key: Key, *, idle_since: float | None = None) -> Sequence[SessionId]:
        """Remove the session with all that is kept of it.  Absent ones are fine.

        Of its log, what forks of it have read stays, for them alone, as long as there is one.
        With `idle_since`, nothing is done if a run is active, or it was touched then or later.

        Return the sessions of which nothing is left: this one if no fork reads it, and those
        deleted before that it alone had read.
        """
        ...

    async def tidy(self) -> None:
        """Remove kept answers and links that are good no more."""
        ...

    async def count(self, tenant: TenantId) -> int:
        """Return how many sessions the tenant has."""
        ...

    async def forgettable(self, *, before: float, keep: int, limit: int) -> Sequence[Key]:
        """Return idle sessions, oldest first, of every tenant: not touched since `before`, or not
        among the `keep` that their tenant touched last.
        """
        ...

    async def storage(self, tenant: TenantId, *, limit: int) -> Storage:
        """Return what the tenant's sessions take, and the `limit` largest of them."""
        ...

    async def append(
        self,
        key: Key,
        facts: Sequence[Fact],
        *,
        fence: int | None = None,
        expected: Seq | None = None,
        once: Once | None = None,
    ) -> Appended:
        """Write `facts` atomically and durably, in order, with head, runs and search index.

        Then, in commit order and before this returns, tell the observer (`Observer`); a run that
        became active is handed to the outbox.  Without `fence` anybody may write.  One refused
        append never fails others that share its commit.

        Raises:
            Fenced: `fence` is not the session's; nothing was written.
            Moved: the head is past `expected`; nothing was written.
            Repeated: `once` was done before; nothing was written.
        """
        ...

    async def kept(self, tenant: TenantId, scope: str) -> Kept | None:
        """Return the answer that was kept for a `Once` of the last 24 hours."""
        ...

    async def head(self, key: Key) -> Head: ...
    async def read(self, key: Key, *, after: Seq, limit: int) -> Sequence[Event]:
        """Return up to `limit` events past `after`, in order."""
        ...

    async def recall(self, key: Key) -> Recall:
        """Return all that a worker needs to know, in one consistent read.

        `past`: the facts before `head.base` whose kind is in `codec.SPOKEN`, for `remember`;
        `events`: all from `head.base` on, for `fold`.  Their `raw` may be empty.
        """
        ...

    async def unfinished(self) -> Sequence[RunKey]:
        """Return every active run of every tenant that can go on now: what the reconciler rings for.

        Not those that wait for somebody outside, before the first of their waits expires.
        """
        ...

    async def run(self, tenant: TenantId, run: RunId) -> RunRow: ...
    async def runs(
        self, tenant: TenantId, *, session: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[RunRow]:
        """Return runs, newest first, past the id `after` ("" for the newest)."""
        ...

    async def approval(self, tenant: TenantId, session: SessionId, call: CallId) -> Approval: ...
    async def approvals(
        self, tenant: TenantId, *, session: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[Approval]:
        """Return approvals, oldest first, past the call `after` ("" for the oldest)."""
        ...

    async def share(self, share: Share) -> None:
        """Keep a link.  Raises NotFound for an absent session."""
        ...

    async def shares(self, key: Key) -> Sequence[Share]: ...
    async def unshare(self, key: Key, share: str) -> None:
        """Remove a link.  Absent ones are fine."""
        ...

    async def shared(self, digest: str) -> Share | None:
        """Return the link with this digest, of whatever tenant, unless it has expired."""
        ...

    async def search(self, tenant: TenantId, query: str, *, limit: int) -> Sequence[Hit]:
        """Return the newest places where all the words were said, by users or models."""
        ...


Observer: TypeAlias = Callable[[Key, Sequence[Event]], None]
"""Told of each append, after its commit, on the event loop; must not block or raise."""
Outbox: TypeAlias = Callable[[RunKey], Awaitable[None]]
"""Asked to see that the run is driven; losing it costs time, not the run (the reconciler)."""


# -- who drives ------------------------------------------------------------------------------


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


Agents: TypeAlias = Callable[[str], AgentSpec | None]
"""An agent by name.  Of a name that is not served here: one that says so and fails, or None to
leave its runs alone."""
