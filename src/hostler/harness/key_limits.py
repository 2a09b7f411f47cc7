"""What a key may ask of one model at once, and the line of those who wait for room.

    enter ──room, and nobody waits──▶ Room
       └───▶ in line, a few seconds ──▶ Room, or how long to wait elsewhere

There is room while less is in flight than the operator says (this node's share of it) and than the
provider was found to bear (`bounds`), and while the key's breaker is closed.  Tenants take turns,
and each one's sessions come in the order in which they came first: who is sent away to wait keeps
the number, and stands before all who came later when it comes back.

Invariant: who waits in line may leave at any moment, and a room that was given is given back once.
"""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import anyio

from hostler.harness.bounds import Bound
from hostler.harness.breakers import Breaker, Breakers, Passage
from hostler.harness.limit_news import LimitNews

WAITS_S = 5.0
"""A longer wait leaves the loop, and memory (`core.loop.PATIENCE_S`)."""
FRONT_S = 30.0
"""Those whose turn is within the next round stay for so long, lest a room finds nobody there."""
MOST_IN_LINE = 1_000
MOST_AWAY = 10_000
LATE_S = 60.0
"""Who comes back so much later than told has a new number."""
LEAST_S, FAR_S = 0.5, 120.0
"""Who is sent away by the line alone looks again by then: it may have become shorter."""
MOST = 1_000
"""KeyLimits kept; the one that was longest not asked goes first, idle ones before others."""
_OF_NEW = 0.2
"""What a new one counts for in the average of how long an answer takes."""


class Asker(NamedTuple):
    """Who asks.  Of no session: somebody who keeps no number."""

    tenant: str
    session: str


@dataclass(slots=True, eq=False)
class _Waiting:
    number: int
    asker: Asker
    until: float
    called: anyio.Event = field(default_factory=anyio.Event)
    room: Room | None = None

    def __lt__(self, other: _Waiting) -> bool:
        return self.number < other.number


class Room:
    """Leave to ask once.  Say what came of it; `left` last."""

    __slots__ = ("_is_left", "_limit", "epoch", "is_taken", "passage", "since")

    def __init__(self, limit: KeyLimit, passage: Passage, epoch: int, since: float) -> None:
        self._limit, self.passage, self.epoch, self.since = limit, passage, epoch, since
        self.is_taken = self._is_left = False

    def worked(self) -> None:
        """Take in that the provider took the question."""
        if not self.is_taken:
            self.is_taken = True
            self._limit.worked(self)

    def refused(self, wait_s: float | None = None) -> None:
        """Take in that the provider limits the key, and for how long it says so."""
        self._limit.refused(self, wait_s)

    def left(self) -> None:
        if not self._is_left:
            self._is_left = True
            self._limit.left(self)


class KeyLimit:
    """One key's, for one model.  Made by `KeyLimits`; not for several threads."""

    def __init__(
        self, name: str, breaker: Breaker, news: LimitNews, clock: Callable[[], float]
    ) -> None:
        self.name, self.breaker = name, breaker
        self.at_once: int | None = None
        """Of all nodes together, as the operator says."""
        self._news, self._clock = news, clock
        self._bound = Bound(clock)
        self._rooms = dict[Room, None]()
        self._line = OrderedDict[str, list[_Waiting]]()
        """By tenant; the first one's turn is next."""
        self._away = OrderedDict[Asker, tuple[int, float]]()
        self._away_of = Counter[str]()
        self._last, self._each_s = 0, 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def most(self) -> int | None:
        """Return how much may be in flight now on this node; None: there is no bound."""
        return _least(self._share, self._bound.most)

    @property
    def waiting(self) -> int:
        return sum(len(one) for one in self._line.values())

    @property
    def in_flight(self) -> int:
        return len(self._rooms)

    @property
    def is_idle(self) -> bool:
        return not (self._rooms or self._line or self._away or self._bound.most)

    async def enter(
        self, tenant: str, session: str = "", waits_s: float | None = None
    ) -> Room | float:
        """Return room to ask, or after how many seconds it is worth to come back.

        `session`: one that does so keeps its number.  `waits_s`: how long to stand in line at most;
        None: as long as is good for a run.
        """
        asker = Asker(tenant, session)
        number = self._number(asker)
        if not self._line:
            self._bound.forget_old()
            if (room := self._room()) is not None:
                return room
        before = self._before(asker.tenant, number)
        wait_s, stays_s = self._wait_s(before), WAITS_S if waits_s is None else waits_s
        if waits_s is None and before < (self.most or 0) and self.breaker.left_s <= WAITS_S:
            stays_s = FRONT_S
        if wait_s > stays_s or self.waiting >= MOST_IN_LINE:
            return self._sent_away(asker, number, wait_s)
        one = _Waiting(number, asker, self._clock() + stays_s)
        if not await self._stand(one, stays_s) or one.room is None:
            before = self._before(asker.tenant, number)
            return self._sent_away(asker, number, self._wait_s(before))
        return one.room

    def worked(self, room: Room) -> None:
        room.passage.worked()
        self._bound.answered(len(self._rooms))
        self.look()

    def refused(self, room: Room, wait_s: float | None) -> None:
        before_s = self.breaker.left_s
        self._bound.refused(room.epoch, len(self._rooms))
        room.passage.failed(wait_s, shut=wait_s is not None)
        left_s = self.breaker.left_s
        if left_s > before_s + 1.0 or (left_s and not before_s):
            self._news.tell(self.name, left_s)
        self._dismiss()

    def left(self, room: Room) -> None:
        del self._rooms[room]
        room.passage.left()
        if room.is_taken:
            took_s = self._clock() - room.since
            self._each_s += (took_s - self._each_s) * (_OF_NEW if self._each_s else 1.0)
        self.look()

    def shut(self, wait_s: float) -> None:
        """Take in that another node was told to leave this key alone."""
        self.breaker.shut(wait_s)
        self._dismiss()

    def look(self) -> None:
        """Give those in line what room there is."""
        while self._line and (room := self._room()) is not None:
            tenant, its = self._line.popitem(last=False)
            one = its.pop(0)
            if its:
                self._line[tenant] = its  # behind the others, whose turn it is now
            one.room = room
            one.called.set()
        if self._line and self.breaker.is_open:
            self._look_in(self.breaker.left_s)

    @property
    def _share(self) -> int | None:
        return self.at_once and max(1, self.at_once // (self._news.peers() + 1))

    def _room(self) -> Room | None:
        most = self.most
        if (most is not None and len(self._rooms) >= most) or self.breaker.left_s > 0:
            return None
        is_probe, passage = not self.breaker.is_closed, self.breaker.enter()
        if isinstance(passage, int | float):
            return None
        room = Room(self, passage, self._bound.epoch, self._clock())
        self._rooms[room] = None
        if is_probe:
            self._bound.begin_slowly(len(self._rooms))
        return room

    async def _stand(self, one: _Waiting, stays_s: float) -> bool:
        """Stand in line until called; False: in vain.  Who is cancelled gives back what it has."""
        tenant, is_here = one.asker.tenant, False
        insort(self._line.setdefault(tenant, []), one)
        self.look()
        try:
            with anyio.move_on_after(stays_s):
                await one.called.wait()
            is_here = True
        finally:
            its = self._line.get(tenant, [])
            if one in its:
                its.remove(one)
                if not its:
                    del self._line[tenant]
            if not is_here and one.room is not None:
                one.room.left()
        return one.room is not None

    def _dismiss(self) -> None:
        """Send away those who would wait in vain while the breaker is open."""
        late = self._clock() + self.breaker.left_s
        for one in [one for its in self._line.values() for one in its]:
            if one.until < late:
                its = self._line[one.asker.tenant]
                its.remove(one)
                if not its:
                    del self._line[one.asker.tenant]
                one.called.set()
        self.look()

    def _number(self, asker: Asker) -> int:
        self._forget_late()
        if asker.session and (kept := self._away.pop(asker, None)) is not None:
            self._one_less(asker.tenant)
            return kept[0]
        self._last += 1
        return self._last

    def _sent_away(self, asker: Asker, number: int, wait_s: float) -> float:
        if self.breaker.left_s > 0 and not isinstance(shut_s := self.breaker.enter(), Passage):
            wait_s = max(wait_s, shut_s)
        if not asker.session:
            return wait_s
        if self.breaker.left_s <= 0:  # to be in line again when its turn comes
            wait_s = max(LEAST_S, min(wait_s - WAITS_S / 2, FAR_S))
        self._away[asker] = number, self._clock() + wait_s + LATE_S
        self._away_of[asker.tenant] += 1
        if len(self._away) > MOST_AWAY:
            self._one_less(self._away.popitem(last=False)[0].tenant)
        return wait_s

    def _forget_late(self) -> None:
        now = self._clock()
        while self._away:
            asker, (_, until) = next(iter(self._away.items()))
            if until >= now:
                return
            del self._away[asker]
            self._one_less(asker.tenant)

    def _one_less(self, tenant: str) -> None:
        self._away_of[tenant] -= 1
        if not self._away_of[tenant]:
            del self._away_of[tenant]

    def _before(self, tenant: str, number: int) -> int:
        """Return how many have their turn before this one; those who are away among them."""
        its = self._line.get(tenant, ())
        own = sum(one.number < number for one in its)
        if number == self._last:  # who comes for the first time comes after all others
            own += self._away_of[tenant]
        before = own
        for other in {*self._line, *self._away_of} - {tenant}:
            before += min(len(self._line.get(other, ())) + self._away_of[other], own + 1)
        return before

    def _wait_s(self, before: int) -> float:
        shut_s = self.breaker.left_s
        most = _least(self._share, self._bound.hoped)
        if most is None:
            return shut_s
        rounds = max(0, before + 1 - max(0, most - len(self._rooms))) / most
        return shut_s + rounds * self._takes_s()

    def _takes_s(self) -> float:
        """Return how long an answer takes; what is in flight may show that it is longer."""
        oldest = next(iter(self._rooms), None)
        age_s = 0.0 if oldest is None else self._clock() - oldest.since
        return max(self._each_s, age_s) or 1.0

    def _look_in(self, wait_s: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self.look()


class LimitFigures(NamedTuple):
    """What is told of a provider."""

    waiting: int
    in_flight: int
    most: int | None
    """The least that a key of it may have in flight for a model; None: nothing is bounded."""


class KeyLimits:
    """All limits of a process, by name."""

    def __init__(
        self,
        breakers: Breakers | None = None,
        news: LimitNews | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.breakers = breakers or Breakers(clock=clock)
        self.news = news or LimitNews()
        self._clock, self._kept = clock, OrderedDict[str, KeyLimit]()

    def __iter__(self) -> Iterator[KeyLimit]:
        return iter(self._kept.values())

    def mark(self, key: str | None) -> str:
        """Return what tells keys apart, and tells nothing else of them."""
        return self.news.mark(key)

    def of(self, name: str, at_once: int | None = None) -> KeyLimit:
        """Return the limit of this name, made when it is first asked for.

        The first word of a name is its provider, which figures are about.
        """
        breaker = self.breakers.of("rate_limit", name)
        limit = self._kept.get(name)
        if limit is None:
            if len(self._kept) >= MOST:
                self._drop()
            limit = self._kept[name] = KeyLimit(name, breaker, self.news, self._clock)
            self.news.keep(name, limit)
        limit.breaker, limit.at_once = breaker, at_once
        self._kept.move_to_end(name)
        return limit

    def figures(self) -> Sequence[tuple[str, LimitFigures]]:
        """Return those of each provider, whoever's keys they are."""
        found = dict[str, LimitFigures]()
        for one in self:
            provider, _, _ = one.name.partition(" ")
            seen = found.get(provider, LimitFigures(0, 0, None))
            found[provider] = LimitFigures(
                seen.waiting + one.waiting,
                seen.in_flight + one.in_flight,
                _least(seen.most, one.most),
            )
        return sorted(found.items())

    def _drop(self) -> None:
        oldest = next(iter(self._kept))
        del self._kept[next((name for name, one in self._kept.items() if one.is_idle), oldest)]


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
