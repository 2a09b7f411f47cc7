"""An issuer of tokens: its keys, the server they are at, and tokens, good ones and forged ones."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TypeAlias, cast

import anyio
import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from tests.canaries import learn

from hostler.app.identity.jwks import Keys, Source
from hostler.app.identity.settings import Jwt
from hostler.app.identity.sources import FromUrl
from hostler.app.identity.tokens import Issuer, Tokens

AUDIENCE = "hostler"
Private: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Claims: TypeAlias = Mapping[str, object]
CURVES: Mapping[str, type[ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}


@dataclass(frozen=True)
class Signer:
    """A key with its name."""

    kid: str
    private: Private
    algorithm: str = "RS256"

    @property
    def jwk(self) -> dict[str, object]:
        public = self.private.public_key()
        match public:
            case rsa.RSAPublicKey():
                made = RSAAlgorithm.to_jwk(public, as_dict=True)
            case ec.EllipticCurvePublicKey():
                made = ECAlgorithm.to_jwk(public, as_dict=True)
            case _:
                made = OKPAlgorithm.to_jwk(public, as_dict=True)
        return {**made, "kid": self.kid, "use": "sig", "key_ops": ["verify"]}

    @property
    def pem(self) -> bytes:
        """Return the public key, as anybody can have it."""
        return self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, claims: Claims, headers: Claims | None = None) -> str:
        named = {"kid": self.kid, **(headers or {})}
        kept = {name: value for name, value in named.items() if value is not None}
        return learn(jwt.encode(dict(claims), self.private, self.algorithm, headers=kept))


def signer(kid: str = "one", algorithm: str = "RS256", bits: int = 2048) -> Signer:
    """Return a key of this name, the same one each time."""
    kind = algorithm if algorithm in CURVES or algorithm == "EdDSA" else "RSA"
    return Signer(kid, _private(kid, kind, bits), algorithm)


@cache
def _private(kid: str, kind: str, bits: int) -> Private:
    del kid
    if kind == "RSA":
        return rsa.generate_private_key(65537, bits)
    if kind == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(CURVES[kind]())


@dataclass
class Server:
    """Where the keys of one issuer are; what it does can be changed while it runs."""

    url: str = ""
    published: Sequence[Signer] = ()
    body: bytes | None = None
    """Instead of the keys."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    hold: anyio.Event | None = None
    """Answers wait for it."""
    asked: int = 0
    """How often the keys were fetched."""
    discovered: Mapping[str, str] | None = None

    async def jwks(self, request: web.Request) -> web.Response:
        del request
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        body = self.body or json.dumps({"keys": [one.jwk for one in self.published]}).encode()
        return web.Response(body=body, status=self.status, headers=self.headers)

    async def discovery(self, request: web.Request) -> web.Response:
        del request
        named = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        return web.json_response({**named, **(self.discovered or {})})

    def claims(self, **changes: object) -> dict[str, object]:
        """Return good claims, changed; None takes one away."""
        now = int(time.time())
        good = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "alice",
            "org": {"id": "acme"},
            "iat": now,
            "exp": now + 600,
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def token(self, by: Signer | None = None, **changes: object) -> str:
        return (by or signer()).sign(self.claims(**changes))

    def said(self, **changes: object) -> Jwt:
        """Return it as an operator writes it in the settings."""
        written = {
            "issuer": self.url,
            "audience": AUDIENCE,
            "jwks_url": f"{self.url}/jwks",
            "tenant_claim": "org.id",
            **changes,
        }
        return Jwt.model_validate(written)

    def keys(self, source: Source | None = None, *, gap_s: float = 0) -> Keys:
        return Keys(source or FromUrl(f"{self.url}/jwks"), gap_s=gap_s)

    def tokens(self, **changes: object) -> Tokens:
        return Tokens([Issuer(self.said(**changes), self.keys())])


@asynccontextmanager
async def issuing(*published: Signer) -> AsyncGenerator[Server]:
    """Run an issuer that publishes these keys, `signer()` without any."""
    server = Server(published=published or (signer(),))
    app = web.Application()
    app.router.add_get("/jwks", server.jwks)
    app.router.add_get("/.well-known/openid-configuration", server.discovery)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = cast("tuple[str, int]", runner.addresses[0])[1]
    server.url = f"http://127.0.0.1:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


def forged(header: Claims, claims: Claims | bytes, signature: bytes = b"") -> str:
    """Return a token that says anything."""
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return ".".join(map(packed, (json.dumps(header).encode(), body, signature)))


def with_shared_secret(header: Claims, claims: Claims, secret: bytes) -> str:
    """Return a token signed with HMAC."""
    begun = forged(header, claims).rpartition(".")[0]
    return f"{begun}.{packed(hmac.new(secret, begun.encode(), hashlib.sha256).digest())}"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def packed(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
