"""How a request wants to be answered: terms of a run, tools that its client brings, and an echo.

Invariant: pure; whatever a client may say is honoured, told as an error, or means nothing here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import structs

from hostler.beside.responses import Echo
from hostler.core.errors import Invalid
from hostler.core.events import ClientTool, JsonObject, Principal
from hostler.core.ports import Request, ToolSpec
from hostler.core.said import Said
from hostler.core.terms import AS_IT_IS, Terms, Wanted
from hostler.faces.http.endpoint import Call
from hostler.faces.responses.bodies import (
    ConversationId,
    GivenTool,
    InputItem,
    NewResponse,
    Question,
    ToolChoice,
)
from hostler.faces.responses.echo import digest, free_text
from hostler.faces.responses.ids import conversation_id, read_conversation
from hostler.faces.responses.items import flat

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
CHOICES = {"auto": "any", "none": "none", "required": "some"}
FORMATS = ("text", "json_object", "json_schema")
TRUNCATIONS = ("auto", "disabled")
NO_PARAMETERS: JsonObject = {"type": "object", "properties": {}}
CLIENT_S = 30 * 86_400.0
"""How long a client has to answer a call: as long as OpenAI keeps a response."""
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(slots=True, kw_only=True)
class Continuing(Call):
    """A request that has in its input all that it follows, and what that was called."""

    previous: str | None = None


def previous_of(call: Call, echo: Echo) -> Echo:
    """Return an echo with the name of what a request follows, whoever knew it."""
    if isinstance(call, Continuing) and call.previous is not None:
        return structs.replace(echo, previous=call.previous)
    return echo


class Asked(NamedTuple):
    """A request but for what it says."""

    terms: Terms
    echo: Echo
    tools: tuple[ClientTool, ...]


def asked(body: Question, lead: Sequence[str]) -> Asked:
    """Return what is asked; `lead`: what its items instruct.

    Raises:
        Invalid: something cannot be asked so; names the field.
    """
    tools, echo = _tools(body)
    wanted = _wanted(body)
    told = [one for one in (body.instructions, *lead) if one]
    terms = Terms(
        instructions="\n\n".join(told) or None,
        max_output_tokens=body.max_output_tokens if isinstance(body, NewResponse) else None,
        wanted=AS_IT_IS if wanted == AS_IT_IS else wanted,
        ends_unanswered=True,
    )
    return Asked(
        terms, _echo(body, echo, own=len(body.instructions or "") if lead else None), tools
    )


def request_of(asked: Asked, said: Sequence[Said], who: Principal) -> Request:
    """Return the question to a model that is asked with no session."""
    terms = asked.terms
    return Request(
        system=terms.instructions or "",
        transcript=said,
        tools=[
            ToolSpec(
                name=one.name,
                description=one.description,
                parameters=one.parameters or NO_PARAMETERS,
            )
            for one in asked.tools
        ],
        session=_cache_key(asked.echo.prompt_cache_key, who),
        max_output_tokens=terms.max_output_tokens,
        wanted=terms.wanted,
    )


def input_of(body: Question) -> Sequence[InputItem]:
    """Return the items of the request."""
    if body.input is None or isinstance(body.input, str):
        return [InputItem(type="message", role="user", content=body.input)] if body.input else []
    return body.input


def conversation_of(body: Question) -> str | None:
    """Return which conversation the request is said in, by our name of it.

    Raises:
        Invalid: it is none, or a response is named, too.
    """
    given = body.conversation
    if given is None:
        return None
    if body.previous_response_id is not None:
        told = "name a conversation or a previous response, not both"
        raise Invalid(told, fields=[("/previous_response_id", told)])
    name = given.id if isinstance(given, ConversationId) else given
    session = read_conversation(name)
    return name if session is None else conversation_id(session)


def _cache_key(key: str | None, who: Principal) -> str:
    """Return the client's key for the prompt cache, so that it is nobody else's."""
    if not key:
        return ""
    return hashlib.sha256(f"{who.tenant}\0{who.id}\0{key}".encode()).hexdigest()[:32]


def _echo(body: Question, of_tools: Echo, *, own: int | None) -> Echo:
    if not isinstance(body, NewResponse):
        return of_tools
    text, reasoning, choice = body.text, body.reasoning, body.tool_choice
    format_ = None if text is None else text.format
    truncation = _one_of("truncation", body.truncation, TRUNCATIONS) or "disabled"
    return Echo(
        background=bool(body.background),
        store=body.store is not False,
        metadata=body.metadata or {},
        previous=body.previous_response_id,
        conversation=conversation_of(body),
        include=tuple(body.include or ()),
        truncation=truncation,
        verbosity=None if text is None else text.verbosity,
        summary=None if reasoning is None else reasoning.summary or reasoning.generate_summary,
        format=None
        if format_ is None or format_.type != "json_schema"
        else {
            "name": format_.name,
            "description": format_.description,
            "strict": format_.strict is not False,
        },
        choice=_allowed(choice) if isinstance(choice, ToolChoice) else None,
        max_tool_calls=body.max_tool_calls,
        prompt_cache_key=body.prompt_cache_key,
        safety_identifier=body.safety_identifier,
        user=body.user,
        own=own,
        tools=of_tools.tools,
        strict=of_tools.strict,
        custom=of_tools.custom,
        spaces=of_tools.spaces,
    )


def _allowed(choice: ToolChoice) -> JsonObject | None:
    if choice.type != "allowed_tools":
        return None
    tools = [{"type": one.type or "function", "name": one.name} for one in choice.tools]
    return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}


def echo_of_items(items: Sequence[InputItem], roles: dict[str, str]) -> Echo:
    """Return what has to be told again of items that come with no request."""
    custom, spaces = set[str](), dict[str, tuple[str, str]]()
    for item in items:
        if isinstance(item.name, str):
            name = flat(item.namespace, item.name)
            if item.type == "custom_tool_call":
                custom.add(name)
            if isinstance(item.namespace, str) and item.namespace:
                spaces[name] = (item.namespace, item.name)
    return Echo(roles=roles, custom=tuple(sorted(custom)), spaces=spaces)


# -- tools ------------------------------------------------------------------------------------


def _tools(body: Question) -> tuple[tuple[ClientTool, ...], Echo]:
    """Return the tools that clients run, and what of them is told in an echo."""
    choice, allowed = body.tool_choice, None
    if isinstance(choice, ToolChoice) and choice.type == "allowed_tools":
        allowed = {one.name for one in choice.tools}
    made, strict = list[ClientTool](), dict[str, bool]()
    custom, spaces = list[str](), dict[str, tuple[str, str]]()
    for at, space, tool in _each(body.tools or ()):
        own = tool.name or ""
        name = flat(space, own)
        if allowed is not None and own not in allowed and (space or own) not in allowed:
            continue
        if not _NAME.fullmatch(name):
            told = "a tool's name is 1 to 64 letters, digits, _ and -"
            raise Invalid(told, fields=[(f"/tools/{at}/name", told)])
        if space is not None:
            spaces[name] = (space, own)
        if tool.type == "custom":
            custom.append(name)
        elif tool.strict is not None:
            strict[name] = tool.strict
        made.append(
            ClientTool(
                name=name,
                description=tool.description or "",
                parameters=free_text() if tool.type == "custom" else tool.parameters or {},
                timeout_s=CLIENT_S,
            )
        )
    tools = tuple(made)
    echo = Echo(tools=digest(tools), strict=strict, custom=tuple(custom), spaces=spaces)
    return tools, echo


def _each(
    tools: Sequence[GivenTool], space: str | None = None
) -> Sequence[tuple[int, str | None, GivenTool]]:
    """Return the tools that can be called by a client, each with its namespace."""
    found = list[tuple[int, str | None, GivenTool]]()
    for at, tool in enumerate(tools):
        if tool.type in ("function", "custom"):
            found.append((at, space, tool))
        elif tool.type == "namespace" and space is None:
            found += _each(tool.tools or (), tool.name or "")
    return found


# -- what is wanted ---------------------------------------------------------------------------


def _wanted(body: Question) -> Wanted:
    is_json, schema = _format(body)
    calls, tool = _choice(body.tool_choice)
    effort = None if body.reasoning is None else body.reasoning.effort
    is_new = isinstance(body, NewResponse)
    return Wanted(
        temperature=body.temperature if is_new else None,
        top_p=body.top_p if is_new else None,
        calls="none" if calls == "none" else "some" if calls == "some" else "any",
        tool=tool,
        parallel=body.parallel_tool_calls is not False,
        json=is_json,
        json_schema=schema,
        effort=_one_of("reasoning/effort", effort, EFFORTS),
    )


def _choice(choice: str | ToolChoice | None) -> tuple[str, str | None]:
    if isinstance(choice, ToolChoice):
        if choice.type in ("function", "custom"):
            return "any", choice.name
        choice = choice.mode if choice.type == "allowed_tools" else "auto"
    return CHOICES[_one_of("tool_choice", choice, tuple(CHOICES)) or "auto"], None


def _format(body: Question) -> tuple[bool, JsonObject | None]:
    given = None if body.text is None else body.text.format
    if given is None:
        return False, None
    kind = _one_of("text/format/type", given.type, FORMATS)
    if kind != "json_schema":
        return kind == "json_object", None
    if given.schema is None:
        told = "text.format of type 'json_schema' needs a schema"
        raise Invalid(told, fields=[("/text/format/schema", told)])
    return True, given.schema


def _one_of(name: str, word: str | None, allowed: Sequence[str]) -> str | None:
    if word is None or word in allowed:
        return word
    told = f"{word[:40]!r} is none of: {', '.join(allowed)}"
    raise Invalid(told, fields=[(f"/{name}", told)])
