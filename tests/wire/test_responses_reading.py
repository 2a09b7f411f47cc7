"""Whatever events a server sends, a reading of them ends in a reply or in a failure that says why."""

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
from hostler.models.faults import Failed
from hostler.models.openai_responses import ResponsesReading
from hostler.models.responses_request import Maker
from hostler.testing.model_script import Args, Begin, End, Step, Text, Think
from hostler.testing.wire_responses import (
    RESPONSES,
    call,
    done,
    end,
    event,
    message,
    text,
)

MAKER = Maker("openai", "m")
STEPS: Sequence[Step] = (
    Think("Hm"),
    Text("Hel"),
    Text("lo"),
    Begin("a", "weather", "id-a"),
    Args("a", '{"city":'),
    Args("a", '"Paris"}'),
    End("tools"),
)
SEALED: JsonObject = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "encrypted_content": "gAAAA",
}


def payloads(events: Sequence[bytes]) -> list[bytes]:
    return [raw.rstrip(b"\n").partition(b"data: ")[2] for raw in events]


def read(events: Sequence[bytes], **able: object) -> Reply:
    reading = ResponsesReading(MAKER, msgspec.convert(able, Capabilities))
    reading.read(payloads(events))
    reading.draft.close()
    return reading.reply()


ANSWER = payloads(RESPONSES.events(STEPS))


@given(cuts=st.sets(st.integers(0, len(ANSWER))))
@settings(deadline=None)
def test_reads_of_any_size_add_up_to_the_same_answer(cuts: set[int]) -> None:
    whole = read(RESPONSES.events(STEPS))
    reading = ResponsesReading(MAKER, Capabilities())
    seen = {"text": "", "thinking": "", "arguments": ""}
    places = sorted({0, *cuts, len(ANSWER)})

    for start, stop in pairwise(places):
        reading.read(ANSWER[start:stop])
        for one in reading.draft.take():
            seen[one.part] += one.text
    reading.draft.close()
    reply = reading.reply()

    assert (reply.text, reply.thinking, reply.stop) == (whole.text, whole.thinking, whole.stop)
    assert reply.calls[0].arguments == whole.calls[0].arguments
    assert seen == {"text": "Hello", "thinking": "Hm", "arguments": '{"city":"Paris"}'}


KEYS = st.sampled_from(
    [
        *("type", "delta", "output_index", "item_id", "item", "response", "error", "name"),
        *("arguments", "id", "call_id", "content", "summary", "text", "refusal", "status"),
        *("output", "usage", "incomplete_details", "reason", "code", "message", "object"),
        *("input_tokens", "output_tokens_details", "cost", "encrypted_content", "phase"),
    ]
)
TYPES = st.sampled_from(
    [
        *("response.output_text.delta", "response.output_item.added", "response.refusal.delta"),
        *("response.output_item.done", "response.function_call_arguments.delta", "error"),
        *("response.function_call_arguments.done", "response.reasoning_summary_text.delta"),
        *("response.reasoning_text.delta", "response.completed", "response.incomplete"),
        *("response.failed", "keepalive", "message", "function_call", "reasoning"),
        *("output_text", "refusal", "web_search_call", "response", "completed"),
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False)
    | st.text("a{}<> ")
    | TYPES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
PART: dict[str, st.SearchStrategy[object]] = {
    "type": TYPES,
    "text": st.text("ab") | JSON,
    "refusal": st.none() | JSON,
}
PARTS: st.SearchStrategy[object] = st.lists(st.fixed_dictionaries(PART), max_size=2)
ITEM: dict[str, st.SearchStrategy[object]] = {
    "id": st.text("ab", max_size=1) | JSON,
    "call_id": st.text("ab", max_size=1) | JSON,
    "name": st.text("ab", max_size=1) | JSON,
    "arguments": st.sampled_from(["", "{}", '{"a":1}', "{"]) | JSON,
    "content": PARTS | JSON,
    "summary": PARTS | JSON,
    "encrypted_content": st.sampled_from(["x"]) | JSON,
}
ITEMS = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "function_call", "reasoning", "web_search_call"]) | JSON},
    optional=ITEM,
)
EVENTS = st.fixed_dictionaries(
    {"type": TYPES | JSON},
    optional={
        "delta": st.text("ab") | JSON,
        "output_index": st.integers(0, 2) | JSON,
        "item_id": st.text("ab", max_size=1) | JSON,
        "item": ITEMS | JSON,
        "error": JSON,
        "name": st.text("ab") | JSON,
        "arguments": st.text("{}") | JSON,
    },
)
ENDS = st.fixed_dictionaries(
    {"type": st.sampled_from(["response.completed", "response.incomplete"])},
    optional={
        "response": JSON
        | st.fixed_dictionaries(
            {},
            optional={
                "output": st.lists(ITEMS | JSON, max_size=3),
                "usage": JSON,
                "status": st.sampled_from(["completed", "incomplete"]) | st.lists(JSON) | JSON,
                "incomplete_details": JSON,
            },
        )
    },
)


@given(events=st.lists(EVENTS | JSON, max_size=5), last=ENDS | JSON)
@settings(deadline=None, max_examples=150)
def test_any_json_is_a_reply_or_a_failure(events: Sequence[object], last: object) -> None:
    reading = ResponsesReading(MAKER, Capabilities(think_tags="none"))

    reply = None
    with suppress(Failed):  # and nothing else
        reading.read([msgspec.json.encode(one) for one in (*events, last)])
        if reading.ended:
            reading.draft.close()
            reply = reading.reply()

    if reply is not None:
        deltas = reading.draft.take()
        assert "".join(one.text for one in deltas if one.part == "text") == reply.text
        assert {one.call for one in deltas if one.call} <= {one.id for one in reply.calls}
        assert msgspec.json.decode(msgspec.json.encode(reply), type=Reply) == reply


@given(data=st.binary(max_size=80))
@settings(deadline=None)
def test_any_bytes_are_an_event_or_a_failure(data: bytes) -> None:
    reading = ResponsesReading(MAKER, Capabilities())

    with suppress(Failed):  # and nothing else
        reading.read([data])


# -- what goes back with the next question -------------------------------------------------------


def items(reply: Reply) -> list[JsonObject]:
    assert reply.replay is not None
    return msgspec.convert(reply.replay["items"], list[dict[str, object]])


def test_thoughts_are_kept_as_they_were_when_done() -> None:
    begun = SEALED | {"encrypted_content": "gA"}

    reply = read(
        [
            event("response.output_item.added", output_index=0, item=begun),
            done(SEALED, output_index=0),
            done(message("Hi.", id="msg_1", phase="final_answer"), output_index=1),
            end(SEALED | {"encrypted_content": "other"}),
        ]
    )

    assert reply.replay is not None
    assert reply.replay["by"] == {"provider": "openai", "model": "m"}
    assert items(reply) == [
        {"item": SEALED},
        {
            "item": {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "phase": "final_answer",
            },
            "end": 3,
        },
    ]


def test_items_are_kept_in_the_order_of_the_end() -> None:
    said, asked = message("Hi.", id="msg_1"), call("f", "{}", id="fc_1", call_id="a")

    reply = read([text("Hi."), done(asked), end(SEALED, said, asked)])

    assert [one["item"] for one in items(reply)] == [
        SEALED,
        {"type": "message", "role": "assistant", "id": "msg_1"},
        {"type": "function_call", "id": "fc_1"},
    ]
    assert items(reply)[2]["call"] == reply.calls[0].id


def test_what_the_provider_did_by_itself_is_kept() -> None:
    search: JsonObject = {"type": "web_search_call", "id": "ws_1", "status": "completed"}

    reply = read([done(search), done(message("Found."), output_index=1), end()])

    assert items(reply)[0] == {"item": search}


def test_a_thought_that_nothing_follows_is_not_kept() -> None:
    reply = read(
        [
            done(SEALED),
            done(message("Hi.")),
            done(SEALED | {"id": "rs_2"}),
            end(status="incomplete"),
        ]
    )
    alone = read([done(SEALED), end(status="incomplete")])

    assert [one.get("end") for one in items(reply)] == [None, 3]
    assert (alone.replay, alone.stop) == (None, "length")


def test_nothing_is_kept_where_a_thought_cannot_go_back() -> None:
    bare: JsonObject = {"type": "reasoning", "id": "rs_2", "summary": []}

    assert read([done(SEALED), done(bare), done(message("Hi.")), end()]).replay is None
    assert read([done(SEALED), text("Hi."), end()]).replay is None


def test_nothing_is_kept_where_text_and_calls_say_it_all() -> None:
    asked = call("f", "{}", id="fc_1", call_id="a")

    assert read([done(message("Hi.", id="msg_1")), done(asked), end()]).replay is None


# -- what it cost --------------------------------------------------------------------------------


def test_the_cost_that_a_router_tells_is_the_cost() -> None:
    usage: JsonObject = {"input_tokens": 3, "output_tokens": 1, "cost": 0.000125}

    reply = read([text("x"), end(usage=usage)])

    assert reply.usage == Usage(
        input_tokens=3, output_tokens=1, cost=Decimal("0.000125"), price="provider"
    )
    assert reply.raw_usage == usage


def test_done_alone_ends_an_answer_where_that_is_how_it_ends() -> None:
    reply = read([text("x"), b"data: [DONE]\n\n"], finish_reason=False)

    assert (reply.text, reply.stop) == ("x", "end")


def test_calls_told_side_by_side_stay_apart_however_many_there_are() -> None:
    """Each event finds its item at once: nothing here grows with the square of the calls."""
    many = range(2000)
    begun = [
        event(
            "response.output_item.added",
            output_index=n,
            item=call(f"f{n}", "", id=f"fc_{n}", call_id=f"c{n}"),
        )
        for n in many
    ]
    said = [
        event("response.function_call_arguments.delta", output_index=n, delta=f'{{"n":{n}}}')
        for n in many
    ]
    whole = [call(f"f{n}", f'{{"n":{n}}}', id=f"fc_{n}", call_id=f"c{n}") for n in many]

    reply = read([*begun, *said, end(*whole)])

    assert [(one.name, one.arguments) for one in reply.calls] == [(f"f{n}", {"n": n}) for n in many]
