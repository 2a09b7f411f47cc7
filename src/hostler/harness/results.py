"""Where long results of tools are kept: `TENANT/SESSION/CALL.txt` under one folder.

Of calls that clients answer it is `CALL.ANSWER.txt`: of several answers, one is written down.

Invariant: a path is made of ids that can name a file, and nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from hostler.core.errors import Unavailable
from hostler.core.events import CallId, Key, SessionId, TenantId
from hostler.faults import fault_point

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.@-]{0,127}")


def file_of(folder: Path, key: Key, call: CallId, answer: str | None = None) -> Path | None:
    """Return where a call's result is, or one answer to it; None when its ids make no path."""
    where = folder_of(folder, key)
    if where is None or not _NAME.fullmatch(call):
        return None
    return where / (f"{call}.txt" if answer is None else f"{call}.{answer}.txt")


def folder_of(folder: Path, key: Key) -> Path | None:
    """Return where a session's results are; None when its ids make no path."""
    if not all(_NAME.fullmatch(part) for part in key):
        return None
    return folder / key.tenant / key.session


@dataclass(frozen=True, slots=True)
class Results:
    """The folder as `service.retention.Leftovers`."""

    folder: Path

    async def remove(self, key: Key) -> None:
        path = folder_of(self.folder, key)
        if path is not None:
            await anyio.to_thread.run_sync(shutil.rmtree, path, True)  # noqa: FBT003

    async def keys(self) -> Iterable[Key]:
        return await anyio.to_thread.run_sync(self._keys)

    async def scrub(self, tenant: TenantId, mask: Callable[[str], str]) -> int:
        """Mask the tenant's files; return how many were changed.

        Raises:
            Unavailable: one of them cannot be read or written now.
        """
        return await anyio.to_thread.run_sync(self._scrub, tenant, mask)

    def _scrub(self, tenant: TenantId, mask: Callable[[str], str]) -> int:
        if not _NAME.fullmatch(tenant):
            return 0
        try:
            sessions = [*(self.folder / tenant).glob("*")]
            return sum(_scrub_file(path, mask) for one in sessions for path in _files(one))
        except OSError as error:
            raise Unavailable(f"results of tools cannot be masked: {error.strerror}") from error

    def _keys(self) -> list[Key]:
        return [
            Key(TenantId(path.parent.name), SessionId(path.name))
            for path in self.folder.glob("*/*")
            if path.is_dir()
        ]


def _files(session: Path) -> list[Path]:
    with suppress(FileNotFoundError):  # it was deleted meanwhile
        return [*session.glob("*.txt")]
    return []


def _scrub_file(path: Path, mask: Callable[[str], str]) -> bool:
    with suppress(FileNotFoundError):  # as above, at any moment
        before = path.read_bytes().decode(errors="replace")
        after = mask(before)
        if after != before:
            beside = path.with_suffix(".new")
            beside.touch(mode=0o600)
            with beside.open("wb") as file:
                file.write(after.encode())
                file.flush()
                os.fsync(file.fileno())  # or the name may come to stand for less
            fault_point("before a file of results is masked")
            beside.replace(path)
            fault_point("after a file of results is masked")
            return True
    return False
