"""A model that is not there, and says so.

Invariant: every question fails with the same words, at once and for good.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from hostler.core.ports import Delta, Failure, Reply, Request


class Absent:
    """A `core.ports.Model` for what cannot be asked."""

    provider = "absent"
    name = "absent"

    def __init__(self, why: str) -> None:
        self._why = why

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        del request
        yield Failure(code="unavailable", message=self._why, again=False)
