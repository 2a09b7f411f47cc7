"""What is wanted of an answer reaches each provider in its own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec
import pytest

from hostler.core.events import JsonObject
from hostler.core.ports import Request, ToolSpec
from hostler.core.said import UserSaid
from hostler.core.terms import AS_IT_IS, Wanted
from hostler.models import anthropic_request, chat_request, gemini_request, responses_request
from hostler.models.capabilities import capabilities
from hostler.models.responses_request import Maker

Body: TypeAlias = Callable[[Request], bytes]
OPENAI = capabilities("openai", "https://api.openai.com/v1", "gpt-5")
CLAUDE = capabilities("anthropic", "https://api.anthropic.com", "claude-opus-4-6")
GEMINI = capabilities("gemini", "https://generativelanguage.googleapis.com", "gemini-3-pro")
SCHEMA: JsonObject = {"type": "object", "properties": {"n": {"type": "integer"}}}
TOOL = ToolSpec(name="weather", description="Say it.", parameters={"type": "object"})
SAMPLING = Wanted(temperature=0.5, top_p=0.9, stop=("END",), effort="max")


def chat(request: Request) -> bytes:
    return chat_request.body(request, model="gpt-5", able=OPENAI)


def responses(request: Request) -> bytes:
    return responses_request.body(request, maker=Maker("openai", "gpt-5"), able=OPENAI)


def messages(request: Request) -> bytes:
    return anthropic_request.body(request, model="claude-opus-4-6", able=CLAUDE)


def gemini(request: Request) -> bytes:
    return gemini_request.body(request, model="gemini-3-pro", able=GEMINI)


def added(body: Body, wanted: Wanted, *, tools: bool = False) -> JsonObject:
    """Return what a request has because of what is wanted."""
    transcript, offered = [UserSaid("Hi")], [TOOL] if tools else []
    plain, asked = (
        msgspec.json.decode(body(request), type=dict[str, object])
        for request in (
            Request(system="", transcript=transcript, tools=offered),
            Request(system="", transcript=transcript, tools=offered, wanted=wanted),
        )
    )
    return {name: value for name, value in asked.items() if plain.get(name) != value}


@pytest.mark.parametrize("body", [chat, responses, messages, gemini])
def test_who_wants_nothing_changes_nothing(body: Body) -> None:
    assert added(body, Wanted(), tools=True) == added(body, AS_IT_IS, tools=True) == {}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            chat,
            {"temperature": 0.5, "top_p": 0.9, "stop": ["END"], "reasoning_effort": "xhigh"},
        ),
        (responses, {"temperature": 0.5, "top_p": 0.9, "reasoning": {"effort": "xhigh"}}),
        (
            messages,
            {
                "temperature": 0.5,
                "top_p": 0.9,
                "stop_sequences": ["END"],
                "output_config": {"effort": "max"},
            },
        ),
        (
            gemini,
            {
                "generationConfig": {
                    "temperature": 0.5,
                    "topP": 0.9,
                    "stopSequences": ["END"],
                    "thinkingConfig": {"thinkingLevel": "high"},
                }
            },
        ),
    ],
)
def test_how_to_choose_words_when_to_stop_and_how_much_to_think(
    body: Body, told: JsonObject
) -> None:
    assert added(body, SAMPLING) == told


NAMED: JsonObject = {"name": "answer", "schema": SCHEMA, "strict": True}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (chat, {"response_format": {"type": "json_schema", "json_schema": NAMED}}),
        (responses, {"text": {"format": {"type": "json_schema", **NAMED}}}),
        (messages, {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
        (
            gemini,
            {
                "generationConfig": {
                    "responseMimeType": "application/json",
                    "responseJsonSchema": SCHEMA,
                }
            },
        ),
    ],
)
def test_an_answer_that_fits_a_schema(body: Body, told: JsonObject) -> None:
    assert added(body, Wanted(json=True, json_schema=SCHEMA)) == told


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (chat, {"response_format": {"type": "json_object"}}),
        (responses, {"text": {"format": {"type": "json_object"}}}),
        (messages, {}),
        (gemini, {"generationConfig": {"responseMimeType": "application/json"}}),
    ],
)
def test_an_answer_that_is_any_json(body: Body, told: JsonObject) -> None:
    assert added(body, Wanted(json=True)) == told


def calling(mode: str, *names: str) -> JsonObject:
    allowed = {"allowedFunctionNames": [*names]} if names else {}
    return {"toolConfig": {"functionCallingConfig": {"mode": mode, **allowed}}}


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (
            Wanted(calls="none"),
            [
                {"tool_choice": "none"},
                {"tool_choice": "none"},
                {"tool_choice": {"type": "none"}},
                calling("NONE"),
            ],
        ),
        (
            Wanted(calls="some"),
            [
                {"tool_choice": "required"},
                {"tool_choice": "required"},
                {"tool_choice": {"type": "any"}},
                calling("ANY"),
            ],
        ),
        (
            Wanted(tool="weather"),
            [
                {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
                {"tool_choice": {"type": "function", "name": "weather"}},
                {"tool_choice": {"type": "tool", "name": "weather"}},
                calling("ANY", "weather"),
            ],
        ),
        (
            Wanted(parallel=False),
            [
                {"parallel_tool_calls": False},
                {"parallel_tool_calls": False},
                {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
                {},
            ],
        ),
    ],
)
def test_whether_to_call_tools_which_and_how_many(wanted: Wanted, told: list[JsonObject]) -> None:
    found = [added(body, wanted, tools=True) for body in (chat, responses, messages, gemini)]
    assert found == told
    without = [added(body, wanted) for body in (chat, responses, messages, gemini)]
    assert without == [{}] * 4, "a choice without tools is refused by some"


@pytest.mark.parametrize(
    ("effort", "told"),
    [
        ("none", {"thinking": {"type": "disabled"}}),
        ("minimal", {"output_config": {"effort": "low"}}),
    ],
)
def test_no_thinking_and_hardly_any_are_two_words_of_anthropic(
    effort: str, told: JsonObject
) -> None:
    assert added(messages, Wanted(effort=effort)) == told
