"""Chunks as they are sent, and the words that they have for what happened.

Invariant: what is said of a failure is short, and has nothing of how the server is made.
"""

from __future__ import annotations

import msgspec

from hostler.core.events import JsonObject, Usage
from hostler.faces.http.form import encode

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


def value_of(output: str) -> object:
    """Return an output as an app wants it: what is a JSON object or a list, as that."""
    if output[:1] not in ("{", "["):
        return output
    try:
        return msgspec.json.decode(output)
    except (msgspec.DecodeError, RecursionError):
        return output
