"""One request to a server: what it may take, what its answer is, and what went wrong.

Invariant: whatever answers, what is raised is of the one tree of errors.
"""

from __future__ import annotations

import random
import secrets
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import aiohttp
import msgspec

from hostler.app.frames import Frame
from hostler.core.errors import (
    CallerError,
    Conflict,
    Forbidden,
    HostlerError,
    Invalid,
    Malformed,
    NotFound,
    TooLarge,
    TooMany,
    Unauthorised,
    Unavailable,
)
from hostler.core.events import JsonObject

CONNECT_S = 5.0
SILENCE_S = 45.0
"""Three heartbeats of the server: a connection that says nothing for so long is gone."""
SOONEST_S, LATEST_S = 0.1, 3.0
"""Between two tries to reach a server that went away; each takes twice as long as the one before."""
LONGEST_WAIT_S = 60.0
"""However long a server asks us to wait: it may be back earlier."""
SEND_S = 10.0
"""How long a request that got no answer is sent again."""
PATIENCE_S = 60.0
"""How long a stream that broke is tried again: a restart of the server, a walk through a tunnel."""

_chance = random.Random(secrets.randbits(256))  # noqa: S311  spreads waits, hides nothing
_KINDS: tuple[type[CallerError], ...] = (
    Malformed,
    Unauthorised,
    Forbidden,
    NotFound,
    Conflict,
    TooLarge,
    TooMany,
)
_REFUSED = {kind.status: kind for kind in _KINDS}
_object: msgspec.json.Decoder[JsonObject] = msgspec.json.Decoder(dict[str, object])


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection broke; it is tried again until it is back."""

    why: str


@dataclass(frozen=True, slots=True)
class Back:
    """The connection is there again, and nothing was missed."""


News: TypeAlias = list[Frame] | Lost | Back


class _Field(msgspec.Struct):
    pointer: str
    detail: str


def opened(tls_cert: Path | None) -> aiohttp.ClientSession:
    """Return what makes requests; `tls_cert` is the server's own certificate, if it is known."""
    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=SILENCE_S)
    connector = aiohttp.TCPConnector(ssl=True if tls_cert is None else _only(tls_cert))
    return aiohttp.ClientSession(connector=connector, timeout=timeout)


def refused(status: int, body: bytes, url: str, retry_after: str | None = None) -> HostlerError:
    """Return the error for an answer that is none; it has what the problem says as `more`."""
    problem = _problem(body)
    detail = str(problem.get("detail") or f"{url} answers with status {status}")
    code = str(problem.get("code") or "") or None
    wait_s = _seconds(retry_after)
    if status >= 500:
        return Unavailable(detail, code=code or "unavailable", retry_after_s=wait_s)
    if status == Invalid.status:
        return Invalid(detail, code=code, fields=_fields(problem), more=problem)
    error = _REFUSED.get(status, CallerError)(detail, code=code, more=problem)
    error.status = status
    if isinstance(error, TooMany):
        error.retry_after_s = wait_s or TooMany.retry_after_s
    return error


def silent(url: str, error: Exception) -> Unavailable:
    """Return the error for an answer that does not come."""
    what = (
        "the server at {} is silent"
        if isinstance(error, TimeoutError)
        else "no server answers at {}"
    )
    return Unavailable(what.format(url), retry_after_s=0.0)


def may_change(error: Unavailable | Conflict) -> bool:
    """Whether the same request may be answered otherwise: nothing came of it, or not yet."""
    if isinstance(error, Conflict):
        return error.code == "in_progress"
    return error.code != "internal"


def waits(least_s: float, wait_s: float) -> float:
    """Return how long to wait: as long as was asked for, and not all who wait at once."""
    return max(min(least_s, LONGEST_WAIT_S), wait_s * (0.75 + 0.5 * _chance.random()))


def decoded(body: bytes, url: str) -> JsonObject:
    """Return the object that an answer is.  Raises CallerError: it is none."""
    try:
        return _object.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _foreign(url) from error


def given(**fields: object) -> JsonObject:
    """Return a body of what was given."""
    return {name: value for name, value in fields.items() if value is not None}


async def batches(answer: aiohttp.ClientResponse) -> AsyncGenerator[list[Frame], None]:
    """Yield the frames of a stream, as many at once as have come.

    Raises:
        CallerError: it is no stream of frames.
    """
    if answer.content_type != "text/event-stream":
        raise _foreign(str(answer.url.origin()))
    rest = list[bytes]()
    async for data in answer.content.iter_any():
        rest.append(data)
        if b"\n\n" not in b"".join(rest[-2:]):  # a long frame in many pieces is joined once
            continue
        whole, _, left = b"".join(rest).rpartition(b"\n\n")
        rest = [left]
        try:
            frames = [one for block in whole.split(b"\n\n") if (one := _frame(block)) is not None]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _foreign(str(answer.url.origin())) from error
        if frames:
            yield frames


def _foreign(url: str) -> CallerError:
    return CallerError(f"what answers at {url} is no Hostler server")


def _frame(block: bytes) -> Frame | None:
    fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
    if not {b"id", b"event", b"data"} <= fields.keys():
        return None
    return Frame(
        id=fields[b"id"].decode(),
        event=fields[b"event"].decode(),
        data=_object.decode(fields[b"data"]),
    )


def _problem(body: bytes) -> JsonObject:
    try:
        return _object.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _fields(problem: Mapping[str, object]) -> list[tuple[str, str]]:
    try:
        told = msgspec.convert(problem.get("errors") or [], list[_Field])
    except msgspec.ValidationError:
        return []
    return [(one.pointer, one.detail) for one in told]


def _seconds(retry_after: str | None) -> float:
    """Return what `Retry-After` says; a date, which we never send, says nothing."""
    text = (retry_after or "").strip()
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _only(cert: Path) -> ssl.SSLContext:
    """Return a context that trusts this certificate, whatever name it is for, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cert)
    return context
