"""The keys of one issuer: fetched, kept, and fetched again when they change.

    a token names a key we have ──▶ that key
    a token names another one ────▶ fetch, at most once in GAP_S, all who ask waiting for the one
    every few minutes ────────────▶ fetch, so that a key that was withdrawn is forgotten
    fetching fails ───────────────▶ the last good set stays

Invariant: no token can make us fetch more often than that, or from anywhere the operator has not
named: what a token says of keys (`jku`, `x5u`, `jwk`) is not read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import anyio
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError
from jwt.types import JWKDict
from msgspec import Struct

from hostler.core.errors import HostlerError, Unavailable

log = logging.getLogger(__name__)

GAP_S = 5.0
"""Between two fetches that tokens ask for: a new key is known so soon, and a flood of made-up ones
costs one request in that time."""
AGAIN_S = 30.0
"""After a fetch that failed."""
MOST_KEYS = 100
MOST_TRIED = 4
"""Keys that one token is tried with, when it names none or several have its name."""
LEAST_RSA_BITS, MOST_RSA_BITS = 2048, 8192
"""RFC 7518 section 3.3; and what a check of a signature may cost."""

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "P-521": frozenset({"ES512"}),
    "Ed25519": frozenset({"EdDSA"}),
    "Ed448": frozenset({"EdDSA"}),
}


Public: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey
_KINDS: Mapping[str, type[RSAAlgorithm | ECAlgorithm | OKPAlgorithm]] = {
    "RSA": RSAAlgorithm,
    "EC": ECAlgorithm,
    "OKP": OKPAlgorithm,
}


class Source(Protocol):
    every_s: float
    """How often it is worth looking."""

    async def __call__(self) -> bytes | None:
        """Return the set as JSON, None when it is as it was.  Raises Failed."""
        ...


class Failed(HostlerError):
    """The keys cannot be had now, or are none."""


class Jwk(Struct):
    """What of a key decides whether it is used, and the types of what PyJWT reads."""

    kty: str
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    crv: str | None = None
    key_ops: list[str] | None = None
    n: str | None = None
    e: str | None = None
    x: str | None = None
    y: str | None = None


class _Set(Struct):
    keys: list[msgspec.Raw]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    kid: str | None
    algorithms: frozenset[str]
    """Those it is good for: what a token says of its algorithm is held against this."""
    public: Public
    raw: bytes


_set, _jwk = msgspec.json.Decoder(_Set), msgspec.json.Decoder(Jwk)
_dict: msgspec.json.Decoder[JWKDict] = msgspec.json.Decoder(dict[str, object])


def read_keys(body: bytes) -> Sequence[Key]:
    """Return the keys of a set that can check signatures; the others are passed over.

    Raises:
        Failed: it is no set of keys, or has too many.
    """
    try:
        raws = _set.decode(body).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failed(f"this is no set of keys: {error}") from error
    if len(raws) > MOST_KEYS:
        raise Failed(f"it has {len(raws)} keys; {MOST_KEYS} may be in a set")
    return [key for raw in raws if (key := _key(bytes(raw))) is not None]


def _key(raw: bytes) -> Key | None:
    """Return a key, None if it is not for checking signatures or cannot be read."""
    with suppress(ValueError, RecursionError, PyJWTError, UnsupportedAlgorithm):
        jwk = _jwk.decode(raw)
        fits = _RSA if jwk.kty == "RSA" else _CURVES.get(jwk.crv or "", frozenset())
        if jwk.alg is not None:
            fits &= {jwk.alg}
        checks = jwk.use in (None, "sig") and "verify" in (jwk.key_ops or ["verify"])
        if fits and checks:
            public = _public(jwk.kty, _dict.decode(raw))
            return None if public is None else Key(
                kid=jwk.kid, algorithms=fits, public=public, raw=raw
            )  # fmt: skip
    return None


def _public(kty: str, jwk: JWKDict) -> Public | None:
    jwk.pop("d", None)  # a set that gives its private keys away is read as if it had not
    algorithm = _KINDS.get(kty)
    key = None if algorithm is None else algorithm.from_jwk(jwk)
    if isinstance(key, RSAPublicKey):
        return key if LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS else None
    return key if isinstance(key, Public) else None


class Keys:
    """The keys of one issuer, as they are known here."""

    def __init__(
        self,
        source: Source,
        *,
        clock: Callable[[], float] = time.monotonic,
        gap_s: float | None = None,
    ) -> None:
        """`gap_s`: without it, `GAP_S`, or less for a source that is looked at more often."""
        self._source, self._clock = source, clock
        self._gap_s = min(GAP_S, source.every_s) if gap_s is None else gap_s
        self._keys: Sequence[Key] | None = None
        self._looked: float | None = None
        self._looking = anyio.Lock()
        self.generation = 0
        """Another number: other keys, so what was checked with the old ones is checked again."""

    async def fitting(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """Return the keys to try for a token, none if there is none.

        Raises:
            Unavailable: no keys could be had so far.
        """
        found = self._fitting(kid, algorithm)
        if not found and await self.look(since=self._looked):
            found = self._fitting(kid, algorithm)
        if self._keys is None:
            raise Unavailable("the keys of this token's issuer cannot be had now", retry_after_s=5)
        return found

    async def look(self, *, since: float | None) -> bool:
        """Fetch, unless that was done after `since` or a moment ago; say whether it was done."""
        async with self._looking:
            if self._looked != since:
                return True  # by somebody else, while this one waited
            if self._looked is not None and self._clock() - self._looked < self._gap_s:
                return False
            try:
                keys = self._read(await self._source())
            except Failed as error:
                log.warning("keys not fetched: %s", error)
                return False
            finally:
                self._looked = self._clock()
        self._take(keys)
        return True

    async def keep_fresh(self) -> None:
        """Fetch now and again and again, until cancelled."""
        while True:
            is_done = await self.look(since=self._looked)
            await anyio.sleep(
                self._source.every_s if is_done else min(self._source.every_s, AGAIN_S)
            )

    def _read(self, body: bytes | None) -> Sequence[Key]:
        """Return the keys of a set, those there are when it has not changed.  Raises Failed."""
        keys = self._keys if body is None else read_keys(body)
        if keys is None:
            raise Failed("it still has no keys")
        return keys

    def _take(self, keys: Sequence[Key]) -> None:
        if self._keys is None or [one.raw for one in keys] != [one.raw for one in self._keys]:
            self._keys = keys
            self.generation += 1
            log.info("keys: %d that check signatures", len(keys))

    def _fitting(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        fits = [
            key
            for key in self._keys or ()
            if algorithm in key.algorithms and (kid is None or kid == key.kid)
        ]
        return fits if len(fits) <= MOST_TRIED else ()
