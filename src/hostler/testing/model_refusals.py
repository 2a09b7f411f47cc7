"""What any provider may answer instead of an answer: statuses, wordings, floods.  See `model_scenarios`."""

from __future__ import annotations

from collections.abc import Sequence

from hostler.core.ports import FaultCode
from hostler.testing.model_script import Fails, Fault, FaultKind, Raw, Scenario, Text

FLOODS: Sequence[Scenario] = (
    Scenario(
        name="its text never ends",
        steps=[Text("and so on ")],
        after="flood",
        expect=Fails(codes=["server"], again=False),
    ),
    Scenario(
        name="one line of it never ends",
        steps=[Raw(b"data: " + b"x" * 1000), Raw(b"y" * 8192)],
        after="flood",
        expect=Fails(codes=["server"], again=False),
    ),
    Scenario(
        name="its comments never end",
        steps=[Raw(b": " + b"x" * 8192 + b"\n\n")],
        after="flood",
        expect=Fails(codes=["server"], again=False),
    ),
    Scenario(
        name="its error never ends",
        status=400,
        steps=[Raw(b"x" * 8192)],
        after="flood",
        expect=Fails(codes=["invalid_request"], again=False),
    ),
)
"""More than anybody should keep; the model must stop reading, with little kept."""


def _status(status: int, kind: FaultKind, code: FaultCode, *, again: bool) -> Scenario:
    return Scenario(
        name=f"status {status}",
        status=status,
        steps=[Fault(kind, "so it is")],
        expect=Fails(codes=[code], again=again, says="so it is"),
    )


def _waits(header: str, value: str, seconds: float) -> Scenario:
    return Scenario(
        name=f"status 429, {header}: {value}",
        status=429,
        headers={header: value},
        steps=[Fault("rate_limit", "so it is")],
        expect=Fails(codes=["rate_limit"], again=True, retry_after_s=seconds),
    )


STATUSES: Sequence[Scenario] = (
    _status(400, "invalid", "invalid_request", again=False),
    _status(401, "auth", "auth", again=False),
    _status(403, "auth", "auth", again=False),
    _status(404, "invalid", "invalid_request", again=False),
    _status(413, "invalid", "context_overflow", again=False),
    _status(429, "rate_limit", "rate_limit", again=True),
    _status(500, "server", "server", again=True),
    _status(502, "server", "server", again=True),
    _status(503, "overloaded", "overloaded", again=True),
    _status(529, "overloaded", "overloaded", again=True),
    _waits("Retry-After", "7", 7.0),
    _waits("Retry-After", "1.5", 1.5),
    _waits("Retry-After-Ms", "250", 0.25),
    _waits("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
    Scenario(
        name="status 502 with a web page",
        status=502,
        headers={"content-type": "text/html"},
        body=b"<html><head><title>502 Bad Gateway</title></head>" + b"<hr>nginx" * 99,
        expect=Fails(codes=["server"], again=True, says="502 Bad Gateway"),
    ),
    Scenario(
        name="status 500 with bytes that mean nothing",
        status=500,
        body=bytes(range(256)),
        expect=Fails(codes=["server"], again=True),
    ),
    Scenario(
        name="status 503 with a body that breaks off",
        status=503,
        body=b'{"error": {"mess',
        after="cut",
        expect=Fails(codes=["overloaded"], again=True, says="503"),
    ),
    Scenario(
        name="status 307, a redirect",
        status=307,
        headers={"Location": "https://elsewhere.example/v1"},
        body=b"",
        expect=Fails(codes=["invalid_request"], again=False, says="elsewhere.example"),
    ),
    Scenario(
        name="status 200 with a web page",
        headers={"content-type": "text/html"},
        body=b"<html><title>Log in</title></html>",
        expect=Fails(codes=["invalid_request"], again=False, says="text/html"),
    ),
    Scenario(
        name="status 429 for an account without credit",
        status=429,
        steps=[Fault("rate_limit", "You exceeded your current quota, please check your billing")],
        expect=Fails(codes=["rate_limit"], again=False, says="credit"),
    ),
)
"""Answers that are refusals."""

OVERFLOWS: Sequence[str] = (
    "prompt is too long: 213462 tokens > 200000 maximum",
    "Input is too long for requested model.",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "Requested token count exceeds the model's maximum context length of 131072 tokens.",
    "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
    "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    "Please reduce the length of the messages or completion.",
    "This endpoint's maximum context length is 8192 tokens. However, you requested about 9000.",
    "This model's maximum context length is 4096 tokens. However, you requested 512 output tokens",
    "Input length 300000 exceeds the maximum allowed input length of 262144 tokens.",
    "The input (140000 tokens) is longer than the model's context length (131072 tokens).",
    "prompt token count of 130000 exceeds the limit of 128000",
    "the request exceeds the available context size, try increasing it",
    "The number of tokens to keep from the initial prompt is greater than the context length",
    "invalid params, context window exceeds limit",
    "Your request exceeded model token limit: 262144 (requested: 300000)",
    "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
    "prompt too long; exceeded max context length by 300 tokens",
    "context_length_exceeded",
    "Too many tokens in the prompt",
)
"""How providers say that a conversation is too long."""

WORDINGS: Sequence[Scenario] = (
    *(
        Scenario(
            name=f"status 400: {wording}",
            status=400,
            steps=[Fault("invalid", wording)],
            expect=Fails(codes=["context_overflow"], again=False),
        )
        for wording in OVERFLOWS
    ),
    Scenario(
        name="status 400: the schema of a tool",
        status=400,
        steps=[Fault("invalid", "Invalid schema for function 'weather': 'strin' is not valid")],
        expect=Fails(codes=["bad_tool_schema"], again=False),
    ),
    Scenario(
        name="status 400: a content filter",
        status=400,
        steps=[Fault("invalid", "The response was filtered by the content management policy.")],
        expect=Fails(codes=["content_filter"], again=False),
    ),
    Scenario(
        name="status 429: Too many tokens, please wait before trying again.",
        status=429,
        steps=[Fault("rate_limit", "Too many tokens, please wait before trying again.")],
        expect=Fails(codes=["rate_limit"], again=True),
    ),
)
"""Refusals that are told apart by their words alone."""
