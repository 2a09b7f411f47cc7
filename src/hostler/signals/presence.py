"""Who watches a session, and who types: told to those who watch, stored nowhere.

A room is told what it looks like at most every `EVERY_S`, however many come and go meanwhile, and
all in it are told by one object.

Invariant: single-threaded; called on the event loop only; an empty room costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hostler.core.events import Key, PrincipalId
from hostler.core.news import Attendance, Presence, Present

EVERY_S = 0.2
TYPING_S = 6.0
"""Clients say `typing` about every 3 s while somebody does; two may be lost."""


@dataclass(slots=True, eq=False)
class _Seat:
    """See `core.ports.Attendance`."""

    who: PrincipalId
    since: float
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    latest: Presence = field(default_factory=lambda: Presence(watching=()))

    async def next(self) -> Presence:
        await self.changed.wait()
        self.changed.clear()
        return self.latest


@dataclass(slots=True)
class _Elsewhere:
    """Who watches on another node, as it said."""

    seats: tuple[Present, ...]
    until: float
    """By the loop's clock: a node that says no more is gone."""


@dataclass(slots=True)
class _Room:
    tell: Callable[[Sequence[Present]], None]
    """Told who is here, on this node, when that changed."""
    seats: list[_Seat] = field(default_factory=list[_Seat])
    elsewhere: dict[str, _Elsewhere] = field(default_factory=dict[str, _Elsewhere])
    said: tuple[Present, ...] = ()
    typing: dict[PrincipalId, asyncio.TimerHandle] = field(
        default_factory=dict[PrincipalId, asyncio.TimerHandle]
    )
    told_at: float = 0.0
    due: asyncio.TimerHandle | None = None

    def here(self) -> tuple[Present, ...]:
        return tuple(
            Present(principal=seat.who, since=seat.since, typing=seat.who in self.typing)
            for seat in self.seats
        )

    def present(self) -> tuple[Present, ...]:
        if not self.elsewhere:
            return self.here()
        others = (one for node in self.elsewhere.values() for one in node.seats)
        return tuple(sorted((*self.here(), *others), key=lambda one: one.since))

    def change(self) -> None:
        """See that everybody is told, soon."""
        if self.due is None:
            loop = asyncio.get_running_loop()
            self.due = loop.call_at(max(loop.time(), self.told_at + EVERY_S), self._tell)

    def _tell(self) -> None:
        self.due, self.told_at = None, asyncio.get_running_loop().time()
        presence = Presence(watching=self.present())
        for seat in self.seats:
            seat.latest = presence
            seat.changed.set()
        if (here := self.here()) != self.said:
            self.said = here
            self.tell(here)

    def close(self) -> None:
        for timer in (self.due, *self.typing.values()):
            if timer is not None:
                timer.cancel()


class Rooms:
    """The sessions in which somebody lets others see that they watch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._rooms: dict[Key, _Room] = {}
        self._clock = clock
        self.tell: Callable[[Key, Sequence[Present]], None] = lambda _key, _seats: None
        """Told who is here, on this node, when that changed."""

    @contextmanager
    def attend(self, key: Key, who: PrincipalId) -> Generator[Attendance]:
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = _Room(lambda seats: self.tell(key, seats))
        seat = _Seat(who, self._clock())
        room.seats.append(seat)
        room.change()
        try:
            yield seat
        finally:
            room.seats.remove(seat)
            if room.seats:
                room.change()
            else:
                room.close()
                del self._rooms[key]
                self.tell(key, ())

    def typing(self, key: Key, who: PrincipalId) -> None:
        room = self._rooms.get(key)
        if room is None or all(seat.who != who for seat in room.seats):
            return
        if before := room.typing.get(who):
            before.cancel()
        else:
            room.change()
        loop = asyncio.get_running_loop()
        room.typing[who] = loop.call_later(TYPING_S, self._typed, room, who)

    def present(self, key: Key) -> Sequence[Present]:
        room = self._rooms.get(key)
        return () if room is None else room.present()

    def hear(self, key: Key, node: str, seats: Sequence[Present], *, for_s: float) -> bool:
        """Take in who watches on another node; return whether that node has to hear who is here.

        Nothing is kept of a session that nobody here watches.
        """
        room = self._rooms.get(key)
        if room is None:
            return False
        before = room.elsewhere.pop(node, None)
        if seats:
            until = asyncio.get_running_loop().time() + for_s
            room.elsewhere[node] = _Elsewhere(tuple(seats), until)
        if seats != (() if before is None else before.seats):
            room.change()
        return bool(seats) and before is None

    def here(self) -> Sequence[tuple[Key, Sequence[Present]]]:
        """Return who is here, of each session that somebody is here for."""
        return [(key, room.here()) for key, room in self._rooms.items()]

    def here_in(self, key: Key) -> Sequence[Present]:
        room = self._rooms.get(key)
        return () if room is None else room.here()

    def forget_old(self) -> None:
        """Forget who is on nodes of which nothing was heard for too long."""
        now = asyncio.get_running_loop().time()
        for room in self._rooms.values():
            for node in [name for name, one in room.elsewhere.items() if one.until <= now]:
                del room.elsewhere[node]
                room.change()

    def _typed(self, room: _Room, who: PrincipalId) -> None:
        del room.typing[who]
        room.change()
