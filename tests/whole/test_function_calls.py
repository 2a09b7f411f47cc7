"""A function's call as a tool: what a model reads of its result, and where it runs."""

from __future__ import annotations

import contextvars
import threading
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import Enum

import anyio
import msgspec
import pydantic
import pytest

from hostler.core.events import (
    CallId,
    JsonObject,
    RunId,
    RunKey,
    SessionId,
    TenantId,
    ToolCall,
    ToolFinished,
    ToolStarted,
)
from hostler.core.ports import CallContext, Tool
from hostler.harness.breakers import Breakers, Rules
from hostler.harness.toolbox import Toolbox
from hostler.tools.function import THREADS, function_tool, tool

pytestmark = pytest.mark.anyio

RUN = RunKey(TenantId("default"), SessionId("ses_1"), RunId("run_1"))
CONTEXT = CallContext(call=CallId("call_1"), key=RUN)


class Unit(Enum):
    CELSIUS = "celsius"


@dataclass
class Place:
    city: str
    country: str | None = None


class Person(pydantic.BaseModel):
    name: str
    friends: list[Person] = []


class Bike(pydantic.BaseModel):
    owner: Person


async def through_the_toolbox(one: Tool, **arguments: object) -> ToolFinished:
    tools = Toolbox([one], spill_folder=None)
    call = ToolCall(id=CallId("call_1"), name=one.spec.name, arguments=arguments)
    started = tools.check(call, RUN.run)
    return started if isinstance(started, ToolFinished) else await tools.run(started, CONTEXT)


@tool
async def weather(city: str, days: int = 1) -> str:
    """Say what the weather is in a city."""
    return f"sunny in {city} for {days}"


# -- the result ------------------------------------------------------------------------------


@dataclass
class Result:
    place: Place
    days: list[date] = field(default_factory=list[date])


@pytest.mark.parametrize(
    ("result", "read"),
    [
        ("text", "text"),
        ("", ""),
        (None, "Done."),
        (3, "3"),
        (True, "true"),
        ({"a": [1, 2.5, None]}, '{"a":[1,2.5,null]}'),
        (Result(Place("Paris"), [date(2026, 11, 21)]), None),
        (Unit.CELSIUS, '"celsius"'),
        ((1, "é"), '[1,"é"]'),
        (Decimal("1.10"), '"1.10"'),
        (Person(name="Ada"), '{"name":"Ada","friends":[]}'),
        ([Person(name="Ada")], '[{"name":"Ada","friends":[]}]'),
    ],
)
async def test_a_result_is_text_or_compact_json(result: object, read: str | None) -> None:
    def give() -> object:
        return result

    paris = '{"place":{"city":"Paris","country":null},"days":["2026-11-21"]}'
    assert await function_tool(give)({}, CONTEXT) == (paris if read is None else read)


def endless() -> list[object]:
    inner: list[object] = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize("result", [b"bytes", object(), {"a": print}, {(1, 2): 3}, endless()])
async def test_a_result_that_no_model_reads_is_the_tool_s_bug(result: object) -> None:
    def give() -> object:
        return result

    finished = await through_the_toolbox(function_tool(give))
    assert finished.outcome == "error"
    assert finished.output.startswith(f"TypeError: give returned {type(result).__name__}")


# -- pydantic --------------------------------------------------------------------------------


async def test_models_of_pydantic_are_parameters_like_others() -> None:
    def ride(bike: Bike, driver: Person | None = None) -> list[object]:
        return [bike.owner.friends[0].name, driver]

    one = function_tool(ride)
    assert msgspec.convert(one.spec.parameters["$defs"], JsonObject).keys() == {"Person"}
    bike: JsonObject = {"owner": {"name": "Ada", "friends": [{"name": "Bob"}]}}
    finished = await through_the_toolbox(one, bike=bike)
    assert (finished.outcome, finished.output) == ("ok", '["Bob",null]')
    finished = await through_the_toolbox(one, bike={"owner": {"name": "Ada", "friends": 3}})
    assert finished.outcome == "error"
    assert "$.bike.owner.friends" in finished.output


# -- threads ---------------------------------------------------------------------------------


async def test_a_function_that_blocks_does_not_block_the_others() -> None:
    let_go, blocked = threading.Event(), list[str]()
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="not seen")

    def block() -> str:
        assert let_go.wait(10)
        return f"{seen.get()}, {threading.current_thread() is not threading.main_thread()}"

    async def call() -> None:
        blocked.append(await function_tool(block)({}, CONTEXT))

    seen.set("seen")
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            assert await weather({"city": "Paris"}, CONTEXT) == "sunny in Paris for 1"
            let_go.set()
    assert blocked == ["seen, True"]


async def test_a_function_that_hangs_is_given_up_and_so_is_its_tool_in_the_end() -> None:
    let_go = threading.Event()

    def hang() -> None:
        let_go.wait(15)

    patient = Breakers(Rules(failures=10**6, rate=2.0))  # what would answer in its stead
    tools = Toolbox([function_tool(hang, timeout_s=0.05)], spill_folder=None, breakers=patient)
    started = ToolStarted(run=RUN.run, call=CallId("call_1"), name="hang", arguments={})
    outcomes = list[str]()

    async def call() -> None:
        outcomes.append((await tools.run(started, CONTEXT)).output)

    try:
        with anyio.fail_after(15):
            while not outcomes or "hangs" not in outcomes[-1]:
                async with anyio.create_task_group() as tasks:
                    for _ in range(THREADS):
                        tasks.start_soon(call)
                assert len(outcomes) <= 10 * THREADS
    finally:
        let_go.set()
    assert "no answer within 0.05 s" in outcomes[0]
    assert "earlier calls have not returned" in outcomes[-1]


async def test_a_sync_function_that_gives_something_to_wait_for_is_waited_for() -> None:
    def wrapper() -> object:
        return weather("Paris")

    assert await function_tool(wrapper)({}, CONTEXT) == "sunny in Paris for 1"


async def test_a_tool_through_the_toolbox_is_mended_converted_and_read() -> None:
    finished = await through_the_toolbox(weather, city="Paris", days="2")
    assert (finished.outcome, finished.output) == ("ok", "sunny in Paris for 2")
