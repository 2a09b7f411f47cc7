"""What the matrix of isolation finds, and how two answers are compared.

Invariant: two answers are alike only if nothing differs but the name that was sent, times and
new ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hostler.testing.isolation_world import CANARY, HERE, Actor, Things, Told

OUTSIDERS = ("anonymous", "revoked", "expired", "revoked link", "expired link", "ticket")
"""Nobody is let in with a ticket but by a socket."""
STRANGERS = ("stranger", "colleague", "guest", "link")
"""Whose it is not.  `guest` and `link` have the same link, as a key and in the query."""
GUESTS = ("guest", "link")
VARIES = frozenset(
    {"date", "content-length", "retry-after", "traceparent", "server-timing", "x-request-id"}
)
_TIME = re.compile(
    r'(?<="created_at":)\d{10}\b|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)'
)
_NEW = re.compile(
    r"\b(?:ses|conv|resp|msg|run|inp|call|att|key|shr|req|scr|whk|evt|h[kst])_[\w-]{8,}"
)


class Cell(NamedTuple):
    operation: str
    parameter: str
    """`place.name`, or empty where it is about no name."""
    actor: str
    fault: str | None
    """None: as it should be."""


@dataclass(slots=True)
class Report:
    cells: list[Cell] = field(default_factory=list[Cell])
    slowest: float = 1.0
    """The largest factor by which a foreign thing took longer than an absent one."""

    @property
    def findings(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.fault is not None]


def shut_out(answers: Sequence[Told]) -> str | None:
    """Return what is wrong with the answers to somebody who has no good key."""
    for told in answers:
        if told.status != 401:
            return f"{told.status} without a good key"
    first, second = (_plain(told, ()) for told in answers)
    return None if first == second else "the answers tell what is there"


def differ(answers: Sequence[Told], real: str, absent_name: str) -> str | None:
    """Return how an answer about what is foreign differs from one about what is absent."""
    foreign, nothing = answers
    if foreign.status != nothing.status:
        return f"{foreign.status} for what is foreign, {nothing.status} for what is absent"
    first, second = _plain(foreign, (real,)), _plain(nothing, (absent_name,))
    if first[1] != second[1]:
        return f"the bodies differ: {first[1][:160]} and {second[1][:160]}"
    return None if first[0] == second[0] else f"the headers differ: {first[0]} and {second[0]}"


def let_in(name: str, answers: Sequence[Told]) -> str | None:
    """Return what is wrong if somebody with a good key was not even known: a cell told nothing."""
    if name in OUTSIDERS or all(told.status != 401 for told in answers):
        return None
    return "their own key opens nothing any more"


def not_taken(name: str, answers: Sequence[Told]) -> str | None:
    """Return what is wrong with answers about ids that clients choose, in one tenant."""
    wanted = [403, 403] if name in GUESTS else [409, 201]
    found = [told.status for told in answers]
    return None if found == wanted else f"{found} instead of {wanted}"


def leak(told: Told, target: Things, actor: Actor, *, sent: str = "") -> str | None:
    """Return what an answer tells of the target to somebody who may not see it."""
    mine = set(actor.own.values()) | {HERE, sent}
    names = [target[one] for one in ("session", "run", "call", "asked", "share", "key", "word")]
    more = ("user", "secret", "webhook", "delivery")
    names += [target[kind] for kind in more if kind in target]
    found = [name for name in names if name not in mine and name in told.body]
    is_said = f"{CANARY} owner" in told.body or f"/{CANARY}" in told.body
    if actor.name == "stranger" and is_said:
        found.append(CANARY)
    return f"the answer tells of {', '.join(found)}" if found and told.status < 400 else None


def _plain(told: Told, sent: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return headers and body without what is another one each time."""

    def plain(text: str) -> str:
        for name in sent:
            text = text.replace(name, "{sent}")
        return _NEW.sub("{new}", _TIME.sub("{time}", text))

    headers = {
        name.lower(): plain(value)
        for name, value in told.headers.items()
        if name.lower() not in VARIES and not name.lower().startswith("ratelimit")
    }
    return headers, plain(told.body)
