"""What users write, as their type checker sees it: `mypy --strict` reads this in `make check`.

It is not run.  `assert_type` fails the check when a public type becomes vaguer or wrong, and an
unused `type: ignore` when a mistake is not a mistake any more.
"""

from typing import assert_type

from hostler import (
    Agent,
    Budget,
    CallContext,
    Client,
    DataPart,
    Finished,
    Frame,
    Invalid,
    SourcePart,
    TooMany,
    tool,
)
from hostler.core.events import ModelReplied


@tool
async def weather(city: str) -> str:
    """Say what the weather is in a city."""
    return f"sunny in {city}"


@tool(twice="safe", effects="read", timeout_s=5)
def count(words: list[str], context: CallContext) -> int:
    """Count words."""
    return len(words) + len(context.call)


@tool
async def research(topic: str, context: CallContext) -> str:
    """Look something up."""
    await context.show(DataPart(name="progress", value={"done": 0.5}, key="research"))
    await context.show(SourcePart(url="https://example.com", title=topic))
    await context.show("a text")  # type: ignore[arg-type]
    DataPart(name="progress")  # type: ignore[call-arg]
    return "found"


async def a_tool_is_still_its_function(context: CallContext) -> None:
    assert_type(await weather("Paris"), str)
    assert_type(count(["a"], context), int)
    count([1], context)  # type: ignore[list-item]


tool(twice="maybe")  # type: ignore[call-overload]

agent = Agent(
    "forecaster",
    model=["openai:gpt-5-mini", "scripted:demo"],
    tools=[weather, count, "python", len],
    budget=Budget(tokens=1000),
    stop_when=lambda run: run.steps > 3,
)
Agent("nobody", modle="scripted:demo")  # type: ignore[call-arg]


async def it_runs() -> None:
    ended = await agent.run("Is it warm?", data="data")
    assert_type(ended, Finished)
    assert_type(ended.text, str)
    assert_type(ended.reason, str | None)
    async for frame in agent.stream("And now?", session=ended.session):
        assert_type(frame, Frame)
        assert_type(frame.data, dict[str, object])


async def it_asks_a_server() -> None:
    async with Client("http://127.0.0.1:8420", "hk_…") as client:
        made = await client.create_session(metadata={"a": 1})
        assert_type(made.id, str)
        receipt = await client.speak(made.id, "hello", policy="steer")
        assert_type(receipt.position, int)
        await client.speak(made.id, "hello", policy="sometimes")  # type: ignore[arg-type]
        async for frame in client.follow(made.id, after=receipt.cursor):
            assert_type(frame, Frame)
            assert_type(frame.text, str)
            if isinstance(replied := frame.fact, ModelReplied):
                assert_type(replied.text, str)
        async for run in client.list_runs(session=made.id):
            assert_type(run.purpose, str | None)
        try:
            assert_type(await client.run("And now?", session=made.id), Finished)
        except TooMany as error:
            assert_type(error.retry_after_s, float)
        except Invalid as error:
            assert_type(error.fields, tuple[tuple[str, str], ...])
        client.shout("hello")  # type: ignore[attr-defined]
