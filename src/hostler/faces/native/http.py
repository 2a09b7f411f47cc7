"""How an operation of the native API becomes an ASGI endpoint: key, body, answer, errors.

Invariant: whatever a client sends is answered with a documented status; a 500 says nothing of us.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Protocol
from urllib.parse import parse_qsl

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from hostler.core.errors import CallerError, Invalid, Malformed, NotFound, TooLarge, Unavailable
from hostler.core.events import Principal, PrincipalId, TenantId
from hostler.faces.native.wire import encode

log = logging.getLogger(__name__)

VERSION = version("hostler")
LARGEST_BODY = 8 * 1024 * 1024
"""A message with a few images in it; larger things are files."""
PROBLEM = b"application/problem+json"


NOBODY = Principal(id=PrincipalId("nobody"), tenant=TenantId(""))
"""Who calls a public operation, which asks nothing of the service's verbs."""


class Gate(Protocol):
    def __call__(self, headers: Mapping[str, str]) -> Principal:
        """Return who calls.  Raises Unauthorised."""
        ...


@dataclass(slots=True, kw_only=True)
class Call:
    """A request, read and checked; `body` has the type that its operation names."""

    who: Principal
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: object = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON answer; a `body` of bytes is sent as it is, None has no content."""

    status: int
    body: object = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        body = self.body if isinstance(self.body, bytes) else encode(self.body)
        if self.body is None:
            body = b""
        kind = b"application/json" if self.status < 400 else PROBLEM
        headers = [(b"content-length", b"%d" % len(body)), *self.headers]
        if body:
            headers.append((b"content-type", kind))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path, with what its documentation is made from."""

    method: str
    path: str
    name: str
    summary: str
    run: Callable[[Call], Awaitable[ASGIApp]]
    body: object = None
    """The type of the JSON body; None: it has none."""
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    returns: Mapping[int, object] = field(default_factory=dict[int, object])
    """By status: the type of the answer, None for no content."""
    streams: bool = False
    errors: Sequence[int] = ()
    public: bool = False
    """Needs no key."""


class Endpoint:
    """All operations on one path, as an ASGI application."""

    def __init__(self, operations: Sequence[Operation], gate: Gate) -> None:
        self._gate = gate
        self._operations = {operation.method: operation for operation in operations}
        self._decoders = {
            operation.method: msgspec.json.Decoder(operation.body)
            for operation in operations
            if operation.body is not None
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp
        try:
            answer = await self._answer(scope, receive)
        except (CallerError, Unavailable) as error:
            answer = problem(error)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            answer = Answer(500, _details(500, "internal", "this is a bug; the server logged it"))
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> ASGIApp:
        operation = self._operations.get(scope["method"])
        if operation is None:
            allowed = ", ".join(sorted(self._operations)).encode()
            details = _details(405, "method_not_allowed", f"use one of: {allowed.decode()}")
            return Answer(405, details, ((b"allow", allowed),))
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        call = Call(
            who=NOBODY if operation.public else self._gate(headers),
            path=scope.get("path_params", {}),
            query=_query(scope["query_string"]),
            headers=headers,
        )
        decoder = self._decoders.get(operation.method)
        if decoder is not None:
            call.body = _decoded(decoder, await _read(headers, receive))
        return await operation.run(call)


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for a path that is no route."""
    await problem(NotFound("there is no such route"))(scope, receive, send)


_HEADERS = {
    401: ((b"www-authenticate", b"Bearer"),),
    # What is left of the body is not read, so nothing that follows on this connection can be.
    413: ((b"connection", b"close"),),
}


def problem(error: CallerError | Unavailable) -> Answer:
    """Return an error as problem details (RFC 9457)."""
    if isinstance(error, Unavailable):
        retry = ((b"retry-after", b"%d" % max(1, round(error.retry_after_s))),)
        return Answer(503, _details(503, "unavailable", str(error)), retry)
    details = _details(error.status, error.code, error.detail)
    if isinstance(error, Invalid) and error.fields:
        details["errors"] = [{"pointer": at, "detail": what} for at, what in error.fields]
    return Answer(error.status, details, _HEADERS.get(error.status, ()))


def number(call: Call, name: str, *, default: int, most: int, least: int = 1) -> int:
    """Return a whole number from the query.

    Raises:
        Invalid: it is none, or not between `least` and `most`.
    """
    text = call.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not least <= int(text) <= most:
        wanted = f"a whole number from {least} to {most}"
        raise Invalid(f"{name} must be {wanted}", fields=[(name, wanted)])
    return int(text)


def _details(status: int, code: str, detail: str) -> dict[str, object]:
    title = code.replace("_", " ").capitalize()
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}


def _query(raw: bytes) -> dict[str, str]:
    if not raw:
        return {}
    try:
        return dict(parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict"))
    except (UnicodeDecodeError, ValueError) as error:
        raise Malformed("the query string is not percent-encoded UTF-8") from error


async def _read(headers: Mapping[str, str], receive: Receive) -> bytes:
    """Return the request's body.

    Raises:
        TooLarge: it is over `LARGEST_BODY`, known before it is read where the client says so.
    """
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared) > LARGEST_BODY:
        raise TooLarge(f"the body is {declared} bytes; {LARGEST_BODY} are allowed")
    chunks, size, more = list[bytes](), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Malformed("the client went away before the end of its request")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > LARGEST_BODY:
            raise TooLarge(f"the body is over {LARGEST_BODY} bytes")
        more = message.get("more_body", False)
    return b"".join(chunks)


def _decoded(decoder: msgspec.json.Decoder[object], body: bytes) -> object:
    """Return a body as its type; an empty one counts as `{}`.

    Raises:
        Malformed: it is not JSON, not UTF-8, or nested too deeply to be read.
        Invalid: it does not have the form; names the field.
    """
    try:
        return decoder.decode(body or b"{}")
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `")
        raise Invalid(what, fields=[(_pointer(path.rstrip("`")), what)]) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise Malformed("the body is nested too deeply") from error


def _pointer(path: str) -> str:
    """Return msgspec's `$.content[0].text` as a JSON pointer."""
    return re.sub(r"\[(\d+|\.\.\.)\]", r"/\1", path.removeprefix("$")).replace(".", "/")
