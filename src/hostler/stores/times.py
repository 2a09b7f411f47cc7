"""Times as rows have them: Unix microseconds.

Invariant: whatever the clock or a fact says, it fits into a column.
"""

from __future__ import annotations

from typing import overload

MOST_S = 253_402_300_799.0
"""The end of the year 9999, and as far back: what is told beyond it is no time."""


@overload
def to_us(seconds: float) -> int: ...
@overload
def to_us(seconds: float | None) -> int | None: ...
def to_us(seconds: float | None) -> int | None:
    """Return seconds as microseconds."""
    return None if seconds is None else round(max(-MOST_S, min(MOST_S, seconds)) * 1_000_000)


def to_seconds(us: object) -> float | None:
    """Return a column of microseconds as seconds."""
    return us / 1_000_000 if isinstance(us, int) else None
