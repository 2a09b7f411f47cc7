"""The admin key: given by the operator, or made once and kept in the data folder.

Invariant: a key is compared in constant time, and never logged.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path

from hostler.core.directory import DEFAULT
from hostler.core.errors import SetupError, Unauthorised
from hostler.core.events import Principal, PrincipalId
from hostler.faults import fault_point

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
        if not path.exists() and _is_put(path, new):
            return new, True
        kept = path.read_text(encoding="ascii").strip()
    except FileExistsError as error:
        raise SetupError(f"the data folder {data} is no folder") from error
    except OSError as error:
        raise SetupError(f"the data folder {data} cannot be written: {error.strerror}") from error
    if not kept:
        raise SetupError(
            f"{path} is empty: put back what was in it or, if there is nothing that needs it, remove it"
        )
    return kept, False


def _is_put(path: Path, key: str) -> bool:
    """Put a key into a new file, whole or not at all; return False if another process was quicker.

    Processes that make one at the same time wait for each other at the file beside it, which is
    what a process that died in here leaves, and the next one takes.
    """
    beside = path.with_suffix(".new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            beside.unlink(missing_ok=True)
            return False
        file.truncate()
        fault_point("before a key is written")
        file.write(f"{key}\n")
        file.flush()
        os.fsync(file.fileno())
        fault_point("after a key is written")
        beside.replace(path)
    _keep_name(path)
    fault_point("after a key has its name")
    return True


def _keep_name(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True)
class AdminGate:
    """Knows the operator by the admin key; other keys are looked up elsewhere."""

    key: bytes

    def __call__(self, headers: Mapping[str, str]) -> Principal | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorised("send the key as `Authorization: Bearer KEY`")
        return ADMIN if compare_digest(token.strip().encode(), self.key) else None
