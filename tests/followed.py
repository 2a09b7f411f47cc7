"""A session that is written by hand, and those who follow it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import cycle

import anyio

from hostler.app.keys import ADMIN
from hostler.core.events import (
    START,
    AttemptDropped,
    AttemptId,
    Event,
    Fact,
    Key,
    ModelAsked,
    ModelReplied,
    RunClaimed,
    RunEnded,
    RunId,
    RunKey,
    RunStarted,
    Seq,
    Usage,
)
from hostler.core.news import Piece, Signals
from hostler.core.ports import Delta
from hostler.service.cursor import Cursor
from hostler.service.follow import Following, any_end
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.testing.doubles import a_session
from hostler.testing.store_suite import spoke

R = RunId("run_1")


@dataclass
class Session:
    """A session whose one run is written by hand."""

    signals: Signals = field(default_factory=LocalSignals)
    store: MemoryStore = field(init=False)
    key: Key = field(init=False)
    asked: Seq = START
    attempts: int = 0

    def __post_init__(self) -> None:
        self.store = MemoryStore(observer=self.signals.publish)

    @property
    def following(self) -> Following:
        return Following(store=self.store, signals=self.signals)

    async def begin(self) -> None:
        self.key = await a_session(self.store)
        await self.write(spoke(R), RunClaimed(run=R, claim=1, worker="w"), RunStarted(run=R))

    async def write(self, *facts: Fact) -> None:
        appended = await self.store.append(self.key, facts)
        for event in appended.events:
            if isinstance(event.fact, ModelAsked):
                self.asked = event.seq

    async def ask(self) -> None:
        self.attempts += 1
        attempt = AttemptId(f"att_{self.attempts}")
        await self.write(ModelAsked(run=R, attempt=attempt, provider="p", model="m"))

    def say(self, text: str) -> None:
        run = RunKey(*self.key, R)
        self.signals.delta(run, self.asked, AttemptId(f"att_{self.attempts}"), Delta("text", text))

    async def drop(self) -> None:
        attempt = AttemptId(f"att_{self.attempts}")
        await self.write(AttemptDropped(run=R, attempt=attempt, reason="interrupted"))

    async def reply(self, text: str) -> None:
        attempt = AttemptId(f"att_{self.attempts}")
        usage = Usage()
        await self.write(
            ModelReplied(
                run=R,
                attempt=attempt,
                seen=self.asked,
                text=text,
                calls=(),
                stop="end",
                usage=usage,
            ),
            RunEnded(run=R, status="done", usage=usage),
        )


@dataclass
class Viewer:
    """What one client has on its screen, and how far it has seen."""

    cursor: Cursor = field(default_factory=Cursor)
    facts: list[Event] = field(default_factory=list[Event])
    texts: dict[Seq, str] = field(default_factory=dict[Seq, str])
    """By attempt, as streamed."""
    takes: Iterator[bool] = field(default_factory=lambda: cycle([False]))
    """What this client says, time after time, to text that it could take without waiting."""
    taken: int = 0

    def take(self, items: Sequence[Event | Piece]) -> bool:
        if not next(self.takes):
            return False
        for item in items:
            self.see(item)
            self.taken += 1
        return True

    def see(self, item: Event | Piece) -> None:
        self.cursor = Cursor.after(item)
        if isinstance(item, Event):
            self.facts.append(item)
        else:
            self.texts[item.asked] = self.texts.get(item.asked, "") + item.delta.text

    async def watch(
        self, session: Session, *, cuts: Sequence[int], following: Following | None = None
    ) -> None:
        """Follow to the end of the run, coming back with the cursor after each cut."""
        following = following or session.following
        for cut in (*cuts, 10**9):
            seen = 0
            stream = following.follow(
                ADMIN, session.key.session, after=self.cursor, ends=any_end, at_once=self.take
            )
            async with aclosing(stream) as batches:
                async for batch in batches:
                    for item in batch:
                        self.see(item)
                        seen += 1
                        if isinstance(item, Event) and any_end(item):
                            return
                        if seen > cut:
                            break
                    if seen > cut:
                        break
            await anyio.lowlevel.checkpoint()


def as_bytes(events: Sequence[Event]) -> list[tuple[Seq, bytes]]:
    return [(event.seq, event.raw) for event in events]


async def play(session: Session, steps: Sequence[str]) -> dict[Seq, str]:
    """Do what the steps say, then reply; return what each attempt said."""
    said: dict[Seq, str] = {}
    await session.ask()
    for number, step in enumerate(steps):
        word = f"w{number} "
        if step in ("word", "words"):
            for _ in range(1 if step == "word" else 3):
                session.say(word)
                said[session.asked] = said.get(session.asked, "") + word
        elif step == "pause":
            await anyio.lowlevel.checkpoint()
        elif step == "steer":
            await session.write(spoke(R, policy="steer"))
        elif step == "drop":
            await session.drop()
            await session.ask()
        else:
            await session.write(spoke(f"run_{number + 2}"))
    await anyio.lowlevel.checkpoint()
    await session.reply(said.get(session.asked, "nothing"))
    return said
