"""What clients of Responses send: fields that are read; all others are passed over.

Invariant: null is as good as absent, and what has no meaning here is never an error.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from hostler.core.events import JsonObject

MOST_TOKENS = 2**31 - 1
MOST_LABELS, LONGEST_LABEL, LONGEST_VALUE = 16, 64, 512
Tokens: TypeAlias = Annotated[int, Meta(ge=1, le=MOST_TOKENS)]
Label: TypeAlias = Annotated[str, Meta(max_length=LONGEST_LABEL)]
Value: TypeAlias = Annotated[str, Meta(max_length=LONGEST_VALUE)]
Metadata: TypeAlias = Annotated[dict[Label, Value], Meta(max_length=MOST_LABELS)]
Name: TypeAlias = Annotated[str, Meta(max_length=LONGEST_VALUE)]


class InputItem(Struct, kw_only=True):
    """An item of any type; which fields mean something depends on that."""

    type: str | None = None
    id: object = None
    role: object = None
    content: object = None
    """Text, or parts."""
    call_id: object = None
    name: object = None
    namespace: object = None
    arguments: object = None
    input: object = None
    output: object = None
    summary: object = None
    encrypted_content: object = None
    approval_request_id: object = None
    approve: object = None
    reason: object = None
    error: object = None


class InputPart(Struct, kw_only=True):
    type: str = "input_text"
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    file_id: str | None = None


Input: TypeAlias = str | list[InputItem]


class GivenTool(Struct, kw_only=True):
    """A function, one with free text (`custom`), or a `namespace` of these; others are ignored."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None
    tools: list[GivenTool] | None = None


class NamedTool(Struct, kw_only=True):
    type: str = ""
    name: str | None = None


class ToolChoice(Struct, kw_only=True):
    type: str
    name: str | None = None
    mode: str = "auto"
    tools: list[NamedTool] = []


class Reasoning(Struct, kw_only=True):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class TextFormat(Struct, kw_only=True):
    type: str = "text"
    name: str = ""
    description: str | None = None
    schema: JsonObject | None = None
    strict: bool | None = None


class Text(Struct, kw_only=True):
    format: TextFormat | None = None
    verbosity: str | None = None


class ConversationId(Struct, kw_only=True):
    id: str


class Question(Struct, kw_only=True):
    """What is asked, and how: the part that a count of its tokens reads, too."""

    model: str | None = None
    """`provider:model`, the bare name of a model that only one provider has, or `agent:NAME`."""
    input: Input | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationId | None = None
    tools: list[GivenTool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: Text | None = None
    truncation: Name | None = None


class NewResponse(Question, kw_only=True):
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    include: list[Name] | None = None
    max_output_tokens: Tokens | None = None
    max_tool_calls: Tokens | None = None
    temperature: float | None = None
    top_p: float | None = None
    metadata: Metadata | None = None
    prompt_cache_key: Name | None = None
    safety_identifier: Name | None = None
    user: Name | None = None
    service_tier: Name | None = None
