"""What went wrong, in OpenAI's words: `{"error": {message, type, param, code}}`.

Invariant: a fault of a provider is never told as one of the client's key, and whether the same
request may help later is said in the header that OpenAI's clients obey.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from hostler.core.errors import CallerError, Invalid, Unavailable
from hostler.core.events import JsonObject
from hostler.core.ports import Failure, FaultCode
from hostler.faces.http.answers import Answer, problem
from hostler.faces.http.form import encode
from hostler.service.leg import Stopped

JSON = b"application/json"


class ErrorBody(Struct, kw_only=True):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAiError(Struct, kw_only=True):
    error: ErrorBody


class _Told(NamedTuple):
    status: int
    type: str
    code: str | None = None


_OF_CALLER: Mapping[str | int, _Told] = {
    "missing_required_parameter": _Told(400, "invalid_request_error", "missing_required_parameter"),
    "previous_response_not_found": _Told(
        400, "invalid_request_error", "previous_response_not_found"
    ),
    "key_reused": _Told(422, "invalid_request_error", "key_reused"),
    401: _Told(401, "invalid_request_error", "invalid_api_key"),
    403: _Told(403, "permission_error", "insufficient_permissions"),
    404: _Told(404, "invalid_request_error", "not_found"),
    "model_not_found": _Told(404, "invalid_request_error", "model_not_found"),
    413: _Told(413, "invalid_request_error", "request_too_large"),
    422: _Told(400, "invalid_request_error", "invalid_value"),
    429: _Told(429, "rate_limit_error", "rate_limit_exceeded"),
}
_OF_PROVIDER: Mapping[FaultCode, _Told] = {
    "auth": _Told(502, "server_error", "provider_auth"),
    "rate_limit": _Told(429, "rate_limit_error", "rate_limit_exceeded"),
    "overloaded": _Told(503, "server_error", "overloaded"),
    "server": _Told(502, "server_error", "provider_error"),
    "timeout_connect": _Told(504, "server_error", "timeout"),
    "timeout_first_byte": _Told(504, "server_error", "timeout"),
    "timeout_idle": _Told(504, "server_error", "timeout"),
    "truncated": _Told(502, "server_error", "truncated"),
    "context_overflow": _Told(400, "invalid_request_error", "context_length_exceeded"),
    "invalid_request": _Told(400, "invalid_request_error", "invalid_request"),
    "content_filter": _Told(400, "invalid_request_error", "content_filter"),
    "bad_tool_schema": _Told(400, "invalid_request_error", "invalid_function_parameters"),
    "unavailable": _Told(503, "server_error", "provider_unavailable"),
}
_PARAMS: Mapping[FaultCode, str] = {"context_overflow": "messages", "bad_tool_schema": "tools"}


def tell_openai(error: CallerError | Unavailable | None) -> Answer:
    """Tell what went wrong as OpenAI does; None: it is a bug of ours, of which nothing is told."""
    if error is None:
        made = _error("the server had an error while processing this", "server_error")
        return Answer(500, encode(made), media=JSON)
    native = problem(error)
    if isinstance(error, Unavailable):
        made = _error(str(error), "server_error", code=error.code)
        return Answer(503, encode(made), native.headers, media=JSON)
    told = _OF_CALLER.get(error.code) or _OF_CALLER.get(error.status)
    told = told or _Told(error.status, "invalid_request_error", error.code)
    param = "model" if error.code == "model_not_found" else _param(error)
    body = _error(error.detail, told.type, param=param, code=told.code)
    return Answer(told.status, encode(body), native.headers, media=JSON)


def failed(failure: Failure) -> Answer:
    """Tell that a model did not answer."""
    headers = [(b"x-should-retry", b"true" if failure.again else b"false")]
    if failure.again and failure.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(failure.retry_after_s))))
    told = _OF_PROVIDER[failure.code]
    spent = failure.code == "rate_limit" and not failure.again
    kind, code = ("insufficient_quota",) * 2 if spent else (told.type, told.code)
    if isinstance(failure, Stopped):
        code = failure.reason
    made = _error(failure.message, kind, param=_PARAMS.get(failure.code), code=code)
    return Answer(told.status, encode(made), tuple(headers), media=JSON)


def error_event(answer: Answer) -> bytes:
    """Return an error as the last event of a stream."""
    assert isinstance(answer.body, bytes)
    return b"data: %b\n\n" % answer.body


def _error(
    message: str, kind: str, *, param: str | None = None, code: str | None = None
) -> JsonObject:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _param(error: CallerError) -> str | None:
    """Return the field that is wrong, as OpenAI names it: `messages[0].content`."""
    if not isinstance(error, Invalid) or not error.fields:
        return None
    made = ""
    for name in error.fields[0][0].strip("/").split("/"):
        made += f"[{name}]" if name.isdigit() else f".{name}"
    return made.strip(".") or None
