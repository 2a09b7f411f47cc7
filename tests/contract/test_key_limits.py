"""The line before a key: who waits, whose turn is next, who is sent away, and what is found out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fleets import until

from hostler.harness import key_limits
from hostler.harness.bounds import EDGE, FORGET_S, Bound
from hostler.harness.breakers import Breakers, Rules
from hostler.harness.key_limits import MOST, KeyLimit, KeyLimits, Room

pytestmark = pytest.mark.anyio


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Scene:
    """Limits on a clock of their own, and who got in, in order."""

    clock: Clock = field(default_factory=Clock)
    inside: list[tuple[str, Room]] = field(default_factory=list[tuple[str, Room]])
    away: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        self.limits = KeyLimits(Breakers(Rules(), clock=self.clock), clock=self.clock)

    def limit(self, at_once: int | None = None) -> KeyLimit:
        return self.limits.of("p place mark m", at_once)

    async def enter(self, limit: KeyLimit, tenant: str, session: str) -> None:
        room = await limit.enter(tenant, session)
        if isinstance(room, Room):
            self.inside.append((session, room))
        else:
            self.away[session] = room

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.inside]


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def has_room(limit: KeyLimit) -> Room:
    room = await limit.enter("t", "s")
    assert isinstance(room, Room), room
    return room


async def fill(limit: KeyLimit, count: int) -> list[Room]:
    return [await has_room(limit) for _ in range(count)]


# -- what is found out -----------------------------------------------------------------------------


def test_there_is_no_bound_before_a_refusal_and_half_of_what_was_in_flight_after_one() -> None:
    bound = Bound(Clock())
    bound.answered(1_000)
    assert bound.most is None
    bound.refused(bound.epoch, 40)
    assert bound.most == 20


def test_of_many_that_went_together_those_that_were_not_refused_are_the_bound() -> None:
    bound = Bound(Clock())
    for left in range(100, 5, -1):
        bound.refused(0, left)
    assert bound.most == 5


def test_a_window_of_answers_is_worth_one_more() -> None:
    bound = Bound(Clock())
    bound.refused(0, 20)
    for _ in range(10):
        assert bound.most == 10
        bound.answered(10)
    assert bound.most == 11


def test_answers_teach_nothing_while_less_is_in_flight_than_may_be() -> None:
    bound = Bound(Clock())
    bound.refused(0, 20)
    for _ in range(1_000):
        bound.answered(9)
    assert bound.most == 10


def test_what_was_too_much_the_last_time_is_tried_again_after_many_windows() -> None:
    bound = Bound(Clock())
    bound.refused(0, 6)
    seen = list[int]()
    while (most := bound.most or 0) < 6:
        bound.answered(most)
        seen.append(most)
    assert [seen.count(at) for at in (3, 4, 5)] == [3, 4, EDGE * 5]


def test_what_was_shut_begins_slowly_and_doubles_up_to_what_was_borne() -> None:
    bound = Bound(Clock())
    bound.refused(0, 32)
    bound.begin_slowly(1)
    seen = list[int]()
    for _ in range(17):
        seen.append(bound.most or 0)
        bound.answered(bound.most or 0)
    assert seen == [*range(1, 17), 16]


def test_what_others_were_refused_begins_slowly_here_with_no_end() -> None:
    bound = Bound(Clock())
    bound.begin_slowly(1)
    for most in range(1, 100):
        assert bound.most == most
        bound.answered(most)


def test_a_bound_that_nothing_confirms_is_forgotten() -> None:
    clock = Clock()
    bound = Bound(clock)
    bound.refused(0, 6)
    clock.now += FORGET_S
    bound.forget_old()
    assert bound.most == 3
    clock.now += 1.0
    bound.forget_old()
    assert bound.most is None


@given(st.lists(st.tuples(st.sampled_from("rasf"), st.integers(0, 50), st.integers(1, 50))))
def test_whatever_comes_a_bound_is_at_least_one(acts: list[tuple[str, int, int]]) -> None:
    clock = Clock()
    bound = Bound(clock)
    for act, back, in_flight in acts:
        clock.now += back
        match act:
            case "r":
                bound.refused(max(0, bound.epoch - back), in_flight)
            case "a":
                bound.answered(in_flight)
            case "s":
                bound.begin_slowly(in_flight)
            case _:
                bound.forget_old()
        assert bound.most is None or 1 <= bound.most <= (bound.hoped or 0)


# -- the line --------------------------------------------------------------------------------------


async def test_so_many_as_the_operator_says_are_in_flight_and_the_others_wait(scene: Scene) -> None:
    limit = scene.limit(at_once=2)
    async with anyio.create_task_group() as tasks:
        for i in range(4):
            tasks.start_soon(scene.enter, limit, "t", f"s{i}")
        await until(lambda: len(scene.inside) + limit.waiting == 4)
        assert scene.names == ["s0", "s1"]
        scene.inside[0][1].left()
        await until(lambda: len(scene.inside) == 3)
        assert (limit.in_flight, limit.waiting) == (2, 1)
        scene.inside[1][1].left()
    assert scene.names == ["s0", "s1", "s2", "s3"]


async def test_tenants_take_turns_however_many_sessions_one_of_them_has(scene: Scene) -> None:
    limit = scene.limit(at_once=1)
    first = await has_room(limit)
    async with anyio.create_task_group() as tasks:
        for name in ("a0", "a1", "a2", "a3", "b0", "b1", "c0"):
            tasks.start_soon(scene.enter, limit, name[0], name)
        await until(lambda: limit.waiting + len(scene.away) == 7)
        assert not scene.away
        first.left()
        for count in range(1, 8):
            await until(lambda n=count: len(scene.inside) == n)
            scene.inside[-1][1].left()
    assert scene.names == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose turn is near wait no longer than others."""
    monkeypatch.setattr(key_limits, "FRONT_S", 0.0)
    monkeypatch.setattr(key_limits, "WAITS_S", 0.0)


@pytest.mark.usefixtures("short")
async def test_who_is_sent_away_stands_before_those_who_came_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = scene.limit(at_once=1)
    first = await has_room(limit)
    await scene.enter(limit, "t", "early")
    assert list(scene.away) == ["early"]
    monkeypatch.setattr(key_limits, "FRONT_S", 30.0)
    monkeypatch.setattr(key_limits, "WAITS_S", 30.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.enter, limit, "t", "late")
        await until(lambda: limit.waiting == 1)
        tasks.start_soon(scene.enter, limit, "t", "early")
        await until(lambda: limit.waiting == 2)
        first.left()
        await until(lambda: len(scene.inside) == 1)
        scene.inside[0][1].left()
    assert scene.names == ["early", "late"]


async def test_a_wait_that_would_be_long_is_told_and_not_waited(scene: Scene) -> None:
    limit = scene.limit(at_once=2)
    for room in await fill(limit, 2):
        scene.clock.now += 30.0
        room.worked()
        room.left()
    await fill(limit, 2)
    told = [await limit.enter("t", f"s{i}", 2.0) for i in range(3)]
    assert all(isinstance(one, float) and one > 10.0 for one in told)
    assert told == sorted(told)  # type: ignore[type-var]
    assert limit.waiting == 0


async def test_who_waits_for_nobody_is_told_when_to_come_back(scene: Scene) -> None:
    limit = scene.limit(at_once=1)
    await has_room(limit)
    assert await limit.enter("t", "", 0.0) == pytest.approx(1.0)  # pyright: ignore[reportUnknownMemberType]


async def test_no_more_stand_in_line_than_there_is_room_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_limits, "MOST_IN_LINE", 2)
    limit = scene.limit(at_once=1)
    room = await has_room(limit)
    async with anyio.create_task_group() as tasks:
        for i in range(3):
            tasks.start_soon(scene.enter, limit, "t", f"s{i}")
        await until(lambda: len(scene.away) == 1)
        assert limit.waiting == 2
        tasks.cancel_scope.cancel()
    room.left()


async def test_who_is_cancelled_in_line_leaves_at_once_and_holds_up_nobody(scene: Scene) -> None:
    limit = scene.limit(at_once=1)
    room = await has_room(limit)
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(scene.enter, limit, "t", "later")
            await until(lambda: limit.waiting == 1)
            tasks.start_soon(_cancel_when, scope, lambda: limit.waiting == 2)
            await limit.enter("t", "cancelled")
        assert scope.cancelled_caught
        assert limit.waiting == 1
        room.left()
    assert scene.names == ["later"]


async def test_who_is_cancelled_as_the_turn_comes_gives_the_room_back(scene: Scene) -> None:
    limit = scene.limit(at_once=1)
    room = await has_room(limit)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.enter, limit, "t", "cancelled")
        await until(lambda: limit.waiting == 1)
        tasks.cancel_scope.cancel()
        room.left()  # before the one in line has heard of that
        assert (limit.in_flight, limit.waiting) == (1, 0)
    assert limit.in_flight == 0
    assert not scene.inside


async def _cancel_when(scope: anyio.CancelScope, is_so: Callable[[], bool]) -> None:
    await until(is_so)
    scope.cancel()


# -- with the breaker ------------------------------------------------------------------------------


async def test_a_refusal_with_a_time_shuts_the_key_and_one_question_tries_it(scene: Scene) -> None:
    limit = scene.limit()
    rooms = await fill(limit, 10)
    rooms[0].refused(30.0)
    assert isinstance(await limit.enter("t", "x"), float)
    for room in rooms:
        room.left()
    scene.clock.now += 30.0
    async with anyio.create_task_group() as tasks:
        for i in range(9):
            tasks.start_soon(scene.enter, limit, "t", f"s{i}")
        await until(lambda: len(scene.inside) + limit.waiting + len(scene.away) == 9)
        assert len(scene.inside) == 1
        scene.inside[0][1].worked()
        await until(lambda: len(scene.inside) == 2)
        tasks.cancel_scope.cancel()


async def test_who_is_in_line_as_the_key_is_shut_for_long_is_sent_away(scene: Scene) -> None:
    limit = scene.limit(at_once=1)
    room = await has_room(limit)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.enter, limit, "t", "s")
        await until(lambda: limit.waiting == 1)
        room.refused(60.0)
    assert scene.away["s"] >= 60.0


async def test_a_short_shut_is_waited_for_in_line(scene: Scene) -> None:
    limit = scene.limit()
    room = await has_room(limit)
    room.refused(1.0)
    room.left()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.enter, limit, "t", "s")
        await until(lambda: limit.waiting == 1)
        scene.clock.now += 1.0
        limit.look()
    assert scene.names == ["s"]


async def test_a_probe_that_is_given_up_makes_room_for_another(scene: Scene) -> None:
    limit = scene.limit()
    room = await has_room(limit)
    room.refused(1.0)
    room.left()
    scene.clock.now += 1.0
    probe = await has_room(limit)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.enter, limit, "t", "s")
        await until(lambda: limit.waiting == 1)
        probe.left()
    assert scene.names == ["s"]


# -- all of them -----------------------------------------------------------------------------------


async def test_limits_have_an_end_and_those_in_use_stay(scene: Scene) -> None:
    used = scene.limit(at_once=1)
    await has_room(used)
    for i in range(MOST + 10):
        scene.limits.of(f"p place {i} m")
    assert len(list(scene.limits)) == MOST
    assert scene.limit(at_once=1) is used


async def test_figures_are_of_a_provider_and_tell_nothing_of_keys(scene: Scene) -> None:
    await fill(scene.limits.of("p place mark1 m", 7), 3)
    await fill(scene.limits.of("p place mark2 m", 5), 2)
    await fill(scene.limits.of("q place mark3 m"), 1)
    assert scene.limits.figures() == [("p", (0, 5, 5)), ("q", (0, 1, None))]
