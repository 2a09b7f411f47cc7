"""Times in a query: the same forms wherever one is asked for."""

from __future__ import annotations

import re
from datetime import datetime

from hostler.core.errors import Invalid
from hostler.faces.http.endpoint import Call
from hostler.service.times import seconds

FORMS = "RFC 3339, or a day"
"""For the documentation of a parameter."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def time_of(call: Call, name: str) -> float | None:
    """Return a time of the query as Unix seconds; None when there is none.  Raises Invalid."""
    text = call.query.get(name)
    if text is None:
        return None
    try:
        return seconds(
            datetime.fromisoformat(f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text)
        )
    except (ValueError, OverflowError, Invalid):
        wanted = "a time like 2026-01-31T12:00:00Z, or a day like 2026-01-31, from 1970 to 9998"
        raise Invalid(f"{name} must be {wanted}", fields=[(name, wanted)]) from None
