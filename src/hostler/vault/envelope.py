"""Values sealed by a tenant's data key, data keys wrapped by a master key: AES-256-GCM, both.

Rotating the master key wraps the data keys again and touches no secret.  What a ciphertext is for
is its associated data, so one that is moved to another tenant, column or row does not open.

Invariant: whatever does not open is an error that names the place and nothing of what is in it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hostler.core.errors import SetupError

PREFIX = b"v1:"
KEY_BYTES = 32
NONCE_BYTES = 12
"""96 bits, at random: safe for 2^32 values under one data key (NIST SP 800-38D, section 8.3)."""


class Unopened(SetupError):
    """A sealed value that is damaged, from another place, or under a key that is not here."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    key: bytes = field(repr=False)
    written: str = field(repr=False)
    """As the operator wrote it: masked like any secret."""

    @property
    def id(self) -> str:
        """Return a name for it that tells nothing of it."""
        return f"mk_{hashlib.sha256(b'hostler master key' + self.key).hexdigest()[:16]}"

    def derived(self, use: str) -> bytes:
        """Return a key for another use, which tells nothing of this one."""
        return hmac.digest(self.key, f"hostler {use}".encode(), "sha256")


def new_key() -> bytes:
    return os.urandom(KEY_BYTES)


def read_master_keys(text: str, whence: str) -> tuple[MasterKey, ...]:
    """Return the keys that are written in `text`: 64 hex digits or base64, the newest first.

    Lines that begin with `#` are passed over.

    Raises:
        SetupError: there is none, or one has another size; says where and not what.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    keys = tuple(_master_key(word, whence) for line in lines for word in line.split())
    if not keys:
        raise SetupError(f"{whence} holds no master key: write 64 hex digits or 32 bytes of base64")
    return keys


def _master_key(word: str, whence: str) -> MasterKey:
    try:
        if re.fullmatch(r"[0-9a-fA-F]{64}", word):
            key = bytes.fromhex(word)
        else:
            plain = word.rstrip("=").replace("-", "+").replace("_", "/")
            key = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != KEY_BYTES:
        raise SetupError(f"{whence}: a master key is 64 hex digits or 32 bytes of base64")
    return MasterKey(key, word)


def seal(key: bytes, plain: bytes, *place: str) -> bytes:
    """Return `plain` sealed for a place: tenant, table, column, row."""
    nonce = os.urandom(NONCE_BYTES)
    return PREFIX + nonce + AESGCM(key).encrypt(nonce, plain, _associated(place))


def unseal(key: bytes, sealed: bytes, *place: str) -> bytes:
    """Return what was sealed for this place.  Raises Unopened."""
    where = " ".join(place)
    if not sealed.startswith(PREFIX) or len(sealed) < len(PREFIX) + NONCE_BYTES:
        raise Unopened(f"{where}: this is not sealed in a form that this build knows")
    start = len(PREFIX) + NONCE_BYTES
    try:
        return AESGCM(key).decrypt(sealed[len(PREFIX) : start], sealed[start:], _associated(place))
    except InvalidTag:
        raise Unopened(f"{where}: it was changed, moved, or sealed with another key") from None


def _associated(place: tuple[str, ...]) -> bytes:
    # Neither tenants nor names hold a bar, so no two places are written alike.
    return "|".join(place).encode()
