"""The vocabulary: every fact that can be written to a session's log, and the values facts are made of.

A fact is named in the past tense, is immutable and JSON-safe.  The union `Fact` is closed: a new
member means teaching `fold`, the codec's tests and the faces.  Facts evolve by added fields with
defaults; a field is never renamed, re-typed or given a new meaning.

Invariant: nothing here imports anything of ours but `said`, `shown` and `terms`, performs I/O or knows the
time.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple, NewType, TypeAlias, get_args

from msgspec import Struct, field

from hostler.core.said import CallId, Content, Said, ToolCall
from hostler.core.shown import Shown
from hostler.core.terms import Terms

TenantId = NewType("TenantId", str)
SessionId = NewType("SessionId", str)
RunId = NewType("RunId", str)
InputId = NewType("InputId", str)
AttemptId = NewType("AttemptId", str)
PrincipalId = NewType("PrincipalId", str)
Seq = NewType("Seq", int)
"""Position in one session's log: 1, 2, 3, … without holes."""
START = Seq(0)
"""Before the first fact."""

JsonObject: TypeAlias = dict[str, object]

Policy: TypeAlias = Literal["queue", "steer", "interrupt", "replace", "coalesce", "reject"]
"""What becomes of a message that arrives while a run is going; see `service/inbox.py`."""
Priority: TypeAlias = Literal["normal", "low"]
"""Of a run: `low` gives way to all others that wait to be driven."""
Stop: TypeAlias = Literal["end", "tools", "length", "refusal"]
"""Why a model stopped: it was done, it wants tools run, its output limit cut it, it declined."""
Outcome: TypeAlias = Literal["ok", "error", "denied", "cancelled", "unknown"]
RunStatus: TypeAlias = Literal["done", "failed", "cancelled"]
Verdict: TypeAlias = Literal["allow", "deny"]
Role: TypeAlias = Literal["admin", "member", "viewer"]
"""All of the tenant; one's own sessions and those shared with one; all of it, to read."""
Scope: TypeAlias = Literal[
    "sessions:read",
    "sessions:write",
    "sessions:admin",
    "runs:read",
    "keys:admin",
    "tenant:admin",
]
"""What a key may be confined to; `service/authorise.py` says what each is."""


class Key(NamedTuple):
    """Names one session.  Every port call carries it, so no query can forget the tenant."""

    tenant: TenantId
    session: SessionId


class RunKey(NamedTuple):
    """Names one run, and is the key of the job that drives it."""

    tenant: TenantId
    session: SessionId
    run: RunId


class Principal(Struct, frozen=True, kw_only=True):
    """Who acts.  Passed through every verb of the service, written into what they cause."""

    id: PrincipalId
    """What facts say: the user's name where there is one, else that of the key or link."""
    tenant: TenantId
    role: Role = "admin"
    user: str | None = None
    """The person or program behind the key; then equal to `id`, whichever key it is."""
    scopes: frozenset[Scope] | None = None
    """None: all that the role has."""
    key: str | None = None
    """The id of the API key that was shown."""
    is_operator: bool = False
    """Holds the admin key: may act in every tenant, and make tenants."""
    only: SessionId | None = None
    """The one session this principal may touch; None: all of its tenant."""


class ClientTool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool that a session's clients bring; they answer its calls."""

    name: str
    """Letters, digits, `_` and `-`, at most 64; none of the agent's."""
    description: str = ""
    """What the model reads about it."""
    parameters: JsonObject = {}
    """JSON Schema of the arguments object."""
    timeout_s: float = 86_400.0
    """How long a call waits for its result before it is an error."""


class Usage(Struct, frozen=True, kw_only=True, gc=False):
    """Tokens of one model call or summed over a run.  `input_tokens` includes cached ones."""

    input_tokens: int = 0
    output_tokens: int = 0
    """Reasoning included."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal | None = None
    """US dollars; None when the price is unknown, never 0 for that."""
    price: str | None = None
    """Version of the price table that gave `cost`."""


NO_USAGE = Usage()


class Fault(Struct, frozen=True, kw_only=True):
    """What went wrong with a model call: a code from the closed list of `ports.FaultCode`."""

    code: str
    message: str


class Stretch(Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """A part of a reply as it streamed, up to where another part came."""

    part: Literal["text", "thinking", "arguments"]
    sizes: tuple[int, ...]
    """Characters of each piece in which it came, in order."""
    call: CallId | None = None
    """Of `arguments`: which call."""
    name: str | None = None
    """Of a call that is in no reply: the tool's name."""
    said: str | None = None
    """What the pieces are of, where the fact does not have it in these very characters."""


class FactBase(Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True, gc=False):
    """The form all facts share, and no behaviour: `run` is None outside of a run."""

    run: RunId | None


# -- written by clients ----------------------------------------------------------------------


class UserSpoke(FactBase, frozen=True, tag="user_spoke"):
    """An input was accepted.  `run` was minted for it, or is the run it joins.

    An empty `content` says nothing: it comes with a history, terms, or answers to what waits.
    """

    input: InputId
    content: Content
    policy: Policy
    principal: PrincipalId
    metadata: JsonObject
    purpose: str | None = None
    """What the run is for, in the client's words: a label to find runs and sum costs by."""
    traceparent: str | None = None
    """The trace that the client's request belongs to (W3C Trace Context); the run goes on in it."""
    tracestate: str | None = None
    """What came with `traceparent`."""
    client_tools: tuple[ClientTool, ...] | None = None
    """The tools that the session's clients bring from here on; None: as before."""
    history: tuple[Said, ...] = ()
    """What was said before, as the client tells it: the conversation has it before `content`."""
    terms: Terms | None = None
    """What the message asks of its run, from here on; None: as before."""
    priority: Priority = "normal"
    """Of the run that was minted for it: `low` gives way to all others that wait to be driven."""
    scheduled: Seq | None = None
    """Where it was scheduled, if it was: the `message_scheduled` at this position is over."""


class MessageScheduled(FactBase, frozen=True, tag="message_scheduled"):
    """A message was accepted that is said later.  Until then it is no part of the conversation."""

    message: UserSpoke
    """As it will be written; its policy says then what its run is."""
    due_at: datetime
    """When it is said."""


class RunRated(FactBase, frozen=True, tag="run_rated"):
    """Somebody said how good a run was, mostly after its end.  Says nothing to models."""

    principal: PrincipalId
    """Who rated it."""
    score: float
    """-1, or from 0 to 1."""
    key: str = ""
    """What was rated; the last rating of one principal and key holds."""
    comment: str | None = None
    """Why, in their words."""


class RunWithdrawn(FactBase, frozen=True, tag="run_withdrawn"):
    """What a run said since `since` is given out no more by its name; it stays what was said."""

    principal: PrincipalId
    since: Seq


class CancelRequested(FactBase, frozen=True, tag="cancel_requested"):
    """Somebody wants `run` to end.  A shutdown of the server is not a cancel."""

    principal: PrincipalId
    reason: str | None


class ApprovalGiven(FactBase, frozen=True, tag="approval_given"):
    """The first answer to an `approval_asked`; there is no second."""

    call: CallId
    decision: Verdict
    """`allow` or `deny`."""
    principal: PrincipalId
    """Who answered."""
    arguments: JsonObject | None = None
    """To run the call with instead of those that were asked about."""
    reason: str | None = None
    """Why, in the approver's words; the model reads it."""
    remembered: str | None = None
    """A tool that needs no further approval in this session."""


class SessionForked(FactBase, frozen=True, tag="session_forked"):
    """The first fact of a fork's own.  What is before it was said in another session, up to `at`."""

    origin: SessionId = field(name="from")
    """The session that was forked."""
    at: Seq
    """The last position of its log that belongs to this one too."""
    principal: PrincipalId
    """Who forked it."""


class SessionRewound(FactBase, frozen=True, tag="session_rewound"):
    """What was said since a run began is no more part of the conversation.  The log keeps it."""

    before: RunId
    """The conversation is again what it was before this run began."""
    principal: PrincipalId
    """Who took it back."""


class ConversationEdited(FactBase, frozen=True, tag="conversation_edited"):
    """Somebody put something into the conversation, or took it out, without a run."""

    principal: PrincipalId
    said: tuple[Said, ...] = ()
    """What it has now: at its end, or in place of what was taken out."""
    place: int | None = None
    """So much of the conversation stays before that; None: all of it."""
    taken: int = 0
    """So much from there on is no part of it any more.  The log keeps it."""
    metadata: JsonObject = {}


# -- written by whoever drives the run -------------------------------------------------------


class InputProcessed(FactBase, frozen=True, tag="input_processed"):
    """The model has replied to a prompt that held this input."""

    input: InputId


class InputDropped(FactBase, frozen=True, tag="input_dropped"):
    """This input will get no reply: its run ended, or was replaced, before one.

    Of a scheduled message: it will not be said.
    """

    input: InputId
    reason: str
    principal: PrincipalId | None = None
    """Who withdrew it, before it was said."""


class RunClaimed(FactBase, frozen=True, tag="run_claimed"):
    """A worker took the run.  `claim` is the new fence: every older holder's append is refused."""

    claim: int
    worker: str


class RunStarted(FactBase, frozen=True, tag="run_started"):
    """The inputs of `run` join the conversation here."""


class ModelAsked(FactBase, frozen=True, tag="model_asked"):
    """Written before the call.  All facts before this one were in the prompt."""

    attempt: AttemptId
    provider: str
    model: str
    choice: int = 0
    """Position in the agent's chain of models; 0 is its first choice."""


class ModelReplied(FactBase, frozen=True, tag="model_replied"):
    """The whole reply; it replaces the deltas of its attempt."""

    attempt: AttemptId
    seen: Seq
    """Where the model was asked: what was said after it, the reply does not know."""
    text: str
    calls: tuple[ToolCall, ...]
    stop: Stop
    usage: Usage
    thinking: str | None = None
    replay: JsonObject | None = None
    """What the same provider wants back verbatim (signatures, encrypted reasoning); opaque."""
    raw_usage: JsonObject | None = None
    """Usage as the provider reported it."""
    first_token_s: float | None = None
    """Seconds from the question to the first delta; null when nothing came before the end."""
    streamed: tuple[Stretch, ...] = ()
    """How it came, so that a replay can have the same pieces."""


class ModelFailed(FactBase, frozen=True, tag="model_failed"):
    """The attempt ended without a reply."""

    attempt: AttemptId
    error: Fault
    retry_after_s: float | None
    """Seconds to wait before asking again; None: asking this model again will not help."""
    usage: Usage = NO_USAGE
    """What the provider had counted before it failed: it is billed."""
    first_token_s: float | None = None
    """As in `model_replied`."""


class AttemptDropped(FactBase, frozen=True, tag="attempt_dropped"):
    """The attempt was given up: discard its deltas.  `text` is what had come, if anything."""

    attempt: AttemptId
    reason: str
    text: str | None = None
    streamed: tuple[Stretch, ...] = ()
    """How all of it came; of a lost worker's, nobody knows."""


class ApprovalAsked(FactBase, frozen=True, tag="approval_asked"):
    """The call waits for a person.  Nothing is held in memory meanwhile."""

    call: CallId
    name: str
    arguments: JsonObject
    """As they would be executed."""
    digest: str
    """SHA-256 of name and arguments: what an approval is bound to."""
    expires_at: datetime
    """Without an answer by then, the call is denied."""


class ToolStarted(FactBase, frozen=True, tag="tool_started"):
    """Written before the effect, so that a crash leaves a visible open call."""

    call: CallId
    name: str
    arguments: JsonObject
    """As they will be executed: after repair and validation."""
    repairs: tuple[str, ...] = ()
    """What was mended between what the model asked and this, in words."""
    expires_at: datetime | None = None
    """Given, the call is for a client, which has until then to send its result."""


class PartShown(FactBase, frozen=True, tag="part_shown"):
    """A call that runs showed something to people.  Says nothing to models."""

    call: CallId
    part: Shown
    """What it showed."""


class ToolFinished(FactBase, frozen=True, tag="tool_finished"):
    """The one outcome of a call.  `unknown`: a worker died in it and it may not be run twice."""

    call: CallId
    outcome: Outcome
    output: str
    """What the model reads."""
    file: str | None = None
    """Where the whole output is kept when `output` had to be shortened."""
    principal: PrincipalId | None = None
    """Who sent the result of a client's call."""


class RunEnded(FactBase, frozen=True, tag="run_ended"):
    """The run's one end.  `reason` is None for an ordinary `done`."""

    status: RunStatus
    usage: Usage
    reason: str | None = None


class Unknown(Struct, frozen=True, kw_only=True):
    """A fact of a newer build: passed on untouched; this build does not drive a run that holds one."""

    run: RunId | None
    kind: str


Fact: TypeAlias = (
    UserSpoke
    | MessageScheduled
    | RunRated
    | RunWithdrawn
    | CancelRequested
    | ApprovalGiven
    | SessionForked
    | SessionRewound
    | ConversationEdited
    | InputProcessed
    | InputDropped
    | RunClaimed
    | RunStarted
    | ModelAsked
    | ModelReplied
    | ModelFailed
    | AttemptDropped
    | ApprovalAsked
    | ToolStarted
    | PartShown
    | ToolFinished
    | RunEnded
)
KIND_OF = {member: str(member.__struct_config__.tag) for member in get_args(Fact)}


class Event(Struct, kw_only=True):
    """A fact, where and when it was written, and its JSON as stored.  Immutable but for `wire`."""

    session: SessionId
    seq: Seq
    at: float
    """Unix seconds, from the store's clock."""
    fact: Fact | Unknown
    raw: bytes
    """The fact's JSON, `kind` first."""
    asked: Seq = START
    offset: int = 0
    """Which attempt was in flight when this became known, and how much of it had come before."""
    wire: bytes | None = None
    """Room for a face to keep the frame it made, so that many watchers cost one encoding."""
    text: str | None = None
    """As `wire`, of a face that sends text."""

    @property
    def kind(self) -> str:
        fact = self.fact
        return fact.kind if isinstance(fact, Unknown) else KIND_OF[type(fact)]
