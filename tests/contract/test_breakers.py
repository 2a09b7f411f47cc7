"""Breakers: what fails again and again is left alone, and one probe tells when that is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.harness.breakers import LONGEST_SHUT_S, MOST, Breaker, Breakers, Passage, Rules

RULES = Rules(failures=3, first_s=10.0, longest_s=40.0, least=10, probe_s=100.0)


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breakers(RULES, clock=clock).of("model", "m")


def passed(breaker: Breaker) -> Passage:
    passage = breaker.enter()
    assert isinstance(passage, Passage), passage
    return passage


def wait_s(breaker: Breaker) -> float:
    refused = breaker.enter()
    assert not isinstance(refused, Passage)
    return refused


def fail(breaker: Breaker, times: int = 1, asks_s: float | None = None) -> None:
    for _ in range(times):
        passed(breaker).failed(asks_s)


def opened(breaker: Breaker) -> Breaker:
    fail(breaker, RULES.failures)
    return breaker


def test_so_many_failures_in_a_row_open_it(breaker: Breaker) -> None:
    fail(breaker, 2)
    passed(breaker).worked()
    fail(breaker, 2)
    assert breaker.is_closed
    fail(breaker)
    assert not breaker.is_closed
    assert 7.5 <= wait_s(breaker) <= 12.5 + 5.05


def test_half_of_many_that_fail_open_it_though_others_work(breaker: Breaker) -> None:
    for _ in range(4):
        passed(breaker).worked()
        fail(breaker)
    passed(breaker).worked()
    assert breaker.is_closed
    fail(breaker)
    assert not breaker.is_closed


def test_what_failed_long_ago_is_forgotten(breaker: Breaker, clock: Clock) -> None:
    for _ in range(4):
        passed(breaker).worked()
        fail(breaker)
    clock.now += RULES.window_s
    passed(breaker).worked()
    fail(breaker)
    assert breaker.is_closed


def test_one_probe_goes_when_the_wait_is_over_and_closes_it(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 12.5
    probe = passed(breaker)
    assert [wait_s(breaker) > 0 for _ in range(100)] == [True] * 100
    probe.worked()
    assert breaker.is_closed
    passed(breaker).worked()


def test_a_probe_that_fails_doubles_the_wait_up_to_a_bound(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    for expected_s in (20.0, 40.0, 40.0, 40.0):
        clock.now += 50.0
        fail(breaker)
        clock.now += 0.75 * expected_s - 0.01
        wait_s(breaker)
        clock.now += 0.5 * expected_s + 0.01
        probe = passed(breaker)
        probe.left()


def test_the_wait_starts_small_again_after_a_success(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 50.0
    fail(breaker)
    clock.now += 50.0
    passed(breaker).worked()
    opened(breaker)
    clock.now += 12.5
    passed(breaker)


def test_a_probe_that_was_given_up_or_lost_makes_room_for_another(
    breaker: Breaker, clock: Clock
) -> None:
    opened(breaker)
    clock.now += 12.5
    passed(breaker).left()
    passed(breaker)  # and never heard of again
    wait_s(breaker)
    clock.now += RULES.probe_s
    passed(breaker).worked()
    assert breaker.is_closed


def test_what_began_before_it_opened_changes_nothing_when_it_ends(
    breaker: Breaker, clock: Clock
) -> None:
    good, bad = passed(breaker), passed(breaker)
    opened(breaker)
    good.worked()
    assert not breaker.is_closed
    clock.now += 12.5
    probe = passed(breaker)
    good.worked()
    bad.failed()
    assert not breaker.is_closed
    probe.worked()
    assert breaker.is_closed


def test_who_asks_to_be_left_alone_is_left_alone_by_all_at_once(
    breaker: Breaker, clock: Clock
) -> None:
    other = passed(breaker)
    passed(breaker).failed(30.0, shut=True)
    assert 30.0 < wait_s(breaker) < 36.0
    other.failed(45.0, shut=True)  # was in flight
    assert wait_s(breaker) > 45.0
    clock.now += 45.0
    passed(breaker)


@pytest.mark.parametrize("asks_s", [1e12, float("inf")])
def test_no_wait_is_longer_than_its_bound(breaker: Breaker, clock: Clock, asks_s: float) -> None:
    passed(breaker).failed(asks_s, shut=True)
    assert wait_s(breaker) <= LONGEST_SHUT_S + 6
    clock.now += LONGEST_SHUT_S
    passed(breaker)


def test_what_a_failing_side_asks_for_is_the_least_it_gets(breaker: Breaker) -> None:
    fail(breaker, 3, asks_s=33.0)
    assert wait_s(breaker) > 33.0


def test_those_that_are_refused_do_not_come_back_together(breaker: Breaker) -> None:
    opened(breaker)
    assert len({round(wait_s(breaker), 2) for _ in range(100)}) > 30


def test_all_that_is_known_of_a_breaker_is_told(clock: Clock) -> None:
    breakers = Breakers(RULES, clock=clock)
    opened(breakers.of("tool", "t"))
    breakers.of("model", "m")
    wait_s(breakers.of("tool", "t"))

    model, tool = breakers.states()

    assert (tool.kind, tool.name, tool.state, tool.failures) == ("tool", "t", "open", 3)
    assert tool.opened_at is not None
    assert tool.until is not None
    assert 7.0 < tool.until - tool.opened_at < 13.0
    assert (tool.probes, tool.refused) == (0, 1)
    assert (model.state, model.opened_at, model.until) == ("closed", None, None)


def test_there_are_never_more_than_so_many_and_the_open_ones_stay() -> None:
    breakers = Breakers(RULES)
    opened(breakers.of("model", "down"))
    for i in range(2 * MOST):
        breakers.of("model", f"m{i}")

    assert len(breakers.states()) == MOST
    assert not breakers.of("model", "down").is_closed


Step = tuple[str, float]
steps = st.lists(
    st.tuples(
        st.sampled_from(["enter", "worked", "failed", "shut", "left", "wait"]),
        st.floats(0.0, 60.0),
    ),
    max_size=80,
)


@given(played=steps)
@settings(deadline=None)
def test_while_it_is_not_closed_one_passage_at_most_is_out(played: Sequence[Step]) -> None:
    clock = Clock()
    breaker = Breakers(RULES, clock=clock).of("model", "m")
    out, probes = list[Passage](), list[tuple[Passage, float]]()
    for what, number in played:
        if what == "wait":
            clock.now += number
        elif what == "enter":
            was_closed, passage = breaker.is_closed, breaker.enter()
            if isinstance(passage, Passage):
                out.append(passage)
                fresh = [one for one in probes if one[0] in out and clock.now < one[1]]
                assert was_closed or not fresh, "two probes at once"
                if not was_closed:
                    probes.append((passage, clock.now + RULES.probe_s))
            else:
                assert not was_closed
                assert 0 < passage <= LONGEST_SHUT_S + 6
        elif out:
            passage = out.pop(int(number) % len(out))
            tell(passage, what, number)


def tell(passage: Passage, what: str, number: float) -> None:
    if what == "worked":
        passage.worked()
    elif what != "left":
        passage.failed(number, shut=what == "shut")
    passage.left()
