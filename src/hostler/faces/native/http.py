"""How an operation of the native API becomes an ASGI endpoint: key, body, answer, errors.

Invariant: whatever a client sends is answered with a documented status; a 500 says nothing of us.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import NamedTuple, Protocol, TypeAlias, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from hostler.core.errors import (
    CallerError,
    Conflict,
    Invalid,
    Malformed,
    NotFound,
    Repeated,
    TooLarge,
    TooMany,
    Unavailable,
)
from hostler.core.events import Principal, PrincipalId, TenantId
from hostler.faces.native.wire import encode, stamp
from hostler.service.admission import Begins
from hostler.service.authorise import authorise
from hostler.service.once import Answering, Asked

T = TypeVar("T")

log = logging.getLogger(__name__)

VERSION = version("hostler")
LARGEST_BODY = 8 * 1024 * 1024
"""A message with a few images in it; larger things are files."""
PROBLEM = b"application/problem+json"


NOBODY = Principal(id=PrincipalId("nobody"), tenant=TenantId(""))
"""Who calls a public operation, which asks nothing of the service's verbs."""


class Caller(NamedTuple):
    who: Principal
    until: float | None = None
    """When the right that was shown ends, in Unix seconds."""


class Entry(Protocol):
    async def __call__(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Caller:
        """Return who calls.  Raises Unauthorised."""
        ...


@dataclass(slots=True, kw_only=True)
class Call:
    """A request, read and checked; `body` has the type that its operation names."""

    who: Principal
    until: float | None = None
    """When the caller's right ends, in Unix seconds."""
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: object = None
    pieces: AsyncGenerator[bytes, None] | None = None
    """The body as it comes, of an operation that reads its own."""
    asked: Asked | None = None
    """The request has an idempotency key."""
    kept: bytes | None = None
    """What was answered to it the first time, by an operation that streams."""

    def answering(self, status: int, view: Callable[[T], object]) -> Answering[T] | None:
        """Return how to keep the answer to this call; None without an idempotency key."""
        if self.asked is None:
            return None
        return Answering(self.asked, lambda result: b"%d %b" % (status, encode(view(result))))


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON answer; a `body` of bytes is sent as it is, None has no content."""

    status: int
    body: object = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        body = self.body if isinstance(self.body, bytes) else encode(self.body)
        if self.body is None:
            body = b""
        media = b"application/json" if self.status < 400 else PROBLEM
        headers = [(b"content-length", b"%d" % len(body)), *self.headers]
        if body:
            headers.append((b"content-type", media))
        # To a socket that is not opened (the ASGI extension `websocket.http.response`).
        kind = "websocket.http" if scope["type"] == "websocket" else "http"
        await send({"type": f"{kind}.response.start", "status": self.status, "headers": headers})
        await send({"type": f"{kind}.response.body", "body": body})


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
    needs: Sequence[str] = ()
    """Those of `query` that must be there and say something."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    returns: Mapping[int, object] = field(default_factory=dict[int, object])
    """By status: the type of the answer, None for no content."""
    takes: tuple[str, int] | None = None
    """Reads its body in pieces: the media type, and how many bytes it may have."""
    gives: str = "application/json"
    """The media type of the answers."""
    begins: Begins | None = None
    """Begins new work, which is refused before its body is read when there is too much."""
    streams: bool = False
    errors: Sequence[int] = ()
    public: bool = False
    """Needs no key."""
    keeps: bool = True
    """An idempotency key is honoured; False: the answer has a secret, which is kept nowhere."""

    @property
    def keeps_answers(self) -> bool:
        return self.method == "POST" and self.keeps


REPLAYED = ((b"idempotent-replayed", b"true"),)
Answered: TypeAlias = Callable[[Principal, Asked], Awaitable[bytes | None]]
"""Finds the answer that was kept for a request, if it was made before."""


class Endpoint:
    """All operations on one path, as an ASGI application."""

    def __init__(
        self,
        operations: Sequence[Operation],
        entry: Entry,
        answered: Answered,
        admit: Callable[[Begins], None],
    ) -> None:
        """`admit` raises Unavailable when new work may not begin."""
        self._entry, self._answered, self._admit = entry, answered, admit
        self._in_progress = set[tuple[TenantId, str]]()
        self._operations = {operation.method: operation for operation in operations}
        self._decoders = {
            operation.method: msgspec.json.Decoder(operation.body)
            for operation in operations
            if operation.body is not None
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        what = f"{scope['method']} {scope['path']}"
        answer = await answered(self._answer(scope, receive), what)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> ASGIApp:
        operation = self._operations.get(scope["method"])
        if operation is None:
            allowed = ", ".join(sorted(self._operations)).encode()
            details = _details(405, "method_not_allowed", f"use one of: {allowed.decode()}")
            return Answer(405, details, ((b"allow", allowed),))
        if operation.begins is not None:
            self._admit(operation.begins)
        call = await read_call(scope, None if operation.public else self._entry)
        if operation.takes is not None:
            call.pieces = _pieces(call.headers, receive, operation.takes[1])
        if operation.method not in self._decoders:
            return await operation.run(call)
        raw = b"".join([piece async for piece in _pieces(call.headers, receive, LARGEST_BODY)])
        return await self.perform(operation.method, call, raw, scope["path"])

    async def perform(self, method: str, call: Call, raw: bytes, path: str) -> ASGIApp:
        """Answer a call whose body is `raw`; `path` is what an idempotency key is good for."""
        operation = self._operations[method]
        if operation.begins is not None:
            self._admit(operation.begins)
        call.body = decoded(self._decoders[method], raw)
        key = call.headers.get("idempotency-key")
        if key is None or not operation.keeps_answers:
            return await operation.run(call)
        call.asked = Asked.by(call.who, f"POST {path}", key, raw)
        return await self._once(operation, call, call.asked)

    async def _once(self, operation: Operation, call: Call, asked: Asked) -> ASGIApp:
        """Answer a request that may have been made before."""
        mark = (call.who.tenant, asked.scope)
        if mark in self._in_progress:
            raise Conflict("the first such request is in progress", code="in_progress")
        self._in_progress.add(mark)
        try:
            call.kept = await self._answered(call.who, asked)
            if call.kept is None:
                try:
                    return await operation.run(call)
                except Repeated:  # by another node, since we looked
                    call.kept = await self._answered(call.who, asked)
            if call.kept is None or operation.streams:
                return await operation.run(call)
            status, body = call.kept.split(b" ", 1)
            return Answer(int(status), body, REPLAYED)
        finally:
            self._in_progress.discard(mark)


async def answered(answering: Awaitable[ASGIApp], what: str) -> ASGIApp:
    """Return the answer, which is a problem when there is none."""
    try:
        return await answering
    except (CallerError, Unavailable) as error:
        return problem(error)
    except Exception:
        log.exception("%s failed", what)
        return Answer(500, _details(500, "internal", "this is a bug; the server logged it"))


async def read_call(scope: Scope, entry: Entry | None) -> Call:
    """Return what a request is but for its body; without `entry`, anybody's.

    Raises:
        Unauthorised: `entry` lets nobody in with what the request has.
        NotFound, Forbidden: the caller has one session, and this is elsewhere.
    """
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    query, path = _query(scope["query_string"]), scope.get("path_params", {})
    caller = Caller(NOBODY) if entry is None else await entry(headers, query)
    # The verbs of the service ask for more than this; what is no verb is asked here alone.
    authorise(caller.who, "read", path.get("session"))
    return Call(who=caller.who, until=caller.until, path=path, query=query, headers=headers)


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for a path that is no route."""
    await problem(NotFound("there is no such route"))(scope, receive, send)


_HEADERS = {
    401: ((b"www-authenticate", b"Bearer"),),
    # What is left of the body is not read, so nothing that follows on this connection can be.
    413: ((b"connection", b"close"),),
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
        return Answer(503, _details(503, error.code, str(error)), retry)
    status = status or error.status
    details = {**_details(status, error.code, error.detail), **error.more}
    if isinstance(at := details.get("at"), float):
        details["at"] = stamp(at)
    if isinstance(error, TooMany):
        headers = ((b"retry-after", b"%d" % max(1, round(error.retry_after_s))),)
    if isinstance(error, Invalid) and error.fields:
        details["errors"] = [{"pointer": at, "detail": what} for at, what in error.fields]
    return Answer(status, details, headers or _HEADERS.get(status, ()))


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


async def _pieces(
    headers: Mapping[str, str], receive: Receive, most: int
) -> AsyncGenerator[bytes, None]:
    """Yield the request's body as it comes.

    Raises:
        TooLarge: it is over `most` bytes, known before it is read where the client says so.
    """
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise TooLarge(f"the body is {declared} bytes; {most} are allowed")
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Malformed("the client went away before the end of its request")
        piece = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise TooLarge(f"the body is over {most} bytes")
        more = message.get("more_body", False)
        if piece:
            yield piece


def decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
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
