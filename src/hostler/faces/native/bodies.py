"""The JSON bodies of the native API, in and out.

Invariant: times are RFC 3339, and what may be null is there as null.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, Struct, UnsetType

from hostler.core.errors import Invalid
from hostler.core.events import (
    ClientTool,
    Fault,
    JsonObject,
    Policy,
    Priority,
    RunId,
    Usage,
    Verdict,
)
from hostler.core.said import Content, TextPart
from hostler.service.inbox import Message, Receipt


class NewSession(Struct, kw_only=True, forbid_unknown_fields=True):
    agent: str | None = None
    title: str | None = None
    metadata: JsonObject | None = None
    id: str | None = None
    client_tools: tuple[ClientTool, ...] = ()


class Labels(Struct, kw_only=True, forbid_unknown_fields=True):
    title: str | UnsetType | None = UNSET
    metadata: JsonObject | UnsetType = UNSET


class NewMessage(Struct, kw_only=True, forbid_unknown_fields=True):
    content: Content
    policy: Policy | None = None
    metadata: JsonObject = {}
    purpose: str | None = None
    """What the run is for, to find runs and sum costs by."""
    priority: Priority = "normal"
    """`low`: if it begins a run, that gives way to all others that wait to be driven."""
    client_tools: tuple[ClientTool, ...] | None = None
    """What the session's clients bring from here on; null: as before."""
    at: datetime | None = None
    """When it is said, with a zone, up to 366 days ahead; null: now."""


class NewCancel(Struct, kw_only=True, forbid_unknown_fields=True):
    reason: str | None = None
    run: RunId | None = None


class NewDecision(Struct, kw_only=True, forbid_unknown_fields=True):
    decision: Verdict
    arguments: JsonObject | None = None
    reason: str | None = None
    remember: bool = False
    digest: str | None = None


class NewResult(Struct, kw_only=True, forbid_unknown_fields=True):
    output: object
    """Text, or any JSON, which the model then reads as JSON."""
    is_error: bool = False


class NewFork(Struct, kw_only=True, forbid_unknown_fields=True):
    at: int | None = None
    title: str | None = None


class NewShare(Struct, kw_only=True, forbid_unknown_fields=True):
    expires_in_s: float = 7 * 86_400


class NewTicket(Struct, kw_only=True, forbid_unknown_fields=True):
    """Nothing has to be said."""


class NewTyping(Struct, kw_only=True, forbid_unknown_fields=True):
    """Nothing has to be said."""


class Ticket(Struct, kw_only=True):
    ticket: str
    expires_in_s: int


class ShareView(Struct, kw_only=True):
    id: str
    session: str
    principal: str
    """Who made it."""
    created_at: str
    expires_at: str


class NewShareView(ShareView, kw_only=True):
    token: str
    """Shown this once."""
    url: str
    """The session's events, for whoever has this; relative to this server."""


class SharePage(Struct, kw_only=True):
    items: list[ShareView]
    cursor: str | None
    more: bool


class SessionView(Struct, kw_only=True):
    id: str
    agent: str
    title: str | None
    metadata: JsonObject
    client_tools: tuple[ClientTool, ...]
    status: str
    waits: list[WaitView]
    forked: ForkView | None
    created_at: str
    updated_at: str
    seq: int
    watching: int = 0
    """Streams whose owners let others see that they watch."""


class WaitView(Struct, kw_only=True):
    call: str
    kind: str
    expires_at: str


class ForkView(Struct, kw_only=True):
    """Where a fork's history comes from."""

    session: str
    at: int


class ApprovalView(Struct, kw_only=True):
    call: str
    session: str
    run: str
    name: str
    arguments: JsonObject
    digest: str
    status: str
    asked_at: str
    expires_at: str
    principal: str | None
    reason: str | None
    answered_at: str | None


class ApprovalPage(Struct, kw_only=True):
    items: list[ApprovalView]
    cursor: str | None
    more: bool


class WaitingFor(Struct, kw_only=True):
    call: str
    kind: str


class WaitingReceipt(Receipt, frozen=True, kw_only=True):
    """A receipt; with `waiting` for a caller who waited for the end of a run that waits itself."""

    waiting: WaitingFor | UnsetType = UNSET
    due_at: datetime | UnsetType = UNSET
    """Of a message that is `scheduled`."""


class RunView(Struct, kw_only=True):
    id: str
    session: str
    input: str
    agent: str
    status: str
    reason: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    first_seq: int
    last_seq: int | None
    usage: Usage | None
    """Once it has ended."""
    user: str
    """Who spoke first in it."""
    purpose: str | None
    steps: int
    """Replies of models."""
    unpriced_calls: int
    """Model calls that may have cost something, and what is not known."""
    error: Fault | None
    """Of the last attempt at a reply, if it failed."""
    input_summary: str
    output_summary: str


class ModelCallView(Struct, kw_only=True):
    attempt: str
    provider: str
    model: str
    status: str
    asked_at: str
    ended_at: str | None
    usage: Usage | None
    error: Fault | None
    step: int
    """1 for the run's first reply."""
    number: int
    """Of the attempts at this reply."""
    latency_s: float | None
    first_token_s: float | None


class ToolCallView(Struct, kw_only=True):
    call: str
    name: str
    arguments: JsonObject
    status: str
    started_at: str
    ended_at: str | None
    output: str | None
    latency_s: float | None


class FeedbackView(Struct, kw_only=True):
    run: str
    user: str
    """Who rated it."""
    key: str
    score: float
    comment: str | None
    at: str


class RunDetailView(Struct, kw_only=True):
    run: RunView
    model_calls: list[ModelCallView]
    tool_calls: list[ToolCallView]
    feedback: list[FeedbackView]


class AgentView(Struct, kw_only=True):
    name: str
    description: str
    models: list[str]
    tools: list[str]
    policy: Policy
    max_steps: int


class Me(Struct, kw_only=True):
    id: str
    """What facts call you: the user, or the key where there is no user."""
    tenant: str
    role: str
    user: str | None
    scopes: list[str] | None
    """null: all that the role has."""
    is_operator: bool
    """Yours is the admin key."""
    key: str | None
    prefix: str | None
    """The first characters of your key."""
    expires_at: str | None


class Capabilities(Struct, kw_only=True):
    version: str
    policies: list[str]
    transports: list[str]


class HitView(Struct, kw_only=True):
    session: str
    seq: int
    kind: str
    snippet: str


class Health(Struct, kw_only=True):
    status: str


class SessionPage(Struct, kw_only=True):
    items: list[SessionView]
    cursor: str | None
    more: bool


class RunPage(Struct, kw_only=True):
    items: list[RunView]
    cursor: str | None
    more: bool


class HitPage(Struct, kw_only=True):
    items: list[HitView]
    cursor: str | None
    more: bool


class AgentPage(Struct, kw_only=True):
    items: list[AgentView]
    cursor: str | None
    more: bool


class FactView(Struct, kw_only=True):
    """A fact as it is in the log; the reference has the further fields of each kind."""

    seq: int
    at: str
    session: str
    kind: str
    run: str | None


class Frame(Struct, kw_only=True):
    id: str
    event: str
    data: JsonObject


class SizeView(Struct, kw_only=True):
    session: str
    """The id; of a deleted session, what forks still read of it is counted."""
    events: int
    fact_bytes: int


class StorageView(Struct, kw_only=True):
    sessions: int
    events: int
    fact_bytes: int
    """Of the facts as JSON."""
    database_bytes: int
    """Of the database of all tenants, with indexes and free space; 0 for one in memory."""
    largest: list[SizeView]


class EventPage(Struct, kw_only=True):
    events: list[Frame]
    cursor: str
    more: bool


class Problem(Struct, kw_only=True):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None = None
    """As in the header `X-Request-Id`: the server's log has more under it."""
    errors: list[dict[str, str]] | None = None


def check_message(message: NewMessage) -> None:
    """Refuse what has the form of a message and is none.

    Raises:
        Invalid: it says nothing, or a part is incomplete.
    """
    content = message.content
    if isinstance(content, str):
        if not content:
            raise Invalid("content is empty", fields=[("/content", "at least one character")])
        return
    if not content:
        raise Invalid("content is empty", fields=[("/content", "at least one part")])
    for place, part in enumerate(content):
        if isinstance(part, TextPart):
            continue
        if (part.url is None) == (part.data is None) or (part.url is None and not part.media_type):
            wanted = "either url, or data (base64) with media_type"
            raise Invalid(f"part {place} needs {wanted}", fields=[(f"/content/{place}", wanted)])


def message_of(body: NewMessage, policy: Policy) -> Message:
    """Return what is said, as the service takes it."""
    return Message(
        content=body.content,
        policy=policy,
        metadata=body.metadata,
        purpose=body.purpose,
        priority=body.priority,
        client_tools=body.client_tools,
    )
