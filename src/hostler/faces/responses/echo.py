"""What a response object tells of its request, as it is kept with the message, and the object.

Most of it stands in the log anyway: who answers, instructions, tools, what is wanted.  The rest
is a small object in the metadata of the message.

Invariant: pure; the same message gives the same object, and every key is there, null if unset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from hostler.beside.responses import OPENAI, Echo
from hostler.core.events import ClientTool, JsonObject, ToolCall, Usage
from hostler.core.terms import NO_TERMS, Terms

SERVER = "hostler"
"""The label of the server whose tools an agent's own are said to be."""
_FREE_TEXT: JsonObject = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


_NOBODY = Echo()


class About(Struct, frozen=True, kw_only=True):
    """A request, as its response tells of it."""

    id: str
    created_at: int
    model: str
    echo: Echo = _NOBODY
    terms: Terms = NO_TERMS
    tools: Sequence[ClientTool] = ()


def kept(echo: Echo) -> JsonObject:
    """Return the metadata of a message with it."""
    return {OPENAI: msgspec.to_builtins(echo)}


def digest(tools: Sequence[ClientTool]) -> str:
    if not tools:
        return ""
    return hashlib.blake2b(msgspec.json.encode(tools), digest_size=12).hexdigest()


def response(
    about: About,
    status: str,
    output: Sequence[JsonObject] = (),
    *,
    usage: Usage | None = None,
    error: JsonObject | None = None,
    incomplete: str | None = None,
    completed_at: int | None = None,
) -> JsonObject:
    """Return the response object."""
    echo, terms = about.echo, about.terms
    wanted = terms.wanted
    return {
        "id": about.id,
        "object": "response",
        "created_at": about.created_at,
        "status": status,
        "background": echo.background,
        "completed_at": completed_at,
        "conversation": None if echo.conversation is None else {"id": echo.conversation},
        "error": error,
        "frequency_penalty": 0.0,
        "incomplete_details": None if incomplete is None else {"reason": incomplete},
        "instructions": _instructions(about),
        "max_output_tokens": terms.max_output_tokens,
        "max_tool_calls": echo.max_tool_calls,
        "model": about.model,
        "output": output,
        "parallel_tool_calls": wanted.parallel,
        "presence_penalty": 0.0,
        "previous_response_id": echo.previous,
        "prompt_cache_key": echo.prompt_cache_key,
        "prompt_cache_retention": None,
        "reasoning": {"effort": wanted.effort, "summary": echo.summary},
        "safety_identifier": echo.safety_identifier,
        "service_tier": "default",
        "store": echo.store,
        "temperature": 1.0 if wanted.temperature is None else wanted.temperature,
        "text": _text(about),
        "tool_choice": _choice(about),
        "tools": [*_tools(about)],
        "top_logprobs": 0,
        "top_p": 1.0 if wanted.top_p is None else wanted.top_p,
        "truncation": echo.truncation,
        "usage": None if usage is None else usage_of(usage),
        "user": echo.user,
        "metadata": echo.metadata,
    }


def usage_of(usage: Usage) -> JsonObject:
    """Return what was used, under OpenAI's names."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _instructions(about: About) -> str | None:
    said, own = about.terms.instructions, about.echo.own
    return said if own is None or said is None else said[:own] or None


def _text(about: About) -> JsonObject:
    wanted, told = about.terms.wanted, about.echo.format
    if wanted.json_schema is not None:
        told = told or {"name": "answer"}
        format_: JsonObject = {
            "type": "json_schema",
            "name": told.get("name", "answer"),
            "description": told.get("description"),
            "schema": wanted.json_schema,
            "strict": told.get("strict", True),
        }
    else:
        format_ = {"type": "json_object" if wanted.json else "text"}
    return {"format": format_, "verbosity": about.echo.verbosity or "medium"}


def _choice(about: About) -> object:
    wanted, echo = about.terms.wanted, about.echo
    if echo.choice is not None:
        return echo.choice
    if wanted.tool is not None:
        kind = "custom" if wanted.tool in echo.custom else "function"
        return {"type": kind, "name": called(echo, wanted.tool)[1]}
    return {"any": "auto", "none": "none", "some": "required"}[wanted.calls]


def _tools(about: About) -> Sequence[JsonObject]:
    """Return the tools as they were given; those of a namespace together."""
    echo, told = about.echo, list[JsonObject]()
    spaces = dict[str, list[JsonObject]]()
    for tool in about.tools:
        space, name = called(echo, tool.name)
        into = told
        if space is not None:
            if space not in spaces:
                spaces[space] = []
                about_it = {"name": space, "description": "", "tools": spaces[space]}
                told.append({"type": "namespace", **about_it})
            into = spaces[space]
        described: JsonObject = {"name": name, "description": tool.description or None}
        if tool.name in echo.custom:
            into.append({"type": "custom", **described, "format": {"type": "text"}})
            continue
        own = {"parameters": tool.parameters or None, "strict": echo.strict.get(tool.name)}
        into.append({"type": "function", **described, **own})
    return told


def called(echo: Echo, tool: str) -> tuple[str | None, str]:
    """Return namespace and name of a tool as its client calls it."""
    return echo.spaces.get(tool, (None, tool))


def free_text() -> JsonObject:
    """Return the schema of a tool that is called with text."""
    return _FREE_TEXT


def text_in(arguments: Mapping[str, object]) -> str:
    """Return the free text that such a tool is called with."""
    said = arguments.get("input")
    return said if isinstance(said, str) else msgspec.json.encode(arguments).decode()


def arguments_of(call: ToolCall) -> str:
    """Return the arguments as the model wrote them, or as it meant them."""
    if call.unparsed is not None:
        return call.unparsed
    return msgspec.json.encode(call.arguments).decode()
