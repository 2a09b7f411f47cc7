"""Times that come from outside, and times on their way out.

Invariant: what is taken in can be shown again, in any zone.
"""

from __future__ import annotations

from datetime import UTC, datetime

from hostler.core.errors import Invalid

EARLIEST = 0.0
LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""Unix seconds, and before: a year is left, so that no zone makes it the year 10000."""


def seconds(time: datetime) -> float:
    """Return Unix seconds.  Raises Invalid for a time without a zone, or of no sensible year."""
    if time.tzinfo is None:
        raise Invalid("a time has no zone: write it with Z")
    at = time.timestamp()
    if not EARLIEST <= at < LATEST:
        raise Invalid("a time is before 1970 or after 9998")
    return at


def moment(at: float) -> datetime:
    """Return Unix seconds as a time; the nearest that can be shown of what an old log holds."""
    return datetime.fromtimestamp(max(EARLIEST, min(LATEST, at)), UTC)
