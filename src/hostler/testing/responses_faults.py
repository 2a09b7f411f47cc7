"""How servers of Responses end an answer, well or badly, and what comes that is none of one.

See `responses_quirks`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hostler.core.events import JsonObject, Usage
from hostler.testing.chat_quirks import quirk
from hostler.testing.model_script import Fails, Raw, Replies, Scenario
from hostler.testing.wire_responses import WHOLE, added, done, end, event, message, text

_CUT = Fails(codes=["truncated"], again=True)


def says(name: str, raw: Sequence[bytes], said: str, thinking: str | None = None) -> Scenario:
    return quirk(name, raw, Replies(text=said, thinking=thinking))


def _failed(error: object) -> bytes:
    return event("response.failed", response={**WHOLE, "status": "failed", "error": error})


def _error(code: str, said: str) -> JsonObject:
    return {"code": code, "message": said}


FAULTS: Sequence[Scenario] = (
    quirk(
        "an error is wrapped in the event",
        [text("a"), event("error", error={"type": "x", **_error("rate_limit_exceeded", "no")})],
        Fails(codes=["rate_limit"], again=True, text="a", says="no"),
    ),
    quirk(
        "an error has no type",
        [text("a"), b'data: {"error": {"message": "boom", "code": 500}}\n\n'],
        Fails(codes=["server"], again=True, text="a", says="boom"),
    ),
    quirk(
        "an error has neither type nor wrapping",
        [text("a"), b'data: {"message": "boom \\ud83d", "code": "server_error"}\n\n'],
        Fails(codes=["server"], again=True, text="a", says="boom"),
    ),
    quirk(
        "it fails without saying why",
        [text("a"), _failed(None)],
        Fails(codes=["server"], again=True, text="a"),
    ),
    quirk(
        "it fails and says how long to wait",
        [_failed(_error("rate_limit_exceeded", "Rate limit. Please try again in 1.5s. See"))],
        Fails(codes=["rate_limit"], again=True, retry_after_s=1.5),
    ),
    quirk(
        "it fails and says how many milliseconds to wait",
        [_failed(_error("rate_limit_exceeded", "Please try again in 28ms."))],
        Fails(codes=["rate_limit"], again=True, retry_after_s=0.028),
    ),
    quirk(
        "it fails for want of credit",
        [_failed(_error("insufficient_quota", "You exceeded your current quota"))],
        Fails(codes=["rate_limit"], again=False),
    ),
    quirk(
        "it fails because it is slow",
        [_failed(_error("slow_down", "Slow down"))],
        Fails(codes=["overloaded"], again=True),
    ),
    quirk(
        "it fails for a picture",
        [_failed(_error("image_too_large", "too large a picture"))],
        Fails(codes=["invalid_request"], again=False, says="too large a picture"),
    ),
    quirk(
        "it fails for a prompt it may not answer",
        [_failed(_error("invalid_prompt", "flagged as potentially violating our usage policy"))],
        Fails(codes=["content_filter"], again=False),
    ),
    quirk(
        "it fails for a policy of its own",
        [_failed(_error("bio_policy", "not this"))],
        Fails(codes=["content_filter"], again=False),
    ),
    quirk(
        "it fails because the conversation is too long",
        [_failed(_error("context_length_exceeded", "Your input exceeds the context window"))],
        Fails(codes=["context_overflow"], again=False),
    ),
    quirk(
        "it was cancelled",
        [text("a"), end(status="cancelled")],
        Fails(codes=["server"], again=True, text="a"),
    ),
    quirk(
        "a content filter cuts it",
        [text("How to"), end(status="incomplete", incomplete_details={"reason": "content_filter"})],
        Fails(codes=["content_filter"], again=False, text="How to"),
    ),
)
"""Answers that are none."""


def _whole(name: str, expect: Replies | Fails, **fields: object) -> Scenario:
    return Scenario(
        name=name,
        headers={"content-type": "application/json"},
        body=msgspec.json.encode({**WHOLE, **fields}),
        expect=expect,
    )


def _counts(name: str, usage: object, expected: Usage) -> Scenario:
    return quirk(name, [text("x"), end(usage=usage)], Replies(text="x", usage=expected))


ENDS: Sequence[Scenario] = (
    quirk(
        "it is incomplete, and nobody knows why",
        [text("a"), end(status="incomplete")],
        Replies(text="a", stop="length"),
    ),
    quirk(
        "it is completed, and says that it is not",
        [text("a"), event("response.completed", response={**WHOLE, "status": "incomplete"})],
        Replies(text="a", stop="length"),
    ),
    quirk(
        "it declines, whole",
        [
            done({"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}),
            end(),
        ],
        Replies(text="No.", stop="refusal"),
    ),
    quirk("[DONE] comes without an end", [text("Half"), b"data: [DONE]\n\n"], _CUT),
    quirk("items are done without an end", [done(message("Hi."))], _CUT),
    says("[DONE] comes after the end", [text("Hi."), end(), b"data: [DONE]\n\n"], "Hi."),
    says("text comes after the end", [text("Hi."), end(), text("And")], "Hi."),
    _whole("the answer is not streamed after all", Replies(text="Hi."), output=[message("Hi.")]),
    _whole("the answer is not streamed and not there yet", _CUT, status="queued"),
    _whole(
        "the answer is not streamed and failed",
        Fails(codes=["server"], again=True, says="boom"),
        status="failed",
        error=_error("server_error", "boom"),
    ),
    Scenario(
        name="a stream is called JSON",
        headers={"content-type": "application/json"},
        steps=[Raw(text("Hi.") + end())],
        expect=Replies(text="Hi."),
    ),
    _counts(
        "usage with cache writes",
        {
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 6},
            "output_tokens": 2,
        },
        Usage(input_tokens=10, output_tokens=2, cache_read_tokens=3, cache_write_tokens=6),
    ),
    _counts(
        "usage as xAI counts it, reasoning apart",
        {
            "input_tokens": 10,
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 7},
            "total_tokens": 19,
        },
        Usage(input_tokens=10, output_tokens=9, reasoning_tokens=7),
    ),
    _counts(
        "usage with words for numbers",
        {"input_tokens": "many", "output_tokens": None, "input_tokens_details": 3},
        Usage(),
    ),
)
"""How answers end."""

EVENTS: Sequence[Scenario] = (
    says(
        "events of no interest come in between",
        [
            event("keepalive", sequence_number=3),
            event("response.queued", response=WHOLE),
            text("a"),
            event("codex.rate_limits", plan_type="pro"),
            event("response.output_text.annotation.added", annotation={"type": "url_citation"}),
            event("response.image_generation_call.partial_image", partial_image_b64="AAAA"),
            event("response.code_interpreter_call_code.delta", delta="print(1)"),
            text("b"),
            b"data: {}\n\n",
            end(),
        ],
        "ab",
    ),
    says(
        "sequence numbers jump, repeat and are words",
        [
            text("a", sequence_number=9),
            text("b", sequence_number=9),
            text("c", sequence_number="last"),
            end(),
        ],
        "abc",
    ),
    says(
        "fields have odd types",
        [
            text(None),
            text({"text": "x"}),
            text("a", output_index="0", item_id=7, content_index=None),
            added({"type": 3}),
            done({"type": ["message"]}),
            event("response.output_item.done", item=None),
            event("response.output_item.done", item="x"),
            b'data: {"type": ["error"], "delta": "x"}\n\n',
            end(status="completed", output="none", usage=[], incomplete_details="x"),
        ],
        "a",
    ),
    says(
        "half an emoji per event",
        [b'data: {"type":"response.output_text.delta","delta":"a\\ud83d"}\n\n', end()],
        "a\ufffd",
    ),
    says(
        "half an emoji in an item",
        [
            done(message("aX")).replace(b"X", b"\\ud83d"),
            end(),
        ],
        "a\ufffd",
    ),
)
"""Events that the book does not have."""
