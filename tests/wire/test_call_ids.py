"""What clients that carry their conversation call the calls of runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hostler.core.events import CallId, RunId, ToolCall
from hostler.core.ports import mint
from hostler.core.said import ModelSaid, ToolSaid, UserSaid
from hostler.service.call_ids import read, renamed, told

TIMES = st.integers(0, 2**42 - 1)
CHANCES = st.integers(0, 2**64 - 1)
FOUR_YEARS_MS = 2**37


@given(TIMES, CHANCES, st.integers(-FOUR_YEARS_MS, FOUR_YEARS_MS), CHANCES)
def test_an_id_tells_run_and_call_whatever_clocks_did(
    at: int, ran: int, since: int, asked: int
) -> None:
    run = RunId(f"run_{at:012x}{ran:016x}")
    call = CallId(f"call_{max(0, at + since):012x}{asked:016x}")

    name = told(run, call)

    assert read(name) == (run, call)
    assert len(name) == 40
    assert set(name) <= {*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"}


@given(st.text(max_size=50) | st.from_regex(r"call_[A-Za-z0-9_-]{35}", fullmatch=True))
def test_whatever_is_sent_names_one_call_or_none(name: str) -> None:
    meant = read(name)

    assert meant is None or told(*meant) == name


def test_ids_that_are_not_minted_as_ours_stay_as_they_are() -> None:
    ours, other = mint("run"), "call_1"

    assert told(RunId(ours), CallId(other)) == other
    assert told(RunId("run_1"), CallId(mint("call"))).startswith("call_0")
    assert read(other) is None
    assert read(mint("call")) is None


def test_calls_and_results_of_ours_get_the_ids_that_they_have_here() -> None:
    run, mine = RunId(mint("run")), CallId(mint("call"))
    ours = ToolCall(id=told(run, mine), name="a", arguments={}, provider_id="x")
    theirs = ToolCall(id=CallId("call_1"), name="b", arguments={}, provider_id="call_1")
    said = [
        UserSaid("hi"),
        ModelSaid("", (ours, theirs)),
        ToolSaid(ours, "1"),
        ToolSaid(theirs, ""),
    ]

    found, runs = renamed(said)

    here = ToolCall(id=mine, name="a", arguments={})
    assert found == [
        UserSaid("hi"),
        ModelSaid("", (here, theirs)),
        ToolSaid(here, "1"),
        ToolSaid(theirs, ""),
    ]
    assert runs == {mine: run}
