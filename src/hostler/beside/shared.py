"""What processes on one storage tell each other through it: that something changed, and tickets.

Storage that one process has needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from hostler.core.events import TenantId

CHANGED = "changed"
"""The kind of what nodes tell each other of this: what was changed."""


class Shared(Protocol):
    """All methods raise Unavailable when the storage cannot serve now."""

    def listen(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called, on the event loop, with what this process has changed: soon after."""
        ...

    async def changes(self) -> Mapping[str, int]:
        """Return a number for each of what processes remember; another one: it was changed since.

        `tenants` (and their settings), `endpoints`, `secrets`, `keys` (that were revoked).  What is
        read after this is as new as the numbers, at least.
        """
        ...

    async def keep_ticket(
        self, tenant: TenantId, digest: str, holder: bytes, *, until: float
    ) -> None:
        """Keep whose ticket it is of which this is the digest."""
        ...

    async def take_ticket(self, digest: str) -> tuple[bytes, float] | None:
        """Remove a ticket; return whose it was and until when it is good.

        None: there is none (any more).  Of two who take it one gets it.
        """
        ...
