"""Items of conversations, put in and taken out with no request, with OpenAI's own client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import anyio
import msgspec
import openai
import pytest
from tests.chats import the_sdk
from tests.people import exactly, somebody
from tests.responses import (
    CALLING,
    SAYING,
    TOOL,
    Plays,
    answering,
    asked,
    items,
    made,
)
from tests.serving import Client, Json
from tests.waiting import of_kind

from hostler.core.said import ModelSaid, Said, ToolSaid, UserSaid

pytestmark = pytest.mark.anyio

HELLO: Json = {"type": "message", "role": "user", "content": "hello"}
BRIEF: Json = {"type": "message", "role": "developer", "content": "be brief"}
YES: Json = {"type": "message", "role": "assistant", "content": "yes"}
PAIR: Sequence[Json] = (
    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at":"sea"}'},
    {"type": "function_call_output", "call_id": "c1", "output": "waves"},
)


async def there(client: Client, **body: object) -> str:
    status, told = await client.call("POST", "/v1/conversations", body)
    assert status == 200, told
    return str(told["id"])


async def listed(client: Client, name: str, query: str = "order=asc&limit=100") -> list[Json]:
    told = await client.get(f"/v1/conversations/{name}/items?{query}")
    return cast("list[Json]", told["data"])


async def put(client: Client, name: str, *given: object) -> tuple[int, Json]:
    return await client.call("POST", f"/v1/conversations/{name}/items", {"items": [*given]})


async def taken(client: Client, name: str, item: object) -> tuple[int, Json]:
    return await client.call("DELETE", f"/v1/conversations/{name}/items/{item}")


async def read_next(client: Client, model: Plays, name: str) -> list[Said]:
    """Return what the model reads before the next message in a conversation."""
    await made(client, asked("next", conversation=name))
    *before, last = model.asked[-1].transcript
    assert last == UserSaid("next")
    return before


def words(found: Sequence[Json]) -> list[tuple[object, object]]:
    return [(one.get("role", one["type"]), _said(one)) for one in found]


def _said(one: Json) -> object:
    if "content" in one:
        return "".join(str(part["text"]) for part in cast("list[Json]", one["content"]))
    return one.get("output") or one.get("call_id")


async def test_items_are_read_with_what_is_said_next() -> None:
    model = Plays()
    async with answering(model) as client, the_sdk(client) as sdk:
        conv = await sdk.conversations.create(
            items=[
                {"type": "message", "role": "user", "content": "one"},
                {"type": "message", "role": "assistant", "content": "yes"},
            ],
            metadata={"a": "b"},
        )
        more = await sdk.conversations.items.create(
            conv.id, items=[{"type": "message", "role": "user", "content": "two"}]
        )
        first = await sdk.responses.create(model="m", input="three", conversation=conv.id)
        await sdk.conversations.items.create(
            conv.id, items=[{"type": "message", "role": "user", "content": "four"}]
        )
        await sdk.responses.create(model="m", input="five", conversation=conv.id)
        page = await sdk.conversations.items.list(conv.id, order="asc")
        names = [one.id async for one in page]
        told = await listed(client, conv.id)

    said = ["one", "yes", "two", "three", "well then", "four", "five", "well then"]
    assert (conv.metadata, first.output_text) == ({"a": "b"}, "well then")
    assert [
        getattr(one, "content", "") or getattr(one, "text", "") for one in model.asked[1].transcript
    ] == said[:7]
    assert [text for _, text in words(told)] == said
    assert [one["id"] for one in told] == names
    assert len(set(names)) == len(names)
    assert (more.data[0].id, more.first_id, more.last_id, more.has_more) == (
        names[2],
        names[2],
        names[2],
        False,
    )


async def test_items_are_told_as_they_were_given() -> None:
    custom: Json = {"type": "custom_tool_call", "call_id": "c2", "name": "write", "input": "a text"}
    spaced: Json = {
        "type": "function_call",
        "call_id": "c3",
        "name": "find",
        "namespace": "maps",
        "arguments": "{}",
    }
    given: list[Json] = [
        BRIEF,
        HELLO,
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        *PAIR,
        custom,
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "ok"},
        spaced,
        {"type": "function_call_output", "call_id": "c3", "output": "there"},
        YES,
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "input_image", "image_url": "https://x/y"}]},
    ]
    async with answering(Plays()) as client:
        name = await there(client, items=given)
        found = await listed(client, name)
        again = await listed(client, name)
        one = await client.get(f"/v1/conversations/{name}/items/{found[4]['id']}")

    kinds = [(one["type"], one.get("role")) for one in found]
    assert kinds == [
        ("message", "developer"),
        ("message", "user"),
        ("reasoning", None),
        ("function_call", None),
        ("function_call_output", None),
        ("custom_tool_call", None),
        ("function_call_output", None),
        ("function_call", None),
        ("function_call_output", None),
        ("message", "assistant"),
        ("message", "system"),
        ("message", "user"),
    ]
    assert cast("list[Json]", found[0]["content"])[0] == {"type": "input_text", "text": "be brief"}
    assert (found[5]["input"], found[7]["name"], found[7]["namespace"]) == (
        "a text",
        "find",
        "maps",
    )
    assert (found, one) == (again, found[4])


async def test_an_item_that_is_taken_out_is_read_no_more() -> None:
    model = Plays()
    async with answering(model) as client, the_sdk(client) as sdk:
        name = await there(client, items=[HELLO, YES, {**HELLO, "content": "secret"}])
        before = await listed(client, name)
        left = await sdk.conversations.items.delete(str(before[2]["id"]), conversation_id=name)
        with pytest.raises(openai.NotFoundError):
            await sdk.conversations.items.retrieve(str(before[2]["id"]), conversation_id=name)
        with pytest.raises(openai.NotFoundError):
            await sdk.conversations.items.delete(str(before[2]["id"]), conversation_id=name)
        after = await listed(client, name)
        read = await read_next(client, model, name)
        facts = await client.facts(name.replace("conv_", "ses_"))

    assert (left.id, left.object) == (name, "conversation")
    assert after == before[:2]
    assert read == [UserSaid("hello"), ModelSaid("yes")]
    assert "secret" in str(of_kind(facts, "conversation_edited"))


@pytest.mark.parametrize("half", [0, 1])
async def test_a_call_is_taken_out_with_its_result(half: int) -> None:
    other = [{**one, "call_id": "c9"} for one in PAIR]
    model = Plays()
    async with answering(model) as client:
        name = await there(client, items=[HELLO, PAIR[0], other[0], PAIR[1], other[1]])
        before = await listed(client, name)
        pair = [one for one in before if one.get("call_id") == "c1"]
        status, _ = await taken(client, name, pair[half]["id"])
        after = await listed(client, name)
        again, _ = await taken(client, name, pair[1 - half]["id"])
        read = await read_next(client, model, name)

    assert (status, again) == (200, 404)
    assert after == [one for one in before if one not in pair]
    assert [type(one) for one in read] == [UserSaid, ModelSaid, ToolSaid]
    assert [call.id for one in read if isinstance(one, ModelSaid) for call in one.calls] == ["c9"]
    assert [one.call.id for one in read if isinstance(one, ToolSaid)] == ["c9"]


async def test_equal_calls_of_two_turns_are_told_apart() -> None:
    model = Plays()
    async with answering(model) as client:
        name = await there(client, items=[*PAIR, HELLO])
        await put(client, name, PAIR[0], {**PAIR[1], "output": "calm"}, HELLO)
        (_, first, _, _, second, _) = await listed(client, name)
        await taken(client, name, first["id"])
        after = await listed(client, name)
        read = await read_next(client, model, name)

    assert [one.output for one in read if isinstance(one, ToolSaid)] == ["calm"]
    assert [one["id"] for one in after if one["type"] == "function_call_output"] == [second["id"]]


async def test_what_an_answer_was_is_taken_out_piece_by_piece() -> None:
    model = Plays((CALLING, SAYING))
    async with answering(model) as client:
        name = await there(client)
        first = await made(client, asked("one", conversation=name, tools=[TOOL]))
        (call,) = items(first, "function_call")
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "x"}
        await made(client, asked([result], conversation=name))
        kinds = {str(one["type"]): str(one["id"]) for one in items(first)}

        await taken(client, name, kinds["reasoning"])
        thoughtless = await read_next(client, model, name)
        await taken(client, name, kinds["message"])
        silent = await read_next(client, model, name)
        await taken(client, name, kinds["function_call"])
        nothing = await read_next(client, model, name)
        left = await listed(client, name)

    reply = thoughtless[1]
    assert isinstance(reply, ModelSaid)
    assert (reply.text, reply.thinking, reply.replay, len(reply.calls)) == (
        "I look.",
        None,
        None,
        1,
    )
    reply = silent[1]
    assert isinstance(reply, ModelSaid)
    assert (reply.text, len(reply.calls)) == ("", 1)
    assert isinstance(silent[2], ToolSaid)
    assert nothing[:2] == [UserSaid("one"), ModelSaid("well then")]
    assert words(left)[:2] == [("user", "one"), ("assistant", "well then")]
    assert not {one["id"] for one in left} & {*kinds.values()}


async def test_nothing_is_put_in_or_taken_out_while_a_run_goes_on() -> None:
    model, goes = Plays((CALLING, SAYING), gates={1: anyio.Event()}), list[tuple[int, Json]]()
    async with answering(model) as client:
        name = await there(client, items=[HELLO])
        (item,) = await listed(client, name)
        first = await made(client, asked("one", conversation=name, tools=[TOOL]))
        waits = [await put(client, name, HELLO), await taken(client, name, item["id"])]
        (call,) = items(first, "function_call")
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "x"}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made, client, asked([result], conversation=name))
            while len(model.asked) < 2:
                await model.begun.wait()
                await anyio.lowlevel.checkpoint()
            goes = [await put(client, name, HELLO), await taken(client, name, item["id"])]
            model.gates[1].set()
        after, _ = await put(client, name, HELLO)

    for status, told in (*waits, *goes):
        assert (status, cast("Json", told["error"])["code"]) == (409, "conversation_locked")
    assert after == 200


@pytest.mark.parametrize(
    "given",
    [
        [],
        "hello",
        [7],
        [PAIR[0]],
        [PAIR[1]],
        [{"type": "function_call", "call_id": 7, "name": "x"}],
        [{"type": "message", "role": "user", "content": [{"type": "input_image"}]}],
        [{"type": "item_reference", "id": "msg_none"}],
        None,
    ],
)
async def test_items_that_no_model_can_be_shown_are_refused(given: object) -> None:
    async with answering(Plays()) as client:
        name = await there(client)
        status, told = await client.call(
            "POST", f"/v1/conversations/{name}/items", {"items": given}
        )
        left = await listed(client, name)

    assert status == 400, told
    assert cast("Json", told["error"])["type"] == "invalid_request_error"
    assert left == []


async def test_a_stranger_finds_no_conversation_to_change() -> None:
    async with answering(Plays()) as client:
        name = await there(client, items=[HELLO])
        (item,) = await listed(client, name)
        stranger = await somebody(client, "somebody")
        put_, _ = await put(stranger, name, HELLO)
        taken_, _ = await taken(stranger, name, item["id"])
        left = await listed(client, name)

    assert (put_, taken_, left) == (404, 404, [item])


async def test_a_fork_and_a_chain_keep_what_was_there_when_they_left() -> None:
    model = Plays()
    async with answering(model) as client:
        name = await there(client, items=[HELLO])
        (item,) = await listed(client, name)
        first = await made(client, asked("one", conversation=name))
        session = name.replace("conv_", "ses_")
        _, fork = await client.call("POST", f"/api/sessions/{session}/fork", {})
        await taken(client, name, item["id"])
        await put(client, name, {**HELLO, "content": "late"})
        await made(client, asked("two", previous_response_id=first["id"]))
        chain = [*model.asked[-1].transcript]
        forked = await read_next(client, model, str(fork["id"]).replace("ses_", "conv_"))
        here = await read_next(client, model, name)

    said = [UserSaid("hello"), UserSaid("one"), ModelSaid("well then")]
    assert chain == [*said, UserSaid("two")]
    assert forked == said
    assert here == [*said[1:], UserSaid("late")]


async def test_a_conversation_keeps_what_developers_say_in_it() -> None:
    model = Plays()
    async with answering(model) as client:
        name = await there(client)
        await made(client, asked([BRIEF, HELLO], conversation=name))
        read = await read_next(client, model, name)
        (first, *_) = await listed(client, name)

    assert read[0] == UserSaid("[developer] be brief")
    assert words([first]) == [("developer", "be brief")]


async def test_what_was_put_in_is_found_and_carried_to_other_servers() -> None:
    async with answering(Plays()) as client:
        name = await there(client, items=[{**HELLO, "content": "the walrus"}, *PAIR, YES])
        session = name.replace("conv_", "ses_")
        (_, call, *_) = before = await listed(client, name)
        await taken(client, name, call["id"])
        found = await client.get("/api/search?q=walrus")
        _, _, file = await exactly(client, "GET", f"/api/sessions/{session}/export")
        await client.call("DELETE", f"/api/sessions/{session}")
        status, told = await client.call("POST", "/api/sessions/import", raw=file)
        after = await listed(client, name)

    assert [hit["kind"] for hit in cast("list[Json]", found["items"])] == ["conversation_edited"]
    assert status == 201, told
    assert after == [before[0], before[3]]


async def test_what_was_taken_back_is_listed_no_more() -> None:
    async with answering(Plays()) as client:
        name = await there(client, items=[HELLO])
        await made(client, asked("one", conversation=name))
        await put(client, name, YES)
        session = name.replace("conv_", "ses_")
        (run,) = {str(one["run"]) for one in await client.facts(session) if one["run"]}
        again: Json = {"trigger": "regenerate-message", "messageId": run.replace("run_", "msg_")}
        chat = msgspec.json.encode({"id": session, "message": "two", **again})
        status, _, _ = await exactly(client, "POST", "/api/chat", chat)
        left = await listed(client, name)

    assert status == 200
    assert [text for _, text in words(left)] == ["hello", "two", "well then"]
