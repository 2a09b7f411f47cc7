"""What went wrong, in the form and with the status that clients of Anthropic's API know.

Invariant: nothing of the server is told of a bug, and nothing of a provider's but its masked words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from starlette.types import Receive, Scope, Send

from hostler.core.errors import CallerError, Invalid, Unavailable
from hostler.core.events import JsonObject
from hostler.core.ports import Failure, FaultCode
from hostler.faces.http.answers import Answer, naming, problem
from hostler.faces.http.form import encode
from hostler.faces.http.headers import Headers, adding
from hostler.faces.http.request import request_of

OVERLOADED = 529
_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Any other status is an `invalid_request_error`."""
_STATUS: Mapping[FaultCode, int] = {
    # Not 401: the client's own key is good, and it would ask for another one.
    "auth": 500,
    "rate_limit": 429,
    "overloaded": OVERLOADED,
    "server": 500,
    "timeout_connect": 504,
    "timeout_first_byte": 504,
    "timeout_idle": 504,
    "truncated": 500,
    "context_overflow": 400,
    "invalid_request": 400,
    "content_filter": 400,
    "bad_tool_schema": 400,
    "unavailable": OVERLOADED,
}
TOO_LONG = "prompt is too long: "
"""By these words clients know that they have to shorten the conversation."""


@dataclass(frozen=True, slots=True)
class VendorAnswer(Answer):
    """A JSON answer whose request's id is also where these clients look for it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = ((b"request-id", request_of(scope).encode()),)
        await Answer.__call__(self, scope, receive, adding(send, named))


def _tell(error: CallerError | Unavailable | None) -> Answer:
    """Tell what went wrong; None: a bug of ours."""
    if error is None:
        return _answer(500, "this is a bug; the server logged it")
    headers = problem(error).headers
    if isinstance(error, Unavailable):
        return _answer(OVERLOADED, str(error), headers)
    told = error.detail
    if isinstance(error, Invalid) and error.fields:
        told = "; ".join(f"{at or '/'}: {what}" for at, what in error.fields)
    return _answer(400 if error.status == 422 else error.status, told, headers)


tell = naming(
    _tell,
    {
        "client_tools": "/tools",
        "content": "/messages",
        "history": "/messages",
        "json_schema": "/output_config/format/schema",
        "stop": "/stop_sequences",
    },
)
"""Tell what went wrong, with the names that these clients have for fields."""


def failed(failure: Failure) -> Answer:
    """Tell why a model gave no answer."""
    headers: Headers = ((b"x-should-retry", b"true" if failure.again else b"false"),)
    if failure.retry_after_s is not None:
        after = b"%d" % max(1, math.ceil(failure.retry_after_s))
        headers = (*headers, (b"retry-after", after))
    told = failure.message
    if failure.code == "context_overflow" and not told.lower().startswith(TOO_LONG):
        told = TOO_LONG + told
    return _answer(_STATUS[failure.code], told, headers)


def event(answer: Answer, request: str) -> bytes:
    """Return an error as the last event of a stream that has begun."""
    told = {**msgspec.convert(answer.body, JsonObject), "request_id": request}
    return b"event: error\ndata: %b\n\n" % encode(told)


def _answer(status: int, message: str, headers: Headers = ()) -> Answer:
    kind = _TYPES.get(status, "invalid_request_error")
    body = {"type": "error", "error": {"type": kind, "message": message}}
    return VendorAnswer(status, body, headers, b"application/json")
