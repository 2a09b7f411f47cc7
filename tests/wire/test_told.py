"""What providers tell of a call is taken as far as it makes sense."""

from __future__ import annotations

from decimal import Decimal

import pytest

from hostler.core.ledger import MOST_TOKENS
from hostler.models.told import cost, count


@pytest.mark.parametrize(
    ("told", "counted"),
    [(7, 7), (0, 0), (-1, 0), (2**63 - 1, MOST_TOKENS), (10**400, MOST_TOKENS), ("7", 0), (1.5, 0)],
)
def test_a_count_is_never_more_than_can_be_summed(told: object, counted: int) -> None:
    assert count({"n": told}, "n") == counted
    assert count({}, "n") == 0


@pytest.mark.parametrize(
    ("told", "known"),
    [
        (0.25, Decimal("0.25")),
        (0, Decimal(0)),
        (-1, None),
        (1e300, None),
        (True, None),
        ("1", None),
    ],
)
def test_a_cost_that_is_no_amount_is_not_known(told: object, known: Decimal | None) -> None:
    assert cost({"cost": told}) == known
