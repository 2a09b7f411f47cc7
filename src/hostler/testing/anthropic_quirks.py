"""What only the Messages API can say, and the ways in which its imitations differ.

Only events as such servers send them, and what must come of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hostler.core.events import JsonObject, Usage
from hostler.testing.model_script import Call, Fails, Fault, Raw, Replies, Scenario
from hostler.testing.wire_anthropic import delta, end, event, message_start, start, stop

WEATHER = Call(name="weather", arguments={"city": "Paris"})
TIME = Call(name="time", arguments={"zone": "CET"})
_START = message_start(Usage(input_tokens=20, cache_read_tokens=5, cache_write_tokens=3))
SEARCH: JsonObject = {
    "type": "server_tool_use",
    "id": "srvtoolu_1",
    "name": "web_search",
    "input": dict[str, object](),
}
FOUND: JsonObject = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [
        {
            "type": "web_search_result",
            "title": "Paris",
            "url": "https://example.com",
            "encrypted_content": "EqgfCioIARgB",
            "page_age": None,
        }
    ],
}


def quirk(name: str, raw: Sequence[bytes], expect: Replies | Fails) -> Scenario:
    return Scenario(name=name, steps=[Raw(b"".join([_START, *raw]))], expect=expect)


def text(said: str, index: int = 0) -> list[bytes]:
    return [
        start(index, {"type": "text", "text": ""}),
        delta(index, type="text_delta", text=said),
        stop(index),
    ]


def call(index: int, name: str, id_: str = "toolu_1", **given: object) -> bytes:
    return start(index, {"type": "tool_use", "id": id_, "name": name, "input": given})


def piece(index: int, json: str) -> bytes:
    return delta(index, type="input_json_delta", partial_json=json)


def _calls(name: str, raw: Sequence[bytes], *calls: Call) -> Scenario:
    return quirk(name, [*raw, *end("tool_use")], Replies(calls=calls, stop="tools"))


def _whole(name: str, message: JsonObject, expect: Replies | Fails) -> Scenario:
    headers = {"content-type": "application/json"}
    return Scenario(name=name, headers=headers, body=msgspec.json.encode(message), expect=expect)


_STOPS: Sequence[Scenario] = (
    quirk("stop reason: stop_sequence", [*text("Hi"), *end("stop_sequence")], Replies(text="Hi")),
    quirk(
        "stop reason: model_context_window_exceeded",
        [*text("Hi"), *end("model_context_window_exceeded")],
        Replies(text="Hi", stop="length"),
    ),
    quirk("a stop reason is unknown", [*text("Hi"), *end("eos")], Replies(text="Hi")),
    quirk(
        "it refuses in mid-answer",
        [*text("First, take"), *end("refusal", details={"type": "refusal", "explanation": "No."})],
        Replies(text="First, take", stop="refusal"),
    ),
    quirk(
        "it refuses without a word but explains",
        end("refusal", details={"type": "refusal", "category": "bio", "explanation": "Not that."}),
        Replies(text="Not that.", stop="refusal"),
    ),
    quirk("it refuses without a word", end("refusal"), Replies(stop="refusal")),
    quirk(
        "the stream ends without message_stop",
        [*text("Half an ans"), end("end_turn")[0]],
        Fails(codes=["truncated"], again=True, text="Half an ans"),
    ),
    quirk(
        "message_stop comes without a stop reason",
        [*text("Half an ans"), event({"type": "message_stop"})],
        Fails(codes=["truncated"], again=True, text="Half an ans"),
    ),
    quirk(
        "it goes on after the end",
        [*text("Hi"), *end("end_turn"), *text(" and bye", 1), *end("refusal")],
        Replies(text="Hi"),
    ),
    quirk(
        "[DONE] comes after the end",
        [*text("Hi"), *end("end_turn"), b"data: [DONE]\n\n"],
        Replies(text="Hi"),
    ),
    quirk(
        "[DONE] comes instead of the end",
        [*text("Hi"), b"data: [DONE]\n\n"],
        Fails(codes=["truncated"], again=True, text="Hi"),
    ),
)
_BLOCKS: Sequence[Scenario] = (
    quirk(
        "pings and events of an unknown kind come in between",
        [
            event({"type": "ping"}),
            start(0, {"type": "text", "text": ""}),
            delta(0, type="text_delta", text="a"),
            event({"type": "ping"}),
            event({"type": "weather_report", "delta": {"text": "no"}, "error": None}),
            event({"type": "vendor_event", "content_block": 3, "message": {"usage": 1}}),
            delta(0, type="sparkle_delta", text="no"),
            delta(0, type="text_delta", text="b"),
            stop(0),
            *end("end_turn"),
        ],
        Replies(text="ab"),
    ),
    quirk(
        "blocks of an unknown kind come in between",
        [
            *text("a"),
            start(1, {"type": "hologram", "data": "x"}),
            delta(1, type="hologram_delta", data="y"),
            stop(1),
            *text("b", 2),
            *end("end_turn"),
        ],
        Replies(text="ab"),
    ),
    quirk(
        "a text begins with its block",
        [
            start(0, {"type": "text", "text": "Hel"}),
            delta(0, type="text_delta", text="lo"),
            *end("end_turn"),
        ],
        Replies(text="Hello"),
    ),
    quirk(
        "deltas come without the start of their block",
        [
            delta(0, type="thinking_delta", thinking="Hm."),
            delta(1, type="text_delta", text="Hi"),
            delta(1, type="text_delta", text="."),
            *end("end_turn"),
        ],
        Replies(text="Hi.", thinking="Hm."),
    ),
    quirk(
        "blocks have no index",
        [
            event({"type": "content_block_start", "content_block": {"type": "thinking"}}),
            event(
                {
                    "type": "content_block_delta",
                    "delta": {"type": "thinking_delta", "thinking": "Hm"},
                }
            ),
            event({"type": "content_block_start", "content_block": {"type": "text", "text": ""}}),
            event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}),
            *end("end_turn"),
        ],
        Replies(text="Hi", thinking="Hm"),
    ),
    quirk(
        "fields are null or of another type",
        [
            start(0, {"type": "text", "text": None}),
            delta(0, type="text_delta", text=None),
            delta(0, type="thinking_delta", thinking=7),
            delta(0, type="input_json_delta", partial_json=None),
            event({"type": "content_block_delta", "index": "0", "delta": None}),
            event({"type": "content_block_start", "index": 1, "content_block": None}),
            delta(0, type="text_delta", text="Hi"),
            event({"type": "message_delta", "delta": None, "usage": "none"}),
            *end("end_turn"),
        ],
        Replies(text="Hi"),
    ),
    quirk(
        "thinking is hidden",
        [
            start(0, {"type": "redacted_thinking", "data": "EmwKAhgB"}),
            stop(0),
            start(1, {"type": "thinking", "thinking": "", "signature": ""}),
            delta(1, type="signature_delta", signature="s"),
            stop(1),
            *text("Hi", 2),
            *end("end_turn"),
        ],
        Replies(text="Hi"),
    ),
    quirk(
        "it cites what it says",
        [
            start(0, {"type": "text", "text": "", "citations": []}),
            delta(0, type="citations_delta", citation={"type": "char_location", "cited_text": "x"}),
            delta(0, type="text_delta", text="Hi"),
            stop(0),
            *end("end_turn"),
        ],
        Replies(text="Hi"),
    ),
    quirk(
        "thinking inline, in tags",
        [*text("<think>Hm.</think>\n\nYes."), *end("end_turn")],
        Replies(text="Yes.", thinking="Hm."),
    ),
)
_TOOLS: Sequence[Scenario] = (
    _calls(
        "fragments of two calls are interleaved",
        [
            call(0, "weather", "a"),
            call(1, "time", "b"),
            piece(0, '{"city":'),
            piece(1, '{"zone":'),
            piece(0, '"Paris"}'),
            piece(1, '"CET"}'),
            stop(0),
            stop(1),
        ],
        WEATHER,
        TIME,
    ),
    _calls("arguments come whole, with their block", [call(0, "weather", city="Paris")], WEATHER),
    _calls(
        "arguments come whole and once more in fragments",
        [call(0, "weather", city="Paris"), piece(0, '{"city":'), piece(0, '"Paris"}')],
        WEATHER,
    ),
    _calls(
        "a fragment of arguments is an object",
        [
            call(0, "weather"),
            delta(0, type="input_json_delta", partial_json={"city": "Paris"}),
        ],
        WEATHER,
    ),
    _calls(
        "two calls share one index",
        [
            call(0, "weather", "a"),
            piece(0, '{"city":"Paris"}'),
            stop(0),
            call(0, "time", "b"),
            piece(0, '{"zone":"CET"}'),
            stop(0),
        ],
        WEATHER,
        TIME,
    ),
    _calls(
        "two calls share one id",
        [
            call(0, "weather", "a"),
            piece(0, '{"city":"Paris"}'),
            call(1, "weather", "a"),
            piece(1, '{"city":"Rome"}'),
        ],
        WEATHER,
        Call(name="weather", arguments={"city": "Rome"}),
    ),
    _calls(
        "a call has no id",
        [
            start(0, {"type": "tool_use", "name": "weather", "input": None}),
            piece(0, '{"city":"Paris"}'),
        ],
        WEATHER,
    ),
    _calls(
        "a tool of the provider's own is used before ours",
        [
            start(0, SEARCH),
            piece(0, '{"query":'),
            piece(0, '"Paris"}'),
            stop(0),
            start(
                1, {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
            ),
            stop(1),
            call(2, "weather"),
            piece(2, '{"city":"Paris"}'),
            stop(2),
        ],
        WEATHER,
    ),
    quirk(
        "calls end with the stop reason of an ordinary answer",
        [call(0, "weather", city="Paris"), *end("end_turn")],
        Replies(calls=[WEATHER], stop="tools"),
    ),
    quirk(
        "the stop reason of calls comes without calls",
        [*text("No need."), *end("tool_use")],
        Replies(text="No need."),
    ),
)
_REST: Sequence[Scenario] = (
    quirk(
        "usage is told at the start and grows",
        [*text("x"), *end("end_turn", Usage(output_tokens=7, reasoning_tokens=2))],
        Replies(
            text="x",
            usage=Usage(
                input_tokens=20,
                output_tokens=7,
                cache_read_tokens=5,
                cache_write_tokens=3,
                reasoning_tokens=2,
            ),
        ),
    ),
    quirk(
        "usage is told again at the end, some of it as null",
        [
            *text("x"),
            event(
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "end_turn"},
                    "usage": {
                        "input_tokens": 40,
                        "output_tokens": 7,
                        "cache_read_input_tokens": 6,
                        "cache_creation_input_tokens": None,
                    },
                }
            ),
            event({"type": "message_stop"}),
        ],
        Replies(
            text="x",
            usage=Usage(
                input_tokens=49, output_tokens=7, cache_read_tokens=6, cache_write_tokens=3
            ),
        ),
    ),
    quirk(
        "an error without its wrapping",
        [*text("a"), b'data: {"error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'],
        Fails(codes=["overloaded"], again=True, text="a", says="Overloaded"),
    ),
    quirk(
        "an error that is nothing but a message",
        [*text("a"), b'data: {"message":"boom","code":500}\n\n'],
        Fails(codes=["server"], again=True, text="a", says="boom"),
    ),
    quirk(
        "half an emoji per delta",
        [
            b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"a\\ud83d"}}\n\n',
            *end("end_turn"),
        ],
        Replies(text="a\ufffd"),
    ),
    Scenario(
        name="status 400: the question and the room for the answer are too long together",
        status=400,
        steps=[
            Fault(
                "invalid",
                "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000, "
                "decrease input length or `max_tokens` and try again",
            )
        ],
        expect=Fails(codes=["context_overflow"], again=False),
    ),
    Scenario(
        name="status 400: the schema of a tool, by its place",
        status=400,
        steps=[Fault("invalid", "tools.0.custom.input_schema.type: Field required")],
        expect=Fails(codes=["bad_tool_schema"], again=False),
    ),
    Scenario(
        name="status 400: no credit",
        status=400,
        steps=[Fault("invalid", "Your credit balance is too low to access the Anthropic API.")],
        expect=Fails(codes=["rate_limit"], again=False, says="credit"),
    ),
    _whole(
        "the answer is not streamed after all",
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Paris"}},
                {"type": "tool_use", "id": "b", "name": "time", "input": {"zone": "CET"}},
            ],
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 3, "output_tokens": 1},
        },
        Replies(
            text="Let me see.",
            thinking="Hm.",
            calls=[WEATHER, TIME],
            stop="tools",
            usage=Usage(input_tokens=3, output_tokens=1),
        ),
    ),
    _whole(
        "an answer that is not streamed declines",
        {
            "type": "message",
            "content": None,
            "stop_reason": "refusal",
            "stop_details": {"explanation": "No."},
        },
        Replies(text="No.", stop="refusal"),
    ),
    _whole(
        "an error comes with status 200",
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        Fails(codes=["overloaded"], again=True, says="Overloaded"),
    ),
)

ANTHROPIC_QUIRKS: Sequence[Scenario] = (*_STOPS, *_BLOCKS, *_TOOLS, *_REST)
