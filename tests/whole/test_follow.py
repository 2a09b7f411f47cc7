"""Following a session loses nothing and repeats nothing, however often it is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import cycle

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.app.keys import ADMIN
from hostler.core.errors import Malformed
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
from hostler.core.news import Piece
from hostler.core.ports import (
    Delta,
)
from hostler.service.cursor import Cursor
from hostler.service.follow import Following, any_end
from hostler.signals import local
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.testing.doubles import a_session, whole_log
from hostler.testing.store_suite import spoke

pytestmark = pytest.mark.anyio
R = RunId("run_1")


@dataclass
class Session:
    """A session whose one run is written by hand."""

    signals: LocalSignals = field(default_factory=LocalSignals)
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

    async def watch(self, session: Session, *, cuts: Sequence[int]) -> None:
        """Follow to the end of the run, coming back with the cursor after each cut."""
        for cut in (*cuts, 10**9):
            seen = 0
            stream = session.following.follow(
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


steps = st.lists(
    st.sampled_from(["word", "words", "pause", "steer", "drop", "call"]), min_size=1, max_size=30
)


@given(
    steps=steps,
    viewers=st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=4),
    takes=st.lists(st.booleans(), min_size=1, max_size=5),
)
@settings(max_examples=200, deadline=None)
def test_every_viewer_ends_with_the_same_facts_and_with_text_that_fits(
    steps: list[str], viewers: list[list[int]], takes: list[bool]
) -> None:
    async def scenario() -> None:
        session = Session()
        await session.begin()
        watching = [Viewer(takes=cycle(takes)) for _ in viewers]
        said: dict[Seq, str] = {}
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for viewer, cuts in zip(watching, viewers, strict=True):
                    tasks.start_soon(lambda v=viewer, c=cuts: v.watch(session, cuts=c))
                said |= await play(session, steps)

        log = await whole_log(session.store, session.key)
        for viewer in watching:
            assert as_bytes(viewer.facts) == as_bytes(log)
            for asked, text in viewer.texts.items():
                assert text in ("", said[asked]) or said[asked].startswith(text)

    anyio.run(scenario)


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


@pytest.mark.parametrize(
    "takes",
    [
        pytest.param([False], id="woken for all of it"),
        pytest.param([True], id="given what it can take at once"),
        pytest.param([True, False, True], id="given some at once"),
    ],
)
async def test_an_unbroken_viewer_sees_every_character_in_order(takes: list[bool]) -> None:
    session, viewer, said = Session(), Viewer(takes=cycle(takes)), dict[Seq, str]()
    await session.begin()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: viewer.watch(session, cuts=()))
            await anyio.wait_all_tasks_blocked()
            said |= await play(session, ["word", "pause", "words", "steer", "word", "pause"] * 5)

    assert viewer.texts == said
    assert bool(viewer.taken) == any(takes)


async def test_a_viewer_that_falls_behind_reads_the_log_and_misses_no_fact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "LARGEST_BACKLOG", 4)
    session, viewer = Session(), Viewer()
    await session.begin()
    await session.ask()
    stream = session.following.follow(ADMIN, session.key.session, after=Cursor(), ends=any_end)
    with anyio.fail_after(10):
        async with aclosing(stream) as batches:
            async for batch in batches:
                for item in batch:
                    viewer.see(item)
                if len(viewer.facts) == 4:
                    for number in range(50):
                        session.say(f"{number} ")
                        await session.write(spoke(R, policy="steer"))
                    await session.reply("done")

    log = await whole_log(session.store, session.key)
    assert as_bytes(viewer.facts) == as_bytes(log)


async def test_text_that_was_read_in_one_turn_of_the_loop_comes_as_one_piece() -> None:
    session, seen = Session(), list[Piece]()
    await session.begin()
    await session.ask()
    with session.signals.watch(session.key, quiet_s=9) as watch:
        for number in range(500):
            session.say(f"{number} ")
        with anyio.fail_after(10):
            items = await watch.next()
        seen += [item for item in items or () if isinstance(item, Piece)]

    assert len(seen) == 1
    assert len(seen[0].delta.text.split()) == 500


async def test_what_all_watchers_are_given_is_one_object() -> None:
    session = Session()
    await session.begin()
    await session.ask()
    with (
        session.signals.watch(session.key, quiet_s=9) as one,
        session.signals.watch(session.key, quiet_s=9) as two,
    ):
        session.say("word")
        await session.write(spoke(R, policy="steer"))
        with anyio.fail_after(10):
            first, second = await one.next(), await two.next()

    assert first is not None
    assert second is not None
    assert [id(item) for item in first] == [id(item) for item in second]


async def test_a_quiet_session_gives_empty_batches_to_keep_connections_open_with() -> None:
    signals, key = LocalSignals(), await a_session(MemoryStore())
    with signals.watch(key, quiet_s=0.05) as watch, anyio.fail_after(10):
        assert await watch.next() == []
        assert await watch.next() == []


async def test_nothing_is_kept_of_a_session_that_nobody_watches_or_drives() -> None:
    session = Session()
    await session.begin()
    await session.ask()
    with session.signals.watch(session.key, quiet_s=9):
        session.say("word")
        await anyio.lowlevel.checkpoint()
        await session.reply("word")

    assert session.signals._channels == {}


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1.2", "1.2.3.4", "1.2.x", " 1", "1" * 16, "\u0661"]
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        Cursor.parse(text)


@given(seq=st.integers(0, 10**15 - 1), asked=st.integers(0, 10**9), offset=st.integers(0, 10**9))
def test_a_cursor_comes_back_as_it_was(seq: int, asked: int, offset: int) -> None:
    cursor = Cursor(Seq(seq), Seq(asked if offset else 0), offset)
    assert Cursor.parse(str(cursor)) == cursor
