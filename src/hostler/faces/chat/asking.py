"""A Chat Completions request as a question to a model.

    system, developer   become the instructions, wherever they stand
    assistant, tool     what the model said and was told: each call with its one result
    anything else       is somebody speaking

Invariant: a call has exactly one result, and stands right before it; what has not is refused in
OpenAI's words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from hostler.core.errors import Invalid
from hostler.core.events import (
    CallId,
    JsonObject,
    Principal,
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
from hostler.faces.chat.bodies import (
    ChatMessage,
    ChatRequest,
    ContentPart,
    MessageCall,
    ToolChoice,
)
from hostler.faces.http.keepsakes import NOTHING, Keepsake, Keepsakes

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
CHOICES = {"auto": "any", "none": "none", "required": "some"}
FORMATS = ("text", "json_object", "json_schema")
NO_PARAMETERS: JsonObject = {"type": "object", "properties": {}}
_SYSTEM = frozenset({"system", "developer"})
_OUR_CALL = len("call_") + 28
_decode = msgspec.json.Decoder(dict[str, object]).decode


def request_of(body: ChatRequest, who: Principal, keepsakes: Keepsakes) -> Request:
    """Return the question.

    Raises:
        Invalid: it is none; names the field.
    """
    if body.logprobs:
        told = "no model here tells logprobs"
        raise Invalid(told, fields=[("/logprobs", told)])
    system, transcript = _conversation(body.messages, keepsakes)
    tools, wanted = _tools(body), _wanted(body)
    return Request(
        system=system,
        transcript=transcript,
        tools=tools,
        session=_session(body.prompt_cache_key, who),
        max_output_tokens=body.max_completion_tokens or body.max_tokens,
        wanted=AS_IT_IS if wanted == AS_IT_IS else wanted,
    )


def _session(key: str | None, who: Principal) -> str:
    """Return the client's key for the prompt cache, so that it is nobody else's."""
    if not key:
        return ""
    return hashlib.sha256(f"{who.tenant}\0{who.id}\0{key}".encode()).hexdigest()[:32]


# -- what was said ----------------------------------------------------------------------------


def _conversation(messages: Sequence[ChatMessage], keepsakes: Keepsakes) -> tuple[str, list[Said]]:
    system, said = list[str](), list[Said]()
    open_ = _Open()
    for place, message in enumerate(messages):
        at = f"/messages/{place}"
        if message.role == "tool":
            open_.answer(message, at)
            continue
        said += open_.closed()
        if message.role in _SYSTEM:
            system.append(_text(message, at))
        elif message.role == "assistant":
            answer = _answer(message, at, keepsakes)
            said.append(answer)
            open_ = _Open(answer.calls, at)
        else:
            said.append(UserSaid(_content(message, at)))
    said += open_.closed()
    if not said and system:  # some clients say all in one system message
        said.append(UserSaid(system.pop()))
    return "\n\n".join(system), said


class _Open:
    """The calls of one reply, and those results that came."""

    __slots__ = ("_at", "_calls", "_results")

    def __init__(self, calls: Sequence[ToolCall] = (), at: str = "") -> None:
        self._calls, self._at = calls, at
        self._results: list[str | None] = [None] * len(calls)

    def answer(self, message: ChatMessage, at: str) -> None:
        for place, call in enumerate(self._calls):
            if call.id == message.tool_call_id and self._results[place] is None:
                self._results[place] = _text(message, at)
                return
        told = (
            "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
        )
        raise Invalid(told, fields=[(at, told)])

    def closed(self) -> list[ToolSaid]:
        """Return the results, in the order of the calls."""
        said, missing = list[ToolSaid](), list[str]()
        for call, result in zip(self._calls, self._results, strict=True):
            if result is None:
                missing.append(call.id)
            else:
                said.append(ToolSaid(call, result))
        if missing:
            told = (
                "an assistant message with 'tool_calls' must be followed by tool messages that "
                f"respond to each 'tool_call_id'; these have none: {', '.join(missing)[:200]}"
            )
            raise Invalid(told, fields=[(self._at, told)])
        self._calls, self._results = (), []
        return said


def _answer(message: ChatMessage, at: str, keepsakes: Keepsakes) -> ModelSaid:
    taken = (keepsakes.take(one.data) for one in message.reasoning_details or ())
    kept = next((one for one in taken if one != NOTHING), NOTHING)
    return ModelSaid(
        text=_text(message, at),
        calls=tuple(_call(one, kept) for one in message.tool_calls or ()),
        thinking=message.reasoning_content or kept.thinking,
        replay=kept.replay,
    )


def _call(call: MessageCall, kept: Keepsake) -> ToolCall:
    arguments, unparsed = _arguments(call.function.arguments)
    # Ids of ours are known; another one is a provider's, and may need another form for the next.
    is_ours = call.id.startswith("call_") and len(call.id) == _OUR_CALL
    return ToolCall(
        id=CallId(call.id),
        name=call.function.name,
        arguments=arguments,
        provider_id=kept.calls.get(call.id, None if is_ours else call.id),
        unparsed=unparsed,
    )


def _arguments(text: str | None) -> tuple[JsonObject, str | None]:
    try:
        return _decode(text or "{}"), None
    except (ValueError, RecursionError):
        return {}, text


def _text(message: ChatMessage, at: str) -> str:
    """Return what is said in words.  Raises Invalid: there is more than words."""
    content = message.content
    if isinstance(content, str):
        return content
    if content is None:
        return message.refusal or ""
    texts = list[str]()
    for place, part in enumerate(content):
        text = part.text if part.text is not None else part.refusal
        if text is None:
            told = f"messages with role '{message.role[:20]}' have text only"
            raise Invalid(told, fields=[(f"{at}/content/{place}", told)])
        texts.append(text)
    return "\n".join(texts)


def _content(message: ChatMessage, at: str) -> Content:
    content = message.content
    if content is None or isinstance(content, str):
        return content or ""
    return tuple([_part(part, f"{at}/content/{place}") for place, part in enumerate(content)])


def _part(part: ContentPart, at: str) -> Part:
    if part.image_url is not None:
        kind, data = _data(part.image_url.url)
        if data is None:
            return ImagePart(url=part.image_url.url)
        return ImagePart(data=data, media_type=kind)
    if part.file is not None and part.file.file_data is not None:
        kind, data = _data(part.file.file_data)
        name = part.file.filename
        return FilePart(
            data=part.file.file_data if data is None else data, media_type=kind, name=name
        )
    if part.input_audio is not None:
        kind = f"audio/{part.input_audio.format or 'wav'}"
        return FilePart(data=part.input_audio.data, media_type=kind)
    if part.text is not None or part.refusal is not None:
        return TextPart(text=part.text or part.refusal or "")
    told = f"a part of type {part.type[:40]!r} has nothing that can be shown to a model"
    raise Invalid(told, fields=[(at, told)])


def _data(url: str) -> tuple[str | None, str | None]:
    """Return media type and base64 of a `data:` URL, twice None for another."""
    if not url.startswith("data:"):
        return None, None
    head, _, data = url[len("data:") :].partition(",")
    return head.partition(";")[0] or None, data


# -- what is wanted ---------------------------------------------------------------------------


def _tools(body: ChatRequest) -> Sequence[ToolSpec]:
    if not body.tools:
        return ()
    specs = [
        ToolSpec(
            name=tool.function.name,
            description=tool.function.description or "",
            parameters=tool.function.parameters or NO_PARAMETERS,
        )
        for tool in body.tools
    ]
    choice = body.tool_choice
    if not isinstance(choice, ToolChoice) or choice.allowed_tools is None:
        return specs
    allowed = {one.function.name for one in choice.allowed_tools.tools if one.function is not None}
    return [one for one in specs if one.name in allowed]


def _wanted(body: ChatRequest) -> Wanted:
    tool, mode = None, body.tool_choice
    if isinstance(mode, ToolChoice):
        tool = None if mode.function is None else mode.function.name
        mode = "auto" if mode.allowed_tools is None else mode.allowed_tools.mode
    stop = body.stop or ()
    effort = _one_of("reasoning_effort", body.reasoning_effort, EFFORTS)
    is_json, schema = _format(body)
    match CHOICES[_one_of("tool_choice", mode, tuple(CHOICES)) or "auto"]:
        case "none" | "some" as calls:
            pass
        case _:
            calls = "any"
    return Wanted(
        temperature=body.temperature,
        top_p=body.top_p,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        calls=calls,
        tool=tool,
        parallel=body.parallel_tool_calls is not False,
        json=is_json,
        json_schema=schema,
        effort=effort,
    )


def _format(body: ChatRequest) -> tuple[bool, JsonObject | None]:
    if body.response_format is None:
        return False, None
    kind = _one_of("response_format/type", body.response_format.type, FORMATS)
    schema = body.response_format.json_schema
    if kind != "json_schema":
        return kind == "json_object", None
    if schema is None or schema.schema is None:
        told = "response_format of type 'json_schema' needs a schema"
        raise Invalid(told, fields=[("/response_format/json_schema/schema", told)])
    return True, schema.schema


def _one_of(name: str, word: str | None, allowed: Sequence[str]) -> str | None:
    if word is None or word in allowed:
        return word
    told = f"{word[:40]!r} is none of: {', '.join(allowed)}"
    raise Invalid(told, fields=[(f"/{name}", told)])
