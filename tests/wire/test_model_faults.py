"""What providers say of their faults is told in one vocabulary, in one line, without the key."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.events import JsonObject
from hostler.core.ports import FaultCode
from hostler.models.faults import Failed, complaint, redacted, refusal

NOW = 1_795_000_000.0
KEY = "sk-proj-abc/def+ghi"


def refused(status: int, body: object = None, **headers: str) -> Failed:
    raw = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal(status, named, raw, now=NOW)


@pytest.mark.parametrize(
    ("status", "code", "again"),
    [
        (302, "invalid_request", False),
        (400, "invalid_request", False),
        (401, "auth", False),
        (402, "rate_limit", False),
        (403, "auth", False),
        (404, "invalid_request", False),
        (408, "server", True),
        (413, "context_overflow", False),
        (422, "invalid_request", False),
        (429, "rate_limit", True),
        (498, "overloaded", True),
        (500, "server", True),
        (503, "overloaded", True),
        (524, "server", True),
        (529, "overloaded", True),
    ],
)
def test_a_status_alone_says_enough(status: int, code: FaultCode, *, again: bool) -> None:
    failed = refused(status)

    assert (failed.code, failed.again) == (code, again)


BODIES: list[tuple[str, object]] = [
    ("OpenAI", {"error": {"message": "no such model", "type": "x", "param": None, "code": None}}),
    ("Anthropic", {"type": "error", "error": {"type": "x", "message": "no such model"}}),
    ("Gemini", {"error": {"code": 404, "message": "no such model", "status": "NOT_FOUND"}}),
    ("Gemini, as a list", [{"error": {"code": 404, "message": "no such model"}}]),
    ("Ollama", {"error": "no such model"}),
    ("FastAPI", {"detail": "no such model"}),
    ("vLLM, once", {"object": "error", "message": "no such model", "code": 404}),
    ("text", b"no such model"),
]


@pytest.mark.parametrize(("who", "body"), BODIES, ids=[who for who, _ in BODIES])
def test_the_message_is_found_in_every_shape(who: str, body: object) -> None:
    del who

    failure = refused(404, body).told("somebody", KEY)

    assert failure.code == "invalid_request"
    assert failure.message == "somebody refused the request: status 404, no such model"


def test_what_the_provider_behind_a_router_said_is_told() -> None:
    error = {"message": "Provider returned error", "code": 502, "metadata": {"raw": "disk full"}}

    assert "disk full" in refused(502, {"error": error}).told("a router", None).message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "3"}, 3.0),
        ({"retry_after_ms": "1500", "retry_after": "99"}, 1.5),
        ({"retry_after": "Tue, 18 Nov 2026 06:40:10 GMT"}, 0.0),
        ({"retry_after": "-5"}, 0.0),
        ({"retry_after": "1e12"}, 86_400.0),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "Tue, 99 Nov 2026"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_taken_from_the_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert refused(429, **headers).retry_after_s == seconds


def test_a_date_is_counted_from_now() -> None:
    failed = refusal(503, {"retry-after": "Wed, 18 Nov 2026 11:06:50 GMT"}, b"", now=NOW)

    assert failed.retry_after_s == pytest.approx(1_795_000_010.0 - NOW)


def test_a_wait_in_the_body_counts_where_no_header_has_one() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12.5s"}]
    body: JsonObject = {"error": {"code": 429, "message": "slow down", "details": details}}

    assert refused(429, body).retry_after_s == 12.5
    assert refused(429, body, retry_after="2").retry_after_s == 2.0


def test_no_wait_is_told_where_asking_again_is_no_use() -> None:
    assert refused(401, retry_after="3").told("x", None).retry_after_s is None


@pytest.mark.parametrize(
    ("body", "code", "again"),
    [
        ({"error": {"code": "insufficient_quota", "message": "quota"}}, "rate_limit", False),
        (
            {"error": {"message": "Request too large for gpt on tokens per min (TPM)"}},
            "context_overflow",
            False,
        ),
        ({"error": {"message": "Too many tokens, please wait"}}, "rate_limit", True),
        ({"error": {"type": "overloaded_error", "message": "busy"}}, "rate_limit", True),
    ],
)
def test_a_429_may_mean_something_else(body: object, code: FaultCode, *, again: bool) -> None:
    failed = refused(429, body)

    assert (failed.code, failed.again) == (code, again)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"type": "overloaded_error", "message": "x"}, "overloaded"),
        ({"code": 429, "message": "x"}, "rate_limit"),
        ({"code": "503", "message": "x"}, "overloaded"),
        ({"code": "rate_limit_exceeded", "message": "x"}, "rate_limit"),
        ({"code": "content_filter", "message": "x"}, "content_filter"),
        ({"status": "RESOURCE_EXHAUSTED"}, "rate_limit"),
        ({"code": 400, "message": "API key not valid. Please pass a valid API key."}, "auth"),
        ({"message": "This model's maximum context length is 10"}, "context_overflow"),
        ("something", "server"),
        (7, "server"),
        ([], "server"),
        (True, "server"),
    ],
)
def test_an_error_in_mid_answer_is_judged_by_its_words(error: object, code: FaultCode) -> None:
    assert complaint(error).code == code


def test_a_key_is_taken_out_however_it_is_written() -> None:
    for form in (KEY, "sk-proj-abc%2Fdef%2Bghi", KEY.replace("/", "/")):
        assert redacted(f"bad key {form}!", KEY) == "bad key [key]!"
    assert redacted('bad "key\\"q"', 'key"q') == 'bad "[key]"'
    assert redacted("nothing", "") == "nothing"


def test_a_page_is_told_by_its_title() -> None:
    page = b"<!DOCTYPE html><html><title>502\n Bad  Gateway</title>" + b"<p>x" * 9999

    message = refused(502, page).told("x", None).message

    assert message == "x had a fault of its own: status 502, a web page (502 Bad Gateway)"


@given(status=st.integers(100, 999), body=st.binary(max_size=300), after=st.text(max_size=20))
@settings(deadline=None)
def test_any_answer_is_one_short_line(status: int, body: bytes, after: str) -> None:
    failure = refusal(status, {"retry-after": after}, body, now=NOW).told("somebody", KEY)

    assert failure.message.startswith("somebody ")
    assert "\n" not in failure.message
    assert len(failure.message) < 500


@given(
    error=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["error", "message", "code", "type", "status", "details", "metadata"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=6,
    )
)
@settings(deadline=None, max_examples=60)
def test_any_error_object_is_judged(error: object) -> None:
    assert complaint(error).code
    assert refused(400, error).code
