"""A question as the body of a Responses request.

Nothing is kept at the provider: the whole conversation goes along each time, and with it, for the
model that made them, the items of its replies as they came.  The provider checks which item came
after which thought, so they go back all of them or none; then the conversation is told without.

Invariant: equal conversations give equal bytes, and a longer one begins with those of the shorter:
providers cache prompts by their prefix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from hostler.core.events import (
    CallId,
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
from hostler.models.responses_seals import Question

_OURS = frozenset(
    {
        *("model", "input", "instructions", "stream"),
        *("previous_response_id", "conversation", "background"),  # they need a provider that keeps
    }
)
"""Options may set anything else; what they list as tools and to include is added to ours."""
_ANY_ID = re.compile(r"[!-~]{1,64}")
_EFFORTS = {"max": "xhigh"}
"""Words for how much to think that are others here."""
_ENCRYPTED = "reasoning.encrypted_content"


class Maker(Struct, frozen=True):
    """Who made a reply.  What is encrypted, nobody else can read."""

    provider: str
    model: str


class Kept(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An item of a reply, without what the reply itself says."""

    item: JsonObject
    call: CallId | None = None
    """Of a call: which."""
    start: int = 0
    end: int | None = None
    """Of a message: where in the reply's text it is."""


class Replay(Struct, frozen=True, kw_only=True):
    """`Reply.replay` of this wire API."""

    by: Maker
    items: Sequence[Kept]


def body(
    request: Request, *, maker: Maker, able: Capabilities, seals: Question | None = None
) -> bytes:
    """Return the request as JSON, without the thoughts that `seals` knows to be unreadable.

    Raises:
        TypeError, ValueError: options or a schema hold what JSON cannot.
    """
    options = {name: value for name, value in request.options.items() if name not in _OURS}
    fields: JsonObject = {"model": maker.model}
    if request.system:
        fields["instructions"] = request.system
    tools = [*(_tool(tool, able) for tool in request.tools), *_popped(options, "tools")]
    if tools:
        fields["tools"] = tools
        if not able.parallel_tools:
            fields["parallel_tool_calls"] = False
    fields |= {"stream": True, "store": False}
    include = [*([_ENCRYPTED] if able.encrypted_reasoning else []), *_popped(options, "include")]
    if include:
        fields["include"] = list(dict.fromkeys(map(str, include)))
    if request.max_output_tokens is not None:
        fields["max_output_tokens"] = request.max_output_tokens
    if able.cache_key and request.session:
        fields["prompt_cache_key"] = request.session
    if request.wanted is not AS_IT_IS:
        fields |= _wanted(request)
    fields |= options
    fields["input"] = items(request, maker=maker, able=able, seals=seals)  # last: it is what grows
    return msgspec.json.encode(fields)


def _wanted(request: Request) -> JsonObject:
    """Return what this API has a word for; it has none to stop at."""
    wanted = request.wanted
    made: JsonObject = {}
    if wanted.temperature is not None:
        made["temperature"] = wanted.temperature
    if wanted.top_p is not None:
        made["top_p"] = wanted.top_p
    if wanted.effort is not None:
        made["reasoning"] = {"effort": _EFFORTS.get(wanted.effort, wanted.effort)}
    if wanted.json_schema is not None:
        named = {"name": "answer", "schema": wanted.json_schema, "strict": True}
        made["text"] = {"format": {"type": "json_schema", **named}}
    elif wanted.json:
        made["text"] = {"format": {"type": "json_object"}}
    return made if not request.tools else made | _choice(wanted)


def _choice(wanted: Wanted) -> JsonObject:
    made: JsonObject = {}
    if wanted.tool is not None:
        made["tool_choice"] = {"type": "function", "name": wanted.tool}
    elif wanted.calls != "any":
        made["tool_choice"] = "none" if wanted.calls == "none" else "required"
    if not wanted.parallel:
        made["parallel_tool_calls"] = False
    return made


def _popped(options: JsonObject, name: str) -> list[object]:
    """Take a list out of the options; what is none stays there, for the provider to judge."""
    if not isinstance(options.get(name), list):
        return []
    return msgspec.convert(options.pop(name), list[object])


def items(
    request: Request, *, maker: Maker, able: Capabilities, seals: Question | None = None
) -> list[JsonObject]:
    """Return the conversation.  What users say in a row becomes one message.

    Servers that speak this API for open models put it into chat templates, many of which insist
    that roles alternate.
    """
    made: list[JsonObject] = []
    before: Said | None = None
    for said in request.transcript:  # all of it, each time: isinstance costs half of `match`
        if isinstance(said, ToolSaid):
            id_ = wire_id(said.call, _ANY_ID)
            made.append({"type": "function_call_output", "call_id": id_, "output": said.output})
        elif isinstance(said, ModelSaid):
            if not (said.text or said.calls):
                continue  # a thought that nothing follows is refused
            made += _assistant(said, maker, seals)
        elif isinstance(before, UserSaid):
            made[-1]["content"] = _joined(made[-1]["content"], _content(said.content, able))
        else:
            content = _content(said.content, able)
            made.append({"type": "message", "role": "user", "content": content})
        before = said
    return made


def _assistant(said: ModelSaid, maker: Maker, seals: Question | None) -> list[JsonObject]:
    kept = _kept(said, maker) if said.replay is not None else None
    if kept is None or not (seals is None or seals.may_send(_sealed(kept))):
        told: list[JsonObject] = [_call(call, {"type": "function_call"}) for call in said.calls]
        if said.text:
            told.insert(0, {"type": "message", "role": "assistant", "content": said.text})
        return told
    calls = {call.id: call for call in said.calls}
    made: list[JsonObject] = []
    for one in kept:
        if one.call is not None:
            made.append(_call(calls[one.call], one.item))
        elif one.end is not None:
            text = said.text[one.start : one.end]
            part = {"type": "output_text", "text": text, "annotations": list[object]()}
            made.append({**one.item, "content": [part]})
        else:
            made.append(one.item)
    return made


def _kept(said: ModelSaid, maker: Maker) -> Sequence[Kept] | None:
    """Return what to send back; None: it is another model's, or the reply is not what it was."""
    try:
        replay = msgspec.convert(said.replay, Replay)
    except msgspec.ValidationError:
        return None  # of another wire API
    if replay.by != maker:
        return None
    if [one.call for one in replay.items if one.call is not None] != [one.id for one in said.calls]:
        return None
    place = 0
    for one in replay.items:
        if one.end is not None:
            if not place <= one.start < one.end:
                return None
            place = one.end
    return replay.items if place == len(said.text) else None


def _sealed(kept: Sequence[Kept]) -> Sequence[str]:
    contents = (one.item.get("encrypted_content") for one in kept)
    return [content for content in contents if isinstance(content, str)]


def _call(call: ToolCall, item: JsonObject) -> JsonObject:
    # What was no JSON object is not sent back as if it had been: servers parse it, and refuse.
    return {
        **item,
        "call_id": wire_id(call, _ANY_ID),
        "name": call.name,
        "arguments": msgspec.json.encode(call.arguments).decode(),
    }


def _tool(tool: ToolSpec, able: Capabilities) -> JsonObject:
    parameters: JsonObject = tool.parameters
    if parameters.get("type") == "object" and "properties" not in parameters:
        parameters = parameters | {
            "properties": dict[str, object]()
        }  # OpenAI refuses an object without
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters,
        # Never left out: it would be taken for true, and optional arguments for required ones.
        "strict": able.strict_schema and fits_strict(parameters),
    }


_LOOSE = frozenset(
    {
        *("allOf", "oneOf", "not", "if", "then", "else", "default"),
        *("dependentRequired", "dependentSchemas", "patternProperties"),
    }
)


def fits_strict(schema: object) -> bool:
    """Whether a schema may be marked strict: its objects closed, all their properties required."""
    if not isinstance(schema, dict):
        return False  # `true`: anything
    here = msgspec.convert(schema, dict[str, object])
    if _LOOSE & here.keys():
        return False
    inner: list[object] = []
    if "object" in _listed(here.get("type")) or "properties" in here:
        fields = _named(here.get("properties"))
        if here.get("additionalProperties") is not False:
            return False
        if set(fields) != set(map(str, _listed(here.get("required")))):
            return False
        inner += fields.values()
    inner += _listed(here.get("anyOf"))
    inner += _named(here.get("$defs")).values()
    if "items" in here:
        inner.append(here["items"])
    return all(map(fits_strict, inner))


def _listed(value: object) -> list[object]:
    if value is None:
        return []
    return msgspec.convert(value, list[object]) if isinstance(value, list) else [value]


def _named(value: object) -> JsonObject:
    return msgspec.convert(value, dict[str, object]) if isinstance(value, dict) else {}


def _content(content: Content, able: Capabilities) -> str | list[JsonObject]:
    return content if isinstance(content, str) else [_part(part, able) for part in content]


def _part(part: Part, able: Capabilities) -> JsonObject:
    match part:
        case TextPart(text=text):
            return _text(text)
        case ImagePart() if able.images:
            return {"type": "input_image", "image_url": as_url(part), "detail": "auto"}
        case FilePart(url=str(url)) if able.files:
            return {"type": "input_file", "file_url": url}
        case FilePart(name=name) if able.files:
            data = as_url(part)
            return {"type": "input_file", "filename": name or "file", "file_data": data}
        case _:
            return _text(in_words(part))


def _text(text: str) -> JsonObject:
    return {"type": "input_text", "text": text}


def _joined(first: object, then: str | list[JsonObject]) -> str | list[JsonObject]:
    if isinstance(first, str) and isinstance(then, str):
        return f"{first}\n\n{then}"
    return [*_parts(first), *_parts(then)]


def _parts(content: object) -> Sequence[JsonObject]:
    if isinstance(content, str):
        return [_text(content)]
    return msgspec.convert(content, list[dict[str, object]])
