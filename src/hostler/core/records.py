"""What stores keep beside the log, as rows, and what they take and give.

Invariant: every row could be rebuilt from the logs, but for labels, shares and kept answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from msgspec import UNSET, Struct, UnsetType

from hostler.core.events import (
    CallId,
    ClientTool,
    Event,
    InputId,
    JsonObject,
    PrincipalId,
    RunId,
    RunStatus,
    Seq,
    SessionId,
    TenantId,
    Usage,
)
from hostler.core.head import Head
from hostler.core.memory import Past


class Segment(NamedTuple):
    """A part of a fork's history: what `session` said up to `upto`, and after the segment before."""

    session: SessionId
    upto: Seq


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
    client_tools: tuple[ClientTool, ...] = ()
    lineage: tuple[Segment, ...] = ()
    """Whose history a fork begins with, oldest first."""
    head: Head = Head()


class Labels(Struct, frozen=True, kw_only=True):
    """What a session shall be called; UNSET: as it is."""

    title: str | UnsetType | None = UNSET
    metadata: JsonObject | UnsetType = UNSET


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
    """Once it has ended; its cost is None when any call's is."""
    owner: PrincipalId = PrincipalId("")
    """Whose session it is in."""
    principal: PrincipalId = PrincipalId("")
    """Who spoke first in it."""
    purpose: str | None = None
    steps: int = 0
    unpriced_calls: int = 0
    error_type: str | None = None
    """Of the last attempt at a reply, if it failed."""
    error_message: str | None = None
    input_summary: str = ""
    output_summary: str = ""


class Approval(Struct, kw_only=True):
    """A request for an approval, as the log tells it."""

    tenant: TenantId
    session: SessionId
    run: RunId
    call: CallId
    name: str
    arguments: JsonObject
    digest: str
    asked_at: float
    expires_at: float
    status: Literal["open", "allow", "deny", "closed"] = "open"
    """`closed`: it expired, or its run ended, before anybody answered."""
    principal: PrincipalId | None = None
    reason: str | None = None
    answered_at: float | None = None


class Timer(NamedTuple):
    """A message that is to be said at a time."""

    input: InputId
    seq: Seq
    """Where its `message_scheduled` is."""
    at: float
    """Unix seconds."""


class Share(Struct, kw_only=True):
    """A link with which anybody may read one session until it expires."""

    tenant: TenantId
    id: str
    session: SessionId
    digest: str
    """SHA-256 of the token; the token itself is kept nowhere."""
    principal: PrincipalId
    created_at: float
    expires_at: float


class Storage(Struct, kw_only=True):
    """What a tenant's sessions take."""

    sessions: int
    events: int
    fact_bytes: int
    largest: tuple[tuple[SessionId, int, int], ...]
    """(session, events, bytes of facts), largest first."""
    database_bytes: int = 0
    """Of all tenants, with indexes and free space; 0 for a store without a file."""


class Once(NamedTuple):
    """Makes a write happen once: its answer is kept with it, in the same commit."""

    scope: str
    """Who asked for what, and the idempotency key they gave."""
    digest: str
    """Of the body: the same key with another body is a mistake."""
    answer: Callable[[Appended], bytes]
    """Makes the answer to keep; pure and quick, called by whoever writes."""


class Kept(NamedTuple):
    """The answer to a write that was made before."""

    digest: str
    answer: bytes


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
    client_tools: Sequence[ClientTool]
    past: Past
    events: Sequence[Event]
