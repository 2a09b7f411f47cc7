"""The ways in which imitations of Chat Completions differ, all seen in the wild.

The names in brackets are where.  Only chunks as such servers send them, and what must come of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hostler.core.events import JsonObject, Usage
from hostler.testing.model_script import Call, Fails, Raw, Replies, Scenario
from hostler.testing.wire_chat import chunk_of, delta, end, event, fragment

WEATHER = Call(name="weather", arguments={"city": "Paris"})
TIME = Call(name="time", arguments={"zone": "CET"})


def quirk(name: str, raw: Sequence[bytes], expect: Replies | Fails) -> Scenario:
    return Scenario(name=name, steps=[Raw(b"".join(raw))], expect=expect)


def _calls(name: str, raw: Sequence[bytes], *calls: Call) -> Scenario:
    return quirk(name, [*raw, *end("tool_calls")], Replies(calls=calls, stop="tools"))


def _usage(name: str, counts: JsonObject, expected: Usage) -> Scenario:
    raw = [delta({"content": "x"}), *end("stop", done=False), event({"usage": counts})]
    return quirk(name, [*raw, b"data: [DONE]\n\n"], Replies(text="x", usage=expected))


_PARIS, _CET = '{"city":"Paris"}', '{"zone":"CET"}'
_PIECES = ('{"ci', 'ty":"P', 'aris"}')

CHAT_QUIRKS: Sequence[Scenario] = (
    _calls(
        "two whole calls both have index 0 (Ollama)",
        [
            fragment(index=0, id="a", name="weather", arguments=_PARIS),
            fragment(index=0, id="b", name="time", arguments=_CET),
        ],
        WEATHER,
        TIME,
    ),
    _calls(
        "two whole calls of one tool both have index 0 (Ollama)",
        [
            fragment(index=0, id="a", name="weather", arguments=_PARIS),
            fragment(index=0, id="b", name="weather", arguments='{"city":"Rome"}'),
        ],
        WEATHER,
        Call(name="weather", arguments={"city": "Rome"}),
    ),
    _calls(
        "two calls without arguments both have index 0",
        [
            fragment(index=0, id="a", name="ping", arguments={}),
            fragment(index=0, id="b", name="pong", arguments={}),
        ],
        Call(name="ping", arguments={}),
        Call(name="pong", arguments={}),
    ),
    _calls(
        "whole calls have no index",
        [
            fragment(id="a", name="weather", arguments=_PARIS),
            fragment(id="b", name="time", arguments=_CET),
        ],
        WEATHER,
        TIME,
    ),
    _calls(
        "fragments have no index",
        [
            fragment(id="a", name="weather", arguments=""),
            *(fragment(arguments=piece) for piece in _PIECES),
            fragment(id="b", name="weather", arguments=""),
            fragment(arguments='{"city":"Rome"}'),
        ],
        WEATHER,
        Call(name="weather", arguments={"city": "Rome"}),
    ),
    _calls(
        "calls have no id",
        [
            fragment(index=0, name="weather", arguments=_PARIS),
            fragment(index=1, name="time", arguments=_CET),
        ],
        WEATHER,
        TIME,
    ),
    _calls(
        "ids are empty",
        [
            fragment(index=0, id="", name="weather", arguments=_PARIS),
            fragment(index=1, id="", name="time", arguments=_CET),
        ],
        WEATHER,
        TIME,
    ),
    _calls(
        "id and name are repeated on every fragment (vLLM)",
        [fragment(index=0, id="a", name="weather", arguments=piece) for piece in _PIECES],
        WEATHER,
    ),
    _calls(
        "the id changes with every fragment (Kimi gateways)",
        [
            fragment(index=0, id="a", name="weather", arguments=_PIECES[0]),
            fragment(index=0, id="b", arguments=_PIECES[1]),
            fragment(index=0, id="c", arguments=_PIECES[2]),
        ],
        WEATHER,
    ),
    _calls(
        "two calls share one id",
        [
            fragment(index=0, id="a", name="weather", arguments=_PARIS),
            fragment(index=1, id="a", name="time", arguments=_CET),
        ],
        WEATHER,
        TIME,
    ),
    _calls(
        "the whole arguments are sent once more at the end",
        [
            *(fragment(index=0, id="a", name="weather", arguments=piece) for piece in _PIECES),
            fragment(index=0, id="a", name="weather", arguments=_PARIS),
        ],
        WEATHER,
    ),
    _calls(
        "an empty object comes before the arguments",
        [
            fragment(index=0, id="a", name="weather", arguments="{}"),
            fragment(index=0, arguments=_PARIS),
        ],
        WEATHER,
    ),
    _calls(
        "two calls of one tool are glued together",
        [
            fragment(index=0, id="a", name="weather", arguments=_PARIS),
            fragment(index=0, arguments='{"city":"Rome"}'),
        ],
        WEATHER,
        Call(name="weather", arguments={"city": "Rome"}),
    ),
    _calls(
        "a name comes in pieces",
        [
            fragment(index=0, id="a", name="wea"),
            fragment(index=0, name="ther"),
            fragment(index=0, arguments=_PARIS),
        ],
        WEATHER,
    ),
    _calls(
        "arguments are an object",
        [fragment(index=0, id="a", name="weather", arguments={"city": "Paris"})],
        WEATHER,
    ),
    _calls(
        "arguments are missing",
        [fragment(index=0, id="a", name="ping")],
        Call(name="ping", arguments={}),
    ),
    _calls(
        "arguments are null, as text",
        [fragment(index=0, id="a", name="ping", arguments="null")],
        Call(name="ping", arguments={}),
    ),
    _calls(
        "arguments are encoded twice",
        [fragment(index=0, id="a", name="weather", arguments='"{\\"city\\":\\"Paris\\"}"')],
        WEATHER,
    ),
    quirk(
        "calls end with the finish reason of an ordinary answer",
        [fragment(index=0, id="a", name="weather", arguments=_PARIS), *end("stop")],
        Replies(calls=[WEATHER], stop="tools"),
    ),
    quirk(
        "the finish reason of calls comes without calls",
        [delta({"content": "No need."}), *end("tool_calls")],
        Replies(text="No need."),
    ),
    quirk(
        "a finish reason is unknown",
        [delta({"content": "Hi."}), *end("eos_token")],
        Replies(text="Hi."),
    ),
    quirk(
        "finish reason: content_filter",
        [delta({"content": "How to"}), *end("content_filter")],
        Fails(codes=["content_filter"], again=False, text="How to"),
    ),
    quirk(
        "finish reason: error",
        [delta({"content": "Well"}), *end("error")],
        Fails(codes=["server"], again=True, text="Well"),
    ),
    quirk(
        "[DONE] comes without a finish reason",
        [delta({"content": "Half an ans"}), b"data: [DONE]\n\n"],
        Fails(codes=["truncated"], again=True, text="Half an ans"),
    ),
    quirk(
        "the end comes without [DONE]",
        [delta({"content": "Hi."}), *end("stop", done=False)],
        Replies(text="Hi."),
    ),
    quirk(
        "choices: null is sent as a heartbeat",
        [
            event({"choices": None}),
            delta({"content": "a"}),
            event({"choices": None}),
            event({}),
            delta({"content": "b"}),
            *end("stop"),
        ],
        Replies(text="ab"),
    ),
    quirk(
        "empty data is sent as a heartbeat",
        [
            b"data:\n\n",
            delta({"content": "a"}),
            b"data: \n\n",
            delta({"content": "b"}),
            *end("stop"),
        ],
        Replies(text="ab"),
    ),
    quirk(
        "delta: null beside a finish reason",
        [delta({"content": "a"}), chunk_of({"delta": None, "finish_reason": "stop"})],
        Replies(text="a"),
    ),
    quirk(
        "thinking under the key `reasoning`",
        [delta({"reasoning": "Hm."}), delta({"content": "Yes."}), *end("stop")],
        Replies(text="Yes.", thinking="Hm."),
    ),
    quirk(
        "thinking under two keys at once",
        [delta({"reasoning": "Hm.", "reasoning_content": "Hm."}), *end("stop")],
        Replies(thinking="Hm."),
    ),
    quirk(
        "thinking inline, its tags split over chunks",
        [
            delta({"content": one})
            for one in ("<th", "ink>\nHm", ".</thi", "nk>\n\n", "Yes. <b", ">")
        ]
        + end("stop"),
        Replies(text="Yes. <b>", thinking="Hm."),
    ),
    quirk(
        "text that merely looks like the beginning of a tag",
        [delta({"content": one}) for one in ("<th", "e> end, <think>", " and </think>")]
        + end("stop"),
        Replies(text="<the> end, <think> and </think>"),
    ),
    quirk(
        "thinking inline, without an end",
        [delta({"content": "<think>Hm, </th"}), *end("length")],
        Replies(thinking="Hm, </th", stop="length"),
    ),
    quirk(
        "content that is a list (Mistral)",
        [
            delta(
                {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]}
            ),
            delta({"content": [{"type": "text", "text": "Yes."}]}),
            delta({"content": 7}),
            *end("stop"),
        ],
        Replies(text="Yes.", thinking="Hm."),
    ),
    quirk(
        "half an emoji per chunk",
        [b'data: {"choices":[{"delta":{"content":"a\\ud83d"}}]}\n\n', *end("stop")],
        Replies(text="a\ufffd"),
    ),
    quirk(
        "an error without its wrapping",
        [delta({"content": "a"}), event({"object": "error", "message": "boom", "code": 500})],
        Fails(codes=["server"], again=True, text="a", says="boom"),
    ),
    quirk(
        "an error without its wrapping, with half an emoji",
        [delta({"content": "a"}), b'data: {"message": "boom \\ud83d"}\n\n'],
        Fails(codes=["server"], again=True, text="a", says="boom"),
    ),
    quirk(
        "an error beside choices (OpenRouter)",
        [
            event(
                {
                    "choices": [{"delta": {"content": ""}, "finish_reason": "error"}],
                    "error": {"code": 502, "message": "upstream died"},
                }
            )
        ],
        Fails(codes=["server"], again=True, says="upstream died"),
    ),
    _usage(
        "usage as DeepSeek counts it",
        {"prompt_tokens": 10, "completion_tokens": 2, "prompt_cache_hit_tokens": 8},
        Usage(input_tokens=10, output_tokens=2, cache_read_tokens=8),
    ),
    _usage(
        "usage as xAI counts it, reasoning apart",
        {
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "total_tokens": 19,
            "completion_tokens_details": {"reasoning_tokens": 7},
        },
        Usage(input_tokens=10, output_tokens=9, reasoning_tokens=7),
    ),
    _usage(
        "usage with words for numbers",
        {"prompt_tokens": "many", "completion_tokens": None, "prompt_tokens_details": 3},
        Usage(),
    ),
    Scenario(
        name="the answer is not streamed after all",
        headers={"content-type": "application/json"},
        body=msgspec.json.encode(
            {
                "choices": [
                    {"message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}
                ],
                "usage": {"prompt_tokens": 3, "completion_tokens": 1},
            }
        ),
        expect=Replies(text="Hi.", usage=Usage(input_tokens=3, output_tokens=1)),
    ),
    Scenario(
        name="a stream is called JSON",
        headers={"content-type": "application/json"},
        steps=[Raw(b"".join([delta({"content": "Hi."}), *end("stop")]))],
        expect=Replies(text="Hi."),
    ),
)
