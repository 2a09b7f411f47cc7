"""What all signals promise, one check per promise: run them on yours.

    @pytest.mark.parametrize("check", SIGNALS_SUITE, ids=lambda check: check.__name__)
    async def test_signals(check):
        await check(open_my_two_nodes)

A check is given two nodes of one fleet; for signals inside one process, they are one object.

Invariant: a check knows the ports alone, and waits for no more than `PATIENCE_S`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import anyio

from hostler.core import codec
from hostler.core.directory import DEFAULT
from hostler.core.events import (
    AttemptId,
    CancelRequested,
    Event,
    Fact,
    Key,
    ModelAsked,
    PrincipalId,
    RunId,
    RunKey,
    Seq,
    SessionId,
)
from hostler.core.news import Piece, Present, Signals, Watch
from hostler.core.ports import Delta

Open: TypeAlias = Callable[[], AbstractAsyncContextManager[tuple[Signals, Signals]]]
"""Opens two nodes that hear each other."""
Check: TypeAlias = Callable[[Open], Awaitable[None]]
PATIENCE_S = 10.0
KEY = Key(DEFAULT, SessionId("ses_1"))
RUN = RunKey(*KEY, RunId("run_1"))
ATTEMPT = AttemptId("att_1")
ALICE, BOB = PrincipalId("alice"), PrincipalId("bob")


def an_event(seq: int, fact: Fact) -> Event:
    """Return an event as a store gives it."""
    raw = codec.dump(fact)
    return Event(session=KEY.session, seq=Seq(seq), at=1.5, fact=fact, raw=raw)


def asked(seq: int) -> Event:
    return an_event(seq, ModelAsked(run=RUN.run, attempt=ATTEMPT, provider="p", model="m"))


def cancelled(seq: int) -> Event:
    return an_event(seq, CancelRequested(run=RUN.run, principal=ALICE, reason=None))


async def heard(
    watch: Watch, is_all: Callable[[Sequence[Event | Piece]], bool]
) -> list[Event | Piece]:
    """Return what comes, until that is all; whoever is told to read the log begins anew."""
    items = list[Event | Piece]()
    with anyio.fail_after(PATIENCE_S):
        while not is_all(items):
            new = await watch.next()
            if new is None:
                items.extend(watch.begin())
            else:
                items.extend(new)
    return items


async def until_open(speaker: Signals, watch: Watch) -> Seq:
    """Wait until what one node says is heard where the other watches; return the next position."""
    seq = 0
    with anyio.fail_after(PATIENCE_S):
        while True:
            seq += 1
            speaker.publish(
                KEY,
                [
                    an_event(
                        seq,
                        ModelAsked(
                            run=RunId("run_0"), attempt=AttemptId("a"), provider="p", model="m"
                        ),
                    )
                ],
            )
            with anyio.move_on_after(0.2):
                while True:
                    new = await watch.next()
                    if new is None:
                        watch.begin()
                    elif any(isinstance(one, Event) and one.seq == seq for one in new):
                        return Seq(seq + 1)


def text_of(items: Sequence[Event | Piece]) -> str:
    """Return the text of pieces, put together by their positions."""
    text = ""
    for one in items:
        if isinstance(one, Piece) and one.end > len(text):
            assert one.start <= len(text), "a piece is missing"
            text += one.delta.text[len(text) - one.start :]
    return text


async def what_is_committed_on_one_node_is_heard_on_the_other(make: Open) -> None:
    async with make() as (here, there):
        with there.watch(KEY, quiet_s=60) as watch:
            at = await until_open(here, watch)
            event = asked(at)
            raw = event.raw
            here.publish(KEY, [event])
            items = await heard(watch, lambda items: any(one.seq == at for one in items))
            found = next(one for one in items if isinstance(one, Event) and one.seq == at)
            assert (found.raw, found.at, found.session) == (raw, 1.5, KEY.session)
            assert found.fact == codec.load(raw)


async def text_comes_in_order_and_whole(make: Open) -> None:
    async with make() as (here, there):
        with there.watch(KEY, quiet_s=60) as watch, here.on_cancel(RUN, lambda: None):
            at = await until_open(here, watch)
            here.publish(KEY, [asked(at)])
            said = ""
            for number in range(200):
                said += f"w{number} "
                here.delta(RUN, at, ATTEMPT, Delta("text", f"w{number} "))
                await anyio.lowlevel.checkpoint()
            items = await heard(watch, lambda items: text_of(_pieces(items)) == said)
            pieces = _pieces(items)
            assert {one.attempt for one in pieces} == {ATTEMPT}
            assert {one.asked for one in pieces} == {at}


async def sizes_of_joined_deltas_are_kept(make: Open) -> None:
    async with make() as (here, there):
        with there.watch(KEY, quiet_s=60) as watch, here.on_cancel(RUN, lambda: None):
            at = await until_open(here, watch)
            here.publish(KEY, [asked(at)])
            for word in ("one", "three", "", "seventeen"):
                here.delta(RUN, at, ATTEMPT, Delta("thinking", word))
            items = await heard(watch, lambda items: text_of(_pieces(items)) == "onethreeseventeen")
            sizes = [size for one in _pieces(items) for size in one.delta.sizes]
            assert [size for size in sizes if size][-3:] == [3, 5, 9]


async def a_late_watcher_begins_with_all_text_so_far(make: Open) -> None:
    async with make() as (here, there):
        at = Seq(7)
        with here.on_cancel(RUN, lambda: None):
            here.publish(KEY, [asked(at)])
            here.delta(RUN, at, ATTEMPT, Delta("text", "said before"))
            await anyio.lowlevel.checkpoint()
            with there.watch(KEY, quiet_s=60) as watch:
                first = list[Event | Piece](watch.begin())
                items = first
                if text_of(_pieces(first)) != "said before":
                    items = await heard(
                        watch, lambda items: text_of(_pieces(items)) == "said before"
                    )
                here.delta(RUN, at, ATTEMPT, Delta("text", " and after"))
                more = await heard(
                    watch, lambda more: text_of(_pieces([*items, *more])).endswith("after")
                )
                assert text_of(_pieces([*items, *more])) == "said before and after"
            with there.watch(KEY, quiet_s=60) as watch:
                assert text_of(watch.begin()) == "said before and after"


async def an_event_says_how_much_text_came_before_it(make: Open) -> None:
    async with make() as (here, there):
        with there.watch(KEY, quiet_s=60) as watch, here.on_cancel(RUN, lambda: None):
            at = await until_open(here, watch)
            here.publish(KEY, [asked(at)])
            here.delta(RUN, at, ATTEMPT, Delta("text", "twelve chars"))
            items = await heard(watch, lambda items: text_of(_pieces(items)) == "twelve chars")
            here.publish(KEY, [cancelled(at + 1)])
            items = await heard(watch, lambda items: any(one.seq == at + 1 for one in items))
            event = next(one for one in items if isinstance(one, Event) and one.seq == at + 1)
            assert (event.asked, event.offset) == (at, 12)


async def a_cancel_rings_wherever_the_run_is_driven(make: Open) -> None:
    async with make() as (here, there):
        rung, other = anyio.Event(), list[str]()
        with (
            here.on_cancel(RUN, rung.set),
            here.on_cancel(RunKey(*KEY, RunId("run_2")), lambda: other.append("rung")),
            anyio.fail_after(PATIENCE_S),
        ):
            while not rung.is_set():
                there.publish(KEY, [cancelled(5)])
                with anyio.move_on_after(0.2):
                    await rung.wait()
        assert other == []


async def who_watches_is_seen_on_every_node_until_they_leave(make: Open) -> None:
    async with make() as (here, there):
        with here.attend(KEY, ALICE) as mine, anyio.fail_after(PATIENCE_S):
            with there.attend(KEY, BOB):
                while {one.principal for one in here.present(KEY)} != {ALICE, BOB}:
                    await mine.next()
                while {one.principal for one in there.present(KEY)} != {ALICE, BOB}:
                    await mine.next()
                there.typing(KEY, ALICE)
                while ALICE not in _typing(here.present(KEY)):
                    await mine.next()
            while {one.principal for one in here.present(KEY)} != {ALICE}:
                await mine.next()


async def who_may_have_missed_something_is_told_to_read_the_log(make: Open) -> None:
    async with make() as (here, there):
        with there.watch(KEY, quiet_s=60) as watch:
            await until_open(here, watch)
            here.lost(KEY)
            with anyio.fail_after(PATIENCE_S):
                while await watch.next() is not None:
                    pass


def _pieces(items: Sequence[Event | Piece]) -> list[Piece]:
    return [one for one in items if isinstance(one, Piece)]


def _typing(present: Sequence[Present]) -> set[PrincipalId]:
    return {one.principal for one in present if one.typing}


SIGNALS_SUITE: Sequence[Check] = (
    what_is_committed_on_one_node_is_heard_on_the_other,
    text_comes_in_order_and_whole,
    sizes_of_joined_deltas_are_kept,
    a_late_watcher_begins_with_all_text_so_far,
    an_event_says_how_much_text_came_before_it,
    a_cancel_rings_wherever_the_run_is_driven,
    who_watches_is_seen_on_every_node_until_they_leave,
    who_may_have_missed_something_is_told_to_read_the_log,
)
