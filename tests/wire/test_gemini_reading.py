"""Whatever events come, a reading of them ends in a reply or in a failure that says why."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.canaries import canary

from hostler.core.events import JsonObject, Usage
from hostler.core.ports import Reply, Request
from hostler.models.faults import Failed
from hostler.models.gemini import Gemini, GeminiReading
from hostler.models.transport import Aiohttp
from hostler.testing.model_script import Args, Begin, End, Text, Think
from hostler.testing.model_trial import listen
from hostler.testing.provider_server import Send, chunk, head, provider_server
from hostler.testing.wire_gemini import GEMINI, end, event, response, said

KEY = canary("key of an adapter", "sk-test")

ANSWER = list(
    GEMINI.events(
        [
            Think("Hm"),
            Text("Hel"),
            Text("lo"),
            Begin("a", "weather", "id-a"),
            Args("a", '{"city": "Paris"}'),
            Text("!"),
            End("tools"),
        ]
    )
)


def payloads(events: Sequence[bytes]) -> list[bytes]:
    return [one.removeprefix(b"data: ").rstrip(b"\n") for one in events]


def read(*events: bytes) -> Reply:
    reading = GeminiReading("m")
    reading.read(payloads(events))
    reading.draft.close()
    return reading.reply()


@given(cuts=st.sets(st.integers(0, 5)))
@settings(deadline=None)
def test_gemini_reads_of_any_size_add_up_to_the_same_answer(cuts: set[int]) -> None:
    whole = read(*ANSWER)
    reading, seen = GeminiReading("m"), {"text": "", "thinking": "", "arguments": ""}

    for start, stop in pairwise([0, *sorted(cuts), len(ANSWER)]):
        reading.read(payloads(ANSWER)[start:stop])
        for one in reading.draft.take():
            seen[one.part] += one.text
    reading.draft.close()
    reply = reading.reply()

    assert (reply.text, reply.thinking, reply.stop) == (whole.text, whole.thinking, whole.stop)
    assert reply.calls[0].arguments == whole.calls[0].arguments == {"city": "Paris"}
    assert seen == {"text": "Hello!", "thinking": "Hm", "arguments": '{"city": "Paris"}'}


KEYS = st.sampled_from(
    [
        *("candidates", "content", "parts", "text", "thought", "thoughtSignature", "functionCall"),
        *("id", "name", "args", "finishReason", "finishMessage", "promptFeedback", "blockReason"),
        *("usageMetadata", "promptTokenCount", "totalTokenCount", "error", "code", "message"),
        *("executableCode", "toolCall", "inlineData", "status", "details"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text("a{}<> "),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=6,
)
EVENTS = st.fixed_dictionaries(
    {
        "candidates": st.lists(
            st.fixed_dictionaries(
                {
                    "content": st.fixed_dictionaries(
                        {"parts": st.lists(st.dictionaries(KEYS, JSON, max_size=4), max_size=3)}
                    ),
                    "finishReason": st.sampled_from([None, "STOP", "MAX_TOKENS", "SAFETY", ""])
                    | JSON,
                }
            ),
            max_size=2,
        ),
        "usageMetadata": JSON,
    }
)


@given(chunks=st.lists(EVENTS | st.dictionaries(KEYS, JSON, max_size=3) | JSON, max_size=5))
@settings(deadline=None, max_examples=100)
def test_any_json_is_a_gemini_reply_or_a_failure(chunks: Sequence[object]) -> None:
    reading = GeminiReading("m")

    reply = None
    with suppress(Failed):  # and nothing else
        reading.read([msgspec.json.encode(chunk) for chunk in chunks])
        reading.draft.close()
        reply = reading.reply()

    if reply is not None:
        text = "".join(one.text for one in reading.draft.take() if one.part == "text")
        assert text == reply.text
        assert msgspec.json.decode(msgspec.json.encode(reply), type=Reply) == reply


@given(data=st.binary(max_size=80))
@settings(deadline=None)
def test_any_bytes_are_a_gemini_event_or_a_failure(data: bytes) -> None:
    with suppress(Failed):  # and nothing else
        GeminiReading("m").read([data])


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        (
            {
                "promptTokenCount": 100,
                "cachedContentTokenCount": 80,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 7,
                "totalTokenCount": 112,
            },
            Usage(input_tokens=100, output_tokens=12, cache_read_tokens=80, reasoning_tokens=7),
        ),
        (  # a gateway that counts thoughts among the candidates
            {
                "promptTokenCount": 100,
                "candidatesTokenCount": 12,
                "thoughtsTokenCount": 7,
                "totalTokenCount": 112,
            },
            Usage(input_tokens=100, output_tokens=12, reasoning_tokens=7),
        ),
        (
            {"promptTokenCount": 10, "toolUsePromptTokenCount": 20, "candidatesTokenCount": 1},
            Usage(input_tokens=30, output_tokens=1),
        ),
        ({"promptTokenCount": "many", "candidatesTokenCount": -1}, Usage()),
        ([1], Usage()),
        (None, Usage()),
    ],
)
def test_usage_is_told_under_our_names(counts: object, usage: Usage) -> None:
    last = event({"candidates": [{"finishReason": "STOP"}], "usageMetadata": counts})

    reply = read(said({"text": "x"}), last)

    assert reply.usage == usage
    assert reply.raw_usage == (counts if isinstance(counts, dict) else None)


def test_only_the_first_candidate_counts() -> None:
    first = {"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}
    second = {"content": {"parts": [{"text": "b"}]}, "index": 1}

    assert read(event({"candidates": [first, second]})).text == "a"


def test_arguments_are_told_as_they_came() -> None:
    raw = (
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"n": 1.0}}}]}}]}'
    )
    reading = GeminiReading("m")

    reading.read([raw])
    (delta,) = reading.draft.take()

    assert (delta.name, delta.text) == ("f", '{"n": 1.0}')


def test_a_message_ends_with_its_reason_and_a_stream_does_not() -> None:
    reading = GeminiReading("m")

    reading.read(payloads([said({"text": "a"})]))
    before = reading.ended
    reading.read(payloads([end("STOP")]))

    assert (before, reading.ended, reading.over) == (False, True, False)


def test_why_a_message_was_stopped_is_told() -> None:
    with pytest.raises(Failed, match="MALFORMED_FUNCTION_CALL: print") as told:
        read(end("MALFORMED_FUNCTION_CALL", finishMessage="print(x)"))

    assert (told.value.code, told.value.again) == ("server", True)


def test_a_reason_to_finish_stands_until_another_comes() -> None:
    cut = response({"content": {"parts": [{"text": "a"}]}, "finishReason": "MAX_TOKENS"}, {})

    assert read(cut, said({"text": "b"})).stop == "length"


@pytest.mark.anyio
async def test_the_key_goes_in_googles_header_and_nowhere_else() -> None:
    stream = b"".join(GEMINI.events([Text("Hi."), End()]))
    keys = iter([KEY, ""])
    transport = Aiohttp()
    async with provider_server(
        lambda _: [Send(head()), Send(chunk(stream) + chunk(b""))]
    ) as server:
        model = Gemini(
            name="m",
            base_url=server.url,
            transport=transport,
            key=lambda _: next(keys),
            provider="gemini",
        )
        for _ in range(2):
            await listen(model, Request(system="", transcript=[]))
        await transport.aclose()
        with_key, without = server.asked

    found: JsonObject = {name: v for name, v in with_key.headers.items() if KEY in v}
    assert found == {"x-goog-api-key": KEY}
    assert KEY not in with_key.path
    assert "x-goog-api-key" not in without.headers
