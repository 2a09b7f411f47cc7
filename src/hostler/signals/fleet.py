"""News of a fleet: what happens here is told here at once, and the other nodes hear of it.

What others say is given to those who watch here as if it had happened here.  All of it may be lost:
then the log is read.

Invariant: nobody here waits for the wire.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import anyio

from hostler.core.errors import HostlerError
from hostler.core.events import (
    AttemptId,
    CancelRequested,
    Event,
    Key,
    PrincipalId,
    RunId,
    RunKey,
    Seq,
)
from hostler.core.news import Attendance, Present, Watch
from hostler.core.ports import Delta
from hostler.signals import words
from hostler.signals.driving import Driving, Read
from hostler.signals.listening import DOWN_S, Listening, Watched
from hostler.signals.local import LocalSignals
from hostler.signals.outgoing import Figures, Outgoing
from hostler.signals.peers import GONE_S, HERE, Peers
from hostler.signals.wire import Wire

LOOK_S = 0.25
PRESENT_S = 10.0
"""How often a node says again that it is there, and who watches on it."""
LARGEST_EVENT = 64_000
"""Bytes of a fact that is sent along; larger ones are read from the log."""


class FleetSignals:
    """A `core.news.Signals`, and `core.news.Nodes`, of one node of a fleet."""

    def __init__(self, local: LocalSignals, wire: Wire, *, fleet: str = "hostler") -> None:
        """`fleet`: its name; nodes of one name on one wire hear each other."""
        self._local, self._wire, self._fleet = local, wire, fleet
        self._node, self._common = secrets.token_hex(words.NAME // 2), f"{fleet}.all"
        self._inbox = self._inbox_of(self._node)
        self._outgoing = Outgoing(wire, self._node, self._common)
        self._listening = Listening(local, wire, self._outgoing, fleet, self._common)
        self._driving = Driving(local, self._outgoing)
        self._peers = Peers()
        self._largest = min(LARGEST_EVENT, wire.limit_bytes - words.HEAD - 2)
        self._hears = dict[str, list[Callable[[Sequence[str]], None]]]()
        self._is_up, self._behind = False, anyio.Event()
        local.rooms.tell = self._tell_here
        wire.subscribe(self._common)
        wire.subscribe(self._inbox)

    @property
    def watching(self) -> int:
        return self._local.watching

    @property
    def is_up(self) -> bool:
        return self._is_up

    @property
    def peers(self) -> int:
        """Return how many other nodes were heard of late."""
        return len(self._peers)

    @property
    def figures(self) -> Figures:
        return self._outgoing.figures

    def publish(self, key: Key, events: Sequence[Event]) -> None:
        self._local.publish(key, events)
        self._listening.published(key, events)
        self._driving.published(key, events)
        if not self._peers:
            return
        channel = words.channel_of(self._fleet, key)
        for event in events:
            self._outgoing.say(channel, words.written(event, self._largest))
            if isinstance(event.fact, CancelRequested) and event.fact.run is not None:
                # Whoever drives the run need not watch it.
                cancel = words.Cancel(*key, event.fact.run)
                self._outgoing.say(self._common, words.encode(cancel))

    def delta(self, key: RunKey, asked: Seq, attempt: AttemptId, delta: Delta) -> None:
        self._local.delta(key, asked, attempt, delta)

    def lost(self, key: Key) -> None:
        self._local.lost(key)
        self._say(key, words.encode(words.Reread()))

    @contextmanager
    def watch(self, key: Key, *, quiet_s: float) -> Generator[Watch]:
        with self._local.watch(key, quiet_s=quiet_s) as watch, self._listening.open(key):
            yield watch

    @contextmanager
    def on_cancel(self, key: RunKey, ring: Callable[[], None]) -> Generator[None]:
        with self._driving.one(Key(key.tenant, key.session)), self._local.on_cancel(key, ring):
            yield

    @contextmanager
    def attend(self, key: Key, who: PrincipalId) -> Generator[Attendance]:
        with self._listening.open(key), self._local.attend(key, who) as attendance:
            yield attendance

    def typing(self, key: Key, who: PrincipalId) -> None:
        self._local.typing(key, who)
        self._say(key, words.encode(words.Typing(who)))

    def present(self, key: Key) -> Sequence[Present]:
        return self._local.present(key)

    def tell(self, kind: str, *what: str) -> None:
        self._outgoing.say(self._common, words.encode(words.Told(kind, what)))

    def on(self, kind: str, hear: Callable[[Sequence[str]], None]) -> None:
        self._hears.setdefault(kind, []).append(hear)

    async def serve(self, read: Read | None = None) -> None:
        """Speak and listen until cancelled.  `read`: the log, for cancels that were not heard."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._wire.serve, self)
            tasks.start_soon(self._outgoing.serve)
            tasks.start_soon(self._look)
            tasks.start_soon(self._repeat_presence)
            if read is not None:
                tasks.start_soon(self._catch_up, read)

    def stands(self, channel: str) -> None:
        """See `hostler.signals.wire.Ears`."""
        if channel == self._common:
            self._is_up = True
            self._outgoing.again()
            self._behind.set()
            self.tell(HERE)
        if (one := self._listening.stands(channel)) is not None:
            seats = self._local.rooms.here_in(one.key)
            if seats:
                self._tell_here(one.key, seats)

    def down(self) -> None:
        """See `hostler.signals.wire.Ears`."""
        self._is_up = False
        self._outgoing.empty()
        self._listening.down()
        self._behind.set()

    def heard(self, channel: str, data: bytes) -> None:
        """See `hostler.signals.wire.Ears`."""
        sender = words.sender(data)
        if sender == self._node:
            return
        items, is_all = words.read(data)
        one = self._listening.on(channel)
        for item in items:
            if one is not None:
                self._heard_of(one, sender, item)
            elif channel == self._inbox and isinstance(item, words.Said):
                self._listening.said(item, words.key_of(item))
            elif channel == self._common and sender:
                self._heard_by_all(sender, item)
        if one is not None and not is_all:
            one.due = 0.0  # a newer build says what we do not know

    def _welcome(self) -> None:
        """Let a node that was not known hear what it has missed."""
        self.tell(HERE)
        self._outgoing.say(self._common, words.encode(words.Reread()))
        for key, seats in self._local.rooms.here():
            self._tell_here(key, seats)

    def _heard_of(self, one: Watched, sender: str, item: words.Item) -> None:
        match item:
            case words.Written():
                self._listening.written(one, item)
            case words.Reread():
                self._listening.reread(one)
            case words.Here():
                seats = words.seats(item)
                if self._local.rooms.hear(one.key, sender, seats, for_s=GONE_S):
                    self._tell_here(one.key, self._local.rooms.here_in(one.key))
            case words.Typing():
                self._local.typing(one.key, PrincipalId(item.who))
            case _:
                pass

    def _heard_by_all(self, sender: str, item: words.Item) -> None:
        if self._peers.hear(sender):
            # Before it is sent any text: it has to hear of each attempt's end, too.
            self._welcome()
        match item:
            case words.Ask():
                inbox = self._inbox_of(sender)
                self._driving.asked(words.key_of(item), inbox, wanted=item.wanted)
            case words.Cancel():
                self._local.ring(RunKey(*words.key_of(item), RunId(item.run)))
            case words.Reread():
                self._behind.set()
                for one in self._listening:
                    self._listening.reread(one)
            case words.Told():
                for hear in self._hears.get(item.kind, ()):
                    hear(item.words)
            case _:
                pass

    def _say(self, key: Key, item: bytes) -> None:
        if self._peers:
            self._outgoing.say(words.channel_of(self._fleet, key), item)

    def _tell_here(self, key: Key, seats: Sequence[Present]) -> None:
        self._say(key, words.here(seats))

    def _inbox_of(self, node: str) -> str:
        return f"{self._fleet}.n.{node}"

    async def _look(self) -> None:
        while True:
            await anyio.sleep(LOOK_S)
            self._listening.look()

    async def _repeat_presence(self) -> None:
        while True:
            await anyio.sleep(PRESENT_S)
            self.tell(HERE)
            self._peers.forget_old()
            self._local.rooms.forget_old()
            for key, seats in self._local.rooms.here():
                self._tell_here(key, seats)

    async def _catch_up(self, read: Read) -> None:
        """Read what was missed: while nothing is heard, and once whenever something was lost."""
        while True:
            if self._is_up:
                await self._behind.wait()
            else:
                with anyio.move_on_after(DOWN_S):
                    await self._behind.wait()
            self._behind = anyio.Event()
            try:
                await self._driving.catch_up(read)
            except HostlerError:
                self._behind.set()  # the log cannot be read now, either
                await anyio.sleep(DOWN_S)
