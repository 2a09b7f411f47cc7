"""Whatever chunks a server sends, a reading of them ends in a reply or in a failure that says why."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.events import JsonObject, Usage
from hostler.core.ports import Reply
from hostler.models.capabilities import Capabilities
from hostler.models.exchange import endpoint
from hostler.models.faults import Failed
from hostler.models.openai_chat import ChatReading
from hostler.testing.model_script import Args, Begin, End, Text, Think
from hostler.testing.wire_chat import CHAT, delta, end, event, fragment

ANSWER = list(
    CHAT.events(
        [
            Think("Hm"),
            Text("Hel"),
            Text("lo"),
            Begin("a", "weather", "id-a"),
            Args("a", '{"city":'),
            Args("a", '"Paris"}'),
            End("tools"),
        ]
    )
)


def payloads(events: list[bytes]) -> list[bytes]:
    return [one[6:] for raw in events for one in raw.rstrip(b"\n").split(b"\n\n")]


def read(events: list[bytes], **able: object) -> tuple[Reply, ChatReading]:
    reading = ChatReading("m", msgspec.convert(able, Capabilities))
    reading.read(payloads(events))
    reading.draft.close()
    return reading.reply(), reading


@given(cuts=st.sets(st.integers(0, 9)))
@settings(deadline=None)
def test_reads_of_any_size_add_up_to_the_same_answer(cuts: set[int]) -> None:
    whole, _ = read(ANSWER)
    reading, seen = ChatReading("m", Capabilities()), {"text": "", "thinking": "", "arguments": ""}
    places = [0, *sorted(cuts), len(payloads(ANSWER))]

    for start, stop in pairwise(places):
        reading.read(payloads(ANSWER)[start:stop])
        for one in reading.draft.take():
            seen[one.part] += one.text
    reading.draft.close()
    reply = reading.reply()

    assert (reply.text, reply.thinking, reply.stop) == (whole.text, whole.thinking, whole.stop)
    assert reply.calls[0].arguments == whole.calls[0].arguments
    assert seen == {"text": "Hello", "thinking": "Hm", "arguments": '{"city":"Paris"}'}


KEYS = st.sampled_from(
    [
        *("choices", "delta", "message", "content", "reasoning", "reasoning_content"),
        *("reasoning_details", "refusal", "tool_calls", "index", "id", "function", "name"),
        *("arguments", "finish_reason", "usage", "error", "code", "type", "text", "thinking"),
        *("prompt_tokens", "extra_content", "object", "prompt_tokens_details", "cost"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text("a{}<> "),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=6,
)
CHUNKS = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries(
                {
                    "delta": st.dictionaries(KEYS, JSON, max_size=4),
                    "finish_reason": st.sampled_from([None, "stop", "length", "error", ""]) | JSON,
                }
            ),
            max_size=2,
        ),
        "usage": JSON,
    }
)


@given(chunks=st.lists(CHUNKS | st.dictionaries(KEYS, JSON, max_size=3) | JSON, max_size=5))
@settings(deadline=None, max_examples=100)
def test_any_json_is_a_reply_or_a_failure(chunks: Sequence[object]) -> None:
    able: JsonObject = {"replay_details": True, "thinking_field": "reasoning"}
    reading = ChatReading("m", msgspec.convert(able, Capabilities))

    reply = None
    with suppress(Failed):  # and nothing else
        reading.read([msgspec.json.encode(chunk) for chunk in chunks])
        reading.draft.close()
        reply = reading.reply()

    if reply is not None:
        said = "".join(one.text for one in reading.draft.take() if one.part == "text")
        assert said == reply.text
        assert msgspec.json.decode(msgspec.json.encode(reply), type=Reply) == reply


@given(data=st.binary(max_size=80))
@settings(deadline=None)
def test_any_bytes_are_an_event_or_a_failure(data: bytes) -> None:
    reading = ChatReading("m", Capabilities())

    with suppress(Failed):  # and nothing else
        reading.read([data])


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    reply, _ = read([b'data: {"choices":[{"delta":{"content":"a\xe2\x82"}}]}\n\n', *end("stop")])

    assert reply.text == "a\ufffd"


def test_the_stop_sequence_is_known_where_the_server_tells_it() -> None:
    for told, by in (
        ({"stop_reason": "END"}, "END"),
        ({"matched_stop": "END"}, "END"),
        ({"stop_reason": "stop"}, None),
        ({"stop_reason": 151645}, None),
        ({"stop_reason": None, "matched_stop": 2}, None),
        ({}, None),
    ):
        choice: JsonObject = {"delta": {"content": "x"}, "finish_reason": "stop", **told}

        reading = ChatReading("m", Capabilities(), ("STOP", "END"))
        reading.read(payloads([event({"choices": [choice]})]))
        reply = reading.reply()

        assert (reply.stop_sequence, reply.stop) == (by, "end")


def test_the_cost_that_a_router_tells_is_the_cost() -> None:
    usage: JsonObject = {"prompt_tokens": 3, "completion_tokens": 1, "cost": 0.000125}

    reply, _ = read([delta({"content": "x"}), *end("stop", done=False), event({"usage": usage})])

    assert reply.usage == Usage(
        input_tokens=3, output_tokens=1, cost=Decimal("0.000125"), price="provider"
    )
    assert reply.raw_usage == usage


def test_usage_beside_the_choice_counts() -> None:
    choice: JsonObject = {
        "delta": {"content": "x"},
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "cached_tokens": 2},
    }

    reply, _ = read([event({"choices": [choice]})])

    assert reply.usage == Usage(input_tokens=3, output_tokens=1, cache_read_tokens=2)


def test_done_alone_ends_an_answer_where_that_is_how_it_ends() -> None:
    events = [delta({"content": "x"}), b"data: [DONE]\n\n"]

    reply, reading = read(events, finish_reason=False)

    assert (reply.text, reply.stop, reading.ended) == ("x", "end", True)


def test_reasoning_details_are_joined_and_kept_for_their_model() -> None:
    def detail(**fields: object) -> bytes:
        return delta({"reasoning_details": [{"index": 0, **fields}]})

    reply, _ = read(
        [
            detail(type="reasoning.text", text="Hm", signature=None),
            detail(type="reasoning.text", text=", yes.", signature="s"),
            detail(type="reasoning.encrypted", data="x"),
            detail(type="reasoning.encrypted", data="y"),
            *end("stop"),
        ],
        replay_details=True,
    )

    assert reply.replay == {
        "model": "m",
        "reasoning_details": [
            {"index": 0, "type": "reasoning.text", "text": "Hm, yes.", "signature": "s"},
            {"index": 0, "type": "reasoning.encrypted", "data": "x"},
            {"index": 0, "type": "reasoning.encrypted", "data": "y"},
        ],
    }


def test_what_hangs_on_a_call_is_kept_under_its_id() -> None:
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    signed = {**call, "extra_content": {"google": {"thought_signature": "s"}}}

    reply, _ = read([delta({"tool_calls": [signed, None]}), *end("stop")], replay_details=True)

    kept = {reply.calls[0].id: {"google": {"thought_signature": "s"}}}
    assert reply.replay == {"model": "m", "extra_content": kept}


def test_the_field_of_thinking_is_kept_where_it_goes_back() -> None:
    events = [delta({"reasoning_content": "Hm"}), delta({"content": "x"}), *end("stop")]

    kept, _ = read(events, thinking_field="reasoning_content")
    not_kept, _ = read(events)

    assert kept.replay == {"model": "m", "thinking_field": "reasoning_content"}
    assert not_kept.replay is None


def test_the_name_of_a_tool_comes_with_its_first_arguments_only() -> None:
    reading = ChatReading("m", Capabilities())

    reading.read(payloads([fragment(index=0, id="a", name="f", arguments='{"a"')]))
    first = reading.draft.take()
    reading.read(payloads([fragment(index=0, arguments=":"), fragment(index=0, arguments="1}")]))
    rest = reading.draft.take()

    assert [(one.name, one.text) for one in first] == [("f", '{"a"')]
    assert [(one.name, one.text) for one in rest] == [(None, ":1}")]
    assert first[0].call == rest[0].call


def test_paths_are_put_below_the_base() -> None:
    assert endpoint("http://x/v1", "/models") == "http://x/v1/models"
    assert endpoint("http://x/v1/", "/models") == "http://x/v1/models"
    assert endpoint("http://x/v1/models", "/models") == "http://x/v1/models"
    assert endpoint("http://x/v1?api-version=1", "/models") == "http://x/v1/models?api-version=1"
