"""How often one principal may ask: a request each so often, and a burst before that counts.

The generic cell rate algorithm (ITU-T I.371): for each principal one number is kept, the time at
which all that was asked so far would be paid for at the steady rate.  A request may come while that
is at most a burst ahead of now:

    now ─────┬──── burst ────┐
             paid for ──▶ + 1/rate for each request; beyond the burst it is refused, and adds nothing

Two policies: `requests`, each that a face is asked, and `runs`, each message that is to begin one.
What a stream sends is never counted.

Invariant: in any time t nobody gets more than burst + rate * t; what is refused costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Literal, NamedTuple, TypeAlias

from hostler.core.directory import TenantSettings
from hostler.core.errors import TooMany
from hostler.core.events import Principal, PrincipalId, TenantId

Policy: TypeAlias = Literal["requests", "runs"]
POLICIES: tuple[Policy, ...] = ("requests", "runs")
MOST_KEPT = 50_000
"""Principals whose rate is known at about 250 bytes each; of more, those that asked longest ago are
forgotten, and have their burst again."""
BURST_S = 10.0
"""So many seconds' worth may come at once, where nothing else is said."""
LEAST_PER_S, MOST_PER_S = 1e-6, 1e6
"""What a rate may be: one in twelve days, and more than one process answers."""
_SECOND = 1_000_000_000


def check_per_s(per_s: float) -> None:
    """Return if this can be a rate; 0: no limit.  Raises ValueError."""
    if per_s and not LEAST_PER_S <= per_s <= MOST_PER_S:
        raise ValueError(f"0, or from {LEAST_PER_S:g} to {MOST_PER_S:,.0f}")


class Rate(NamedTuple):
    """A steady rate, and what may come at once before it counts."""

    per_s: float
    burst: int
    each_ns: int
    """What one costs of the time."""

    @classmethod
    def of(cls, per_s: float, burst: int) -> Rate:
        return cls(per_s, burst, ceil(_SECOND / per_s))

    @property
    def window_s(self) -> int:
        """Return how long an unused burst takes to be there again."""
        return max(1, ceil(self.burst / self.per_s))


class Limits(NamedTuple):
    """Of one principal; None: as often as it likes."""

    requests: Rate | None = None
    runs: Rate | None = None


class Left(NamedTuple):
    """Where a principal stands."""

    policy: Policy
    rate: Rate
    left: int
    full_in_s: int
    """How long until all of the burst is there again, rounded up."""


LimitsOf: TypeAlias = Callable[[Principal], Limits]


UNLIMITED = Limits()


def unlimited(who: Principal) -> Limits:
    """Let everybody ask as often as they like."""
    del who
    return UNLIMITED


@dataclass(frozen=True, slots=True)
class _Ones:
    """What is kept of one policy: per principal, nanoseconds of the clock."""

    paid_at: dict[tuple[TenantId, PrincipalId], int]
    most: int

    def take(self, who: Principal, rate: Rate, now: int) -> int:
        """Count one, if it may be; return for how many nanoseconds it may not."""
        key, each = (who.tenant, who.id), rate.each_ns
        paid_at = max(self.paid_at.pop(key, 0), now)
        over = paid_at + each - now - rate.burst * each
        if over <= 0:
            paid_at += each
        # Put back at the end: the first ones are those that asked longest ago.
        self.paid_at[key] = paid_at
        if len(self.paid_at) > self.most:
            del self.paid_at[next(iter(self.paid_at))]
        return max(0, over)

    def left(self, who: Principal, policy: Policy, rate: Rate, now: int) -> Left:
        ahead = max(0, self.paid_at.get((who.tenant, who.id), 0) - now)
        used = -(-ahead // rate.each_ns)
        return Left(policy, rate, max(0, rate.burst - used), -(-ahead // _SECOND))


class Rates:
    """Counts, in this process."""

    def __init__(
        self,
        limits_of: LimitsOf = unlimited,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        most: int = MOST_KEPT,
    ) -> None:
        self._limits_of, self._clock_ns = limits_of, clock_ns
        self.settings_of: Callable[[TenantId], TenantSettings | None] = lambda _: None
        """What is otherwise for a tenant, as far as it is known without asking."""
        self._ones: dict[Policy, _Ones] = {"requests": _Ones({}, most), "runs": _Ones({}, most)}

    def take(self, who: Principal, policy: Policy) -> None:
        """Count one.

        Raises:
            TooMany: it came too soon (`rate`); says when it may come.
        """
        rate = _of(self._limits(who), policy)
        if rate is None:
            return
        over = self._ones[policy].take(who, rate, self._clock_ns())
        if over > 0:
            error = TooMany(_told(policy, rate), code="rate")
            error.retry_after_s = over / _SECOND
            raise error

    def standing(self, who: Principal) -> tuple[Left, ...]:
        """Return where somebody stands with each policy that limits them."""
        limits = self._limits(who)
        if limits is UNLIMITED:
            return ()
        now = self._clock_ns()
        return tuple(
            self._ones[policy].left(who, policy, rate, now)
            for policy in POLICIES
            if (rate := _of(limits, policy)) is not None
        )

    def _limits(self, who: Principal) -> Limits:
        limits = self._limits_of(who)
        own = None if who.is_operator else self.settings_of(who.tenant)
        if own is None or (own.requests_per_s is None and own.runs_per_s is None):
            return limits
        return Limits(
            _otherwise(own.requests_per_s, limits.requests), _otherwise(own.runs_per_s, limits.runs)
        )


@lru_cache(maxsize=1024)
def _otherwise(per_s: float | None, usual: Rate | None) -> Rate | None:
    """Return the rate of a tenant, whose burst lasts as long as the usual one."""
    if per_s is None:
        return usual
    burst_s = BURST_S if usual is None else usual.burst / usual.per_s
    return Rate.of(per_s, max(1, round(per_s * burst_s))) if per_s else None


def _of(limits: Limits, policy: Policy) -> Rate | None:
    return limits.requests if policy == "requests" else limits.runs


def _told(policy: Policy, rate: Rate) -> str:
    return f"{rate.burst:,} {policy} may come at once, and {rate.per_s:g} a second after that"
