"""What only the Gemini API can say, and the ways in which Google and gateways vary it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hostler.core.events import JsonObject, Usage
from hostler.core.ports import FaultCode
from hostler.testing.model_script import Call, Fails, Raw, Replies, Scenario
from hostler.testing.wire_gemini import GEMINI, end, error, event, response, said

WEATHER = Call(name="weather", arguments={"city": "Paris"})
TIME = Call(name="time", arguments={"zone": "CET"})
QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more "
    "information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits."
)
"""What Google says whenever there is any limit, be it of a minute or of an account."""


def _quirk(name: str, raw: Sequence[bytes], expect: Replies | Fails) -> Scenario:
    return Scenario(name=name, steps=[Raw(b"".join(raw))], expect=expect)


def _call(name: str, args: object = None, id_: str | None = None) -> JsonObject:
    fields = {"id": id_, "name": name, "args": args}
    return {"functionCall": {key: value for key, value in fields.items() if value is not None}}


_PARIS = _call("weather", {"city": "Paris"})
_CET = _call("time", {"zone": "CET"})


def _stopped(finish: str, code: FaultCode, *, again: bool) -> Scenario:
    return _quirk(
        f"finishReason: {finish}",
        [said({"text": "How to"}), end(finish, finishMessage="so it is")],
        Fails(codes=[code], again=again, text="How to", says="so it is"),
    )


def _limited(name: str, wait_s: float | None, *details: JsonObject) -> Scenario:
    return Scenario(
        name=name,
        status=429,
        body=msgspec.json.encode(error("rate_limit", QUOTA, *details)),
        expect=Fails(
            codes=["rate_limit"], again=wait_s is not None, retry_after_s=wait_s, says="quota"
        ),
    )


def _quota(id_: str) -> JsonObject:
    violation = {"quotaId": id_, "quotaValue": "10", "quotaDimensions": {"location": "global"}}
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}


_RETRY: JsonObject = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "26.5s"}

GEMINI_QUIRKS: Sequence[Scenario] = (
    _quirk(
        "several calls in one event, without ids",
        [said(_PARIS, _CET, _PARIS), end("STOP")],
        Replies(calls=[WEATHER, TIME, WEATHER], stop="tools"),
    ),
    _quirk(
        "calls in the event that ends the message",
        [said({"text": "Let me see."}), end("STOP", None, _PARIS, _CET)],
        Replies(text="Let me see.", calls=[WEATHER, TIME], stop="tools"),
    ),
    _quirk(
        "two calls have one id",
        [
            said(_call("weather", {"city": "Paris"}, "x")),
            said(_call("time", {"zone": "CET"}, "x")),
            end("STOP"),
        ],
        Replies(calls=[WEATHER, TIME], stop="tools"),
    ),
    _quirk(
        "calls without arguments, in one event",
        [said(_call("ping"), _call("ping", {})), end("STOP")],
        Replies(calls=[Call(name="ping", arguments={})] * 2, stop="tools"),
    ),
    _quirk(
        "args are JSON as text",
        [said(_call("weather", '{"city":"Paris"}')), end("STOP")],
        Replies(calls=[WEATHER], stop="tools"),
    ),
    _quirk(
        "text after a call",
        [said(_PARIS), said({"text": "Wait."}), end("STOP")],
        Replies(text="Wait.", calls=[WEATHER], stop="tools"),
    ),
    _quirk(
        "thoughts between texts",
        [
            said({"text": "Hm", "thought": True}, {"text": "One"}),
            said({"text": ", yes", "thought": True}, {"text": " two"}),
            end("STOP"),
        ],
        Replies(text="One two", thinking="Hm, yes"),
    ),
    _quirk(
        "signatures on parts of all kinds",
        [
            said({"text": "Hm", "thought": True, "thoughtSignature": "YQ=="}),
            said({"text": "One", "thoughtSignature": "Yg=="}, {"text": " two"}),
            said({**_PARIS, "thoughtSignature": "Yw=="}),
            end("STOP", None, {"text": "", "thoughtSignature": "ZA=="}),
        ],
        Replies(text="One two", thinking="Hm", calls=[WEATHER], stop="tools"),
    ),
    _quirk(
        "parts of which we know nothing",
        [
            said({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}, {"text": "x"}),
            said({}, {"somethingNew": {"a": [1]}}),
            end("STOP"),
        ],
        Replies(text="x"),
    ),
    _quirk(
        "an event without candidates in mid-answer",
        [
            said({"text": "a"}),
            event({"usageMetadata": {"promptTokenCount": 3}}),
            event({}),
            response({"groundingMetadata": {}}, {}),
            said({"text": "b"}),
            end("STOP"),
        ],
        Replies(text="ab"),
    ),
    _quirk(
        "content without parts, at the end",
        [said({"text": "a"}), response({"content": {"role": "model"}, "finishReason": "STOP"}, {})],
        Replies(text="a"),
    ),
    _quirk(
        "no content at all, at the end",
        [said({"text": "a"}), response({"finishReason": "STOP"}, {})],
        Replies(text="a"),
    ),
    _quirk(
        "more comes after the finishReason",
        [said({"text": "a"}), end("STOP"), said({"text": "b"}), end("STOP")],
        Replies(text="ab"),
    ),
    _quirk(
        "usage comes after the finishReason",
        [
            said({"text": "a"}),
            response({"finishReason": "STOP"}, {}),
            event({"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1}}),
        ],
        Replies(text="a", usage=Usage(input_tokens=3, output_tokens=1)),
    ),
    _quirk(
        "[DONE] after the end",
        [said({"text": "a"}), end("STOP"), b"data: [DONE]\n\n"],
        Replies(text="a"),
    ),
    _quirk(
        "[DONE] instead of a finishReason",
        [said({"text": "a"}), b"data: [DONE]\n\n"],
        Fails(codes=["truncated"], again=True, text="a"),
    ),
    _quirk(
        "a finishReason that is none",
        [said({"text": "a"}), end("FINISH_REASON_UNSPECIFIED")],
        Fails(codes=["truncated"], again=True, text="a"),
    ),
    *(
        _stopped(finish, "content_filter", again=False)
        for finish in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")
    ),
    *(
        _stopped(finish, "server", again=True)
        for finish in ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER", "YET_UNHEARD_OF")
    ),
    _stopped("MISSING_THOUGHT_SIGNATURE", "invalid_request", again=False),
    _quirk(
        "the question is blocked",
        [event({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "modelVersion": "kit"})],
        Fails(codes=["content_filter"], again=False, says="PROHIBITED_CONTENT"),
    ),
    _quirk(
        "promptFeedback that blocks nothing",
        [event({"promptFeedback": {"safetyRatings": []}}), said({"text": "a"}), end("STOP")],
        Replies(text="a"),
    ),
    _quirk(
        "half an emoji per event",
        [b'data: {"candidates":[{"content":{"parts":[{"text":"a\\ud83d"}]}}]}\n\n', end("STOP")],
        Replies(text="a\ufffd"),
    ),
    _limited(
        "status 429 for requests of a minute",
        26.5,
        _quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"),
        _RETRY,
    ),
    _limited(
        "status 429 for requests of a day",
        None,
        _quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
        _RETRY,
    ),
    _limited("status 429 without details", None),
    Scenario(
        name="status 400 for a bad key",
        status=400,
        body=msgspec.json.encode(
            error(
                "invalid",
                "API key not valid. Please pass a valid API key.",
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"},
            )
        ),
        expect=Fails(codes=["auth"], again=False, says="API key not valid"),
    ),
    Scenario(
        name="status 400 for the schema of a tool (Gemini)",
        status=400,
        body=GEMINI.refusal(
            "invalid",
            "* GenerateContentRequest.tools[0].function_declarations[0].parameters.properties: "
            "should be non-empty for OBJECT type",
        ),
        expect=Fails(codes=["bad_tool_schema"], again=False),
    ),
    Scenario(
        name="an error in a list of one",
        status=503,
        headers={"content-type": "application/json"},
        body=msgspec.json.encode([error("overloaded", "The model is overloaded.")]),
        expect=Fails(codes=["overloaded"], again=True, says="overloaded"),
    ),
    Scenario(
        name="the answer is not streamed after all (Gemini)",
        headers={"content-type": "application/json"},
        body=end("STOP", Usage(input_tokens=3, output_tokens=1), {"text": "Hi."})[6:],
        expect=Replies(text="Hi.", usage=Usage(input_tokens=3, output_tokens=1)),
    ),
    Scenario(
        name="the events come as one array",
        headers={"content-type": "application/json"},
        body=b"[%s,\n%s]" % (said({"text": "a\\ud83d"})[6:], end("STOP", None, {"text": "b"})[6:]),
        expect=Replies(text="a\\ud83db"),
    ),
)
