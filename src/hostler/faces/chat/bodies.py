"""What clients of Chat Completions send: fields that are read; all others are passed over.

Invariant: null is as good as absent, and what has no meaning here is never an error.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from hostler.core.events import JsonObject

MOST_TOKENS = 2**31 - 1
Tokens = Annotated[int, Meta(ge=1, le=MOST_TOKENS)]


class ImageUrl(Struct):
    url: str


class File(Struct):
    file_data: str | None = None
    """A `data:` URL, or base64."""
    filename: str | None = None
    file_id: str | None = None


class Audio(Struct):
    data: str = ""
    format: str = ""


class ContentPart(Struct):
    type: str = "text"
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | None = None
    file: File | None = None
    input_audio: Audio | None = None


class CalledFunction(Struct):
    name: str
    arguments: str | None = None


class MessageCall(Struct):
    id: str
    function: CalledFunction


class Detail(Struct):
    data: object = None


class ChatMessage(Struct):
    role: str
    content: str | list[ContentPart] | None = None
    tool_calls: list[MessageCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    """What the model thought, as the answer told it."""
    reasoning_details: list[Detail] | None = None
    """Sent back as it came: what the model's provider wants to see again."""


class Function(Struct):
    name: str
    description: str | None = None
    parameters: JsonObject | None = None


class ChatTool(Struct):
    function: Function


class Named(Struct):
    name: str


class NamedTool(Struct):
    function: Named | None = None


class AllowedTools(Struct):
    mode: str = "auto"
    tools: list[NamedTool] = []


class ToolChoice(Struct):
    function: Named | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchema(Struct):
    schema: JsonObject | None = None


class ResponseFormat(Struct):
    type: str
    json_schema: JsonSchema | None = None


class StreamOptions(Struct):
    include_usage: bool | None = None


class ChatRequest(Struct):
    model: str
    """`provider:model`, or the bare name of a model that only one provider has."""
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[ChatTool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: Tokens | None = None
    max_tokens: Tokens | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    logprobs: object = None
    """Refused when it is wanted: nobody could tell an answer without them from one that has none."""
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    prompt_cache_key: str | None = None
