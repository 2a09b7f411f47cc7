"""A Python function is a tool: from its signature to what a model reads of its result."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum, IntEnum
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import pytest

from hostler.core.errors import SetupError, ToolError
from hostler.core.events import (
    CallId,
    JsonObject,
    RunId,
    RunKey,
    SessionId,
    TenantId,
)
from hostler.core.ports import CallContext, Tool
from hostler.harness.toolbox import Toolbox
from hostler.tools.function import function_tool, tool

pytestmark = pytest.mark.anyio

RUN = RunKey(TenantId("default"), SessionId("ses_1"), RunId("run_1"))
CONTEXT = CallContext(call=CallId("call_1"), key=RUN)


class Unit(Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Place:
    city: str
    country: str | None = None


class Leg(msgspec.Struct):
    to: Place
    stops: list[Leg] = []


def shown(function: Callable[..., object]) -> JsonObject:
    properties = function_tool(function).spec.parameters["properties"]
    return msgspec.convert(properties, JsonObject)


# -- the two faces of a tool -----------------------------------------------------------------


@tool
async def weather(city: str, days: int = 1) -> str:
    """Say what the weather is in a city."""
    return f"sunny in {city} for {days}"


@tool(name="adder", description="Adds.", timeout_s=3, twice="safe", effects="read")
def add(a: int, b: int) -> int:
    return a + b


async def test_a_tool_called_as_the_function_is_the_function() -> None:
    assert await weather("Paris", days=3) == "sunny in Paris for 3"
    assert add(1, b=2) == 3
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        add(1)  # pyright: ignore[reportCallIssue]


async def test_a_tool_called_with_arguments_and_a_context_is_the_tool() -> None:
    port: Tool = weather
    assert await port({"city": "Paris"}, CONTEXT) == "sunny in Paris for 1"
    assert await port(arguments={"city": "Paris"}, context=CONTEXT) == "sunny in Paris for 1"
    assert await add({"a": 1, "b": 2}, CONTEXT) == "3"


async def test_a_function_that_takes_what_a_tool_is_called_with_can_still_be_reached() -> None:
    def echo(value: JsonObject, context: CallContext) -> JsonObject:
        return {**value, "call": context.call}

    one = function_tool(echo)
    assert await one({"value": {"a": 1}}, CONTEXT) == '{"a":1,"call":"call_1"}'
    assert one.function({"a": 1}, CONTEXT) == {"a": 1, "call": "call_1"}


def test_a_bare_tool_is_named_and_described_by_its_function_and_assumed_to_be_dangerous() -> None:
    spec = weather.spec
    assert (spec.name, spec.description) == ("weather", "Say what the weather is in a city.")
    assert (spec.timeout_s, spec.twice, spec.effects) == (60.0, "never", "write")


def test_what_the_decorator_says_wins() -> None:
    spec = add.spec
    assert (spec.name, spec.description, spec.timeout_s) == ("adder", "Adds.", 3)
    assert (spec.twice, spec.effects) == ("safe", "read")


# -- the schema ------------------------------------------------------------------------------


def test_the_signature_is_the_schema() -> None:
    assert weather.spec.parameters == {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
        "required": ["city"],
        "additionalProperties": False,
    }


def test_every_kind_of_hint_has_its_schema() -> None:
    def all_of_them(
        place: Place,
        unit: Unit,
        level: Level,
        size: Literal["s", "m"],
        maybe: int | None,
        words: list[str],
        prices: dict[str, float],
        percent: Annotated[int, msgspec.Meta(ge=0, description="Of the whole.")],
        anything: Any,
        everything: object,
        day: date,
    ) -> None: ...

    spec = function_tool(all_of_them).spec
    assert spec.parameters["properties"] == {
        "place": {"$ref": "#/$defs/Place"},
        "unit": {"$ref": "#/$defs/Unit"},
        "level": {"$ref": "#/$defs/Level"},
        "size": {"enum": ["m", "s"]},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "words": {"type": "array", "items": {"type": "string"}},
        "prices": {"type": "object", "additionalProperties": {"type": "number"}},
        "percent": {"type": "integer", "minimum": 0, "description": "Of the whole."},
        "anything": {},
        "everything": {"title": "anything"},
        "day": {"type": "string", "format": "date"},
    }
    assert sorted(msgspec.convert(spec.parameters["$defs"], JsonObject)) == [
        "Level",
        "Place",
        "Unit",
    ]
    Toolbox([function_tool(all_of_them)], spill_folder=None)


def test_the_docstring_describes_the_parameters_in_google_style() -> None:
    def book(place: Place, nights: int = 1, *, note: str = "") -> None:
        """Book a room.

        Pays at once.

        Args:
            place: Where to stay,
                as exactly as you can.

                A city is enough.
            nights (int, optional): How long: at least one.
            unknown: Nothing like it.

        Returns:
            What was booked.
        """

    spec = function_tool(book).spec
    assert spec.description == "Book a room.\n\nPays at once.\n\nReturns:\n    What was booked."
    properties = shown(book)
    assert properties["place"] == {
        "$ref": "#/$defs/Place",
        "description": "Where to stay, as exactly as you can. A city is enough.",
    }
    nights = {"type": "integer", "default": 1, "description": "How long: at least one."}
    assert properties["nights"] == nights
    assert properties["note"] == {"type": "string", "default": ""}


def test_the_docstring_describes_the_parameters_in_rest_style() -> None:
    def book(place: str, nights: int) -> None:
        """Book a room.

        :param place: Where to stay,
            as exactly as you can.
        :type place: str
        :param int nights: How long.
        :returns: What was booked.
        :raises ValueError: Never.
        """

    assert function_tool(book).spec.description == "Book a room."
    properties = msgspec.convert(shown(book), dict[str, dict[str, str]])
    assert properties["place"]["description"] == "Where to stay, as exactly as you can."
    assert properties["nights"]["description"] == "How long."


def test_a_description_at_the_hint_wins_over_the_docstring() -> None:
    def book(nights: Annotated[int, msgspec.Meta(description="At the hint.")]) -> None:
        """Book.

        Args:
            nights: In the docstring.
        """

    assert shown(book) == {"nights": {"type": "integer", "description": "At the hint."}}


def test_a_default_that_is_no_json_is_the_function_s_own_affair() -> None:
    nothing = object()

    def find(word: str, start: object = nothing, unit: Unit = Unit.CELSIUS) -> None: ...

    properties = shown(find)
    assert properties["start"] == {"title": "anything"}
    assert properties["unit"] == {"$ref": "#/$defs/Unit", "default": "celsius"}
    assert function_tool(find).spec.parameters["required"] == ["word"]


def test_the_context_is_hidden_from_the_model() -> None:
    def charge(amount: int, context: CallContext) -> None: ...

    assert shown(charge) == {"amount": {"type": "integer"}}


class Holder:
    def method(self, word: str) -> str:
        return word * 2


async def test_a_method_that_is_bound_is_a_function_too() -> None:
    assert await function_tool(Holder().method)({"word": "a"}, CONTEXT) == "aa"


def hinted(**hints: object) -> Callable[..., object]:
    """Return a function of one parameter, `word`, with these hints."""

    def function(word: str) -> None: ...

    function.__annotations__ = hints
    return function


def many(*words: str) -> None: ...


def named(**words: str) -> None: ...


def two_contexts(a: CallContext, b: CallContext) -> None: ...


def yields() -> Iterator[str]:
    yield "a"


async def yields_later() -> AsyncIterator[str]:
    yield "a"


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (hinted(), "parameter word has no type hint"),
        (hinted(word=Callable[[], None]), "make no JSON Schema"),
        (hinted(word=Place | Leg), "make no JSON Schema"),
        (hinted(word="Nowhere"), "type hints cannot be read.*Nowhere"),
        (many, r"cannot send \*words"),
        (named, r"cannot send \*words"),
        (two_contexts, "a and b are both the CallContext"),
        (yields, "must return its result"),
        (yields_later, "must return its result"),
        (Holder.method, "parameter self has no type hint"),
        (partial(hinted(), 1), "made of a function, not of partial"),
        (Holder(), "made of a function, not of Holder"),
    ],
)
def test_a_function_that_no_model_could_call_is_an_error_when_the_tool_is_made(
    function: Callable[..., object], told: str
) -> None:
    with pytest.raises(SetupError, match=told):
        tool(function)


# -- the arguments ---------------------------------------------------------------------------


async def test_the_function_gets_what_its_hints_say() -> None:
    got: list[object] = []

    def travel(
        leg: Leg, unit: Unit, level: Level, day: date, price: Decimal, tags: set[str], more: object
    ) -> None:
        got.extend([leg, unit, level, day, price, tags, more])

    arguments: JsonObject = {
        "leg": {"to": {"city": "Paris"}, "stops": [{"to": {"city": "Lyon", "country": "FR"}}]},
        "unit": "celsius",
        "level": 2,
        "day": "2026-11-21",
        "price": "1.10",
        "tags": ["a", "a"],
        "more": {"x": [1]},
    }
    assert await function_tool(travel)(arguments, CONTEXT) == "Done."
    assert got == [
        Leg(to=Place("Paris"), stops=[Leg(to=Place("Lyon", "FR"))]),
        Unit.CELSIUS,
        Level.HIGH,
        date(2026, 11, 21),
        Decimal("1.10"),
        {"a"},
        {"x": [1]},
    ]


async def test_what_was_not_sent_is_the_function_s_own_default() -> None:
    nothing, got = object(), list[object]()

    def find(word: str = "a", start: object = nothing, /, *, end: Place = Place("Lyon")) -> None:  # noqa: B008
        got.append((word, start, end))

    await function_tool(find)({"start": 3}, CONTEXT)
    await function_tool(find)({}, CONTEXT)
    assert got == [("a", 3, Place("Lyon")), ("a", nothing, Place("Lyon"))]


def first(context: CallContext, amount: int) -> list[object]:
    return [context.call, amount]


def last(amount: int, *, context: CallContext) -> list[object]:
    return [context.call, amount]


def by_position(amount: int, context: CallContext, /) -> list[object]:
    return [context.call, amount]


@pytest.mark.parametrize("function", [first, last, by_position])
async def test_the_context_is_filled_in_wherever_it_stands(
    function: Callable[..., object],
) -> None:
    assert await function_tool(function)({"amount": 3}, CONTEXT) == '["call_1",3]'


async def test_a_model_cannot_fill_in_the_context() -> None:
    def charge(amount: int, context: CallContext) -> None: ...

    with pytest.raises(ToolError, match="unknown field `context`"):
        await function_tool(charge)({"amount": 3, "context": {}}, CONTEXT)


async def test_a_string_is_read_as_a_number_only_where_it_can_be_no_string() -> None:
    def echo(number: int, either: int | str, maybe: float | None = None) -> list[object]:
        return [number, either, maybe]

    one = function_tool(echo)
    assert await one({"number": 1, "either": "2"}, CONTEXT) == '[1,"2",null]'
    assert await one({"number": "1", "either": 2, "maybe": "null"}, CONTEXT) == "[1,2,null]"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "missing required field `leg`"),
        ({"leg": {"to": {"city": 3}}}, r"Expected `str`, got `int` - at `\$.leg.to.city`"),
        ({"leg": {"to": {}}}, r"missing required field `city` - at `\$.leg.to`"),
        ({"leg": {"to": {"city": "a"}, "stops": [3]}}, r"at `\$.leg.stops\[0\]`"),
        ({"leg": {"to": {"city": "a"}}, "x": 1}, "unknown field `x`"),
        ({"leg": None}, r"at `\$.leg`"),
    ],
)
async def test_arguments_that_do_not_fit_are_told_with_their_path(
    arguments: JsonObject, told: str
) -> None:
    def travel(leg: Leg) -> None: ...

    with pytest.raises(ToolError, match=told):
        await function_tool(travel)(arguments, CONTEXT)
