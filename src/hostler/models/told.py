"""What providers tell of a call, in whatever form: counts, costs and objects that may be none.

Invariant: whatever was told, what is returned is of its type and within what can be stored.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from hostler.core.events import JsonObject
from hostler.core.ledger import MOST_COST, MOST_TOKENS


def count(counts: JsonObject, name: str) -> int:
    """Return a number of tokens; 0 for what is none."""
    value = counts.get(name)
    return max(0, min(MOST_TOKENS, value)) if isinstance(value, int) else 0


def cost(counts: JsonObject) -> Decimal | None:
    """Return what a gateway (OpenRouter) says that the call cost; None for what is no amount."""
    value = counts.get("cost")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Decimal(str(value)) if 0 <= value <= MOST_COST else None


def json_object(value: object) -> JsonObject:
    """Return a value that should be a JSON object; an empty one if it is none."""
    return msgspec.convert(value, dict[str, object]) if isinstance(value, dict) else {}
