"""Answers of the native API: JSON, pages of lists, and errors as problem details (RFC 9457).

Invariant: an error has a documented status and code, and the id of its request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from starlette.types import Receive, Scope, Send

from hostler.core.errors import CallerError, Invalid, TooMany, Unavailable
from hostler.faces.http.form import encode, stamp
from hostler.faces.http.headers import Headers
from hostler.faces.http.request import REQUEST_ID, request_of

PROBLEM = b"application/problem+json"


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON answer; a `body` of bytes is sent as it is, None has no content."""

    status: int
    body: object = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    media: bytes | None = None
    """None: JSON, or of an error, a problem."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        request = request_of(scope)
        told = self.body
        if self.status >= 400 and isinstance(told, dict):
            told = {**cast("dict[str, object]", told), "request_id": request}
        body = told if isinstance(told, bytes) else b"" if told is None else encode(told)
        media = self.media or (b"application/json" if self.status < 400 else PROBLEM)
        headers = [
            (b"content-length", b"%d" % len(body)),
            (REQUEST_ID, request.encode()),
            *self.headers,
        ]
        if body:
            headers.append((b"content-type", media))
        # To a socket that is not opened (the ASGI extension `websocket.http.response`).
        kind = "websocket.http" if scope["type"] == "websocket" else "http"
        await send({"type": f"{kind}.response.start", "status": self.status, "headers": headers})
        await send({"type": f"{kind}.response.body", "body": body})


Telling: TypeAlias = "Callable[[CallerError | Unavailable | None], Answer]"
"""How a face tells what went wrong; None: it is a bug of ours, of which nothing is told."""


def tell(error: CallerError | Unavailable | None) -> Answer:
    """Tell what went wrong as the native API does."""
    if error is None:
        return Answer(500, details_of(500, "internal", "this is a bug; the server logged it"))
    return problem(error)


def naming(telling: Telling, names: Mapping[str, str]) -> Telling:
    """Return `telling` for clients that call fields otherwise: pointers, by our name of the field.

    What is below such a field is left out: a face may have put it together in another order.
    """

    def told(error: CallerError | Unavailable | None) -> Answer:
        if isinstance(error, Invalid):
            error.fields = tuple(
                (names.get(at.removeprefix("/").partition("/")[0], at), what)
                for at, what in error.fields
            )
        return telling(error)

    return told


_HEADERS: Mapping[int | str, Headers] = {
    401: ((b"www-authenticate", b"Bearer"),),
    # RFC 6750 section 3: a token was sent, and another one may be good.
    "invalid_token": ((b"www-authenticate", b'Bearer error="invalid_token"'),),
    # What is left of the body is not read, so nothing that follows on this connection can be.
    413: ((b"connection", b"close"),),
    "slow_body": ((b"connection", b"close"),),
}


def problem(
    error: CallerError | Unavailable,
    *,
    status: int | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Answer:
    """Return an error as problem details (RFC 9457), if need be under another status."""
    if isinstance(error, Unavailable):
        retry = ((b"retry-after", b"%d" % max(1, round(error.retry_after_s))),)
        return Answer(503, details_of(503, error.code, str(error)), retry)
    status = status or error.status
    details = {**details_of(status, error.code, error.detail), **error.more}
    if isinstance(at := details.get("at"), float):
        details["at"] = stamp(at)
    if isinstance(error, TooMany):
        headers = ((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))),)
    if isinstance(error, Invalid) and error.fields:
        details["errors"] = [{"pointer": at, "detail": what} for at, what in error.fields]
    headers = headers or _HEADERS.get(error.code) or _HEADERS.get(status, ())
    return Answer(status, details, headers)


def page(items: Sequence[object], limit: int, *, mark: str = "id") -> Answer:
    """Return the first `limit` of a list; those past it only say that there are more."""
    shown, more = items[:limit], len(items) > limit
    cursor = getattr(shown[-1], mark, None) if shown else None
    return Answer(200, {"items": shown, "cursor": cursor, "more": more})


def details_of(status: int, code: str, detail: str) -> dict[str, object]:
    """Return the members that every problem has."""
    title = code.replace("_", " ").capitalize()
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
