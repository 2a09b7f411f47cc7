"""The events of a response, watched live, from the middle, again, and after a restart: equal bytes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import cast

import anyio
import pytest
from tests.responses import (
    CALLING,
    PATH,
    SAYING,
    TOOL,
    Plays,
    answering,
    asked,
    events,
    items,
    made,
    numbered,
    raw,
    response,
    streamed,
)
from tests.serving import Client, Json, serving

from hostler.core.events import CallId, ToolCall
from hostler.core.ports import Delta, Failure, Reply
from hostler.core.sealed import Part
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio
WAIT_S = 10


def anything(chance: random.Random) -> list[Part]:
    """Return a reply as some model streams it: in any order, in any pieces, also not at all."""
    parts, text, thinking, calls = list[Part](), "", "", list[ToolCall]()
    for _ in range(chance.randint(0, 4)):
        kind = chance.choice(("text", "thinking", "arguments"))
        pieces = [chance.choice(("a", "é\n", "", "☃ ", '"', "word ")) for _ in range(3)]
        if kind == "arguments":
            call = CallId(f"call_{len(calls)}")
            cut = ['{"at":', '"sea"', "}"]
            for place, piece in enumerate(cut):
                parts.append(Delta("arguments", piece, call, None if place else "look"))
            calls.append(ToolCall(id=call, name="look", arguments={"at": "sea"}))
        elif kind == "text":
            parts += [Delta("text", piece) for piece in pieces]
            text += "".join(pieces)
        else:
            parts += [Delta("thinking", piece) for piece in pieces]
            thinking += "".join(pieces)
    text += chance.choice(("", "and more"))
    text = chance.choice((text, text, text, "something else"))
    stop = "tools" if calls else "end"
    return [*parts, Reply(text=text, thinking=thinking or None, calls=tuple(calls), stop=stop)]


async def watched(client: Client, name: object, after: int | None = None) -> bytes:
    more = "" if after is None else f"&starting_after={after}"
    return await raw(client, "GET", f"/{name}?stream=true{more}")


async def of_session(client: Client) -> str:
    """Return the name of the one response that there is, as soon as it is there."""
    while True:
        runs = cast("list[Json]", (await client.get("/api/runs"))["items"])
        if runs:
            return str(runs[0]["id"]).replace("run_", "resp_")
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("seed", range(12))
async def test_whoever_watches_gets_the_same_bytes(seed: int) -> None:
    chance = random.Random(seed)
    model = Plays((anything(chance), SAYING), gates={0: anyio.Event()})
    got = dict[str, bytes]()
    async with answering(model) as client:

        async def ask() -> None:
            got["live"] = await streamed(client, asked(tools=[TOOL]))

        async def watch(label: str, after: int | None) -> None:
            got[label] = await watched(client, await of_session(client), after)

        with anyio.fail_after(WAIT_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await model.begun.wait()
                tasks.start_soon(watch, "beside", None)
                tasks.start_soon(watch, "later", chance.randint(0, 5))
                model.gates[0].set()
            name = response(got["live"])["id"]
            again = await watched(client, name)
            frames = numbered(got["live"])
            rests = {at: await watched(client, name, at) for at, _ in frames}
            told = await client.get(f"{PATH}/{name}")

    assert numbered(again) == frames
    assert [at for at, _ in frames] == list(range(len(frames)))
    assert numbered(got["beside"]) == frames
    later = numbered(got["later"])
    assert later == frames[len(frames) - len(later) :]
    for at, rest in rests.items():
        assert numbered(rest) == frames[at + 1 :], at
        assert rest.endswith(b"data: [DONE]\n\n")
    assert told == response(got["live"])


async def test_the_log_of_another_server_tells_the_same(tmp_path: Path) -> None:
    model, file = Plays((CALLING, SAYING)), tmp_path / "hostler.db"
    async with serving(an_agent(model), file=file) as client:
        live = await streamed(client, asked(tools=[TOOL]))
        call = items(response(live), "function_call")[0]
        said: Json = {"type": "function_call_output", "call_id": call["call_id"], "output": "x"}
        more = asked([said], previous_response_id=response(live)["id"], tools=[TOOL])
        second = await streamed(client, more)
    async with serving(an_agent(model), file=file) as client:
        for stream in (live, second):
            assert numbered(await watched(client, response(stream)["id"])) == numbered(stream)


async def test_the_tools_of_a_request_are_told_when_the_session_has_others() -> None:
    async with answering(Plays()) as client:
        first = await streamed(client, asked(tools=[TOOL]))
        name = response(first)["id"]
        await made(client, asked("two", previous_response_id=name, tools=[TOOL]))
        third = await made(client, asked("three", previous_response_id=name))
        again = await watched(client, name)

    assert numbered(again) == numbered(first)
    assert third["tools"] == []


async def test_an_attempt_that_failed_is_shown_as_incomplete_and_counts_on() -> None:
    failed = (
        Delta("text", "we"),
        Delta("text", "ll"),
        Failure(code="server", message="x", again=True, retry_after_s=0.0),
    )
    async with answering(Plays((failed, SAYING))) as client:
        live = await streamed(client, asked())
        again = await watched(client, response(live)["id"])

    assert numbered(again) == numbered(live)
    assert [one["status"] for one in items(response(live))] == ["incomplete", "completed"]
    assert [one["sequence_number"] for one in events(live)] == list(range(len(events(live))))


async def test_a_run_that_failed_says_why() -> None:
    failed = (Failure(code="invalid_request", message="no such thing", again=False),)
    async with answering(Plays((failed,))) as client:
        live = await streamed(client, asked())

    told = response(live)
    assert events(live)[-1]["type"] == "response.failed"
    assert told["error"] == {"code": "invalid_prompt", "message": "invalid_request: no such thing"}
