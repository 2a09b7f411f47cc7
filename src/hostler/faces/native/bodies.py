"""The JSON bodies of the native API, in and out.

Invariant: times are RFC 3339, and what may be null is there as null.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UNSET, Struct, UnsetType

from hostler.core.errors import Invalid
from hostler.core.events import Content, Fault, JsonObject, Policy, TextPart, Usage
from hostler.core.ports import AgentSpec, RunRow, Session
from hostler.faces.native.wire import stamp
from hostler.service.runs import RunDetail

DEEPEST = 32
"""Levels of nesting in what clients attach; see also the limits page of the documentation."""


class NewSession(Struct, kw_only=True, forbid_unknown_fields=True):
    agent: str | None = None
    title: str | None = None
    metadata: JsonObject | None = None
    id: str | None = None


class Labels(Struct, kw_only=True, forbid_unknown_fields=True):
    title: str | UnsetType | None = UNSET
    metadata: JsonObject | UnsetType = UNSET


class NewMessage(Struct, kw_only=True, forbid_unknown_fields=True):
    content: Content
    policy: Policy | None = None
    metadata: JsonObject = {}


class NewCancel(Struct, kw_only=True, forbid_unknown_fields=True):
    reason: str | None = None


class SessionView(Struct, kw_only=True):
    id: str
    agent: str
    title: str | None
    metadata: JsonObject
    status: str
    created_at: str
    updated_at: str
    seq: int


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


class ModelCallView(Struct, kw_only=True):
    attempt: str
    provider: str
    model: str
    status: str
    asked_at: str
    ended_at: str | None
    usage: Usage | None
    error: Fault | None


class ToolCallView(Struct, kw_only=True):
    call: str
    name: str
    arguments: JsonObject
    status: str
    started_at: str
    ended_at: str | None
    output: str | None


class RunDetailView(Struct, kw_only=True):
    run: RunView
    model_calls: list[ModelCallView]
    tool_calls: list[ToolCallView]


class AgentView(Struct, kw_only=True):
    name: str
    description: str
    models: list[str]
    tools: list[str]
    policy: Policy
    max_steps: int


class Me(Struct, kw_only=True):
    id: str
    tenant: str
    role: str


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


class Frame(Struct, kw_only=True):
    id: str
    event: str
    data: JsonObject


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
    errors: list[dict[str, str]] | None = None


def view_session(session: Session) -> SessionView:
    return SessionView(
        id=session.id,
        agent=session.agent,
        title=session.title,
        metadata=session.metadata,
        status=session.head.status,
        created_at=stamp(session.created_at),
        updated_at=stamp(session.updated_at),
        seq=session.head.seq,
    )


def view_run(run: RunRow) -> RunView:
    return RunView(
        id=run.id,
        session=run.session,
        input=run.input,
        agent=run.agent,
        status=run.status,
        reason=run.reason,
        created_at=stamp(run.created_at),
        started_at=_stamp(run.started_at),
        ended_at=_stamp(run.ended_at),
        first_seq=run.first_seq,
        last_seq=run.last_seq,
        usage=run.usage,
    )


def view_detail(detail: RunDetail) -> RunDetailView:
    return RunDetailView(
        run=view_run(detail.run),
        model_calls=[
            ModelCallView(
                attempt=call.attempt,
                provider=call.provider,
                model=call.model,
                status=call.status,
                asked_at=stamp(call.asked_at),
                ended_at=_stamp(call.ended_at),
                usage=call.usage,
                error=call.error,
            )
            for call in detail.model_calls
        ],
        tool_calls=[
            ToolCallView(
                call=call.call,
                name=call.name,
                arguments=call.arguments,
                status=call.status,
                started_at=stamp(call.started_at),
                ended_at=_stamp(call.ended_at),
                output=call.output,
            )
            for call in detail.tool_calls
        ],
    )


def view_agent(agent: AgentSpec) -> AgentView:
    return AgentView(
        name=agent.name,
        description=agent.description,
        models=[f"{model.provider}:{model.name}" for model in agent.models],
        tools=[spec.name for spec in agent.tools.specs],
        policy=agent.policy,
        max_steps=agent.limits.max_steps,
    )


def check_message(message: NewMessage) -> None:
    """Refuse what has the form of a message and is none.

    Raises:
        Invalid: it says nothing, a part is incomplete, or the metadata is nested too deeply.
    """
    check_depth("/metadata", message.metadata)
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
        one_of = (part.url is None) != (part.data is None)
        if not one_of or (part.data is not None and not part.media_type):
            wanted = "either url, or data (base64) with media_type"
            raise Invalid(f"part {place} needs {wanted}", fields=[(f"/content/{place}", wanted)])


def check_depth(pointer: str, value: object) -> None:
    """Refuse deep nesting, which every later reader would have to survive.

    Raises:
        Invalid: deeper than `DEEPEST`.
    """
    level: list[object] = [value]
    for _ in range(DEEPEST):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return
    raise Invalid("nested too deeply", fields=[(pointer, f"at most {DEEPEST} levels")])


def _inside(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _stamp(at: float | None) -> str | None:
    return None if at is None else stamp(at)
