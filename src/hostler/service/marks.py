"""How good a run was, as somebody says it.

Invariant: what is no score is never stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from hostler.core.errors import Invalid
from hostler.core.events import Event, RunRated
from hostler.core.ledger import Rating
from hostler.service.limits import LONGEST_COMMENT, check_label


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    score: float
    key: str | None = None
    """What is rated; None: the run as a whole."""
    comment: str | None = None

    def check(self) -> None:
        """Refuse what cannot be compared or shown.  Raises Invalid."""
        if self.score != -1 and not 0 <= self.score <= 1:
            raise Invalid("this is no score", fields=[("/score", "-1, or from 0 to 1")])
        check_label("/key", self.key)
        if len(self.comment or "") > LONGEST_COMMENT:
            wanted = f"at most {LONGEST_COMMENT} characters"
            raise Invalid("the comment is too long", fields=[("/comment", wanted)])


def rating_of(event: Event) -> Rating:
    """Return the rating that was written."""
    fact = event.fact
    assert isinstance(fact, RunRated)
    assert fact.run is not None
    return Rating(
        run=fact.run,
        principal=fact.principal,
        key=fact.key,
        score=fact.score,
        comment=fact.comment,
        at=event.at,
    )
