"""How an operation of the native API becomes an ASGI endpoint: key, body, answer, errors.

Invariant: whatever a client sends is answered with a documented status; a 500 says nothing of us.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import NamedTuple, Protocol, TypeAlias, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from hostler.core.audited import Entry as AuditEntry
from hostler.core.errors import (
    CallerError,
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    Repeated,
    Unauthorised,
    Unavailable,
)
from hostler.core.events import Principal, PrincipalId, SessionId, TenantId
from hostler.faces.http.answers import Answer, Telling, details_of, tell
from hostler.faces.http.decode import decoded, digits
from hostler.faces.http.deeds import address_of, entry_of
from hostler.faces.http.form import encode
from hostler.faces.http.headers import Joined, adding, joined, standing
from hostler.faces.http.incoming import pieces_of as _pieces
from hostler.faces.http.request import trailed
from hostler.service.admission import Begins
from hostler.service.auditing import Auditing
from hostler.service.authorise import confine
from hostler.service.once import Answering, Asked
from hostler.service.rates import Rates

T = TypeVar("T")

log = logging.getLogger(__name__)

VERSION = version("hostler")
LARGEST_BODY = 8 * 1024 * 1024
"""A message with a few images in it; larger things are files."""


NOBODY = Principal(id=PrincipalId("nobody"), tenant=TenantId(""))
"""Who calls a public operation, which asks nothing of the service's verbs."""


class Caller(NamedTuple):
    who: Principal
    until: float | None = None
    """When the right that was shown ends, in Unix seconds."""


class Entry(Protocol):
    async def __call__(self, headers: Joined, query: Mapping[str, str], peer: str | None) -> Caller:
        """Return who calls, and take out of `headers` what is nobody else's business.

        `peer`: the address of the socket.  Raises Unauthorised.
        """
        ...


@dataclass(slots=True, kw_only=True)
class Call:
    """A request, read and checked; `body` has the type that its operation names."""

    who: Principal
    until: float | None = None
    """When the caller's right ends, in Unix seconds."""
    address: str = ""
    """Where it came from."""
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

    @property
    def session(self) -> SessionId | None:
        """The session that the path names, if it does."""
        name = self.path.get("session")
        return None if name is None else SessionId(name)

    def entry(self, action: str | None = None, *, status: int = 0) -> AuditEntry:
        """Return the audit log's entry of this call; without an `action`, of a refusal."""
        return entry_of(
            self.who, self.path, self.headers, self.address, action=action, status=status
        )

    def answering(self, status: int, view: Callable[[T], object]) -> Answering[T] | None:
        """Return how to keep the answer to this call; None without an idempotency key."""
        if self.asked is None:
            return None
        return Answering(self.asked, lambda result: b"%d %b" % (status, encode(view(result))))


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
    tell: Telling = tell
    """How errors are told."""
    tells: object = None
    """The type of what it tells; None: problems."""
    audited: str | None = None
    """The action as which it is in the audit log, one of `core.audited.ACTIONS`."""

    @property
    def keeps_answers(self) -> bool:
        return self.method == "POST" and self.keeps


REPLAYED = ((b"idempotent-replayed", b"true"),)
Answered: TypeAlias = Callable[[Principal, Asked, SessionId | None], Awaitable[bytes | None]]
"""Finds the answer that was kept for a request, if it was made before."""


class Endpoint:
    """All operations on one path, as an ASGI application."""

    def __init__(
        self,
        operations: Sequence[Operation],
        entry: Entry,
        answered: Answered,
        admit: Callable[[Begins], None],
        *,
        rates: Rates,
        auditing: Auditing,
        hide: Callable[[TenantId, str], str],
    ) -> None:
        """`admit` raises Unavailable when new work may not begin; `hide` takes secrets out."""
        self._entry, self._answered, self._admit = entry, answered, admit
        self._rates, self._auditing, self._hide = rates, auditing, hide
        self._in_progress = set[tuple[TenantId, str]]()
        self._operations = {operation.method: operation for operation in operations}
        self._first = operations[0]
        self._decoders = {
            operation.method: msgspec.json.Decoder(operation.body)
            for operation in operations
            if operation.body is not None
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        what = f"{scope['method']} {scope['path']}"
        whose, began = list[Principal](), time.perf_counter()
        with trailed(scope):
            telling = self._operations.get(scope["method"], self._first).tell
            answer = await answered(self._answer(scope, receive, whose), what, telling)
            if log.isEnabledFor(logging.DEBUG):
                access(scope, answer, began)
            told = standing(self._rates, whose[0]) if whose else ()
            await answer(scope, receive, adding(send, told) if told else send)

    async def _answer(self, scope: Scope, receive: Receive, whose: list[Principal]) -> ASGIApp:
        """Answer a request; once it is known whose it is, `whose` says it."""
        operation = self._operations.get(scope["method"])
        if operation is None:
            allowed = ", ".join(sorted(self._operations)).encode()
            details = details_of(405, "method_not_allowed", f"use one of: {allowed.decode()}")
            return Answer(405, details, ((b"allow", allowed),))
        if operation.begins is not None:
            self._admit(operation.begins)
        call = await read_call(scope, None if operation.public else self._entry, self._auditing)
        if not operation.public:
            whose.append(call.who)
            self._rates.take(call.who, "requests")
        if operation.takes is not None:
            call.pieces = _pieces(call.headers, receive, operation.takes[1])
        if operation.method not in self._decoders:
            with self._hiding(call.who.tenant):
                return await self._run(operation, call)
        raw = b"".join([piece async for piece in _pieces(call.headers, receive, LARGEST_BODY)])
        return await self._perform(operation.method, call, raw, scope["path"])

    async def perform(self, method: str, call: Call, raw: bytes, path: str) -> ASGIApp:
        """Answer a call that came another way; its body is `raw`.

        `path` is what an idempotency key is good for.
        """
        self._rates.take(call.who, "requests")
        return await self._perform(method, call, raw, path)

    async def _perform(self, method: str, call: Call, raw: bytes, path: str) -> ASGIApp:
        operation = self._operations[method]
        if operation.begins is not None:
            self._admit(operation.begins)
        with self._hiding(call.who.tenant):
            call.body = decoded(self._decoders[method], raw)
            key = call.headers.get("idempotency-key")
            if key is None or not operation.keeps_answers:
                return await self._run(operation, call)
            call.asked = Asked.by(call.who, f"POST {path}", key, raw)
            return await self._once(operation, call, call.asked)

    @contextmanager
    def _hiding(self, tenant: TenantId) -> Generator[None]:
        """Keep what a request quoted out of the words of its refusal, if it is secret."""
        try:
            yield
        except CallerError as error:
            error.detail = self._hide(tenant, error.detail)
            if isinstance(error, Invalid):
                error.fields = tuple(
                    (self._hide(tenant, at), self._hide(tenant, what)) for at, what in error.fields
                )
            raise

    async def _run(self, operation: Operation, call: Call) -> ASGIApp:
        """Carry an operation out; what is audited, and any lack of rights, is written down."""
        if operation.audited is None:
            try:
                return await operation.run(call)
            except Forbidden as error:
                await self._auditing.refused(call.entry(), error)
                raise
        entry = call.entry(operation.audited, status=min(operation.returns))
        return await self._auditing.during(entry, partial(operation.run, call))

    async def _once(self, operation: Operation, call: Call, asked: Asked) -> ASGIApp:
        """Answer a request that may have been made before."""
        mark = (call.who.tenant, asked.scope)
        if mark in self._in_progress:
            raise Conflict("the first such request is in progress", code="in_progress")
        self._in_progress.add(mark)
        try:
            find = partial(self._answered, call.who, asked, call.session)
            call.kept = await find()
            if call.kept is None:
                try:
                    return await self._run(operation, call)
                except Repeated:  # by another node, since we looked
                    call.kept = await find()
            if call.kept is None or operation.streams:
                return await operation.run(call)
            status, body = call.kept.split(b" ", 1)
            return Answer(int(status), body, REPLAYED)
        finally:
            self._in_progress.discard(mark)


async def answered(answering: Awaitable[T], what: str, telling: Telling = tell) -> T | Answer:
    """Return what is waited for, or an answer that tells why it did not come."""
    try:
        return await answering
    except (CallerError, Unavailable) as error:
        return telling(error)
    except Exception:
        log.exception("%s failed", what)
        return telling(None)


def access(scope: Scope, answer: ASGIApp, began: float) -> None:
    """Log a request; without its query and headers, in which tickets, links and keys are."""
    log.debug(
        "request",
        extra={
            "method": scope["method"],
            "path": scope["path"],
            "status": answer.status if isinstance(answer, Answer) else 200,
            "took_ms": round((time.perf_counter() - began) * 1000, 2),
        },
    )


async def read_call(scope: Scope, entry: Entry | None, auditing: Auditing) -> Call:
    """Return what a request is but for its body; without `entry`, anybody's.

    Raises:
        Unauthorised: `entry` lets nobody in with what the request has.
        NotFound, Forbidden: the caller has one session, and this is elsewhere.
    """
    headers = joined(scope["headers"])
    query, path = _query(scope["query_string"]), scope.get("path_params", {})
    caller, address, peer = Caller(NOBODY), address_of(scope), scope.get("client")
    try:
        if entry is not None:
            caller = await entry(headers, query, None if peer is None else peer[0])
        # The verbs of the service ask for more than this; what is no verb is asked here alone.
        confine(caller.who, path.get("session"))
    except (Unauthorised, Forbidden) as error:
        await auditing.refused(entry_of(caller.who, path, headers, address), error)
        raise
    return Call(
        who=caller.who,
        until=caller.until,
        address=address,
        path=path,
        query=query,
        headers=headers,
    )


def number(call: Call, name: str, *, default: int, most: int, least: int = 1) -> int:
    """Return a whole number from the query.

    Raises:
        Invalid: it is none, or not between `least` and `most`.
    """
    text = call.query.get(name)
    if text is None:
        return default
    given = digits(text)
    if given is None or not least <= given <= most:
        wanted = f"a whole number from {least} to {most}"
        raise Invalid(f"{name} must be {wanted}", fields=[(name, wanted)])
    return given


def one_of(call: Call, name: str, allowed: Sequence[str]) -> str | None:
    """Return a word from the query, None when it is not there or says nothing.

    Raises:
        Invalid: it is none of those that are allowed.
    """
    word = call.query.get(name) or None
    if word is not None and word not in allowed:
        raise Invalid(
            f"{name} cannot be {word!r}", fields=[(name, f"one of: {', '.join(allowed)}")]
        )
    return word


def _query(raw: bytes) -> dict[str, str]:
    if not raw:
        return {}
    try:
        return dict(parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict"))
    except (UnicodeDecodeError, ValueError) as error:
        raise Malformed("the query string is not percent-encoded UTF-8") from error
