"""Whatever events a server sends, a reading of them ends in a reply or in a failure that says why."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

import msgspec
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import Message
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.canaries import canary

from hostler.core.events import JsonObject, Usage
from hostler.core.ports import Reply
from hostler.core.said import ModelSaid
from hostler.models.anthropic import MessagesReading, messages_url
from hostler.models.anthropic_request import messages
from hostler.models.capabilities import Capabilities
from hostler.models.faults import Failed
from hostler.testing.anthropic_quirks import FOUND, SEARCH, call, piece, text
from hostler.testing.model_script import USAGE, Args, Begin, End, Step, Text, Think
from hostler.testing.provider_server import Play, Send, chunk, head, provider_server
from hostler.testing.wire_anthropic import (
    ANTHROPIC,
    SIGNATURE,
    delta,
    end,
    event,
    message_start,
    start,
    stop,
)

KEY = canary("key of an adapter", "sk-test")

STEPS: Sequence[Step] = (
    Think("Hm"),
    Think(", yes."),
    Text("Hel"),
    Text("lo"),
    Begin("a", "weather", "toolu_a"),
    Args("a", '{"city":'),
    Begin("b", "time", "toolu_b"),
    Args("a", '"Paris"}'),
    Args("b", '{"zone":"CET"}'),
    End("tools"),
)
ANSWER = ANTHROPIC.events(STEPS)
HIDDEN = [start(0, {"type": "redacted_thinking", "data": "EmwKAhgB"}), stop(0)]
SEARCHED = [
    start(0, SEARCH),
    piece(0, '{"query":'),
    piece(0, '"Paris"}'),
    stop(0),
    start(1, FOUND),
    stop(1),
]
PAUSED = [
    message_start(Usage(input_tokens=100)),
    *SEARCHED,
    *text("I found", 2),
    *end("pause_turn", Usage(output_tokens=7)),
]


def payloads(events: Sequence[bytes]) -> list[bytes]:
    return [one.partition(b"data: ")[2].rstrip(b"\n") for one in events]


def read(events: Sequence[bytes], **able: object) -> tuple[Reply, MessagesReading]:
    reading = MessagesReading("m", msgspec.convert(able, Capabilities))
    reading.read(payloads(events))
    reading.draft.close()
    return reading.reply(), reading


def sent_back(reply: Reply) -> list[JsonObject]:
    """Return the blocks in which a reply goes back to its model."""
    said = ModelSaid(reply.text, reply.calls, reply.thinking, reply.replay)
    (message,) = messages([said], model="m", able=Capabilities())
    return message.content


@given(cuts=st.sets(st.integers(0, 20)))
@settings(deadline=None)
def test_reads_of_any_size_add_up_to_the_same_answer(cuts: set[int]) -> None:
    whole, _ = read(ANSWER)
    reading = MessagesReading("m", Capabilities())
    seen = {"text": "", "thinking": "", "arguments": ""}

    for first, last in pairwise([0, *sorted(cuts), len(ANSWER)]):
        reading.read(payloads(ANSWER)[first:last])
        for one in reading.draft.take():
            seen[one.part] += one.text
    reading.draft.close()
    reply = reading.reply()

    assert (reply.text, reply.thinking, reply.stop) == (whole.text, whole.thinking, whole.stop)
    assert [one.arguments for one in reply.calls] == [one.arguments for one in whole.calls]
    assert (reply.replay, reply.usage) == (whole.replay, whole.usage)
    assert seen == {
        "text": "Hello",
        "thinking": "Hm, yes.",
        "arguments": '{"city":"Paris"}{"zone":"CET"}',
    }


async def read_by_the_sdk(events: Sequence[bytes]) -> Message:
    play: Play = [Send(head()), Send(chunk(b"".join(events)) + chunk(b""))]
    async with (
        provider_server(lambda _: play) as server,
        AsyncAnthropic(base_url=server.url, api_key=KEY, max_retries=0) as client,
        client.messages.stream(
            model="kit", max_tokens=9, messages=[{"role": "user", "content": "Hi."}]
        ) as stream,
    ):
        return await stream.get_final_message()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "events",
    [
        ANSWER,
        ANTHROPIC.events([Text("Hi."), End("length")]),
        ANTHROPIC.events([Begin("a", "ping", "toolu_a"), End("tools")]),
        [message_start(USAGE), *HIDDEN, *text("Hi.", 1), *end("end_turn", USAGE)],
        [message_start(USAGE), *SEARCHED, *text("Hi.", 2), *end("end_turn", USAGE)],
        PAUSED,
    ],
    ids=["all", "cut", "a call", "hidden thinking", "a search", "paused"],
)
async def test_the_sdk_reads_the_same_as_we_do(events: Sequence[bytes]) -> None:
    theirs = await read_by_the_sdk(events)
    ours, reading = read(events)

    def joined(kind: str, field: str) -> str:
        return "".join(getattr(one, field) for one in theirs.content if one.type == kind)

    assert ours.text == joined("text", "text")
    assert (ours.thinking or "") == joined("thinking", "thinking")
    assert [(one.provider_id, one.name, one.arguments) for one in ours.calls] == [
        (one.id, one.name, one.input) for one in theirs.content if one.type == "tool_use"
    ]
    cached = theirs.usage.cache_read_input_tokens or 0
    assert ours.usage.input_tokens - ours.usage.cache_read_tokens == theirs.usage.input_tokens
    assert ours.usage.cache_read_tokens == cached
    assert ours.usage.output_tokens == theirs.usage.output_tokens
    assert reading.ended
    assert sent_back(ours) == [
        one.model_dump(mode="json", exclude_unset=True) for one in theirs.content
    ]


KEYS = st.sampled_from(
    [
        *("type", "index", "delta", "content_block", "message", "usage", "error", "content"),
        *("text", "partial_json", "thinking", "signature", "citation", "stop_reason", "id"),
        *("stop_details", "explanation", "name", "input", "data", "citations", "input_tokens"),
    ]
)
TYPES = st.sampled_from(
    [
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop", "message", "ping", "error", "else"),
    ]
)
KINDS = st.sampled_from(
    [
        *("text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "else"),
        *("text_delta", "thinking_delta", "input_json_delta", "signature_delta"),
        *("citations_delta", "else_delta"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text("a{}<> "),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=6,
)
BLOCKS = st.fixed_dictionaries(
    {"type": KINDS},
    optional={
        "text": JSON,
        "thinking": JSON,
        "partial_json": JSON,
        "signature": JSON,
        "citation": JSON,
        "name": JSON,
        "id": JSON,
        "input": JSON,
        "data": JSON,
    },
)
EVENTS = st.fixed_dictionaries(
    {"type": TYPES},
    optional={
        "index": st.integers(0, 2) | JSON,
        "delta": BLOCKS | JSON,
        "content_block": BLOCKS | JSON,
        "content": st.lists(BLOCKS | JSON, max_size=3),
        "message": st.dictionaries(KEYS, JSON, max_size=2),
        "usage": JSON,
        "stop_reason": st.sampled_from(["end_turn", "refusal", "pause_turn", "stop_sequence"])
        | JSON,
        "stop_sequence": JSON,
    },
)


@given(events=st.lists(EVENTS | st.dictionaries(KEYS, JSON, max_size=3) | JSON, max_size=6))
@example(events=[{"type": "content_block_delta", "index": 0, "delta": {"type": []}}])
@settings(deadline=None, max_examples=200)
def test_any_json_is_a_reply_or_a_failure(events: Sequence[object]) -> None:
    reading = MessagesReading("m", Capabilities())

    reply = None
    with suppress(Failed):  # and nothing else
        reading.read([msgspec.json.encode(one) for one in events])
        reading.draft.close()
        reply = reading.reply()

    if reply is not None:
        said = "".join(one.text for one in reading.draft.take() if one.part == "text")
        assert said == reply.text
        assert msgspec.json.decode(msgspec.json.encode(reply), type=Reply) == reply
        turn = ModelSaid(reply.text, reply.calls, reply.thinking, reply.replay)
        messages([turn], model="m", able=Capabilities())


@given(data=st.binary(max_size=80))
@settings(deadline=None)
def test_any_bytes_are_an_event_or_a_failure(data: bytes) -> None:
    reading = MessagesReading("m", Capabilities())

    with suppress(Failed):  # and nothing else
        reading.read([data])


def test_a_reply_goes_back_to_its_model_block_for_block() -> None:
    reply, _ = read(ANSWER)

    assert sent_back(reply) == [
        {"type": "thinking", "thinking": "Hm, yes.", "signature": SIGNATURE},
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "toolu_a", "name": "weather", "input": {"city": "Paris"}},
        {"type": "tool_use", "id": "toolu_b", "name": "time", "input": {"zone": "CET"}},
    ]


def test_the_log_does_not_hold_the_same_text_twice() -> None:
    reply, _ = read(ANSWER)

    assert reply.replay == {
        "model": "m",
        "content": [
            {"type": "thinking", "chars": 8, "signature": SIGNATURE},
            {"type": "text", "chars": 5},
            {"type": "tool_use"},
            {"type": "tool_use"},
        ],
    }


def test_what_text_and_calls_say_alone_is_not_kept_again() -> None:
    steps = [Text("Hi."), Begin("a", "f", "toolu_a"), End("tools")]

    reply, _ = read(ANTHROPIC.events(steps))

    assert reply.replay is None


def test_thinking_between_calls_keeps_its_place() -> None:
    def thought(index: int, said: str, signature: str) -> list[bytes]:
        return [
            start(index, {"type": "thinking", "thinking": "", "signature": ""}),
            delta(index, type="thinking_delta", thinking=said),
            delta(index, type="signature_delta", signature=signature),
            stop(index),
        ]

    reply, _ = read(
        [
            *thought(0, "One", "s1"),
            call(1, "f", "toolu_1"),
            *thought(2, "Two", "s2"),
            call(3, "g", "toolu_2"),
            *end("tool_use"),
        ]
    )

    assert reply.thinking == "OneTwo"
    assert [(one["type"], one.get("signature") or one.get("id")) for one in sent_back(reply)] == [
        ("thinking", "s1"),
        ("tool_use", "toolu_1"),
        ("thinking", "s2"),
        ("tool_use", "toolu_2"),
    ]


def test_what_cannot_be_told_apart_again_is_not_kept() -> None:
    thoughts = [start(n, {"type": "thinking", "thinking": "", "signature": "s"}) for n in (0, 1)]
    pieces = [delta(n, type="thinking_delta", thinking=f"{n}") for n in (0, 1, 0)]

    mixed, _ = read([*thoughts, *pieces, *text("x", 2), *end("end_turn")])
    tagged, _ = read([*HIDDEN, *text("<think>Hm</think>Yes", 1), *end("end_turn")])

    assert (mixed.thinking, mixed.replay) == ("010", None)
    assert (tagged.thinking, tagged.text, tagged.replay) == ("Hm", "Yes", None)


def test_blocks_nobody_here_knows_go_back_as_they_came() -> None:
    citation = {"type": "web_search_result_location", "encrypted_index": "Eo8B"}
    reply, _ = read(
        [
            *SEARCHED,
            start(2, {"type": "text", "text": "", "citations": []}),
            delta(2, type="citations_delta", citation=citation),
            delta(2, type="text_delta", text="Paris."),
            stop(2),
            start(3, {"type": "compaction", "content": None}),
            delta(3, type="compaction_delta", content="So far: "),
            delta(3, type="compaction_delta", content="Paris."),
            *end("end_turn"),
        ]
    )

    assert sent_back(reply) == [
        SEARCH | {"input": {"query": "Paris"}},
        FOUND,
        {"type": "text", "text": "Paris.", "citations": [citation]},
        {"type": "compaction", "content": "So far: Paris."},
    ]


def test_blocks_that_hold_nothing_are_not_kept() -> None:
    nothing = event({"type": "content_block_start", "index": 1, "content_block": None})
    empty = [start(n, {"type": kind, kind: ""}) for n, kind in ((2, "text"), (3, "thinking"))]

    reply, _ = read([*HIDDEN, nothing, *empty, *text("Hi", 4), *end("end_turn")])

    assert reply.replay is not None
    assert reply.replay["content"] == [
        {"type": "redacted_thinking", "data": "EmwKAhgB"},
        {"type": "text", "chars": 2},
    ]


def test_raw_usage_is_kept_with_the_counts_of_both_ends() -> None:
    reply, _ = read(ANTHROPIC.events([Text("x"), End(usage=USAGE)]))

    assert reply.usage == USAGE
    assert reply.raw_usage is not None
    assert reply.raw_usage["input_tokens"] == 15
    assert reply.raw_usage["output_tokens"] == 9
    assert reply.raw_usage["service_tier"] == "standard"


def test_a_stop_reason_alone_ends_an_answer_where_that_is_how_it_ends() -> None:
    events = [*text("x"), end("end_turn")[0]]

    reply, reading = read(events, message_stop=False)
    _, strict = read(events)

    assert (reply.text, reading.ended, strict.ended) == ("x", True, False)


@pytest.mark.parametrize(
    ("reason", "sequence", "known"),
    [
        ("stop_sequence", "END", "END"),
        ("stop_sequence", None, None),
        ("stop_sequence", 7, None),
        ("end_turn", "END", None),
        ("max_tokens", "END", None),
    ],
)
def test_the_stop_sequence_that_ended_it_is_known_where_it_is_told(
    reason: str, sequence: object, known: str | None
) -> None:
    stopped = {"stop_reason": reason, "stop_sequence": sequence}
    whole = {"type": "message", "content": [{"type": "text", "text": "x"}], **stopped}
    last = [event({"type": "message_delta", "delta": stopped}), event({"type": "message_stop"})]

    streamed, _ = read([*text("x"), *last])
    at_once, _ = read([event(whole)])

    stop = "length" if reason == "max_tokens" else "end"
    assert (streamed.text, streamed.stop, streamed.stop_sequence) == ("x", stop, known)
    assert (at_once.text, at_once.stop, at_once.stop_sequence) == ("x", stop, known)


def test_the_name_of_a_tool_comes_with_its_first_arguments_only() -> None:
    reading = MessagesReading("m", Capabilities())

    reading.read(payloads([call(0, "f"), piece(0, "")]))
    first = reading.draft.take()
    reading.read(payloads([piece(0, '{"a"'), piece(0, ":1}")]))
    rest = reading.draft.take()

    assert [(one.name, one.text) for one in first] == [("f", "")]
    assert [(one.name, one.text) for one in rest] == [(None, '{"a":1}')]
    assert first[0].call == rest[0].call


def test_paths_are_put_below_the_base() -> None:
    expected = "https://x/v1/messages"

    assert messages_url("https://x") == expected
    assert messages_url("https://x/") == expected
    assert messages_url("https://x/v1") == expected
    assert messages_url("https://x/v1/messages") == expected
    assert messages_url("https://x/anthropic") == "https://x/anthropic/v1/messages"
    assert messages_url("https://x/v1?beta=true") == f"{expected}?beta=true"
