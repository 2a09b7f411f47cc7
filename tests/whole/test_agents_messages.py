"""Agents, asked with Anthropic's own client over Messages: `agent:NAME`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import cast

import anyio
import pytest
from anthropic.types import Message
from tests.carried import AGENT, Plays, agents, calls, says, sessions, the_session, until
from tests.messages import Final, ask, refused, vendors
from tests.messages import events as events_of
from tests.people import somebody
from tests.serving import Client, Json

from hostler.core.decide import Limits
from hostler.core.ports import Failure
from hostler.core.said import ModelSaid, ToolSaid, UserSaid
from hostler.testing.doubles import a_tool

pytestmark = pytest.mark.anyio

HELLO: Json = {"role": "user", "content": "hello"}
TOOL: Json = {"name": "look", "description": "Look.", "input_schema": {"type": "object"}}
ASKED: Json = {"model": AGENT, "max_tokens": 99}
BOTH = pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
THINKS: Json = {"thinking": {"type": "enabled", "budget_tokens": 1024}}


async def asks(
    client: Client, messages: Sequence[Json], *, streams: bool, **more: object
) -> Message:
    async with vendors(client) as vendor:
        return await ask(vendor, {**ASKED, "messages": [*messages], **more}, streams=streams)


def said(told: Message) -> Json:
    """Return an answer as its client sends it back."""
    return {"role": "assistant", "content": blocks(told)}


def results(told: Message, *outputs: str) -> Json:
    """Return results of the calls that an answer ends with."""
    uses = [one["id"] for one in blocks(told) if one["type"] == "tool_use"]
    content: list[Json] = [
        {"type": "tool_result", "tool_use_id": use, "content": output}
        for use, output in zip(uses, outputs, strict=True)
    ]
    return {"role": "user", "content": content}


def blocks(told: Message) -> list[Json]:
    return [one.model_dump() for one in told.content]


def kinds(told: Message) -> list[str]:
    return [str(one["type"]) for one in blocks(told)]


@BOTH
async def test_an_agent_answers_with_what_it_thought_and_used(*, streams: bool) -> None:
    model = Plays([says("well then", thinking="hm")])
    async with agents(model) as client:
        told = await asks(client, [HELLO], streams=streams, system="be brief", **THINKS)
        hidden = await asks(client, [HELLO], streams=streams)
        (one, _) = await sessions(client)

    thought, text = told.content
    assert (getattr(thought, "thinking", ""), getattr(text, "text", "")) == ("hm", "well then")
    assert (told.model, told.stop_reason) == (AGENT, "end_turn")
    assert (told.usage.input_tokens, told.usage.output_tokens) == (10, 3)
    assert kinds(hidden) == ["text"]
    assert (model.asked[0].system, model.asked[0].max_output_tokens) == ("be brief", 99)
    assert one["metadata"] == {"face": "messages"}


@BOTH
async def test_an_agents_own_tools_are_shown_as_those_of_a_server(*, streams: bool) -> None:
    model = Plays([calls("fetch", "gone", text="I look.", at="sky"), says("blue"), says("on")])
    async with agents(model, a_tool("fetch")) as client:
        told = await asks(client, [HELLO], streams=streams)
        await asks(client, [HELLO, said(told), HELLO], streams=streams)

    wanted = ["text", *["mcp_tool_use", "mcp_tool_result"] * 2, "text"]
    assert sorted(kinds(told)) == sorted(wanted)
    found = blocks(told)
    uses = {one["name"]: one for one in found if one["type"] == "mcp_tool_use"}
    outcomes = {one["tool_use_id"]: one for one in found if one["type"] == "mcp_tool_result"}
    assert (uses["fetch"]["server_name"], told.stop_reason) == ("hostler", "end_turn")
    fetch, gone = outcomes[uses["fetch"]["id"]], outcomes[uses["gone"]["id"]]
    assert cast("list[Json]", fetch["content"])[0]["text"] == "{'at': 'sky'}"
    assert (fetch["is_error"], gone["is_error"]) == (False, True)
    assert told.usage.input_tokens == 20
    history = list(model.asked[2].transcript)
    assert (history[0], history[-1]) == (UserSaid("hello"), UserSaid("hello"))
    did = [one.output for one in history if isinstance(one, ToolSaid)]
    assert sorted(did) == ["no tool named gone", "{'at': 'sky'}"]
    assert [one.text for one in history if isinstance(one, ModelSaid) and one.text] == [
        "I look.",
        "blue",
    ]


async def test_the_beta_client_reads_what_an_agent_did_as_it_does_with_servers() -> None:
    model, body = Plays([calls("fetch", at="sky"), says("blue")]), {**ASKED, "messages": [HELLO]}
    async with agents(model, a_tool("fetch")) as client, vendors(client) as vendor:
        open_ = cast(
            "Callable[..., AbstractAsyncContextManager[Final]]", vendor.beta.messages.stream
        )
        async with open_(**body) as stream:
            told = await stream.get_final_message()

    assert [type(one).__name__ for one in told.content[:2]] == [
        "BetaMCPToolUseBlock",
        "BetaMCPToolResultBlock",
    ]
    use, result, text = blocks(told)
    assert (use["input"], use["id"]) == ({"at": "sky"}, result["tool_use_id"])
    assert text["text"] == "blue"


@BOTH
async def test_results_of_a_clients_tools_go_to_the_run_that_waits(*, streams: bool) -> None:
    model = Plays([calls("look", "look", text="Let me.", at="sky"), says("blue")])
    async with agents(model) as client:
        first = await asks(client, [HELLO], streams=streams, tools=[TOOL])
        messages = [HELLO, said(first), results(first, "it is blue", "and wide")]
        last = await asks(client, messages, streams=streams, tools=[TOOL])
        again = await asks(client, messages, streams=streams, tools=[TOOL])
        found = await sessions(client)

    assert (kinds(first), first.stop_reason) == (["text", "tool_use", "tool_use"], "tool_use")
    inputs = [one["input"] for one in blocks(first) if one["type"] == "tool_use"]
    assert inputs == [{"at": "sky"}] * 2
    assert [getattr(one.content[0], "text", "") for one in (last, again)] == ["blue"] * 2
    assert (len(model.asked), len(found)) == (2, 1)
    did = [one.output for one in model.asked[1].transcript if isinstance(one, ToolSaid)]
    assert did == ["it is blue", "and wide"]


async def test_results_that_a_server_took_before_it_went_are_not_taken_again(
    tmp_path: Path,
) -> None:
    go_on, file = anyio.Event(), tmp_path / "log.db"
    model = Plays([calls("look"), [go_on, *says("blue")]])
    async with agents(model, file=file) as client:
        first = await asks(client, [HELLO], streams=True, tools=[TOOL])
        messages = [HELLO, said(first), results(first, "sky")]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(asks, client, messages, streams=True, tools=[TOOL]))
            await until(client, await the_session(client), "model_asked", 2)
            tasks.cancel_scope.cancel()
    go_on.set()
    async with agents(model, file=file) as client:
        last = await asks(client, messages, streams=True, tools=[TOOL])
        facts = await client.facts(await the_session(client))

    assert getattr(last.content[0], "text", "") == "blue"
    assert [one["outcome"] for one in facts if one["kind"] == "tool_finished"] == ["ok"]
    assert [one["status"] for one in facts if one["kind"] == "run_ended"] == ["done"]


@BOTH
async def test_calls_of_both_kinds_in_one_reply_are_told_apart(*, streams: bool) -> None:
    model = Plays([calls("fetch", "look"), says("blue"), says("new")])
    async with agents(model, a_tool("fetch")) as client:
        first = await asks(client, [HELLO], streams=streams, tools=[TOOL])
        messages = [HELLO, said(first), results(first, "sky")]
        last = await asks(client, messages, streams=streams, tools=[TOOL])
        later = [*messages, said(last), HELLO]
        await asks(client, later, streams=streams, tools=[TOOL])
        found = await sessions(client)

    assert kinds(first) == ["mcp_tool_use", "mcp_tool_result", "tool_use"]
    assert getattr(last.content[0], "text", "") == "blue"
    assert len(found) == 2
    did = [one.output for one in model.asked[2].transcript if isinstance(one, ToolSaid)]
    assert did == ["{}", "sky"]


async def test_a_call_that_got_no_result_goes_on_with_what_is_said_instead() -> None:
    model = Plays([calls("look"), says("fine")])
    async with agents(model) as client:
        first = await asks(client, [HELLO], streams=True, tools=[TOOL])
        told = await asks(client, [HELLO, said(first), HELLO], streams=True, tools=[TOOL])
        found = await sessions(client)

    assert getattr(told.content[0], "text", "") == "fine"
    assert len(found) == 1
    (result,) = [one for one in model.asked[1].transcript if isinstance(one, ToolSaid)]
    assert result.failed


async def test_a_result_is_seen_before_the_agent_says_more() -> None:
    go_on = anyio.Event()
    model = Plays([calls("fetch"), [go_on, *says("blue")]])
    seen = list[Json]()
    async with agents(model, a_tool("fetch")) as client:
        body: Json = {**ASKED, "messages": [HELLO], "stream": True}
        headers = {"x-api-key": client.key}
        url = f"{client.url}/v1/messages"
        async with client.http.post(url, json=body, headers=headers) as answer:
            with anyio.fail_after(10):
                async for line in answer.content:
                    if b"mcp_tool_result" in line:
                        go_on.set()
                        seen.append({"line": line.decode()})

    assert len(seen) == 1


@pytest.mark.parametrize(
    "block",
    [
        {"type": "mcp_tool_use"},
        {"type": "mcp_tool_use", "server_name": "hostler", "id": 7, "name": "fetch"},
        {"type": "mcp_tool_use", "server_name": "hostler", "id": "a", "name": "b", "input": 5},
        {"type": "mcp_tool_result", "tool_use_id": ["a"]},
        {"type": "mcp_tool_result", "tool_use_id": "a", "content": {"a": 1}},
        {"type": "mcp_tool_use", "server_name": "hostler", "id": "x" * 9999, "name": "b" * 9999},
    ],
    ids=str,
)
async def test_what_an_agent_never_did_is_refused_or_passed_over(block: Json) -> None:
    messages: list[Json] = [HELLO, {"role": "assistant", "content": [block, block]}, HELLO]
    async with agents(Plays([says("fine")])) as client:
        status, told = await client.call("POST", "/v1/messages", {**ASKED, "messages": messages})

    assert status in (200, 400), told
    if status == 400:
        assert cast("Json", told["error"])["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("place", "at"),
    [
        (("messages", 1, "content", 0), "/messages/1/content/0"),
        (("messages", 1, "content", 3), "/messages/1/content/3"),
        (("messages", 1, "content", 4), "/messages/1/content/4"),
        (("messages", 1, "content", 2, "content", 0), "/messages/1/content/2/content/0"),
        (("messages", 2, "content", 1), "/messages/2/content/1"),
        (("system", 0), "/system/0"),
    ],
)
async def test_what_is_wrong_is_named_where_the_client_has_it(
    place: tuple[str | int, ...], at: str
) -> None:
    did: list[Json] = [
        {"type": "mcp_tool_use", "id": "a", "name": "fetch", "server_name": "hostler"},
        {
            "type": "mcp_tool_result",
            "tool_use_id": "a",
            "content": [{"type": "text", "text": "it"}],
        },
    ]
    text: Json = {"type": "text", "text": "so"}
    use: Json = {"type": "tool_use", "id": "b", "name": "look", "input": {}}
    result: Json = {"type": "tool_result", "tool_use_id": "b", "content": "sky"}
    messages: list[Json] = [
        HELLO,
        {"role": "assistant", "content": [text, *did, text, use]},
        {"role": "user", "content": [result, text]},
    ]
    body = json.loads(json.dumps({**ASKED, "messages": messages, "system": [text]}))
    wrong: Json = body
    for name in place:
        wrong = cast("dict[str | int, Json]", wrong)[name]
    wrong["id" if "id" in wrong else "text"] = 7
    async with agents(Plays([says("fine")])) as client:
        status, told = await client.call("POST", "/v1/messages", body)

    assert status == 400
    assert str(cast("Json", told["error"])["message"]).startswith(f"{at}: Expected `str`")


async def test_tools_that_an_agent_cannot_have_are_named_as_the_client_names_them() -> None:
    schema: Json = {"type": "object"}
    many: list[Json] = [{"name": f"t{n}", "input_schema": schema} for n in range(1000)]
    body: Json = {**ASKED, "messages": [HELLO], "tools": many}
    async with agents(Plays([says("fine")])) as client:
        status, told = await client.call("POST", "/v1/messages", body)

    assert status == 400
    assert str(cast("Json", told["error"])["message"]).startswith("/tools: ")


async def test_a_call_without_its_result_is_told_as_such() -> None:
    use: Json = {"type": "mcp_tool_use", "id": "a", "name": "fetch", "server_name": "hostler"}
    content: list[Json] = [use, {"type": "text", "text": "so"}]
    model = Plays([says("fine")])
    async with agents(model) as client:
        messages: list[Json] = [HELLO, {"role": "assistant", "content": content}, HELLO]
        await asks(client, messages, streams=False)

    hello, said_so, result, _ = model.asked[0].transcript
    assert hello == UserSaid("hello")
    assert cast("ModelSaid", said_so).text == "so"
    assert cast("ToolSaid", result).failed


async def test_an_agent_that_is_not_there_is_not_found() -> None:
    async with agents(Plays([says("no")])) as client:
        body = {**ASKED, "model": "agent:nobody", "messages": [HELLO]}
        status, told = await refused(client, body)
        counted, _ = await client.call("POST", "/v1/messages/count_tokens", body)
        found = await sessions(client)

    assert (status, told["type"], counted) == (404, "not_found_error", 404)
    assert "there is agent:double" in str(told["message"])
    assert found == []


async def test_why_a_run_gave_no_answer_is_told_before_or_in_the_stream() -> None:
    fault = Failure(code="context_overflow", message="too much", again=False)
    model, limits = Plays([calls("fetch", text="I look.")]), Limits(max_steps=1)
    async with agents(model, a_tool("fetch"), limits=limits) as client:
        status, told = await refused(client, {**ASKED, "messages": [HELLO]})
        last = (await events_of(client, {**ASKED, "messages": [HELLO]}))[-1]
    async with agents(Plays([[fault]])) as client:
        overflow = await refused(client, {**ASKED, "messages": [HELLO]})

    assert (status, told["type"]) == (500, "api_error")
    assert "limit of steps" in str(told["message"])
    assert (last["type"], cast("Json", last["error"])["type"]) == ("error", "api_error")
    assert overflow[0] == 400
    assert str(overflow[1]["message"]).startswith("prompt is too long")


async def test_tokens_of_an_agent_are_counted_with_its_tools() -> None:
    async with agents(Plays([says("no")]), a_tool("fetch", description="x" * 4000)) as client:
        _, of_agent = await client.call(
            "POST", "/v1/messages/count_tokens", {"model": AGENT, "messages": [HELLO]}
        )
        _, of_model = await client.call(
            "POST", "/v1/messages/count_tokens", {"model": "p:m", "messages": [HELLO]}
        )

    more = cast("int", of_agent["input_tokens"]) - cast("int", of_model["input_tokens"])
    assert more > 1000


async def test_a_run_that_waits_can_be_seen_and_ended_elsewhere() -> None:
    model, told = Plays([calls("fetch")]), list[int]()
    async with agents(model, a_tool("fetch", approval=True)) as client:

        async def one() -> None:
            status, error = await refused(client, {**ASKED, "messages": [HELLO]})
            told.append(status)
            assert "cancelled: enough" in str(error["message"])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            session = await the_session(client)
            await until(client, session, "approval_asked")
            path = f"/api/sessions/{session}/cancel"
            status, _ = await client.call("POST", path, {"reason": "enough"})
            assert status < 300

    assert told == [500]


async def test_somebody_elses_run_takes_no_results() -> None:
    model = Plays([calls("look"), says("other")])
    async with agents(model) as client:
        first = await asks(client, [HELLO], streams=False, tools=[TOOL])
        ann = await somebody(client, "ann")
        messages = [HELLO, said(first), results(first, "sky")]
        told = await asks(ann, messages, streams=False, tools=[TOOL])
        there, own = await sessions(client)

    assert getattr(told.content[0], "text", "") == "other"
    assert (there["status"], own["status"]) == ("waiting", "idle")
