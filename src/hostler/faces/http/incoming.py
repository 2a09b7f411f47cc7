"""The body of a request, as it comes.

Invariant: a body that is too large, or does not come, is not waited for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import anyio
from starlette.types import Message, Receive

from hostler.core.errors import Malformed, TooLarge
from hostler.faces.http.decode import digits
from hostler.faces.http.open_streams import SLOW_S

PACE = 64 * 1024
"""A body of which less than this comes in `SLOW_S` is read no further."""


async def pieces_of(
    headers: Mapping[str, str], receive: Receive, most: int
) -> AsyncGenerator[bytes, None]:
    """Yield the request's body as it comes.

    Raises:
        TooLarge: it is over `most` bytes, known before it is read where the client says so.
        Malformed: it comes too slowly, or not at all (`slow_body`).
    """
    declared = digits(headers.get("content-length", ""))
    if declared is not None and declared > most:
        raise TooLarge(f"the body is {declared} bytes; {most} are allowed")
    size, more, pace = 0, True, _Pace()
    while more:
        message = await pace.next(receive, size)
        if message["type"] == "http.disconnect":
            raise Malformed("the client went away before the end of its request")
        piece = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise TooLarge(f"the body is over {most} bytes")
        more = message.get("more_body", False)
        if piece:
            yield piece


@dataclass(slots=True)
class _Pace:
    """Sees that a body comes: so much of it in each time, as streams are asked to be read."""

    paid_for: int = 0
    """How much of it had come when the time began."""
    deadline: float = 0.0

    async def next(self, receive: Receive, size: int) -> Message:
        """Return the next message; `size`: of what came before.  Raises Malformed."""
        if not self.deadline or size - self.paid_for >= PACE:
            self.paid_for, self.deadline = size, anyio.current_time() + SLOW_S
        with anyio.CancelScope(deadline=self.deadline):
            return await receive()
        told = f"less than {PACE:,} bytes of the body came in {SLOW_S:g} seconds"
        raise Malformed(told, code="slow_body")
