"""What a model wants back word for word, as a token that the client keeps and sends with its answer.

A direct call has no log, so what `Reply.replay` holds, what was thought and not shown, and how the
provider names calls travel through the client.  It reads none of it: a provider's signed thoughts
are not what the client was told, and only what we gave out may be played back to a provider.

Invariant: taking one never fails.  What is cut, changed, old, or another tenant's is as good as none.
"""

from __future__ import annotations

import binascii
import hmac
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from hostler.core.events import JsonObject, TenantId
from hostler.core.ports import Reply

VERSION = "hostler2."
SECRET_BYTES = 32
_SALT, _KEY, _NONCE, _TAG = 24, 32, 12, 16
_LEAST = len(VERSION) + (_SALT + _TAG) * 4 // 3
_encode = msgspec.json.Encoder(decimal_format="string").encode


class Keepsake(Struct, frozen=True, kw_only=True, omit_defaults=True):
    replay: JsonObject | None = None
    thinking: str | None = None
    """What was thought, where the client was not shown it."""
    calls: dict[str, str] = {}
    """The provider's ids of calls, by ours."""


NOTHING = Keepsake()
_decode = msgspec.json.Decoder(Keepsake).decode


def keepsake_of(reply: Reply, *, shown: bool) -> Keepsake:
    """Return what is to come back of a reply; `shown`: the client gets its thoughts as text."""
    hidden = None if shown else reply.thinking
    if reply.replay is None and hidden is None:
        return NOTHING
    ids = {str(one.id): one.provider_id for one in reply.calls if one.provider_id}
    return Keepsake(replay=reply.replay, thinking=hidden, calls=ids)


@dataclass(frozen=True, slots=True)
class Keepsakes:
    """Those of one tenant: AES-256-GCM, with a key for each token."""

    _tenant: bytes = field(repr=False)
    _secrets: Sequence[bytes] = field(repr=False)

    def give(self, keepsake: Keepsake) -> str:
        """Return the token."""
        salt = os.urandom(_SALT)
        key, nonce = self._keyed(self._secrets[0], salt)
        sealed = AESGCM(key).encrypt(nonce, _encode(keepsake), None)
        return VERSION + urlsafe_b64encode(salt + sealed).decode()

    def take(self, token: object) -> Keepsake:
        """Return what a token holds; nothing, of what is none of ours for this tenant."""
        if not isinstance(token, str) or len(token) < _LEAST or not token.startswith(VERSION):
            return NOTHING
        try:
            text = token[len(VERSION) :].encode("ascii")
            raw = urlsafe_b64decode(text)
        except (binascii.Error, ValueError):
            return NOTHING
        if urlsafe_b64encode(raw) != text:  # the decoder passes over what is no base64
            return NOTHING
        for secret in self._secrets:
            key, nonce = self._keyed(secret, raw[:_SALT])
            try:
                return _decode(AESGCM(key).decrypt(nonce, raw[_SALT:], None))
            except (InvalidTag, ValueError, RecursionError):
                continue
        return NOTHING

    def _keyed(self, secret: bytes, salt: bytes) -> tuple[bytes, bytes]:
        """Return key and nonce of one token.

        Both are made of a salt of 192 bits at random, so no number of tokens wears out a key, as
        2^32 of them would if the nonce alone were random (NIST SP 800-38D, section 8.3).
        """
        made = hmac.digest(secret, salt + self._tenant, "sha512")
        return made[:_KEY], made[_KEY : _KEY + _NONCE]


@dataclass(frozen=True, slots=True)
class KeepsakesOf:
    """The keepsakes of each tenant."""

    secrets: Sequence[bytes] = field(
        default_factory=lambda: (os.urandom(SECRET_BYTES),), repr=False
    )
    """The newest first: it makes tokens, all of them open some.  By default, one of this process."""

    def __call__(self, tenant: TenantId) -> Keepsakes:
        return Keepsakes(tenant.encode(), self.secrets)
