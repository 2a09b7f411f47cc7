"""A question as the body of a Chat Completions request.

Invariant: equal conversations give equal bytes, and a longer one begins with those of the shorter:
providers cache prompts by their prefix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from hostler.core.events import (
    JsonObject,
    ToolCall,
)
from hostler.core.ports import Request, ToolSpec
from hostler.core.said import (
    Content,
    ImagePart,
    ModelSaid,
    Part,
    Said,
    TextPart,
    ToolSaid,
    UserSaid,
)
from hostler.core.shown import FilePart
from hostler.core.terms import AS_IT_IS, Wanted
from hostler.models.calls import wire_id
from hostler.models.capabilities import Capabilities
from hostler.models.content import as_url, in_words

_OURS = frozenset({"model", "messages", "stream", "n"})
"""Options may set anything else."""
_LIMITS = frozenset({"max_tokens", "max_completion_tokens"})
_ANY_ID = re.compile(r"[!-~]{1,64}")
_EFFORTS = {"max": "xhigh"}
"""Words for how much to think that are others here."""


def body(request: Request, *, model: str, able: Capabilities) -> bytes:
    """Return the request as JSON.

    Raises:
        TypeError, ValueError: options or a schema hold what JSON cannot.
    """
    options = {name: value for name, value in request.options.items() if name not in _OURS}
    fields: JsonObject = {
        "model": model,
        "messages": messages(request, model=model, able=able),
        "stream": True,
    }
    if able.usage_in_stream:
        fields["stream_options"] = {"include_usage": True}
    if request.max_output_tokens is not None and not _LIMITS & options.keys():
        fields[able.max_tokens_field] = request.max_output_tokens
    if request.tools:
        fields["tools"] = [_tool(tool, able) for tool in request.tools]
        if not able.parallel_tools:
            fields["parallel_tool_calls"] = False
    if able.cache_key and request.session:
        fields["prompt_cache_key"] = request.session
    if request.wanted is not AS_IT_IS:
        fields |= _wanted(request)
    fields |= options
    return msgspec.json.encode(fields)


def _wanted(request: Request) -> JsonObject:
    wanted = request.wanted
    made: JsonObject = {}
    if wanted.temperature is not None:
        made["temperature"] = wanted.temperature
    if wanted.top_p is not None:
        made["top_p"] = wanted.top_p
    if wanted.stop:
        made["stop"] = wanted.stop
    if wanted.effort is not None:
        made["reasoning_effort"] = _EFFORTS.get(wanted.effort, wanted.effort)
    if wanted.json_schema is not None:
        named = {"name": "answer", "schema": wanted.json_schema, "strict": True}
        made["response_format"] = {"type": "json_schema", "json_schema": named}
    elif wanted.json:
        made["response_format"] = {"type": "json_object"}
    return made if not request.tools else made | _choice(wanted)


def _choice(wanted: Wanted) -> JsonObject:
    made: JsonObject = {}
    if wanted.tool is not None:
        made["tool_choice"] = {"type": "function", "function": {"name": wanted.tool}}
    elif wanted.calls != "any":
        made["tool_choice"] = "none" if wanted.calls == "none" else "required"
    if not wanted.parallel:
        made["parallel_tool_calls"] = False
    return made


def messages(request: Request, *, model: str, able: Capabilities) -> list[JsonObject]:
    """Return the conversation.  What users say in a row becomes one message.

    Many chat templates insist that roles alternate; to all others it is the same.
    """
    made: list[JsonObject] = []
    if request.system:
        made.append({"role": able.system_role, "content": request.system})
    before: Said | None = None
    for said in request.transcript:  # all of it, each time: isinstance costs half of `match`
        if isinstance(said, ToolSaid):
            id_ = _call_id(said.call, able)
            made.append({"role": "tool", "tool_call_id": id_, "content": said.output})
        elif isinstance(said, ModelSaid):
            if not (said.text or said.calls):
                continue  # thought and said nothing: refused by some, of use to none
            made.append(_assistant(said, model, able))
        elif isinstance(before, UserSaid):
            made[-1]["content"] = _joined(made[-1]["content"], _content(said.content, able))
        else:
            if isinstance(before, ToolSaid) and able.bridge is not None:
                made.append({"role": "assistant", "content": able.bridge})
            made.append({"role": "user", "content": _content(said.content, able)})
        before = said
    return made


def _assistant(said: ModelSaid, model: str, able: Capabilities) -> JsonObject:
    message: JsonObject = {"role": "assistant", "content": said.text}
    extra: dict[str, object] = {}
    if said.replay is not None or able.thinking_field is not None:
        extra = _replay(message, said, model, able)
    if said.calls:
        if not said.text and able.null_content:
            message["content"] = None
        message["tool_calls"] = [_call(call, extra.get(call.id), able) for call in said.calls]
    return message


def _replay(
    message: JsonObject, said: ModelSaid, model: str, able: Capabilities
) -> dict[str, object]:
    """Put into the message what its model wants back; return what hangs on its calls."""
    # Signatures and hidden reasoning are only good for the model that made them.
    replay = said.replay if said.replay and said.replay.get("model") == model else {}
    if able.thinking_field is not None:
        thought = said.thinking if "thinking_field" in replay else None
        message[able.thinking_field] = thought or ""
    if able.replay_details and (details := replay.get("reasoning_details")):
        message["reasoning_details"] = details
    extra = replay.get("extra_content") if able.replay_details else None
    return msgspec.convert(extra, dict[str, object]) if isinstance(extra, dict) else {}


def _call(call: ToolCall, extra: object, able: Capabilities) -> JsonObject:
    # What was no JSON object is not sent back as if it had been: servers parse it, and refuse.
    arguments = msgspec.json.encode(call.arguments).decode()
    made: JsonObject = {
        "id": _call_id(call, able),
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
    if extra is not None:
        made["extra_content"] = extra
    return made


def _call_id(call: ToolCall, able: Capabilities) -> str:
    if able.call_id_length is None:
        return call.id if call.provider_id is None else wire_id(call, _ANY_ID)
    return wire_id(call, re.compile(rf"[A-Za-z0-9]{{{able.call_id_length}}}"))


def _tool(tool: ToolSpec, able: Capabilities) -> JsonObject:
    function: JsonObject = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    if able.strict_schema:
        function["strict"] = True
    return {"type": "function", "function": function}


def _content(content: Content, able: Capabilities) -> str | list[JsonObject]:
    return content if isinstance(content, str) else [_part(part, able) for part in content]


def _part(part: Part, able: Capabilities) -> JsonObject:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case ImagePart() if able.images:
            return {"type": "image_url", "image_url": {"url": as_url(part)}}
        case FilePart(url=None, name=name) if able.files:
            file: JsonObject = {"filename": name or "file", "file_data": as_url(part)}
            return {"type": "file", "file": file}
        case _:
            return {"type": "text", "text": in_words(part)}


def _joined(first: object, then: str | list[JsonObject]) -> str | list[JsonObject]:
    if isinstance(first, str) and isinstance(then, str):
        return f"{first}\n\n{then}"
    return [*_parts(first), *_parts(then)]


def _parts(content: object) -> Sequence[JsonObject]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return msgspec.convert(content, list[dict[str, object]])
