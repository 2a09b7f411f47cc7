"""What the body of a question holds beyond what OpenAI's SDK would put into it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from hostler.core.events import (
    CallId,
    JsonObject,
    ToolCall,
)
from hostler.core.ports import Request, ToolSpec
from hostler.core.said import ImagePart, ModelSaid, Said, ToolSaid, UserSaid
from hostler.core.shown import FilePart
from hostler.models.capabilities import Capabilities, capabilities
from hostler.models.responses_request import Maker, body, fits_strict

MAKER = Maker("openai", "gpt-5.6")
SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
WEATHER = ToolSpec(name="weather", description="Say the weather.", parameters=SCHEMA)
PARIS = ToolCall(id=CallId("call_1"), name="weather", arguments={"city": "Paris"})
ROME = ToolCall(id=CallId("call_2"), name="weather", arguments={"city": "Rome"})


def asking(*said: Said) -> Request:
    return Request(system="", transcript=said)


def written(request: Request, able: JsonObject | None = None, maker: Maker = MAKER) -> JsonObject:
    raw = body(request, maker=maker, able=msgspec.convert(able or {}, Capabilities))
    return msgspec.json.decode(raw, type=dict[str, object])


def items(
    request: Request, able: JsonObject | None = None, maker: Maker = MAKER
) -> list[JsonObject]:
    return msgspec.convert(written(request, able, maker)["input"], list[dict[str, object]])


def test_options_may_not_change_what_is_ours() -> None:
    options: JsonObject = {
        "model": "evil",
        "input": "x",
        "instructions": "x",
        "stream": False,
        "background": True,
        "conversation": "conv_1",
        "previous_response_id": "resp_1",
        "store": True,
        "max_output_tokens": 7,
    }

    sent = written(
        Request(system="s", transcript=[UserSaid("Hi.")], options=options, max_output_tokens=9)
    )

    assert sent == {
        "model": "gpt-5.6",
        "input": [{"type": "message", "role": "user", "content": "Hi."}],
        "instructions": "s",
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "store": True,
        "max_output_tokens": 7,
    }


def test_what_options_list_is_added_to_ours() -> None:
    options: JsonObject = {
        "tools": [{"type": "web_search"}],
        "include": ["web_search_call.action.sources", "reasoning.encrypted_content"],
    }

    sent = written(Request(system="", transcript=[], tools=[WEATHER], options=options))

    assert sent["tools"] == [
        {
            "type": "function",
            "name": "weather",
            "description": "Say the weather.",
            "parameters": SCHEMA,
            "strict": False,
        },
        {"type": "web_search"},
    ]
    assert sent["include"] == ["reasoning.encrypted_content", "web_search_call.action.sources"]


def test_reasoning_is_asked_for_where_there_is_some() -> None:
    for model, asked in (("gpt-5.6", True), ("o3", True), ("gpt-4.1-mini", False)):
        able = capabilities("openai", "https://api.openai.com/v1", model)

        sent = body(asking(UserSaid("Hi.")), maker=Maker("openai", model), able=able)

        assert (b"encrypted_content" in sent) == asked, model


def test_a_longer_conversation_begins_with_the_bytes_of_the_shorter() -> None:
    said: list[Said] = [UserSaid("Weather?"), ModelSaid("", calls=(PARIS,)), ToolSaid(PARIS, "sun")]
    short = Request(system="s", transcript=said[:2], tools=[WEATHER], session="ses_1")
    long = Request(system="s", transcript=said, tools=[WEATHER], session="ses_1")

    a = body(short, maker=MAKER, able=Capabilities())
    b = body(long, maker=MAKER, able=Capabilities())

    assert b.startswith(a.removesuffix(b"]}"))


def test_what_users_say_in_a_row_becomes_one_message() -> None:
    picture = ImagePart(url="https://x/a.png")

    (message,) = items(asking(UserSaid("a"), UserSaid("b"), UserSaid((picture,)), UserSaid("c")))

    assert message["content"] == [
        {"type": "input_text", "text": "a\n\nb"},
        {"type": "input_image", "image_url": "https://x/a.png", "detail": "auto"},
        {"type": "input_text", "text": "c"},
    ]


def test_what_a_model_cannot_be_shown_is_told_in_words() -> None:
    parts = (
        ImagePart(url="https://x/a.png"),
        FilePart(data="YSxi", media_type="text/csv", name="t.csv"),
        FilePart(url="https://x/doc.pdf", name="doc.pdf"),
    )

    (message,) = items(asking(UserSaid(parts)), {"images": False})

    assert message["content"] == [
        {"type": "input_text", "text": "[An image at https://x/a.png, which you cannot be shown.]"},
        {"type": "input_text", "text": "[File t.csv]\na,b\n[End of file t.csv]"},
        {
            "type": "input_text",
            "text": "[File doc.pdf (application/octet-stream) at https://x/doc.pdf, "
            "which you cannot be shown.]",
        },
    ]


THOUGHT: JsonObject = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "encrypted_content": "gAAAA",
}
REPLAY: JsonObject = {
    "by": {"provider": "openai", "model": "gpt-5.6"},
    "items": [
        {"item": THOUGHT},
        {"item": {"type": "message", "role": "assistant", "id": "msg_1"}, "end": 3},
        {"item": {"type": "function_call", "id": "fc_1", "status": "completed"}, "call": "call_1"},
    ],
}
PLAIN = [
    {"type": "message", "role": "assistant", "content": "Hi."},
    {
        "type": "function_call",
        "call_id": "call_1",
        "name": "weather",
        "arguments": '{"city":"Paris"}',
    },
]


def test_thoughts_go_back_in_their_place_to_the_model_that_thought_them() -> None:
    said = asking(ModelSaid("Hi.", calls=(PARIS,), replay=REPLAY))

    assert items(said) == [
        THOUGHT,
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "content": [{"type": "output_text", "text": "Hi.", "annotations": []}],
        },
        {**PLAIN[1], "id": "fc_1", "status": "completed"},
    ]


@pytest.mark.parametrize("maker", [Maker("openai", "gpt-6"), Maker("azure", "gpt-5.6")])
def test_no_other_model_sees_thoughts_or_the_ids_that_hang_on_them(maker: Maker) -> None:
    assert items(asking(ModelSaid("Hi.", calls=(PARIS,), replay=REPLAY)), maker=maker) == PLAIN


@pytest.mark.parametrize(
    "said",
    [
        ModelSaid("Hi, there.", calls=(PARIS,), replay=REPLAY),
        ModelSaid("", calls=(PARIS,), replay=REPLAY),
        ModelSaid("Hi.", calls=(PARIS, ROME), replay=REPLAY),
        ModelSaid("Hi.", replay=REPLAY),
        ModelSaid("Hi.", calls=(PARIS,), replay={"model": "gpt-5.6", "reasoning_details": []}),
        ModelSaid("Hi.", calls=(PARIS,), replay={"by": 3}),
    ],
)
def test_a_reply_that_is_not_what_it_was_is_told_without_its_thoughts(said: ModelSaid) -> None:
    made = items(asking(said))

    assert "rs_1" not in str(made)
    assert "msg_1" not in str(made)
    assert [one["content"] for one in made if one["type"] == "message"] == (
        [said.text] if said.text else []
    )
    assert len([one for one in made if one["type"] == "function_call"]) == len(said.calls)


def test_a_message_that_says_nothing_is_left_out() -> None:
    request = asking(UserSaid("a"), ModelSaid("", thinking="Hm."), UserSaid("b"))

    assert items(request) == [{"type": "message", "role": "user", "content": "a\n\nb"}]


CLOSED: JsonObject = {**SCHEMA, "additionalProperties": False}


def test_tools_are_strict_only_where_their_schemas_are() -> None:
    closed = ToolSpec(name="closed", description="", parameters=CLOSED)

    sent = written(
        Request(system="", transcript=[], tools=[WEATHER, closed]),
        {"strict_schema": True, "parallel_tools": False},
    )
    default = written(Request(system="", transcript=[], tools=[closed]))

    assert [one["strict"] for one in msgspec.convert(sent["tools"], list[dict[str, object]])] == [
        False,
        True,
    ]
    assert sent["parallel_tool_calls"] is False
    assert b'"strict":false' in msgspec.json.encode(default["tools"])


def nested(inner: object, **more: object) -> JsonObject:
    whole: JsonObject = {"type": "object", "properties": {"a": inner}, "required": ["a"]}
    return {**whole, "additionalProperties": False, **more}


REF: JsonObject = {"$ref": "#/$defs/x"}
STRICT: Sequence[JsonObject] = [
    CLOSED,
    nested({"type": ["string", "null"]}),
    nested({"type": "array", "items": CLOSED}),
    nested({"anyOf": [CLOSED, {"type": "null"}]}),
    nested(REF, **{"$defs": {"x": CLOSED}}),
]
LOOSE: Sequence[JsonObject] = [
    SCHEMA,
    nested(SCHEMA),
    nested({"type": "array", "items": SCHEMA}),
    nested({"anyOf": [SCHEMA]}),
    nested(REF, **{"$defs": {"x": SCHEMA}}),
    nested({"type": "string", "default": "x"}),
    nested(None),
    nested({"type": "string"}, required=()),
    nested({"type": "string"}, required=[3]),
]


def test_a_schema_is_strict_when_all_of_it_is() -> None:
    assert [one for one in STRICT if not fits_strict(one)] == []
    assert [one for one in LOOSE if fits_strict(one)] == []
