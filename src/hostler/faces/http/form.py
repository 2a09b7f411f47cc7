"""The form of what faces answer with: JSON, and times in it.

Invariant: money is a decimal string, and a time is RFC 3339 with milliseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from hostler.service.times import EARLIEST, LATEST

encode = msgspec.json.Encoder(decimal_format="string").encode


@lru_cache(maxsize=64)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def stamp(at: float) -> str:
    """Return Unix seconds as RFC 3339 with milliseconds; of no sensible year, the nearest."""
    second, ms = divmod(int(max(EARLIEST, min(LATEST, at)) * 1000), 1000)
    return f"{_second(second)}.{ms:03d}Z"
