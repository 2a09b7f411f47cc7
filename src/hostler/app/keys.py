"""The admin key: given by the operator, or made once and kept in the data folder.

Invariant: a key is compared in constant time, and never logged.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path

from hostler.core.directory import DEFAULT
from hostler.core.errors import SetupError, Unauthorised
from hostler.core.events import Principal, PrincipalId

SHORTEST_KEY = 32
ADMIN = Principal(id=PrincipalId("admin"), tenant=DEFAULT, is_operator=True)


def key_file(data: Path) -> Path:
    return data / "admin-key"


def admin_key(given: str | None, data: Path) -> tuple[str, bool]:
    """Return the admin key, and whether it was made just now.

    Raises:
        SetupError: the given one is too short to be safe, or none can be kept in the folder.
    """
    if given is not None:
        if len(given) < SHORTEST_KEY:
            raise SetupError(f"HOSTLER_ADMIN_KEY needs at least {SHORTEST_KEY} characters")
        return given, False
    return kept_key(key_file(data), f"hk_{secrets.token_urlsafe(32)}")


def kept_key(path: Path, new: str) -> tuple[str, bool]:
    """Return the key that is kept in a file of the data folder, and whether it is the `new` one.

    Raises:
        SetupError: none can be kept there.
    """
    data, new = path.parent, new.strip()
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{new}\n")
    except FileExistsError as error:
        if path.is_file():
            return path.read_text(encoding="ascii").strip(), False
        raise SetupError(f"the data folder {data} is no folder") from error
    except OSError as error:
        raise SetupError(f"the data folder {data} cannot be written: {error.strerror}") from error
    return new, True


@dataclass(frozen=True, slots=True)
class AdminGate:
    """Knows the operator by the admin key; other keys are looked up elsewhere."""

    key: bytes

    def __call__(self, headers: Mapping[str, str]) -> Principal | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorised("send the key as `Authorization: Bearer KEY`")
        return ADMIN if compare_digest(token.strip().encode(), self.key) else None
