"""Responses that are kept: chains, branches, results of clients' tools, agents, approvals."""

from __future__ import annotations

from typing import cast

import anyio
import pytest
from tests.chats import the_sdk
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
    post,
    raw,
    response,
    streamed,
)
from tests.serving import Client, Json

from hostler.core.ports import Reply
from hostler.core.said import ModelSaid, ToolSaid, UserSaid
from hostler.testing.doubles import ToolboxDouble, a_call, a_tool, an_agent

pytestmark = pytest.mark.anyio


def result(call: Json, output: object = "water") -> Json:
    return {"type": "function_call_output", "call_id": call["call_id"], "output": output}


async def sessions(client: Client) -> list[Json]:
    return cast("list[Json]", (await client.get("/api/sessions"))["items"])


async def test_a_response_can_be_asked_for_again() -> None:
    async with answering(Plays()) as client, the_sdk(client) as sdk:
        first = await sdk.responses.create(
            model="m", input="hello", instructions="be brief", metadata={"a": "b"}, temperature=0.5
        )
        again = await sdk.responses.retrieve(first.id)

    assert again == first
    assert (first.output_text, first.instructions, first.metadata) == (
        "well then",
        "be brief",
        {"a": "b"},
    )
    assert (first.temperature, first.model, first.store) == (0.5, "p:m", True)  # type: ignore[attr-defined]


async def test_what_follows_a_response_is_said_in_its_session() -> None:
    model = Plays()
    async with answering(model) as client, the_sdk(client) as sdk:
        first = await sdk.responses.create(model="m", input="one", instructions="be brief")
        second = await sdk.responses.create(model="m", input="two", previous_response_id=first.id)
        there = await sessions(client)

    assert second.previous_response_id == first.id
    assert len(there) == 1
    assert list(model.asked[1].transcript) == [
        UserSaid("one"),
        ModelSaid("well then"),
        UserSaid("two"),
    ]
    assert [one.system for one in model.asked] == ["be brief", ""]


async def test_of_two_that_follow_one_response_the_second_branches() -> None:
    model = Plays()
    async with answering(model) as client:
        first = await made(client, asked("one"))
        await made(client, asked("two", previous_response_id=first["id"]))
        other = await made(client, asked("three", previous_response_id=first["id"]))
        await made(client, asked("four", previous_response_id=other["id"]))
        there = await sessions(client)

    said = [UserSaid("one"), ModelSaid("well then"), UserSaid("three")]
    assert list(model.asked[2].transcript) == said
    assert list(model.asked[3].transcript) == [*said, ModelSaid("well then"), UserSaid("four")]
    assert len(there) == 2


async def test_two_at_once_are_both_answered() -> None:
    model = Plays()
    got = list[Json]()
    async with answering(model) as client:
        first = await made(client, asked("one"))

        async def one(text: str) -> None:
            got.append(await made(client, asked(text, previous_response_id=first["id"])))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, "two")
            tasks.start_soon(one, "three")

    assert [one["status"] for one in got] == ["completed", "completed"]
    ends = [list(one.transcript)[-1] for one in model.asked[1:]]
    assert sorted(str(one.content) for one in ends if isinstance(one, UserSaid)) == ["three", "two"]
    assert {len(one.transcript) for one in model.asked[1:]} == {3}


async def test_what_developers_say_first_holds_on_in_the_chain() -> None:
    model = Plays()
    async with answering(model) as client:
        lead = [{"role": "developer", "content": "speak French"}, {"role": "user", "content": "a"}]
        first = await made(client, asked(lead, instructions="be brief"))
        more = [{"role": "system", "content": "and kindly"}, {"role": "user", "content": "b"}]
        second = await made(client, asked(more, previous_response_id=first["id"]))
        third = await made(
            client, asked("c", previous_response_id=second["id"], instructions="now")
        )

    assert [one.system for one in model.asked] == [
        "be brief\n\nspeak French",
        "speak French\n\nand kindly",
        "now\n\nspeak French\n\nand kindly",
    ]
    assert [one["instructions"] for one in (first, second, third)] == ["be brief", None, "now"]


async def test_a_call_of_a_clients_tool_is_answered_in_the_next_request() -> None:
    model = Plays((CALLING, SAYING))
    async with answering(model) as client:
        first = await made(client, asked(tools=[TOOL]))
        (call,) = items(first, "function_call")
        second = await made(
            client,
            asked(
                [result(call), {"role": "user", "content": "and?"}],
                previous_response_id=first["id"],
                tools=[TOOL],
            ),
        )
        again = await client.get(f"{PATH}/{second['id']}")
        whole = await client.get(f"{PATH}/{first['id']}")
        runs = await client.get("/api/runs")

    assert (first["status"], second["status"]) == ("completed", "completed")
    assert (again, whole) == (second, first)
    assert second["previous_response_id"] == first["id"]
    assert len(cast("list[Json]", runs["items"])) == 1
    hello, reply, found, and_ = model.asked[1].transcript
    assert isinstance(reply, ModelSaid)
    assert reply.replay == {"signed": "thought"}
    assert isinstance(found, ToolSaid)
    assert (hello, found.output, and_) == (UserSaid("hello"), "water", UserSaid("and?"))


async def test_a_result_can_be_given_in_a_second_branch() -> None:
    model = Plays((CALLING, SAYING))
    async with answering(model) as client:
        first = await made(client, asked(tools=[TOOL]))
        (call,) = items(first, "function_call")
        for output in ("water", "sand"):
            body = asked([result(call, output)], previous_response_id=first["id"], tools=[TOOL])
            await made(client, body)
        there = await sessions(client)

    outputs = [
        [one.output for one in request.transcript if isinstance(one, ToolSaid)]
        for request in model.asked[1:]
    ]
    assert outputs == [["water"], ["sand"]]
    assert len(there) == 2


async def test_a_result_that_is_missing_is_told() -> None:
    async with answering(Plays((CALLING, SAYING))) as client:
        first = await made(client, asked(tools=[TOOL]))
        (call,) = items(first, "function_call")
        status, told = await post(client, asked("well?", previous_response_id=first["id"]))

    assert status == 400
    assert f"No tool output found for function call {call['call_id']}" in str(told)


async def test_what_a_result_shows_is_seen_by_the_model() -> None:
    model = Plays((CALLING, SAYING))
    async with answering(model) as client:
        first = await made(client, asked(tools=[TOOL]))
        (call,) = items(first, "function_call")
        parts = [
            {"type": "input_text", "text": "here"},
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
        ]
        await made(client, asked([result(call, parts)], previous_response_id=first["id"]))

    _, _, found, shown = model.asked[1].transcript
    assert isinstance(found, ToolSaid)
    assert found.output == "here"
    assert isinstance(shown, UserSaid)
    assert not isinstance(shown.content, str)


async def test_thoughts_come_back_by_their_name_alone() -> None:
    model = Plays((CALLING, SAYING))
    async with answering(model) as client:
        first = await made(client, asked(tools=[TOOL]))
        call = items(first, "function_call")[0]
        names = [{"type": "item_reference", "id": one["id"]} for one in items(first)]
        said = [{"role": "user", "content": "hello"}, *names, result(call)]
        await made(client, asked(said, tools=[TOOL]))

    _, reply, _ = model.asked[1].transcript
    assert isinstance(reply, ModelSaid)
    assert (reply.text, reply.thinking) == ("I look.", "Where is it?")
    assert reply.replay == {"signed": "thought"}


async def test_an_agent_runs_its_own_tools_and_shows_them() -> None:
    calling = Reply(text="", stop="tools", calls=(a_call("dig", at="beach"),))
    model = Plays(((calling,), SAYING))
    tools = ToolboxDouble({"dig": a_tool("dig")})
    async with answering(model, an_agent(model, tools=tools, name="digger")) as client:
        told = await made(client, {"model": "agent:digger", "input": "dig", "store": False})
        kept = await made(client, {"model": "agent:digger", "input": "dig"})
        status, _ = await client.call("GET", f"{PATH}/{told['id']}")

    (call,) = items(told, "mcp_call")
    assert (call["name"], call["server_label"], call["status"]) == ("dig", "hostler", "completed")
    assert (call["arguments"], call["output"]) == ('{"at":"beach"}', "{'at': 'beach'}")
    assert (told["model"], kept["status"], status) == ("agent:digger", "completed", 404)
    assert [one["type"] for one in items(told)] == ["mcp_call", "message"]


@pytest.mark.parametrize(("approve", "outcome"), [(True, "completed"), (False, None)])
async def test_a_call_that_needs_an_approval_is_asked_about(
    *, approve: bool, outcome: str | None
) -> None:
    calling = Reply(text="", stop="tools", calls=(a_call("dig", at="beach"),))
    model = Plays(((calling,), SAYING))
    tools = ToolboxDouble({"dig": a_tool("dig", approval=True)})
    async with answering(model, an_agent(model, tools=tools, name="digger")) as client:
        first = response(await streamed(client, {"model": "agent:digger", "input": "dig"}))
        (request,) = items(first)
        said = {
            "type": "mcp_approval_response",
            "approval_request_id": request["id"],
            "approve": approve,
        }
        body = {"model": "agent:digger", "input": [said], "previous_response_id": first["id"]}
        second = await made(client, body)
        again = await client.get(f"{PATH}/{second['id']}")

    assert (request["type"], request["name"], request["arguments"]) == (
        "mcp_approval_request",
        "dig",
        '{"at":"beach"}',
    )
    calls = items(second, "mcp_call")
    assert [one["status"] for one in calls] == ([] if outcome is None else [outcome])
    assert [one["approval_request_id"] for one in calls] == [request["id"]] * len(calls)
    assert (second["status"], again, len(tools.done)) == ("completed", second, int(approve))


async def test_a_run_of_another_face_is_one_response() -> None:
    calling = Reply(text="", stop="tools", calls=(a_call("dig"),))
    model = Plays(((calling,), SAYING))
    tools = ToolboxDouble({"dig": a_tool("dig")})
    async with answering(model, an_agent(model, tools=tools, name="digger")) as client:
        session = await client.session()
        receipt = (await client.speak(session))[0].data
        name = str(receipt["run"]).replace("run_", "resp_")
        told = await client.get(f"{PATH}/{name}")
        watched = await raw(client, "GET", f"/{name}?stream=true")

    assert [one["type"] for one in items(told)] == ["mcp_call", "message"]
    assert (told["model"], told["status"]) == ("agent:digger", "completed")
    assert response(watched) == told
    assert [one["sequence_number"] for one in events(watched)] == list(range(len(events(watched))))


async def test_what_was_answered_in_another_protocol_begins_a_response_of_its_own() -> None:
    calling = Reply(text="", stop="tools", calls=(a_call("dig", at="beach"),))
    model = Plays(((calling,), SAYING))
    tools = ToolboxDouble({"dig": a_tool("dig", approval=True)})
    async with answering(model, an_agent(model, tools=tools, name="digger")) as client:
        first = await made(client, {"model": "agent:digger", "input": "dig"})
        (session,) = await sessions(client)
        asked_ = cast("list[Json]", (await client.get("/api/approvals"))["items"])
        path = f"/api/sessions/{session['id']}/approvals/{asked_[0]['call']}"
        _, given = await client.call("POST", path, {"decision": "allow"})
        second = await raw(client, "GET", f"/{first['id']}_{given['seq']}?stream=true")
        again = await client.get(f"{PATH}/{first['id']}")
        said: Json = {
            "type": "mcp_approval_response",
            "approval_request_id": items(first)[0]["id"],
            "approve": False,
        }
        late = {"model": "agent:digger", "input": [said], "previous_response_id": first["id"]}
        status, told = await post(client, late)

    assert [one["type"] for one in items(response(second))] == ["mcp_call", "message"]
    assert again == first
    assert (status, cast("Json", told["error"])["code"]) == (409, "already_answered")


async def test_what_was_deleted_cannot_be_named_again() -> None:
    model = Plays((CALLING, SAYING))
    async with answering(model) as client:
        first = await made(client, asked("one", tools=[TOOL]))
        (call,) = items(first, "function_call")
        said = {"type": "function_call_output", "call_id": call["call_id"], "output": "x"}
        more = {"previous_response_id": first["id"], "tools": [TOOL]}
        second = await made(client, asked([said], **more))
        await made(client, asked("three", previous_response_id=second["id"]))
        await client.call("DELETE", f"/v1/responses/{first['id']}")
        gone, told = await post(client, asked([_named(items(first, "message")[0]), HELLO]))
        there, _ = await post(client, asked([_named(items(second, "message")[0]), HELLO]))

        _, conv = await client.call("POST", "/v1/conversations", {})
        last = await made(client, asked("four", conversation=conv["id"]))
        (item,) = items(last, "message")
        path = f"/v1/conversations/{conv['id']}/items/{item['id']}"
        assert (await client.call("DELETE", path))[0] == 200
        taken, _ = await post(client, asked([_named(item), HELLO]))

    assert (gone, there, taken) == (400, 200, 400), told
    assert "not found" in str(told)


async def test_a_place_past_the_end_of_a_log_is_not_found() -> None:
    async with answering(Plays((CALLING, SAYING))) as client:
        first = await made(client, asked(tools=[TOOL]))  # its run waits, and has no end yet
        name = f"{first['id']}_99999"
        got, _ = await client.call("GET", f"{PATH}/{name}")
        followed, told = await post(client, asked(previous_response_id=name))
        item = items(first, "reasoning")[0]["id"]
        far: Json = {
            "type": "reasoning",
            "id": f"{str(item).rsplit('_', 2)[0]}_99999_0",
            "summary": [],
        }
        thought, _ = await post(client, asked([far, HELLO]))

    assert (got, followed, thought) == (404, 400, 200)
    assert cast("Json", told["error"])["code"] == "previous_response_not_found"


HELLO: Json = {"role": "user", "content": "hello"}


def _named(item: Json) -> Json:
    return {"type": "item_reference", "id": item["id"]}
