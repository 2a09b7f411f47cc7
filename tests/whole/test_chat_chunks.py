"""Chunks are read by the client's own code: every view of a log ends with the same message."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Sequence
from typing import cast

import msgspec
import pytest
from tests.chat_logs import CLIENT, RUN, SESSION, Chance, Item, joined
from tests.programs import node, npm_packages
from tests.serving import Json

from hostler.core.events import START, CallId
from hostler.faces.aisdk import bodies
from hostler.faces.aisdk.bodies import UiMessage
from hostler.faces.aisdk.chunks import Chunks

pytestmark = pytest.mark.timeout(180)
"""For Node to read thousands of streams on a busy machine."""
SEEDS = range(400)
Streams = list[list[Json]]


def read_by_client(views: Sequence[Streams]) -> list[Json]:
    """Return the message that the client's own code makes of each view's streams."""
    lines = "".join(f"{json.dumps(view)}\n" for view in views)
    command = [node(), str(npm_packages() / "messages.mjs")]
    told = subprocess.run(command, input=lines, capture_output=True, check=True, text=True)
    return [json.loads(line) for line in told.stdout.splitlines()]


def a_view(items: Sequence[Item]) -> list[Json]:
    """Return what one stream says of a whole log."""
    chunks = Chunks(RUN, SESSION, "helper", theirs={CLIENT}, named={CLIENT})
    text = b""
    chunks.start()
    for item in items:
        more = chunks.more([item])
        if more is None:
            chunks.take(item)
        else:  # text that only continues is sent at once
            chunks.note([item])
            text += more
        text += chunks.drain()
    return frames(text)


def frames(text: bytes) -> list[Json]:
    told = text.decode().split("\n\n")
    return [json.loads(frame.removeprefix("data: ")) for frame in told if frame]


def streams_between_waits(items: Sequence[Item]) -> Streams:
    """Return what a client gets that comes back after each time the run waited."""
    streams, seen, shown = list[list[Json]](), dict[CallId, bool](), START
    for end in [*waits_in(items), None]:
        chunks = Chunks(
            RUN, SESSION, "helper", theirs={CLIENT}, named={CLIENT}, seen=seen, shown=shown
        )
        chunks.start()
        start = chunks.drain()
        for item in items[:end]:
            chunks.take(item)
        if end is not None:
            chunks.pause()
        streams.append(frames(start + chunks.drain()))
        for chunk in streams[-1]:
            if "toolCallId" in chunk or "approvalId" in chunk:
                call = CallId(str(chunk.get("toolCallId", chunk.get("approvalId"))))
                seen[call] = str(chunk["type"]).endswith(("-available", "-error", "-denied"))
        shown = max(shown, bodies.shown([as_sent_back(streams[-1])]))
    return streams


def as_sent_back(chunks: Sequence[Json]) -> UiMessage:
    """Return an answer with what was shown in it, as the client will send it."""
    return msgspec.convert({"role": "assistant", "parts": chunks}, UiMessage)


def waits_in(items: Sequence[Item]) -> list[int]:
    """Return the places at which a run begins to wait."""
    chunks, places, was = Chunks(RUN, SESSION, "", theirs={CLIENT}), list[int](), False
    for place, item in enumerate(items):
        chunks.take(item)
        if chunks.parked and not was:
            places.append(place + 1)
        was = chunks.parked
    return places


def test_whoever_watches_ends_with_the_same_message() -> None:
    views, names = list[Streams](), list[str]()
    for seed in SEEDS:
        items = Chance(seed).write()
        places = [0, len(items), seed % len(items), seed * 7 % len(items)]
        for place in places:
            views.append([a_view(joined(items, place))])
            names.append(f"seed {seed}, who comes at {place}")
    messages = read_by_client(views)
    for place in range(0, len(messages), 4):
        first = messages[place]
        assert "error" not in first, f"{names[place]}: {first}"
        for other in range(place + 1, place + 4):
            assert messages[other] == first, names[other]


def test_what_is_left_of_a_run_that_waited_completes_the_message() -> None:
    views, seeds = list[Streams](), list[int]()
    for seed in SEEDS:
        items = Chance(seed).write()
        views += [streams_between_waits(items), [a_view(items)]]
        seeds.append(seed)
    messages = read_by_client(views)
    assert max(len(view) for view in views) > 4
    for place, seed in enumerate(seeds):
        continued, whole = messages[2 * place : 2 * place + 2]
        assert "error" not in whole, f"seed {seed}: {whole}"
        assert continued == whole, f"seed {seed}"


def test_a_client_s_own_call_is_offered_to_it_once() -> None:
    for seed in SEEDS:
        streams = streams_between_waits(Chance(seed).write())
        offered = [
            chunk["toolCallId"]
            for chunk in itertools.chain(*streams)
            if chunk["type"] == "tool-input-available" and "providerExecuted" not in chunk
        ]
        assert len(offered) == len(set(offered)), f"seed {seed}"


@pytest.mark.parametrize("status", ["done", "failed", "cancelled"])
def test_a_stream_ends_with_the_run_s_end(status: str) -> None:
    ends = {"done": "finish", "failed": "error", "cancelled": "abort"}
    found = [a_view(Chance(seed).write())[-1] for seed in SEEDS]
    assert ends[status] in {cast("str", chunk["type"]) for chunk in found}
    assert {chunk["type"] for chunk in found} <= set(ends.values())
