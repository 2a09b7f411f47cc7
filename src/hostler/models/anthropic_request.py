"""A question as the body of a Messages request.

What a reply held beyond text and calls is kept in its `replay` as its blocks in order: what the
log has elsewhere is only pointed at (the next so many characters of text or thinking, the next
call), the rest is there word for word.

Invariant: equal conversations give equal bytes but for the cache markers, which are no part of
what is cached; no empty text is sent, and the results of calls come right after them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

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

_OURS = frozenset({"model", "messages", "system", "stream"})
"""Options may set anything else; tools among them are the provider's own, and come after ours."""
_MARKED_MESSAGES = 3
"""With the one before them, as many as there may be.  A turn of the tool loop adds two messages,
so the third from the end is where the last request's cache ended."""
_MARKABLE = frozenset({"custom", "text", "image", "document", "tool_use", "tool_result"})
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_PDF = "application/pdf"
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.-]+)*;base64,(.*)", re.DOTALL)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME = 128
_EFFORTS = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}


def body(request: Request, *, model: str, able: Capabilities) -> bytes:
    """Return the request as JSON.

    Raises:
        TypeError, ValueError: options or a schema hold what JSON cannot.
    """
    options = {name: value for name, value in request.options.items() if name not in _OURS}
    limit = request.max_output_tokens
    fields: JsonObject = {
        "model": model,
        "max_tokens": able.max_output_tokens if limit is None else limit,
        "stream": True,
    }
    tools = [_tool(tool, able) for tool in request.tools]
    system = [_text(request.system)] if request.system.strip() else []
    said = messages(request.transcript, model=model, able=able)
    if able.cache_markers and "cache_control" not in options:
        for blocks in ((system or tools)[-1:], *(one.content for one in said[-_MARKED_MESSAGES:])):
            _mark(blocks)
    if tools:
        fields["tools"] = tools
        if isinstance(theirs := options.get("tools"), list):
            options["tools"] = [*tools, *msgspec.convert(theirs, list[object])]
        fields |= _choice(request.wanted, able)
    if system:
        fields["system"] = system
    if request.wanted is not AS_IT_IS:
        fields |= _wanted(request.wanted)
    return msgspec.json.encode(fields | options | {"messages": said})


def _choice(wanted: Wanted, able: Capabilities) -> JsonObject:
    choice: JsonObject = {"type": {"any": "auto", "none": "none", "some": "any"}[wanted.calls]}
    if wanted.tool is not None:
        choice = {"type": "tool", "name": wanted.tool}
    if not (wanted.parallel and able.parallel_tools) and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    return {} if choice == {"type": "auto"} else {"tool_choice": choice}


def _wanted(wanted: Wanted) -> JsonObject:
    """Return what this API has a word for; without a schema it has none for JSON."""
    made: JsonObject = {}
    output: JsonObject = {}
    if wanted.temperature is not None:
        made["temperature"] = wanted.temperature
    if wanted.top_p is not None:
        made["top_p"] = wanted.top_p
    if wanted.stop:
        made["stop_sequences"] = wanted.stop
    if wanted.effort == "none":
        made["thinking"] = {"type": "disabled"}
    elif wanted.effort in _EFFORTS:
        output["effort"] = _EFFORTS[wanted.effort]
    if wanted.json_schema is not None:
        output["format"] = {"type": "json_schema", "schema": wanted.json_schema}
    if output:
        made["output_config"] = output
    return made


def _mark(blocks: Sequence[JsonObject]) -> None:
    """Let the provider's cache reach to the end of these: a mark on the last that may have one."""
    for block in reversed(blocks):
        if block.get("type", "custom") in _MARKABLE:
            block["cache_control"] = {"type": "ephemeral"}
            return


class Message(Struct):
    role: Literal["user", "assistant"]
    content: list[JsonObject]


def messages(transcript: Sequence[Said], *, model: str, able: Capabilities) -> list[Message]:
    """Return the conversation.  What one side says in a row becomes one message."""
    made: list[Message] = []
    taken = dict[str, CallId]()
    for said in transcript:
        role = "user"
        if isinstance(said, ToolSaid):
            new = [_result(said, taken)]
        elif isinstance(said, UserSaid):
            new = list(_content(said.content, able)) or [_text("[An empty message.]")]
        else:
            role = "assistant"
            new = _assistant(said, model, able, taken)
            if all(block.get("type") in _THOUGHTS for block in new):
                continue  # thought and said nothing: refused as the end of a message
        if made and made[-1].role == role:
            made[-1].content += new
        else:
            made.append(Message(role, new))
    return made


def _assistant(
    said: ModelSaid, model: str, able: Capabilities, taken: dict[str, CallId]
) -> list[JsonObject]:
    # Signatures and hidden reasoning are only good for the model that made them.
    replay = said.replay
    if replay and replay.get("model") == model and isinstance(replay.get("content"), list):
        kept = msgspec.convert(replay["content"], list[JsonObject])
        if _adds_up(kept, "text", said.text) and _adds_up(kept, "thinking", said.thinking or ""):
            return list(_replayed(said, kept, able, taken))
    spoken = [_text(said.text)] if said.text.strip() else []
    return [*spoken, *(_call(call, taken) for call in said.calls)]


def _adds_up(kept: Sequence[JsonObject], kind: str, whole: str) -> bool:
    return sum(_chars(one) for one in kept if one.get("type") == kind) == len(whole)


def _chars(kept: JsonObject) -> int:
    chars = kept.get("chars")
    return chars if isinstance(chars, int) else 0


def _replayed(
    said: ModelSaid, kept: Sequence[JsonObject], able: Capabilities, taken: dict[str, CallId]
) -> Iterator[JsonObject]:
    text, thinking, calls = said.text, said.thinking or "", iter(said.calls)
    for one in kept:
        chars, more = _chars(one), {name: value for name, value in one.items() if name != "chars"}
        match one.get("type"):
            case "text":
                piece, text = text[:chars], text[chars:]
                if piece.strip():
                    yield _text(piece) | more
            case "thinking":
                piece, thinking = thinking[:chars], thinking[chars:]
                if one.get("signature") or (able.unsigned_thinking and piece):
                    yield {"type": "thinking", "thinking": piece, "signature": ""} | more
            case "tool_use":
                for call in calls:
                    yield _call(call, taken) | more
                    break
            case _:
                yield one
    for call in calls:
        yield _call(call, taken)


def _call(call: ToolCall, taken: dict[str, CallId]) -> JsonObject:
    name = _NOT_IN_NAMES.sub("_", call.name)[:_LONGEST_NAME] or "unknown"
    id_ = _call_id(call, taken)
    return {"type": "tool_use", "id": id_, "name": name, "input": call.arguments}


def _result(said: ToolSaid, taken: dict[str, CallId]) -> JsonObject:
    made: JsonObject = {"type": "tool_result", "tool_use_id": _call_id(said.call, taken)}
    if said.output.strip():
        made["content"] = said.output
    if said.failed:
        made["is_error"] = True
        made.setdefault("content", "It failed and said nothing.")  # an error must have content
    return made


def _call_id(call: ToolCall, taken: dict[str, CallId]) -> str:
    """Return the call's id, which no other call of the conversation has."""
    id_ = wire_id(call)
    if taken.setdefault(id_, call.id) == call.id:
        return id_
    return wire_id(msgspec.structs.replace(call, provider_id=None))


def _tool(tool: ToolSpec, able: Capabilities) -> JsonObject:
    made: JsonObject = {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.parameters,
    }
    if able.strict_schema:
        made["strict"] = True
    if able.eager_arguments:
        made["eager_input_streaming"] = True
    return made


def _content(content: Content, able: Capabilities) -> Iterator[JsonObject]:
    for part in (TextPart(text=content),) if isinstance(content, str) else content:
        block = _part(part, able)
        if block.get("type") != "text" or str(block["text"]).strip():
            yield block


def _part(part: Part, able: Capabilities) -> JsonObject:
    if isinstance(part, TextPart):
        return _text(part.text)
    part = _unwrapped(part)
    kind = media_type(part).lower()
    secure = part.url is not None and part.url.lower().startswith("https://")
    if isinstance(part, ImagePart):
        if able.images and (secure or (part.url is None and kind in _IMAGES)):
            return {"type": "image", "source": _source(part, kind)}
    elif able.files and (kind == _PDF or _is_named_pdf(part)) and (secure or part.url is None):
        document: JsonObject = {"type": "document", "source": _source(part, _PDF)}
        return document | ({"title": part.name} if part.name else {})
    return _text(in_words(part))


def _unwrapped(part: ImagePart | FilePart) -> ImagePart | FilePart:
    """Return the part with the data of a `data:` URL for data: no server fetches such a URL."""
    found = _DATA_URL.fullmatch(part.url) if part.url and part.url.startswith("data:") else None
    if found is None:
        return part
    kind = part.media_type or found[1]
    return msgspec.structs.replace(part, url=None, data=found[2], media_type=kind)


def _is_named_pdf(part: FilePart) -> bool:
    named = (part.name or (part.url or "").partition("?")[0]).lower()
    return part.media_type is None and named.endswith(".pdf")


def _source(part: ImagePart | FilePart, kind: str) -> JsonObject:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    return {"type": "base64", "media_type": kind, "data": part.data or ""}


def _text(text: str) -> JsonObject:
    return {"type": "text", "text": text}
