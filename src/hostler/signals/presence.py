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
class _Room:
    seats: list[_Seat] = field(default_factory=list[_Seat])
    typing: dict[PrincipalId, asyncio.TimerHandle] = field(
        default_factory=dict[PrincipalId, asyncio.TimerHandle]
    )
    told_at: float = 0.0
    due: asyncio.TimerHandle | None = None

    def present(self) -> tuple[Present, ...]:
        return tuple(
            Present(principal=seat.who, since=seat.since, typing=seat.who in self.typing)
            for seat in self.seats
        )

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

    def close(self) -> None:
        for timer in (self.due, *self.typing.values()):
            if timer is not None:
                timer.cancel()


class Rooms:
    """The sessions in which somebody lets others see that they watch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._rooms: dict[Key, _Room] = {}
        self._clock = clock

    @contextmanager
    def attend(self, key: Key, who: PrincipalId) -> Generator[Attendance]:
        room = self._rooms.setdefault(key, _Room())
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

    def _typed(self, room: _Room, who: PrincipalId) -> None:
        del room.typing[who]
        room.change()
