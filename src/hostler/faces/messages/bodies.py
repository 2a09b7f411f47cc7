"""Bodies of the Messages API, as they come and as they go.

Invariant: what nobody here knows (fields, betas, kinds of blocks) is no error; null is as left out.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from hostler.core.events import JsonObject

Blocks: TypeAlias = str | list[JsonObject] | None


class Spoken(Struct, frozen=True, kw_only=True):
    """A message of the conversation; `system` may stand anywhere in it."""

    role: str
    content: Blocks = None


class Step(Spoken, frozen=True, kw_only=True):
    """A part of a message of the client's: its message, and the first of its blocks there."""

    message: int
    block: int


class GivenTool(Struct, frozen=True, kw_only=True):
    """A tool of the client's.  One without a schema is the vendor's own, and is left out."""

    name: str | None = None
    description: str | None = None
    input_schema: JsonObject | None = None


class ToolChoice(Struct, frozen=True, kw_only=True):
    type: str = "auto"
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct, frozen=True, kw_only=True):
    type: str = "disabled"
    budget_tokens: int | None = None


class Format(Struct, frozen=True, kw_only=True):
    type: str = ""
    schema: JsonObject | None = None


class OutputConfig(Struct, frozen=True, kw_only=True):
    effort: str | None = None
    format: Format | None = None


class NewCount(Struct, frozen=True, kw_only=True):
    """A question whose tokens are to be counted."""

    model: str
    messages: Annotated[list[Spoken], Meta(min_length=1)]
    system: Blocks = None
    tools: list[GivenTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None


class NewQuestion(NewCount, frozen=True, kw_only=True):
    """A question, as clients of Anthropic's API send it."""

    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None


class Count(Struct, frozen=True, kw_only=True):
    """An estimate, by characters."""

    input_tokens: int


class CacheCreation(Struct, frozen=True, kw_only=True):
    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class ThinkingDetails(Struct, frozen=True, kw_only=True):
    thinking_tokens: int = 0


class MessageUsage(Struct, frozen=True, kw_only=True):
    """Tokens; `input_tokens` are those that the provider's cache had nothing to do with."""

    input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation: CacheCreation | None = None
    output_tokens: int = 0
    output_tokens_details: ThinkingDetails | None = None
    server_tool_use: None = None
    service_tier: Literal["standard"] = "standard"
    inference_geo: None = None


class Message(Struct, frozen=True, kw_only=True):
    """An answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[JsonObject]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    """Which one ended it, where the provider says so."""
    stop_details: None = None
    container: None = None
    usage: MessageUsage


class Wrong(Struct, frozen=True, kw_only=True):
    type: str
    message: str


class ErrorBody(Struct, frozen=True, kw_only=True):
    """What went wrong, as clients of Anthropic's API are told."""

    type: Literal["error"] = "error"
    error: Wrong
    request_id: str
