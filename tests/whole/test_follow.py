"""Following a session loses nothing and repeats nothing, however often it is cut."""

from __future__ import annotations

from contextlib import aclosing
from itertools import cycle

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fleets import until
from tests.followed import R, Session, Viewer, as_bytes, play

from hostler.app.keys import ADMIN
from hostler.core.errors import Malformed
from hostler.core.events import AttemptId, Seq, SessionId
from hostler.core.news import Piece
from hostler.core.ports import Delta
from hostler.service.cursor import Cursor
from hostler.service.follow import Following, any_end
from hostler.service.position import Position
from hostler.signals import watcher
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.testing.doubles import a_session, whole_log
from hostler.testing.store_suite import spoke

pytestmark = pytest.mark.anyio
steps = st.lists(
    st.sampled_from(["word", "words", "pause", "steer", "drop", "call"]), min_size=1, max_size=30
)


def a_piece(*, asked: int, start: int, text: str) -> Piece:
    return Piece(
        session=SessionId("ses_1"),
        run=R,
        asked=Seq(asked),
        attempt=AttemptId(f"att_{asked}"),
        seq=Seq(7),
        start=start,
        delta=Delta("text", text),
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
    monkeypatch.setattr(watcher, "LARGEST_BACKLOG", 4)
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


def test_text_of_an_attempt_before_the_one_that_is_seen_is_not_told() -> None:
    at = Position(seq=Seq(7), asked=Seq(7), offset=4)

    late = at.piece(a_piece(asked=4, start=0, text="what was dropped"))
    again = at.piece(a_piece(asked=7, start=0, text="seen"))
    rest = at.piece(a_piece(asked=7, start=0, text="seen, and more"))

    assert (late, again) == (None, None)
    assert rest is not None
    assert (rest.start, rest.delta.text) == (4, ", and more")


async def test_text_of_an_attempt_that_ended_before_the_cursor_is_not_told() -> None:
    session, far, seen = Session(), LocalSignals(), list[str]()
    await session.begin()
    await session.ask()
    dropped = session.asked
    await session.drop()
    await session.ask()
    await session.write(spoke(R, policy="steer"))
    cursor = Cursor((await session.store.head(session.key)).seq)
    following = Following(store=session.store, signals=far)
    with anyio.fail_after(10):
        stream = following.follow(ADMIN, session.key.session, after=cursor)
        async with aclosing(stream) as batches, anyio.create_task_group() as tasks:

            async def watch() -> None:
                async for batch in batches:
                    seen.extend(one.delta.text for one in batch if isinstance(one, Piece))
                    if seen:
                        return

            tasks.start_soon(watch)
            await until(lambda: bool(far.watching))
            far.hear_text(session.key, a_piece(asked=dropped, start=0, text="gone"))
            await anyio.lowlevel.checkpoint()
            far.hear_text(session.key, a_piece(asked=session.asked, start=0, text="here"))

    assert seen == ["here"]


async def test_a_quiet_session_gives_empty_batches_to_keep_connections_open_with() -> None:
    signals, key = LocalSignals(), await a_session(MemoryStore())
    with signals.watch(key, quiet_s=0.05) as watch, anyio.fail_after(10):
        assert await watch.next() == []
        assert await watch.next() == []


async def test_nothing_is_kept_of_a_session_that_nobody_watches_or_drives() -> None:
    local = LocalSignals()
    session = Session(local)
    await session.begin()
    await session.ask()
    with session.signals.watch(session.key, quiet_s=9):
        session.say("word")
        await anyio.lowlevel.checkpoint()
        await session.reply("word")

    assert local._channels == {}


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
