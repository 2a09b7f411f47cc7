"""Tokens of issuers that the operator named (JWT: RFC 7519, RFC 8725, RFC 9068).

    token ─▶ seen before, its key still there, in time? ─▶ who that was
          └▶ issuer (by `iss`) ─▶ key (by `kid`, `alg`) ─▶ signature ─▶ claims ─▶ who that is

Invariant: nothing a token says of itself chooses how it is checked, but for which of the issuer's
own keys; a refusal says one thing to whoever sent it, and why to the operator's log.
"""

from __future__ import annotations

import logging
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple, TypeVar

import msgspec
from jwt import PyJWS
from jwt.exceptions import PyJWTError
from msgspec import Struct

from hostler.app.identity.claims import Exists, Refused, claim, everywhere, principal, words
from hostler.app.identity.jwks import Keys
from hostler.app.identity.settings import Jwt
from hostler.core.errors import Unauthorised
from hostler.core.events import Principal
from hostler.faces.http.endpoint import Caller

T = TypeVar("T")
log = logging.getLogger(__name__)

LARGEST_TOKEN = 16 * 1024
"""Bytes; servers and proxies take headers of 8 to 16 KiB."""
LEEWAY_S = 60.0
"""Clocks differ."""
LAST_S = 1e11
"""Unix seconds, in the year 5138: an `exp` beyond is none."""
MOST_KEPT = 10_000
"""Tokens whose check is remembered, at about 1 KB."""
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt", "application/jwt"})
"""RFC 9068 section 2.1, and what issuers wrote before it; a token of another sort (of a logout, of
an event) is signed with the same keys and means something else (RFC 8725 section 3.11)."""


class _Header(Struct):
    alg: str
    kid: str | None = None
    typ: str | None = None


class _Issued(Struct):
    iss: str


class _Claims(Struct):
    exp: float
    aud: str | list[str]
    nbf: float | None = None


_header, _issued = msgspec.json.Decoder(_Header), msgspec.json.Decoder(_Issued)
_claims = msgspec.json.Decoder(_Claims)
_all: msgspec.json.Decoder[dict[str, object]] = msgspec.json.Decoder(dict[str, object])
_signed = PyJWS()


class _Kept(NamedTuple):
    caller: Caller
    issuer: Issuer
    generation: int
    until: float


@dataclass(frozen=True, slots=True)
class Issuer:
    said: Jwt
    keys: Keys


class Tokens:
    """A way to say who one is: `Authorization: Bearer` with a token of a known issuer."""

    def __init__(
        self,
        issuers: Sequence[Issuer],
        *,
        exists: Exists = everywhere,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` tells Unix seconds."""
        self._issuers = {issuer.said.issuer: issuer for issuer in issuers}
        self._exists, self._clock = exists, clock
        self._kept: dict[bytes, _Kept] = {}

    async def __call__(self, headers: Mapping[str, str], peer: str | None) -> Caller | None:
        """Return whose token it is; None when what was sent is no token.

        Raises:
            Unauthorised: it is not accepted (`invalid_token`).
            Unavailable: its issuer's keys cannot be had.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        token = token.strip()
        if not token.startswith("eyJ") or token.count(".") != 2 or scheme.lower() != "bearer":
            return None
        raw = token.encode("latin-1")
        digest = sha256(raw).digest()
        kept = self._kept.get(digest)
        if kept is not None:
            if kept.generation == kept.issuer.keys.generation and self._clock() < kept.until:
                return kept.caller
            del self._kept[digest]
        try:
            kept = await self._checked(raw)
        except Refused as why:
            log.info("a token from %s is refused: %s", peer, why)
            raise Unauthorised("this token is not accepted here", code="invalid_token") from None
        if len(self._kept) >= MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[digest] = kept
        return kept.caller

    async def _checked(self, raw: bytes) -> _Kept:
        """Return whose token it is.  Raises Refused, Unavailable."""
        if len(raw) > LARGEST_TOKEN:
            raise Refused(f"it has {len(raw)} bytes")
        first, second, _ = raw.split(b".")
        header, said = _read(_header, _unpacked(first)), _read(_issued, _unpacked(second))
        issuer = self._issuers.get(said.iss)
        if issuer is None:
            raise Refused(f"the issuer {said.iss[:200]!r} is not among the settings")
        if header.alg not in issuer.said.algorithms:
            raise Refused(f"the algorithm {header.alg[:20]!r} is not accepted")
        if header.typ is not None and header.typ.lower() not in _TYPES:
            raise Refused(f"it is a {header.typ[:50]!r}")
        claims = await _signed_claims(raw, header, issuer.keys)
        generation = issuer.keys.generation
        until = self._in_time(_read(_claims, claims), issuer.said.audience)
        who = _principal(_read(_all, claims), issuer.said)
        if not await self._exists(who.tenant):
            raise Refused(f"there is no tenant {who.tenant}")
        return _Kept(Caller(who, until), issuer, generation, until)

    def _in_time(self, claims: _Claims, audience: Sequence[str]) -> float:
        """Return until when it is accepted; it is for us, and now.  Raises Refused."""
        named = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if not set(named) & set(audience):
            raise Refused(f"it is for {named[:5]!r}")
        now, until = self._clock(), claims.exp + LEEWAY_S
        if not now < until <= LAST_S:
            raise Refused(f"it expired at {claims.exp}, or never does")
        if claims.nbf is not None and claims.nbf > now + LEEWAY_S:
            raise Refused(f"it is not good before {claims.nbf}")
        return until


async def _signed_claims(raw: bytes, header: _Header, keys: Keys) -> bytes:
    """Return what a token says, as one of the keys has signed it.  Raises Refused, Unavailable."""
    fitting = await keys.fitting(header.kid, header.alg)
    if not fitting:
        raise Refused(f"its issuer has no key {(header.kid or 'without a name')[:100]!r} for it")
    why: PyJWTError | None = None
    for key in fitting:
        try:
            return _signed.decode(raw, key.public, algorithms=[header.alg])
        except PyJWTError as error:
            why = error
    raise Refused(f"its signature: {why}")


def _principal(claims: Mapping[str, object], said: Jwt) -> Principal:
    """Return who a token is about.  Raises Refused."""
    tenant, roles, scopes = said.tenant_claim, said.roles_claim, said.scopes_claim
    return principal(
        said,
        user=claim(claims, said.user_claim),
        tenant=None if tenant is None else claim(claims, tenant),
        roles=() if roles is None else words(claim(claims, roles)),
        scopes=None if scopes is None else words(claim(claims, scopes)),
        issuer=said.name,
    )


def _unpacked(segment: bytes) -> bytes:
    """Return what base64url stands for; PyJWT, which reads it again, is stricter.  Raises Refused."""
    try:
        return urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except ValueError as error:
        raise Refused("it is no base64url") from error


def _read(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    """Return JSON as its type.  Raises Refused."""
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"it is not as a token has to be: {error}") from error
