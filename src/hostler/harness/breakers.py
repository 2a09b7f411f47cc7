"""Breakers: what fails again and again is left alone for a while, then tried once.

    closed ──failures──▶ open ──its wait is over──▶ half-open ──the one probe works──▶ closed
                          ▲                            │
                          └──── it fails: twice as long ┘

A breaker counts what all sessions of this process meet, and refuses in microseconds what would
fail in seconds.  It retries nothing: who is refused is told how long to wait, and waits elsewhere.

Invariant: while it is not closed, at most one passage is let through per wait; their number is
bounded, and so is every wait.
"""

from __future__ import annotations

import random
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Circuit: TypeAlias = Literal["closed", "open", "half_open"]
BAD: Sequence[Circuit] = ("closed", "half_open", "open")
MOST = 1_000
"""Breakers kept; the one that was longest not asked goes first, closed ones before others."""
LONGEST_SHUT_S = 3_600.0
"""A provider that says to come back later than this is tried all the same."""
_chance = random.Random(secrets.randbits(256))  # noqa: S311  spreads waits, hides nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a breaker opens, and for how long."""

    failures: int = 5
    """In a row; as resilience4j, Polly and Envoy have it."""
    rate: float = 0.5
    least: int = 20
    """Or this share of at least so many outcomes within the window."""
    window_s: float = 60.0
    first_s: float = 2.0
    """The first wait; each failed probe doubles it."""
    longest_s: float = 60.0
    probe_s: float = 300.0
    """A probe that has not ended by then is taken for lost: as long as a model may be silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerState:
    """What is told of a breaker."""

    kind: str
    name: str
    state: Circuit
    failures: int
    """In a row."""
    opened_at: float | None
    """Unix seconds; since when it is not closed."""
    until: float | None
    """Unix seconds; when the next probe may go."""
    probes: int
    """Since it was made."""
    refused: int
    """Likewise."""


class Breaker:
    """One.  Made by `Breakers`; not for several threads."""

    def __init__(self, rules: Rules, clock: Callable[[], float]) -> None:
        self._rules, self._clock = rules, clock
        self._state: Circuit = "closed"
        self._failures = self._openings = self._period = 0
        self._window_from, self._good, self._bad = clock(), 0, 0
        self._opened_at = self._until = 0.0
        self._probes = self._refused = 0

    @property
    def is_closed(self) -> bool:
        return self._state == "closed"

    @property
    def is_open(self) -> bool:
        return self._state == "open"

    @property
    def left_s(self) -> float:
        """Return for how many seconds nobody is let through; while a probe is out, about."""
        if self._state == "closed":
            return 0.0
        return self._soon(max(0.0, self._until - self._clock()))

    def enter(self) -> Passage | float:
        """Return a passage, or for how many seconds there is none."""
        now = self._clock()
        if self._state != "closed":
            if now < self._until:
                self._refused += 1
                return self._spread(self._until - now)
            # Also when a probe was lost: nobody may be shut out for ever.
            self._state, self._until = "half_open", now + self._rules.probe_s
            self._period += 1
            self._probes += 1
        return Passage(self, self._period)

    def told(self, kind: str, name: str, *, offset_s: float) -> BreakerState:
        """Return what is told; `offset_s` makes Unix seconds of the clock's."""
        shut = self._state != "closed"
        return BreakerState(
            kind=kind,
            name=name,
            state=self._state,
            failures=self._failures,
            opened_at=self._opened_at + offset_s if shut else None,
            until=self._until + offset_s if shut else None,
            probes=self._probes,
            refused=self._refused,
        )

    def worked(self, period: int) -> None:
        """Take in that a passage of this period came to its end."""
        if period != self._period or self._state == "open":
            return  # it began before the breaker opened, and says nothing of now
        if self._state == "half_open":
            self._state, self._openings, self._good, self._bad = "closed", 0, 0, 0
            self._window_from = self._clock()
        self._failures = 0
        self._count(good=1)

    def failed(self, period: int, wait_s: float | None, *, shut: bool) -> None:
        """Take in a failure; `shut`: open at once, for `wait_s` if that is known."""
        if self._state == "open" and shut and wait_s is not None:
            self._until = max(self._until, self._clock() + min(wait_s, LONGEST_SHUT_S))
            return  # of those in flight when it opened, the last one knows best
        if period != self._period or self._state == "open":
            return
        self._failures += 1
        self._count(bad=1)
        rules, seen = self._rules, self._good + self._bad
        too_many = seen >= rules.least and self._bad >= rules.rate * seen
        if shut or too_many or self._failures >= rules.failures or self._state == "half_open":
            self._open(wait_s, shut=shut)

    def shut(self, wait_s: float) -> None:
        """Open, as another node was told to; who is in flight here says nothing of that."""
        now = self._clock()
        until = now + min(wait_s, LONGEST_SHUT_S)
        if self._state == "open":
            self._until = max(self._until, until)
            return
        if self._state == "closed":
            self._opened_at = now
        self._state, self._until = "open", until
        self._period += 1

    def left(self, period: int) -> None:
        """Take in that a passage was given up: a probe's place is free again."""
        if period == self._period and self._state == "half_open":
            self._state, self._until = "open", self._clock()

    def _open(self, wait_s: float | None, *, shut: bool) -> None:
        now, rules = self._clock(), self._rules
        if self._state == "closed":
            self._opened_at = now
        # Servers that were refused together must not come back together.
        own_s = min(rules.longest_s, rules.first_s * 2.0 ** min(self._openings, 30))
        own_s *= 0.75 + 0.5 * _chance.random()
        self._state, self._openings = "open", self._openings + 1
        asked_s = min(wait_s or 0.0, LONGEST_SHUT_S)
        self._until = now + (asked_s if shut and asked_s else max(own_s, asked_s))
        self._period += 1

    def _spread(self, left_s: float) -> float:
        """Return when to come back: a little later than the probe, and not all at once."""
        left_s = self._soon(left_s)
        return left_s + 0.05 + _chance.random() * min(max(left_s / 4, 0.25), 5.0)

    def _soon(self, left_s: float) -> float:
        if self._state == "half_open":  # the probe answers any moment, and its limit is far away
            return min(left_s, self._rules.first_s / 2)
        return left_s

    def _count(self, *, good: int = 0, bad: int = 0) -> None:
        now = self._clock()
        if now - self._window_from >= self._rules.window_s:
            self._window_from, self._good, self._bad = now, 0, 0
        self._good, self._bad = self._good + good, self._bad + bad


class Passage:
    """Leave to try once.  Say what came of it; `left` last, whatever else was said."""

    __slots__ = ("_breaker", "_period", "_said")

    def __init__(self, breaker: Breaker, period: int) -> None:
        self._breaker, self._period, self._said = breaker, period, False

    def worked(self) -> None:
        self._said = True
        self._breaker.worked(self._period)

    def failed(self, wait_s: float | None = None, *, shut: bool = False) -> None:
        """Tell of a failure, and how long the other side asks to be left alone.

        `shut`: it asks everybody, so that nobody need meet the same.
        """
        self._said = True
        self._breaker.failed(self._period, wait_s, shut=shut)

    def left(self) -> None:
        if not self._said:
            self._said = True
            self._breaker.left(self._period)


class Breakers:
    """All breakers of a process, by kind and name."""

    def __init__(
        self, rules: Rules | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rules, self._clock = rules or Rules(), clock
        self._kept = OrderedDict[tuple[str, str], Breaker]()

    def of(self, kind: str, name: str) -> Breaker:
        """Return the breaker of this name, made when it is first asked for."""
        key = (kind, name)
        breaker = self._kept.get(key)
        if breaker is None:
            if len(self._kept) >= MOST:
                self._drop()
            breaker = self._kept[key] = Breaker(self._rules, self._clock)
        self._kept.move_to_end(key)
        return breaker

    def states(self) -> Sequence[BreakerState]:
        """Return what is to be told of each, at most `MOST`."""
        offset_s = time.time() - self._clock()
        return [
            one.told(kind, name, offset_s=offset_s)
            for (kind, name), one in sorted(self._kept.items(), key=lambda item: item[0])
        ]

    def worst(self) -> Sequence[tuple[str, Circuit]]:
        """Return the worst state of each provider and each tool, whoever's it is: for metrics."""
        found = dict[str, Circuit]()
        for one in self.states():
            words = one.name.split()
            shown = f"{one.kind} {words[-1] if one.kind == 'tool' else words[0]}"
            found[shown] = BAD[max(BAD.index(found.get(shown, "closed")), BAD.index(one.state))]
        return list(found.items())

    def _drop(self) -> None:
        oldest = next(iter(self._kept))
        del self._kept[next((key for key, one in self._kept.items() if one.is_closed), oldest)]
