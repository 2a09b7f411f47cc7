"""A question as the body of a `generateContent` request to the Gemini API.

A model message is a list of parts there, and signatures hang on parts.  A `Mark` says where in a
message that we keep as text and calls a part began that must go back as it came.

Invariant: equal conversations give equal bytes, and a longer one begins with those of the shorter:
providers cache prompts by their prefix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

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
from hostler.models.content import in_words, media_type

_OURS = frozenset({"contents", "model", "systemInstruction", "system_instruction"})
"""Options may set anything else; their tools come after ours."""
_ANY_ID = re.compile(r"[!-~]{1,128}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_.:-]")
_READ = re.compile(r"(image|audio|video)/.+|application/pdf")
"""Types of files that it reads; all others it refuses, with the whole question."""
_LEVELS = {
    "none": "minimal",  # it cannot do without
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
_DATA_URL = re.compile(r"data:([^;,]*)[^,]*;base64,(.*)", re.DOTALL | re.IGNORECASE)
_BY_NAME = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "pdf": "application/pdf",
    "mp3": "audio/mp3",
    "wav": "audio/wav",
    "ogg": "audio/ogg",
    "flac": "audio/flac",
    "mp4": "video/mp4",
    "mov": "video/mov",
    "webm": "video/webm",
    "txt": "text/plain",
    "csv": "text/csv",
    "html": "text/html",
}
"""Types by the end of a URL, as Google calls them."""

_Kind: TypeAlias = Literal["user", "tool", "model"]


class Mark(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a reply: `length` characters, a call, or something else as it came."""

    at: int
    """How much of the reply's text came before it; of its thinking, for a thought."""
    length: int = 0
    thought: bool = False
    call: CallId | None = None
    part: JsonObject | None = None
    signature: str | None = None


def body(request: Request, *, model: str, able: Capabilities) -> bytes:
    """Return the request as JSON.

    Raises:
        TypeError, ValueError: options or a schema hold what JSON cannot.
    """
    options = {name: value for name, value in request.options.items() if name not in _OURS}
    fields: JsonObject = {}
    if request.system:
        fields["systemInstruction"] = {"parts": [{"text": request.system}], "role": "user"}
    tools: list[object] = []
    if request.tools:
        tools.append({"functionDeclarations": [_tool(tool) for tool in request.tools]})
    tools += msgspec.convert(options.pop("tools", None) or [], list[object])
    if tools:
        fields["tools"] = tools
    fields["contents"] = contents(request, model=model, able=able)
    config: JsonObject = {}
    if request.max_output_tokens is not None:
        config["maxOutputTokens"] = request.max_output_tokens
    if request.wanted is not AS_IT_IS:
        config |= _wanted(request.wanted)
        if request.tools:
            fields |= _choice(request.wanted)
    config |= msgspec.convert(options.pop("generationConfig", None) or {}, dict[str, object])
    config.pop("candidateCount", None)
    if config:
        fields["generationConfig"] = config
    fields |= options
    return msgspec.json.encode(fields)


def _wanted(wanted: Wanted) -> JsonObject:
    made: JsonObject = {}
    if wanted.temperature is not None:
        made["temperature"] = wanted.temperature
    if wanted.top_p is not None:
        made["topP"] = wanted.top_p
    if wanted.stop:
        made["stopSequences"] = wanted.stop
    if wanted.effort in _LEVELS:
        made["thinkingConfig"] = {"thinkingLevel": _LEVELS[wanted.effort]}
    if wanted.json or wanted.json_schema is not None:
        made["responseMimeType"] = "application/json"
    if wanted.json_schema is not None:
        made["responseJsonSchema"] = wanted.json_schema
    return made


def _choice(wanted: Wanted) -> JsonObject:
    """Return whether to call; it has no word for one call at a time."""
    config: JsonObject = {"mode": {"any": "AUTO", "none": "NONE", "some": "ANY"}[wanted.calls]}
    if wanted.tool is not None:
        config = {"mode": "ANY", "allowedFunctionNames": [wanted.tool]}
    return {} if config["mode"] == "AUTO" else {"toolConfig": {"functionCallingConfig": config}}


def contents(request: Request, *, model: str, able: Capabilities) -> list[JsonObject]:
    """Return the conversation; what one side says in a row is one turn.

    The results of all calls of a message have to be one turn, and the message right before it.
    """
    made: list[JsonObject] = []
    turn: list[JsonObject] = []
    before: _Kind | None = None
    for said in request.transcript:
        kind, parts = _parts(said, model, able)
        if not parts:
            continue  # thought and said nothing
        if kind == before:
            turn += parts
            continue
        made.append({"parts": parts, "role": "model" if kind == "model" else "user"})
        turn, before = parts, kind
    return made


def _parts(said: Said, model: str, able: Capabilities) -> tuple[_Kind, list[JsonObject]]:
    if isinstance(said, ToolSaid):
        return "tool", [_result(said)]
    if isinstance(said, UserSaid):
        return "user", _content(said.content, able)
    replay = said.replay
    marks: Sequence[Mark] = ()
    if replay is not None and replay.get("model") == model and "parts" in replay:
        # Signatures are only good for the model that made them.
        marks = msgspec.convert(replay["parts"], list[Mark])
    parts = _model_parts(said, marks)
    if able.unsigned_call is not None:
        _sign_first_call(parts, able.unsigned_call)
    return "model", parts


def _model_parts(said: ModelSaid, marks: Sequence[Mark]) -> list[JsonObject]:
    parts: list[JsonObject] = []
    calls = {call.id: call for call in said.calls}
    done = 0
    for mark in marks:
        if mark.at > done and not mark.thought:
            parts.append({"text": said.text[done : mark.at]})
            done = mark.at
        if mark.call is not None:
            call = calls.pop(mark.call, None)
            if call is not None:
                parts.append(_signed(_call(call), mark))
        elif mark.part is not None:
            parts.append(_signed(mark.part, mark))
        elif mark.thought:
            thought = (said.thinking or "")[mark.at : mark.at + mark.length]
            parts.append(_signed({"text": thought, "thought": True}, mark))
        else:
            done = mark.at + mark.length
            parts.append(_signed({"text": said.text[mark.at : done]}, mark))
    if done < len(said.text):
        parts.append({"text": said.text[done:]})
    parts += map(_call, calls.values())
    return parts


def _signed(part: JsonObject, mark: Mark) -> JsonObject:
    return part if mark.signature is None else {**part, "thoughtSignature": mark.signature}


def _sign_first_call(parts: Sequence[JsonObject], signature: str) -> None:
    first = next((part for part in parts if "functionCall" in part), None)
    if first is not None:
        first.setdefault("thoughtSignature", signature)


def _call(call: ToolCall) -> JsonObject:
    # What was no JSON object is not sent back as if it had been.
    made: JsonObject = {"args": call.arguments, "name": _name(call.name)}
    if call.provider_id is not None:
        made["id"] = wire_id(call, _ANY_ID)
    return {"functionCall": made}


def _result(said: ToolSaid) -> JsonObject:
    made: JsonObject = {
        "name": _name(said.call.name),
        "response": {"error" if said.failed else "output": said.output},
    }
    if said.call.provider_id is not None:
        made["id"] = wire_id(said.call, _ANY_ID)
    return {"functionResponse": made}


def _name(name: str) -> str:
    """Return a name that is no reason to refuse the whole question, as an invented one may be."""
    return name if _NAME.fullmatch(name) else f"_{_NOT_IN_NAME.sub('_', name)}"[:128]


def _tool(tool: ToolSpec) -> JsonObject:
    return {
        "name": tool.name,
        "description": tool.description,
        "parametersJsonSchema": tool.parameters,
    }


def _content(content: Content, able: Capabilities) -> list[JsonObject]:
    if isinstance(content, str):
        return [{"text": content}]
    return [_part(part, able) for part in content]


def _part(part: Part, able: Capabilities) -> JsonObject:
    match part:
        case TextPart(text=text):
            return {"text": text}
        case ImagePart() if able.images:
            return _media(part)
        case FilePart() if able.files and (part.url or _READ.fullmatch(media_type(part))):
            return _media(part)
        case _:
            return {"text": in_words(part)}


def _media(part: ImagePart | FilePart) -> JsonObject:
    if part.url is None:
        return {"inlineData": {"data": part.data or "", "mimeType": media_type(part)}}
    if data := _DATA_URL.fullmatch(part.url):
        return {"inlineData": {"data": data[2], "mimeType": data[1] or media_type(part)}}
    ending = part.url.partition("?")[0].rpartition(".")[2].lower()
    kind = part.media_type or _BY_NAME.get(ending)
    file: JsonObject = {"fileUri": part.url}
    if kind is not None:  # it knows those of its own files, and asks for those of others
        file["mimeType"] = kind
    return {"fileData": file}
