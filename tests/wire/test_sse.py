"""Server-sent events come out the same however the bytes were split."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.models.sse import Events, EventTooLong

STREAM = (
    b'\xef\xbb\xbfdata: {"a":1}\n\n'
    b": a comment\n\n"
    b'event: x\nid: 3\ndata:{"b":"\xe2\x82\xac"}\n\n\n\n'
    b"data: one\ndata:two\ndata:  three\n\n"
    b"data:\n\ndata\n\ndata: \n\nretry: 10\n\n"
    b'data: {"c":2}\n\ndata: {"d":3}\n\ndata: [DONE]\n\n'
    b"data: never finished\n"
)
PAYLOADS = [
    b'{"a":1}',
    b'{"b":"\xe2\x82\xac"}',
    b"one\ntwo\n three",
    b'{"c":2}',
    b'{"d":3}',
    b"[DONE]",
]


def fed(pieces: list[bytes]) -> list[bytes]:
    events = Events(1000)
    return [payload for piece in pieces for payload in events.feed(piece)]


@given(cuts=st.lists(st.integers(0, len(STREAM))), end=st.sampled_from([b"\n", b"\r\n", b"\r"]))
@settings(deadline=None)
def test_payloads_do_not_depend_on_splits_or_line_ends(cuts: list[int], end: bytes) -> None:
    stream = STREAM.replace(b"\n", end)
    places = [0, *sorted(cuts), len(stream)]

    pieces = [stream[a:b] for a, b in pairwise(places)]

    assert fed(pieces) == PAYLOADS


@given(data=st.lists(st.binary(max_size=40)))
@settings(deadline=None)
def test_any_bytes_come_out_the_same_whole_or_split(data: list[bytes]) -> None:
    assert fed(data) == fed([b"".join(data)])


@given(data=st.text(alphabet="\r\n:da t", max_size=60).map(str.encode), cut=st.integers(0, 60))
@settings(deadline=None)
def test_any_line_ends_come_out_the_same_whole_or_split(data: bytes, cut: int) -> None:
    assert fed([data[:cut], data[cut:]]) == fed([data])


@given(lines=st.lists(st.sampled_from(["event: x", "data: y", "data: ", "data:z", "event:", ""])))
@settings(deadline=None)
def test_named_events_come_out_the_same_whatever_is_before_them(lines: list[str]) -> None:
    data = "\n".join([*lines, "", ""]).encode()

    assert fed([data]) == fed([b": a comment\n\n" + data])


def test_an_event_that_ends_with_cr_comes_at_once() -> None:
    assert fed([b"data: x\r\r"]) == [b"x"]


def test_mixed_line_ends_are_understood() -> None:
    assert fed([b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n"]) == [b"a", b"b", b"c"]


def test_an_unfinished_event_over_the_limit_is_refused() -> None:
    events = Events(100)
    events.feed(b"data: " + b"x" * 90)

    with pytest.raises(EventTooLong, match="more than 100 bytes"):
        events.feed(b"y" * 10)


def test_finished_events_count_no_more() -> None:
    events = Events(100)

    for _ in range(50):
        assert events.feed(b"data: " + b"x" * 50 + b"\n\n") == [b"x" * 50]


def test_a_long_event_in_many_pieces_costs_little_more_than_its_bytes() -> None:
    events, line = Events(1 << 24), b"data: " + b"x" * 58 + b"\n"
    started = time.process_time()

    for _ in range(100_000):
        events.feed(line)
    (payload,) = events.feed(b"\n")

    assert len(payload) == 100_000 * 59 - 1
    assert time.process_time() - started < 3.0  # copying it each time would take minutes
