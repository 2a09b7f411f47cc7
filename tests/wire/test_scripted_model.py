"""A script is played as it is written, goes on where its conversation is, and is checked at once."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.errors import SetupError
from hostler.core.events import JsonObject
from hostler.core.ports import Delta, Failure, Model, Reply, Request, ToolSpec
from hostler.core.said import ImagePart, ModelSaid, Said, TextPart, ToolSaid, UserSaid
from hostler.harness.validate import Schema
from hostler.models.scripted import REMEMBERED, Script, ScriptedReply, sample, scripted

pytestmark = pytest.mark.anyio

Part = Delta | Reply | Failure
WEATHER = ToolSpec(
    name="weather",
    description="Say what the weather is.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
        "required": ["city", "days"],
    },
)


def script(folder: Path, *replies: object) -> Model:
    file = folder / "script.json"
    file.write_text(json.dumps(replies))
    return scripted(str(file))


async def played(model: Model, transcript: Sequence[Said], **more: object) -> list[Part]:
    request = Request(system="", transcript=transcript, **more)  # type: ignore[arg-type]
    return [part async for part in model.stream(request)]


async def reply(model: Model, transcript: Sequence[Said], **more: object) -> Reply:
    last = (await played(model, transcript, **more))[-1]
    assert isinstance(last, Reply), last
    return last


def said(one: Reply) -> list[Said]:
    calls = [ToolSaid(call=call, output="done") for call in one.calls]
    return [ModelSaid(text=one.text, calls=one.calls), *calls]


async def test_a_reply_streams_its_thinking_its_words_and_its_calls_in_this_order(
    tmp_path: Path,
) -> None:
    calls = [{"name": "weather", "arguments": {"city": "Paris"}}, {"name": "clock"}]
    model = script(tmp_path, {"thinking": "Let me see.", "text": "I look.\n", "calls": calls})

    *deltas, last = await played(model, [UserSaid("hi")])

    assert isinstance(last, Reply)
    assert [(d.part, d.text, d.name) for d in deltas if isinstance(d, Delta)] == [
        ("thinking", "Let ", None),
        ("thinking", "me ", None),
        ("thinking", "see.", None),
        ("text", "I ", None),
        ("text", "look.\n", None),
        ("arguments", '{"city":"Paris"}', "weather"),
        ("arguments", "{}", "clock"),
    ]
    assert (last.text, last.thinking, last.stop) == ("I look.\n", "Let me see.", "tools")
    assert [(call.name, call.arguments) for call in last.calls] == [
        ("weather", {"city": "Paris"}),
        ("clock", {}),
    ]
    assert [d.call for d in deltas if isinstance(d, Delta) and d.part == "arguments"] == [
        call.id for call in last.calls
    ]


async def test_the_replies_come_one_after_the_other_and_then_it_says_that_they_are_all_played(
    tmp_path: Path,
) -> None:
    model = script(tmp_path, {"text": "one"}, {"calls": [{"name": "clock"}]}, {"text": "three"})
    transcript: list[Said] = [UserSaid("go")]
    texts: list[str] = []
    for _ in range(3):
        answer = await reply(model, transcript)
        texts.append(answer.text)
        transcript += said(answer)

    (last,) = await played(model, transcript)

    assert texts == ["one", "", "three"]
    assert isinstance(last, Failure)
    assert (last.code, last.again) == ("unavailable", False)
    assert "has 3 replies, all played" in last.message
    assert "script.json" in last.message


async def test_where_it_is_can_be_read_off_a_conversation_by_another_process(
    tmp_path: Path,
) -> None:
    first = script(tmp_path, {"text": "one"}, {"text": "two"})
    transcript = [UserSaid("go"), *said(await reply(first, [UserSaid("go")])), UserSaid("on")]

    again = script(tmp_path, {"text": "one"}, {"text": "two"})

    assert (await reply(again, transcript)).text == "two"
    assert (await reply(again, [UserSaid("go")])).text == "one", "a fork begins where it begins"


async def test_an_error_comes_once_after_what_was_said_before_it(tmp_path: Path) -> None:
    model = script(
        tmp_path,
        {"text": "half a", "error": "overloaded"},
        {"error": {"code": "rate_limit", "retry_after_s": 2.5, "message": "slow down"}},
        {"error": {"code": "auth", "again": True}},
        {"text": "whole"},
    )

    failures = [await played(model, [UserSaid("go")], session="ses_1") for _ in range(3)]
    last = await reply(model, [UserSaid("go")], session="ses_1")

    assert [part.text for part in failures[0][:-1] if isinstance(part, Delta)] == ["half ", "a"]
    assert [cast("Failure", parts[-1]) for parts in failures] == [
        Failure(code="overloaded", message="the script says so", again=True),
        Failure(code="rate_limit", message="slow down", again=True, retry_after_s=2.5),
        Failure(code="auth", message="the script says so", again=True),
    ]
    assert last.text == "whole"


async def test_each_session_has_its_own_place_among_the_errors(tmp_path: Path) -> None:
    model = script(tmp_path, {"error": "server"}, {"text": "one"}, {"error": "auth"})

    first = [(await played(model, [UserSaid("go")], session=f"ses_{n}"))[-1] for n in range(3)]
    second = [await reply(model, [UserSaid("go")], session=f"ses_{n}") for n in range(3)]
    (last,) = await played(model, [UserSaid("go"), *said(second[0])], session="ses_0")

    assert [type(one) for one in first] == [Failure] * 3
    assert [one.text for one in second] == ["one"] * 3
    assert isinstance(last, Failure)
    assert (last.code, last.again) == ("auth", False)


def test_sessions_without_number_do_not_fill_the_memory() -> None:
    script = Script("s", [ScriptedReply(error="server"), ScriptedReply(text="one")])
    for number in range(REMEMBERED + 50):
        script.choose(Request(system="", transcript=[UserSaid("go")], session=f"ses_{number}"))

    assert len(script._passed) == REMEMBERED


async def test_a_delay_is_spread_over_the_words(tmp_path: Path) -> None:
    model = script(tmp_path, {"text": "one two three", "delay_s": 0.15})
    began, came = time.monotonic(), list[float]()

    async for part in model.stream(Request(system="", transcript=[UserSaid("go")])):
        if isinstance(part, Delta):
            came.append(time.monotonic() - began)

    assert [round(at * 20) >= n for n, at in enumerate(came, 1)] == [True] * 3


async def test_a_delay_can_be_cancelled(tmp_path: Path) -> None:
    model = script(tmp_path, {"delay_s": 3600})
    with anyio.move_on_after(0.01) as scope:
        await played(model, [UserSaid("go")])
    assert scope.cancelled_caught


async def test_a_long_reply_lets_others_have_their_turn(tmp_path: Path) -> None:
    model = script(tmp_path, {"text": "word " * 10_000})
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        assert (await reply(model, [UserSaid("go")])).text == "word " * 10_000
        tasks.cancel_scope.cancel()
    assert turns > 100


# -- demo ------------------------------------------------------------------------------------


async def test_the_demo_echoes() -> None:
    model = scripted("demo")
    picture = UserSaid(
        (TextPart(text="Look:"), ImagePart(media_type="image/png", data="iVBORw0KGgo="))
    )

    assert (await reply(model, [UserSaid("Hello  there")])).text == "Hello  there"
    assert (await reply(model, [picture])).text == "Look: [image]"


async def test_the_demo_calls_the_first_tool_once_for_each_thing_said() -> None:
    model, transcript = scripted("demo"), list[Said]()
    stops: list[str] = []
    for words in ("first", "second"):
        transcript.append(UserSaid(words))
        for _ in range(2):
            answer = await reply(model, transcript, tools=[WEATHER])
            stops.append(answer.stop)
            if answer.calls:
                assert answer.calls[0].name == "weather"
                assert answer.calls[0].arguments == {"city": words, "days": 2}
            transcript += said(answer)

    assert stops == ["tools", "end"] * 2


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"properties": {"a": {"type": ["integer", "null"]}}, "required": ["a"]},
        {
            "properties": {"a": {"$ref": "#/$defs/A"}},
            "required": ["a"],
            "$defs": {"A": {"const": 5}},
        },
        {
            "properties": {"a": {"anyOf": [{"type": "boolean"}, {"type": "null"}]}},
            "required": ["a"],
        },
        {"properties": {"a": {"type": "array", "items": {"type": "number"}, "minItems": 2}}},
        {"properties": {"a": {"enum": ["x", "y"]}, "b": {"default": None}}, "required": ["a", "b"]},
        {"properties": {"a": {"type": "string", "maxLength": 3}}, "required": ["a"]},
    ],
)
def test_the_demo_makes_arguments_that_fit(schema: JsonObject) -> None:
    made = sample({"type": "object"} | schema, "some words")

    fitted = Schema("tool", {"type": "object"} | schema).fit(cast("JsonObject", made))
    assert fitted.repairs == ()


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "properties", "required", "items", "$ref", "anyOf", "minItems", "enum"]
                )
                | st.text(),
                inner | st.sampled_from(["#", "#/properties", "object", "array"]),
            )
        ),
    )
)
@settings(max_examples=100, deadline=None)
def test_what_is_no_schema_makes_no_trouble(schema: object) -> None:
    sample(cast("JsonObject", schema), "words")


def test_a_schema_that_holds_itself_has_an_end() -> None:
    inner: JsonObject = {"properties": {"again": {"$ref": "#"}}, "required": ["again"]}
    assert isinstance(sample(inner, "words"), dict)


# -- files that are no scripts ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[oops", "is no script: JSON is malformed"),
        ('{"text": "hi"}', "Expected `array`"),
        ('[{"text": "hi"}, {"txt": "hi"}]', r"unknown field `txt` - at `\$\[1\]`"),
        ('[{"text": 5}]', r"at `\$\[0\].text`"),
        ('[{"calls": [{"arguments": {}}]}]', r"missing required field `name` - at `\$\[0\].calls"),
        ('[{"error": "bored"}]', r"at `\$\[0\].error`.*codes of an error are auth, rate_limit"),
        ('[{"error": "auth", "calls": [{"name": "a"}]}]', r"\$\[0\] has both `calls` and `error`"),
        ('[{"delay_s": -1}]', r"at `\$\[0\].delay_s`"),
        ("[" * 100_000, "is no script"),
        ("\udcff", "is no script"),
    ],
)
def test_a_file_that_is_no_script_is_refused_with_the_place(
    tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(SetupError, match=told) as refused:
        scripted(str(file))

    assert str(file) in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"nothing\.json cannot be read: No such file"):
        scripted(str(tmp_path / "nothing.json"))
    with pytest.raises(SetupError, match="cannot be read: Is a directory"):
        scripted(str(tmp_path))
