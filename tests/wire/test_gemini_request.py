"""What goes into a request to the Gemini API, beyond what its SDK would send."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec
import pytest

from hostler.core.events import (
    CallId,
    JsonObject,
    ToolCall,
)
from hostler.core.ports import Request, ToolSpec
from hostler.core.said import ImagePart, ModelSaid, Said, TextPart, ToolSaid, UserSaid
from hostler.core.shown import FilePart
from hostler.models.capabilities import Capabilities, capabilities
from hostler.models.gemini import GeminiReading, url_of
from hostler.models.gemini_request import body
from hostler.testing.wire_gemini import end, said

GOOGLE = "https://generativelanguage.googleapis.com"
WEATHER = ToolSpec(name="weather", description="Say it.", parameters={"type": "object"})
PARIS = ToolCall(id=CallId("call_1"), name="weather", arguments={"city": "Paris"})
ROME = ToolCall(
    id=CallId("call_2"), name="weather", arguments={"city": "Rome"}, provider_id="fc_77"
)


def written(request: Request, able: JsonObject | None = None, model: str = "m") -> JsonObject:
    raw = body(request, model=model, able=msgspec.convert(able or {}, Capabilities))
    return msgspec.json.decode(raw, type=dict[str, object])


def turns(
    *transcript: Said, able: JsonObject | None = None, model: str = "m"
) -> list[tuple[str, list[JsonObject]]]:
    request = Request(system="", transcript=transcript)
    contents = msgspec.convert(written(request, able, model)["contents"], list[dict[str, object]])
    return [
        (str(content["role"]), msgspec.convert(content["parts"], list[dict[str, object]]))
        for content in contents
    ]


def test_options_may_not_change_what_is_ours_in_gemini() -> None:
    options: JsonObject = {
        "contents": [],
        "systemInstruction": {"parts": [{"text": "evil"}]},
        "system_instruction": {"parts": [{"text": "evil"}]},
        "generationConfig": {"candidateCount": 3, "seed": 1},
        "cachedContent": "cachedContents/1",
    }

    sent = written(Request(system="s", transcript=[UserSaid("Hi.")], options=options))

    assert sent == {
        "systemInstruction": {"parts": [{"text": "s"}], "role": "user"},
        "contents": [{"parts": [{"text": "Hi."}], "role": "user"}],
        "generationConfig": {"seed": 1},
        "cachedContent": "cachedContents/1",
    }


def test_tools_among_the_options_come_after_ours() -> None:
    search: JsonObject = {"googleSearch": {}}
    request = Request(
        system="", transcript=[UserSaid("Hi.")], tools=[WEATHER], options={"tools": [search]}
    )

    ours, theirs = msgspec.convert(written(request)["tools"], list[dict[str, object]])

    assert list(ours) == ["functionDeclarations"]
    assert theirs == search


def test_a_limit_in_the_generation_config_is_the_only_one() -> None:
    options: JsonObject = {"generationConfig": {"maxOutputTokens": 7}}
    request = Request(system="", transcript=[], max_output_tokens=9, options=options)

    assert written(request)["generationConfig"] == {"maxOutputTokens": 7}


def test_what_one_side_says_in_a_row_is_one_turn() -> None:
    picture = ImagePart(data="AAAA", media_type="image/png")

    made = turns(
        UserSaid("a"),
        UserSaid((picture, TextPart(text="b"))),
        ModelSaid("c"),
        ModelSaid("d", calls=(PARIS,)),
        ToolSaid(PARIS, "sun"),
        UserSaid("e"),
    )

    assert [(role, [next(iter(part)) for part in parts]) for role, parts in made] == [
        ("user", ["text", "inlineData", "text"]),
        ("model", ["text", "text", "functionCall"]),
        ("user", ["functionResponse"]),
        ("user", ["text"]),
    ]


def test_a_longer_gemini_conversation_begins_with_the_bytes_of_the_shorter() -> None:
    transcript: list[Said] = [
        UserSaid("Weather?"),
        ModelSaid("", calls=(PARIS,)),
        ToolSaid(PARIS, "sun"),
    ]
    short = Request(system="s", transcript=transcript[:2], tools=[WEATHER], max_output_tokens=9)
    long = Request(system="s", transcript=transcript, tools=[WEATHER], max_output_tokens=9)

    a = body(short, model="m", able=Capabilities())
    b = body(long, model="m", able=Capabilities())

    assert b.startswith(a.partition(b'],"generationConfig"')[0])


def test_files_that_gemini_does_not_read_are_told_in_words() -> None:
    csv = base64.b64encode(b"a,b").decode()
    parts = (
        FilePart(data=csv, media_type="text/csv", name="t.csv"),
        FilePart(data="AAAA", media_type="application/zip", name="z.zip"),
        FilePart(data="AAAA", media_type="audio/mp3", name="s.mp3"),
        ImagePart(url="data:image/webp;base64,UklGRg=="),
        FilePart(url=f"{GOOGLE}/v1beta/files/abc"),
        ImagePart(url="https://x/a.PNG?size=1"),
    )

    ((_, made),) = turns(UserSaid(parts), able={"files": True})

    assert made == [
        {"text": "[File t.csv]\na,b\n[End of file t.csv]"},
        {"text": "[File z.zip (application/zip), which you cannot be shown.]"},
        {"inlineData": {"data": "AAAA", "mimeType": "audio/mp3"}},
        {"inlineData": {"data": "UklGRg==", "mimeType": "image/webp"}},
        {"fileData": {"fileUri": f"{GOOGLE}/v1beta/files/abc"}},
        {"fileData": {"fileUri": "https://x/a.PNG?size=1", "mimeType": "image/png"}},
    ]


def test_a_gemini_model_without_eyes_is_told_in_words() -> None:
    picture = ImagePart(data="AAAA", media_type="image/png")

    ((_, made),) = turns(UserSaid((picture,)), able={"images": False})

    assert made == [{"text": "[An image, which you cannot be shown.]"}]


SIGNED: Sequence[JsonObject] = (
    {"text": "Hm", "thought": True},
    {"text": "so", "thought": True, "thoughtSignature": "YQ=="},
    {"text": "One"},
    {"text": " two", "thoughtSignature": "Yg=="},
    {"executableCode": {"language": "PYTHON", "code": "1"}},
    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}, "thoughtSignature": "Yw=="},
    {"text": " 🦄"},
    {"functionCall": {"id": "x", "name": "f", "args": {"a": 1}}, "thoughtSignature": "ZA=="},
    {"functionCall": {"name": "g", "args": {}}},
    {"text": "three"},
    {"text": "", "thoughtSignature": "ZQ=="},
)


def answered(*parts: JsonObject) -> ModelSaid:
    """Return the message that a model of the name m makes of these parts."""
    reading = GeminiReading("m")
    reading.read([said(part)[6:] for part in parts] + [end("STOP")[6:]])
    reading.draft.close()
    reply = reading.reply()
    logged = msgspec.json.decode(msgspec.json.encode(reply.replay), type=dict[str, object] | None)
    return ModelSaid(reply.text, reply.calls, reply.thinking, logged)


def test_signed_parts_go_back_as_they_came() -> None:
    ((_, made),) = turns(answered(*SIGNED))

    # Thoughts without a signature say nothing to the model; all else is here, in its order.
    assert made == list(SIGNED[1:])


def test_signatures_go_to_no_other_model() -> None:
    message = answered(*SIGNED)

    ((_, made),) = turns(message, model="n")

    assert made == [
        {"text": "One two 🦄three"},
        {"functionCall": {"id": "x", "name": "f", "args": {"a": 1}}},
        {"functionCall": {"name": "g", "args": {}}},
    ]


def test_a_message_without_signatures_needs_no_replay() -> None:
    message = answered({"text": "a"}, {"functionCall": {"name": "g", "args": {}}})

    ((_, made),) = turns(message)

    assert message.replay is None
    assert made == [{"text": "a"}, {"functionCall": {"name": "g", "args": {}}}]


def test_a_replay_that_fits_no_more_loses_no_call() -> None:
    marks = [{"at": 99, "length": 5, "signature": "YQ=="}, {"at": 0, "call": "gone"}]
    message = ModelSaid("One", calls=(PARIS,), replay={"model": "m", "parts": marks})

    ((_, made),) = turns(message)

    assert "".join(str(part.get("text", "")) for part in made) == "One"
    assert [part for part in made if "functionCall" in part] == [
        {"functionCall": {"name": "weather", "args": {"city": "Paris"}}}
    ]


def test_the_replay_of_another_wire_api_is_passed_over() -> None:
    message = ModelSaid("a", replay={"model": "m", "extra_content": {"call_1": 1}})

    assert turns(message) == [("model", [{"text": "a"}])]


def test_the_first_call_of_each_message_is_signed_where_calls_must_be() -> None:
    signed = answered(
        {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "YQ=="},
        {"functionCall": {"name": "f", "args": {}}},
    )

    ((_, made),) = turns(
        ModelSaid("a", calls=(PARIS, ROME)), signed, able={"unsigned_call": "made up"}
    )

    assert [part.get("thoughtSignature") for part in made] == [None, "made up", None, "YQ==", None]


@pytest.mark.parametrize(
    ("model", "signature"),
    [
        ("gemini-3-pro-preview", "skip_thought_signature_validator"),
        ("models/gemini-3.5-flash", "skip_thought_signature_validator"),
        ("gemini-2.5-pro", None),
        ("gemma-3-27b-it", None),
    ],
)
def test_calls_must_be_signed_from_gemini_3_on(model: str, signature: str | None) -> None:
    able = capabilities("gemini", GOOGLE, model)

    assert able.unsigned_call == signature
    assert able.files


def test_ids_are_sent_where_given_and_names_always() -> None:
    odd = ToolCall(id=CallId("call_3"), name="say it!", arguments={}, provider_id="ä ö")
    none = ToolCall(id=CallId("call_4"), name="", arguments={})
    calls = (PARIS, ROME, odd, none)

    (_, made), (_, results) = turns(
        ModelSaid("", calls=calls), *(ToolSaid(call, "x") for call in calls)
    )

    asked = [msgspec.convert(part["functionCall"], dict[str, object]) for part in made]
    told = [msgspec.convert(part["functionResponse"], dict[str, object]) for part in results]
    assert [(call["name"], call.get("id")) for call in asked] == [
        ("weather", None),
        ("weather", "fc_77"),
        ("_say_it_", "call_3"),
        ("_", None),
    ]
    assert [(one["name"], one.get("id")) for one in told] == [
        (call["name"], call.get("id")) for call in asked
    ]


def test_a_gemini_message_that_says_nothing_is_left_out() -> None:
    made = turns(UserSaid("a"), ModelSaid("", thinking="Hm."), UserSaid("b"))

    assert made == [("user", [{"text": "a"}, {"text": "b"}])]


@pytest.mark.parametrize(
    ("base", "model", "url"),
    [
        (GOOGLE, "g-3", f"{GOOGLE}/v1beta/models/g-3:streamGenerateContent?alt=sse"),
        (f"{GOOGLE}/", "g-3", f"{GOOGLE}/v1beta/models/g-3:streamGenerateContent?alt=sse"),
        (f"{GOOGLE}/v1", "g-3", f"{GOOGLE}/v1/models/g-3:streamGenerateContent?alt=sse"),
        ("http://x/v1beta1/p", "g", "http://x/v1beta1/p/models/g:streamGenerateContent?alt=sse"),
        (
            "http://v1.x",
            "tuned/a?b",
            "http://v1.x/v1beta/tuned/a%3Fb:streamGenerateContent?alt=sse",
        ),
        ("http://x?a=1", "g", "http://x/v1beta/models/g:streamGenerateContent?a=1&alt=sse"),
    ],
)
def test_the_url_has_version_and_model(base: str, model: str, url: str) -> None:
    assert url_of(base, model) == url
