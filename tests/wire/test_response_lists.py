"""Conversations as lists of items, made of facts."""

from __future__ import annotations

from collections.abc import Sequence

from hostler.core.events import Event, Fact, RunEnded, RunId, Seq, SessionId, Usage
from hostler.faces.responses.listed import of_session
from hostler.testing.store_kit import a_run, a_step, finished, spoke, started


def kinds(facts: Sequence[Fact]) -> list[tuple[object, object]]:
    events = [
        Event(session=SessionId("ses_1"), seq=Seq(at), at=0.0, fact=fact, raw=b"")
        for at, fact in enumerate(facts, start=1)
    ]
    listed = of_session(events)
    assert len({one.id for one in listed}) == len(listed)
    return [(one.body["type"], one.call) for one in listed]


def test_calls_that_run_side_by_side_are_listed_once_each_in_their_order() -> None:
    begun = [
        spoke("run_1"),
        *a_step("run_1", "a", "b"),
        started("run_1", "a"),
        started("run_1", "b"),
    ]

    assert kinds([*begun, finished("run_1", "b")]) == [("message", None)]
    done = kinds([*begun, finished("run_1", "b"), finished("run_1", "a")])
    assert done == [("message", None), ("mcp_call", "a"), ("mcp_call", "b")]


def test_a_message_that_waited_stands_after_what_was_said_meanwhile() -> None:
    first, second = spoke("run_1", "one"), spoke("run_2", "two")
    told = a_run("run_1", "first", claim=1, after=2)
    ended = RunEnded(run=RunId("run_2"), status="cancelled", usage=Usage())

    assert (
        kinds([first, second, *told, *a_run("run_2", "second", claim=2, after=7)])
        == [("message", None)] * 4
    )
    assert kinds([first, second, *told[:2]]) == [("message", None)] * 2
    assert kinds([first, second, ended, *told]) == [("message", None)] * 2
