"""Chunks as they are sent, and the words that they have for what happened.

Invariant: what is said of a failure is short, and has nothing of how the server is made.
"""

from __future__ import annotations

import re

import msgspec

from hostler.core.events import START, JsonObject, Seq, Usage
from hostler.core.shown import DataPart, DocumentPart, FilePart, Shown, SourcePart
from hostler.faces.http.form import encode

OURS = "hostler"
"""Under which a file has what the protocol has no field for."""
LONGEST_ERROR = 300
"""Characters: it is shown to whoever chats."""
FINISH = {None: "stop", "stop_when": "stop", "length": "length", "refusal": "content-filter"}
_WHY = {
    "budget": "It has used what it may use.",
    "step_limit": "It has taken as many steps as it may.",
    "stuck": "It repeated itself.",
    "unanswered": "A call was not answered in time.",
    "poisoned": "The server failed again and again.",
    "wait_too_long": "The model is not to be had for too long.",
}


def frame(chunk: JsonObject) -> bytes:
    """Return a chunk as a Server-Sent Event."""
    return b"data: %b\n\n" % encode(chunk)


DONE = b"data: [DONE]\n\n"


def why(reason: str | None, fault: str) -> str:
    """Return what a run that failed tells whoever chats; `fault`: of its model, if that failed."""
    if reason == "model_error" and fault:
        return f"The model failed ({fault.splitlines()[0]})"[:LONGEST_ERROR]
    return _WHY.get(reason or "", f"The run failed ({reason}).")[:LONGEST_ERROR]


def usage_of(used: Usage) -> JsonObject:
    """Return what was used, under the names that apps know."""
    return {
        "inputTokens": used.input_tokens,
        "outputTokens": used.output_tokens,
        "totalTokens": used.input_tokens + used.output_tokens,
        "cachedInputTokens": used.cache_read_tokens,
        "reasoningTokens": used.reasoning_tokens,
        "cost": used.cost,
    }


_OURS = re.compile(r"part_(\d{1,15})", re.ASCII)


def part_of(seq: Seq, part: Shown) -> JsonObject:
    """Return the chunk of what was shown at `seq`, with an id that says where that is."""
    ours = f"part_{seq}"
    match part:
        case DataPart():
            key = ours if part.key is None else part.key
            return {"type": f"data-{part.name}", "id": key, "data": part.value}
        case SourcePart():
            told: JsonObject = {"type": "source-url", "sourceId": ours, "url": part.url}
            return told if part.title is None else {**told, "title": part.title}
        case DocumentPart():
            told = {"type": "source-document", "sourceId": ours, "title": part.title}
            told["mediaType"] = part.media_type
            return told if part.name is None else {**told, "filename": part.name}
        case FilePart():
            named = {} if part.name is None else {"name": part.name}
            return {
                "type": "file",
                "url": part.url or f"data:{part.media_type};base64,{part.data}",
                "mediaType": part.media_type,
                "providerMetadata": {OURS: {"id": ours, **named}},
            }


def seq_of(part: str) -> Seq:
    """Return where a part was shown that has an id of ours; 0 for another one."""
    found = _OURS.fullmatch(part)
    return Seq(int(found[1])) if found else START


def value_of(output: str) -> object:
    """Return an output as an app wants it: what is a JSON object or a list, as that."""
    if output[:1] not in ("{", "["):
        return output
    try:
        return msgspec.json.decode(output)
    except (msgspec.DecodeError, RecursionError):
        return output
