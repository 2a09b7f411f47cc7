"""Calls that a model writes into its text are found, in every form and however the text is cut."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import cast

import jsonschema_rs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hostler.core.events import CallId, JsonObject, Stop, ToolCall
from hostler.core.ports import Delta, Failure, Reply, Request, ToolSpec
from hostler.core.said import ModelSaid, Said, TextPart, ToolSaid, UserSaid
from hostler.models.markup import DEEPEST, LONGEST_LOOSE, MOST_UNFINISHED, Finder
from hostler.models.prompted import Prompted, by_response_format, named

pytestmark = pytest.mark.anyio

PARAMETERS: JsonObject = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
WEATHER = ToolSpec(name="get_weather", description="The weather.", parameters=PARAMETERS)
CLOCK = ToolSpec(name="clock", description="The time.", parameters={"type": "object"})
PARIS = ("get_weather", {"city": "Paris"})
ROME = ("get_weather", {"city": "Rome"})

Found = tuple[str, list[tuple[str, JsonObject]]]


def find(pieces: Sequence[str], *, cut: bool = False) -> Found:
    """Return what is shown of a message, and its calls."""
    finder = Finder(["get_weather", "clock"])
    shown = "".join([*map(finder.feed, pieces), finder.end(cut=cut)])
    return shown, [(call.name, call.arguments) for call in finder.calls]


def however_cut(text: str) -> Found:
    """Return what is found in a text, having seen that it is the same for every way to cut it in two
    or three, and letter by letter."""
    whole = find([text])
    for i in range(len(text) + 1):
        assert find([text[:i], text[i:]]) == whole, (text[:i], text[i:])
        assert find([text[:i], text[i : i + 3], text[i + 3 :]]) == whole
    assert find(list(text)) == whole
    return whole


CALL = '{"name": "get_weather", "arguments": {"city": "Paris"}}'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # Hermes, Qwen 2.5 and 3
        (f"<tool_call>\n{CALL}\n</tool_call>", ""),
        (f"I look.\n<tool_call>{CALL}</tool_call> And made up this.", "I look.\n"),
        (f"<tool_call>\n{CALL}", ""),
        (f"<|tool_call|>{CALL}<|/tool_call|>", ""),
        # Mistral, before and after its tokenizer v11
        (f"[TOOL_CALLS][{CALL}]", ""),
        (f"[TOOL_CALLS] {CALL}", ""),
        ('[TOOL_CALLS]get_weather{"city": "Paris"}', ""),
        ('[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}', ""),
        ('[TOOL_CALLS]get_weather[CALL_ID]abc123XYZ[ARGS]{"city": "Paris"}', ""),
        # Llama 3.1 and 3.2
        ('<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}', ""),
        ('<function=get_weather>{"city": "Paris"}</function>', ""),
        ('{"name": "get_weather", "parameters": {"city": "Paris"}}', ""),
        ('{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}', ""),
        # Markdown, as small coders do
        (f"Sure!\n```json\n{CALL}\n```\nThat is it.", "Sure!\n"),
        (f"```\n{CALL}\n```", ""),
        (f"```tool_call\n[{CALL}]\n```", ""),
        # as others write it
        (CALL, ""),
        (f"\n  {CALL}\n", "\n  "),
        (f"[{CALL}]", ""),
        ('{"tool": "get_weather", "arguments": {"city": "Paris"}}', ""),
        ('{"function": "get_weather", "arguments": {"city": "Paris"}}', ""),
        ('{"id": "1", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}', ""),
        (
            '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
            "",
        ),
    ],
)
def test_a_call_is_found_in_every_form_and_nothing_of_it_is_shown(text: str, shown: str) -> None:
    found, calls = however_cut(text)

    assert calls == [PARIS]
    assert found.rstrip() == shown.rstrip()


def test_several_calls_are_found_in_their_order() -> None:
    rome = CALL.replace("Paris", "Rome")
    for text in (
        f"<tool_call>{CALL}</tool_call>\n<tool_call>{rome}</tool_call>",
        f"[TOOL_CALLS][{CALL}, {rome}]",
        f"<tool_call>[{CALL},{rome}]</tool_call>",
        f"```json\n[{CALL},\n{rome}]\n```",
        f"{CALL}; {rome}",
        f"{CALL}\n{rome}",
    ):
        assert however_cut(text) == ("", [PARIS, ROME]), text


@pytest.mark.parametrize(
    "text",
    [
        "Hello.",
        "",
        "   \n",
        "1 < 2 and [3] are `code` {x}",
        "<tool_cal",
        "[TOOL_CALL]",
        "Use <tool_call> to call a tool.",
        "```python\nprint({'a': 1})\n```",
        '```json\n{"name": "Bob", "age": 5}\n```',
        '```json\n{"name": "Bob", "arguments": {}}\n```',
        '{"name": "Bob", "arguments": {"x": 1}}',
        '{"city": "Paris"}',
        '[1, 2, {"name": "get_weather"}]',
        '{"name": "get_weather"}',
        "[link](https://example.org) ``` not at a line's start ```",
        'Here it is: {"name": "get_weather", "arguments": {"city": "Paris"}}',
        "```",
        "``` ```json\n{",
        '{"name": "cl',
    ],
)
def test_text_that_only_looks_like_a_call_is_shown_as_it_is(text: str) -> None:
    assert however_cut(text) == (text, [])


MARKS = ["<", "[", "`", "{", "}", '"', "\\", "\n", " ", "name", "<tool", "_call>", "```", "TOOL_"]


@given(
    st.lists(st.sampled_from(MARKS) | st.text(max_size=5), max_size=30),
    st.lists(st.integers(0, 120), max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_any_text_is_the_same_however_it_is_cut(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    places = [0, *sorted(cuts), len(text) + 120]
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]

    assert find(pieces) == find([text]) == find(list(text))


@given(
    st.lists(st.sampled_from([*MARKS, "_call", "get_weather"]) | st.text(max_size=8), max_size=30),
    st.integers(1, 7),
)
@settings(max_examples=150, deadline=None)
def test_text_without_a_call_comes_out_unchanged(parts: list[str], size: int) -> None:
    text = "".join(parts)
    tags = ("<tool_call>", "<|tool_call|>", "[TOOL_CALLS]", "<|python_tag|>", "<function=")
    assume(not any(tag in text for tag in tags))
    finder = Finder(["no such name is in it"])

    shown = [finder.feed(text[i : i + size]) for i in range(0, len(text), size)]

    assert "".join(shown) + finder.end(cut=False) == text


def test_text_that_cannot_be_a_call_is_not_held_back() -> None:
    finder = Finder(["get_weather"])

    assert [finder.feed(word) for word in ("Hel", "lo <b>", " 3 <", " 4")] == [
        "Hel",
        "lo <b>",
        " 3 ",
        "< 4",
    ]


def test_broken_arguments_are_kept_as_they_were_written() -> None:
    for text, unparsed in (
        (
            '<tool_call>{"name": "get_weather", "arguments": {city: Paris}}</tool_call>',
            "{city: Paris}",
        ),
        (
            '<tool_call>{"name": "get_weather", "arguments": {"city": "Pa</tool_call>',
            '{"city": "Pa',
        ),
    ):
        finder = Finder(["get_weather"])
        assert finder.feed(text) + finder.end(cut=False) == ""
        (call,) = finder.calls
        assert (call.name, call.arguments) == ("get_weather", {})
        assert call.unparsed is not None
        assert call.unparsed.startswith(unparsed)


def test_a_call_that_a_limit_cut_off_is_marked_so() -> None:
    finder = Finder(["get_weather"])
    text = 'I look. <tool_call>{"name": "get_weather", "arguments": {"city": "Par'

    assert finder.feed(text) + finder.end(cut=True) == "I look. "
    (call,) = finder.calls
    assert (call.name, call.cut, call.unparsed) == ("get_weather", True, '{"city": "Par')


def test_what_is_hostile_takes_no_time_and_no_stack() -> None:
    for text in (
        "<tool_call>" + "[" * 100_000,
        '<tool_call>{"name": "clock", "arguments": ' + '{"a":' * (DEEPEST + 1),
        "<tool_call>" * 5_000,
        "```json\n{" * 5_000,
        "<tool_call>" + "x" * (3 * LONGEST_LOOSE),
        "[TOOL_CALLS]" * (MOST_UNFINISHED * 50),
        " " * 200_000 + "{",
    ):
        finder = Finder(["clock"])
        for i in range(0, len(text), 997):
            finder.feed(text[i : i + 997])
        finder.end(cut=False)


# -- the model around it ---------------------------------------------------------------------


@dataclass
class Writes:
    """A model without tools that writes what it is told to, in pieces."""

    text: str
    size: int = 4
    stop: Stop = "end"
    streams: bool = True
    provider: str = "inner"
    name: str = "writes"
    asked: list[Request] = field(default_factory=list[Request])
    is_closed: bool = False

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        self.asked.append(request)
        yield Delta("thinking", "Hm.")
        for i in range(0, len(self.text) if self.streams else 0, self.size):
            yield Delta("text", self.text[i : i + self.size])
        yield Reply(text=self.text, stop=self.stop, thinking="Hm.")

    async def aclose(self) -> None:
        self.is_closed = True


async def asked(
    model: Prompted, *transcript: Said, tools: Sequence[ToolSpec] = (WEATHER, CLOCK)
) -> tuple[str, Reply, list[Delta]]:
    """Return the text that was shown, the reply, and all deltas."""
    said = transcript or (UserSaid("What is the weather in Paris?"),)
    request = Request(system="Be brief.", transcript=said, tools=tools)
    *deltas, reply = [part async for part in model.stream(request)]
    assert isinstance(reply, Reply)
    assert all(isinstance(one, Delta) for one in deltas)
    shown = [one for one in deltas if isinstance(one, Delta)]
    return "".join(one.text for one in shown if one.part == "text"), reply, shown


@pytest.mark.parametrize("streams", [True, False])
async def test_a_written_call_becomes_an_ordinary_call(streams: bool) -> None:  # noqa: FBT001
    inner = Writes(f"I look.\n<tool_call>\n{CALL}\n</tool_call>", streams=streams)

    shown, reply, deltas = await asked(Prompted(inner))

    assert (shown, reply.text, reply.stop, reply.thinking) == (
        "I look.\n",
        "I look.\n",
        "tools",
        "Hm.",
    )
    (call,) = reply.calls
    assert (call.name, call.arguments) == PARIS
    assert deltas[0] == Delta("thinking", "Hm.")
    assert deltas[-1] == Delta("arguments", '{"city":"Paris"}', call.id, "get_weather")


async def test_the_tools_are_described_in_words_and_not_handed_over() -> None:
    inner = Writes("Hello.")

    await asked(Prompted(inner))

    (told,) = inner.asked
    assert (told.tools, told.options) == ((), {})
    assert told.system.startswith("Be brief.\n\n# Tools")
    assert json.dumps(PARAMETERS, separators=(",", ":")) in told.system
    assert "<tool_call>" in told.system


async def test_without_tools_nothing_is_added_and_nothing_is_looked_for() -> None:
    inner = Writes(f"<tool_call>{CALL}</tool_call>")

    shown, reply, _ = await asked(Prompted(inner, constrain=by_response_format), tools=())

    assert shown == reply.text == inner.text
    assert (reply.calls, reply.stop) == ((), "end")
    assert (inner.asked[0].system, inner.asked[0].options) == ("Be brief.", {})


async def test_a_reply_cut_by_a_limit_keeps_its_stop() -> None:
    inner = Writes('<tool_call>{"name": "clock", "arguments": {', stop="length")

    _, reply, _ = await asked(Prompted(inner))

    assert reply.stop == "length"
    assert reply.calls[0].cut


async def test_a_failure_is_passed_on_after_what_came_before_it() -> None:
    class Fails(Writes):
        async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
            del request
            yield Delta("text", "Half <tool_")
            yield Failure(code="truncated", message="cut", again=True)

    request = Request(system="", transcript=[UserSaid("hi")], tools=[CLOCK])

    parts = [part async for part in Prompted(Fails("")).stream(request)]

    assert parts == [Delta("text", "Half "), Failure(code="truncated", message="cut", again=True)]


HISTORY = (
    UserSaid("What is the weather?"),
    ModelSaid(
        text="I look.", calls=(ToolCall(id=CallId("call_1"), name="clock", arguments={"a": 1}),)
    ),
    ToolSaid(
        call=ToolCall(id=CallId("call_1"), name="clock", arguments={}),
        output="12 </tool_response> o'clock",
    ),
    UserSaid((TextPart(text="And now?"),)),
)


async def test_what_was_called_before_is_told_in_words_with_roles_that_alternate() -> None:
    inner = Writes("Noon.")

    await asked(Prompted(inner), *HISTORY)

    first, second, third = inner.asked[0].transcript
    assert first == HISTORY[0]
    assert second == ModelSaid(
        text='I look.\n<tool_call>\n{"name":"clock","arguments":{"a":1}}\n</tool_call>'
    )
    assert isinstance(third, UserSaid)
    response, now = cast("tuple[TextPart, TextPart]", third.content)
    assert now.text == "And now?"
    inside = response.text.removeprefix("<tool_response>\n").removesuffix("\n</tool_response>")
    assert "</" not in inside
    assert json.loads(inside) == {"name": "clock", "content": "12 </tool_response> o'clock"}


async def test_it_closes_the_model_inside() -> None:
    inner = Writes("")
    await Prompted(inner).aclose()
    assert inner.is_closed


# -- with a grammar --------------------------------------------------------------------------


def schema_of(inner: Writes) -> JsonObject:
    wanted = cast("dict[str, JsonObject]", inner.asked[0].options["response_format"])
    assert inner.asked[0].options.keys() == {"response_format"}
    return cast("JsonObject", wanted["json_schema"]["schema"])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(
    "said",
    ["", "Hello.", 'Quotes " and \\ and / and \n\t.', "é 🙂 漢", "{}[]", "<tool_call>", "</s>"],
)
async def test_what_it_says_is_shown_while_it_is_written(said: str, size: int) -> None:
    for text in (
        json.dumps({"say": said}),
        json.dumps({"say": said}, ensure_ascii=False),
        json.dumps({"say": said}, indent=1),
    ):
        shown, reply, deltas = await asked(
            Prompted(Writes(text, size=size), constrain=by_response_format)
        )

        assert shown == reply.text == said
        assert (reply.calls, reply.stop) == ((), "end")
        assert size > 1 or len(deltas) >= len(said)


async def test_a_constrained_call_becomes_an_ordinary_call() -> None:
    inner = Writes('{"tool": "get_weather", "arguments": {"city": "Paris"}}')

    shown, reply, _ = await asked(Prompted(inner, constrain=by_response_format))

    assert (shown, reply.stop) == ("", "tools")
    assert [(call.name, call.arguments) for call in reply.calls] == [PARIS]


async def test_the_grammar_allows_what_can_be_said_and_called_and_nothing_else() -> None:
    inner = Writes('{"say": ""}')
    await asked(Prompted(inner, constrain=by_response_format))
    fits = jsonschema_rs.validator_for(schema_of(inner)).is_valid

    assert fits({"say": "Hello"})
    assert fits({"tool": "get_weather", "arguments": {"city": "Paris"}})
    assert fits({"tool": "clock", "arguments": {}})
    assert not fits({"tool": "get_weather", "arguments": {"town": "Paris"}})
    assert not fits({"tool": "other", "arguments": {}})
    assert not fits({"say": "Hello", "tool": "clock"})


async def test_definitions_of_a_schema_move_with_it() -> None:
    tree: JsonObject = {
        "type": "object",
        "properties": {"root": {"$ref": "#/$defs/Node"}},
        "required": ["root"],
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {"next": {"$ref": "#/$defs/Node"}, "n": {"type": "integer"}},
                "required": ["n"],
            }
        },
    }
    inner = Writes('{"say": ""}')
    tool = ToolSpec(name="tree", description="", parameters=tree)
    await asked(Prompted(inner, constrain=by_response_format), tools=[CLOCK, tool])
    fits = jsonschema_rs.validator_for(schema_of(inner)).is_valid

    assert fits({"tool": "tree", "arguments": {"root": {"n": 1, "next": {"n": 2}}}})
    assert not fits({"tool": "tree", "arguments": {"root": {"n": 1, "next": {"n": "2"}}}})


async def test_a_server_that_drops_the_grammar_is_read_as_without_one() -> None:
    for text, shown, calls in (
        ("Hello there.", "Hello there.", []),
        (f"Well.\n<tool_call>{CALL}</tool_call>", "Well.\n", [PARIS]),
        (f"```json\n{CALL}\n```", "", [PARIS]),
        ('{"answer": 5}', '{"answer": 5}', []),
        ('{"say', '{"say', []),
        ('{"say": "cut off', "cut off", []),
    ):
        told, reply, _ = await asked(Prompted(Writes(text), constrain=by_response_format))
        assert told.rstrip() == reply.text.rstrip() == shown.rstrip()
        assert [(call.name, call.arguments) for call in reply.calls] == calls


async def test_half_a_character_is_never_shown() -> None:
    text = r'{"say": "\ud83d\ude42 \ud83d"}'
    for size in range(1, 12):
        shown, _, _ = await asked(Prompted(Writes(text, size=size), constrain=by_response_format))
        assert shown == "🙂 \ufffd", size


async def test_a_small_model_must_call_the_tool_that_the_user_names() -> None:
    inner = Writes('{"tool": "get_weather", "arguments": {"city": "Paris"}}')
    model = Prompted(inner, constrain=by_response_format, offer=named)

    _, reply, _ = await asked(model, UserSaid("Use the weather tool for Paris."))

    assert reply.calls[0].name == "get_weather"
    fits = jsonschema_rs.validator_for(schema_of(inner)).is_valid
    assert fits({"tool": "get_weather", "arguments": {"city": "Paris"}})
    assert not fits({"say": "No."})
    assert not fits({"tool": "clock", "arguments": {}})


async def test_a_small_model_is_offered_no_tool_that_the_user_does_not_name() -> None:
    inner = Writes("Paris.")

    shown, reply, _ = await asked(
        Prompted(inner, constrain=by_response_format, offer=named), UserSaid("Capital of France?")
    )

    assert shown == reply.text == "Paris."
    assert inner.asked[0].options == {}
