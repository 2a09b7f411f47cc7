"""Conversations and the small questions: items, counts, compaction, with OpenAI's own client."""

from __future__ import annotations

from typing import cast

import openai
import pytest
from tests.chats import the_sdk
from tests.responses import (
    CALLING,
    SAYING,
    TOOL,
    Plays,
    answering,
    asked,
    items,
    made,
    post,
)
from tests.serving import Json

from hostler.core.said import ModelSaid, UserSaid

pytestmark = pytest.mark.anyio


async def test_a_conversation_is_a_session() -> None:
    model = Plays()
    async with answering(model) as client, the_sdk(client) as sdk:
        there = await sdk.conversations.create(metadata={"a": "b"})
        first = await sdk.responses.create(model="m", input="one", conversation=there.id)
        await sdk.responses.create(model="m", input="two", conversation={"id": there.id})
        changed = await sdk.conversations.update(there.id, metadata={"c": "d"})
        got = await sdk.conversations.retrieve(there.id)
        native = await client.get(f"/api/sessions/{there.id.replace('conv_', 'ses_')}")
        gone = await sdk.conversations.delete(there.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.conversations.retrieve(there.id)

    assert first.conversation is not None
    assert first.conversation.id == there.id
    assert list(model.asked[1].transcript) == [
        UserSaid("one"),
        ModelSaid("well then"),
        UserSaid("two"),
    ]
    assert (there.metadata, got) == ({"a": "b"}, changed)
    assert (changed.metadata, native["metadata"]) == ({"c": "d"}, {"c": "d"})
    assert (gone.deleted, gone.object) == (True, "conversation.deleted")


async def test_its_items_are_what_was_said() -> None:
    model = Plays((CALLING, SAYING))
    async with answering(model) as client, the_sdk(client) as sdk:
        there = await sdk.conversations.create()
        first = await made(client, asked("one", conversation=there.id, tools=[TOOL]))
        (call,) = items(first, "function_call")
        said = {"type": "function_call_output", "call_id": call["call_id"], "output": "x"}
        await made(client, asked([said], conversation=there.id, tools=[TOOL]))
        page = await sdk.conversations.items.list(there.id, order="asc", limit=2)
        listed = [one async for one in page]
        one = await sdk.conversations.items.retrieve(str(listed[0].id), conversation_id=there.id)

    assert [one.type for one in listed] == [
        "message",
        "reasoning",
        "message",
        "function_call",
        "function_call_output",
        "message",
    ]
    assert one == listed[0]
    assert {one.id for one in listed} >= {one["id"] for one in items(first)}
    assert len({one.id for one in listed}) == len(listed)


async def test_a_conversation_that_is_not_there_is_told() -> None:
    async with answering(Plays()) as client:
        status, told = await post(client, asked(conversation="conv_12345678"))
        both, _ = await post(client, asked(conversation="conv_1", previous_response_id="resp_1"))
        got, _ = await client.call("GET", "/v1/conversations/nothing")

    assert (status, both, got) == (404, 400, 404)
    assert "conv_12345678" in str(told)


async def test_the_items_of_a_request_are_listed() -> None:
    said = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": [{"type": "input_image", "image_url": "https://x/y"}]},
    ]
    async with answering(Plays()) as client, the_sdk(client) as sdk:
        told = await made(client, asked(said, instructions="now"))
        name = str(told["id"])
        listed = [one async for one in await sdk.responses.input_items.list(name, order="asc")]
        newest = await sdk.responses.input_items.list(name, limit=1)

    assert [one.to_dict().get("role") for one in listed] == [
        "developer",
        "user",
        "assistant",
        "user",
    ]
    assert newest.data[0] == listed[-1]
    assert newest.has_more


async def test_tokens_are_estimated() -> None:
    async with answering(Plays()) as client, the_sdk(client) as sdk:
        first = await sdk.responses.create(model="m", input="long " * 400)
        alone = await sdk.responses.input_tokens.count(model="m", input="hello there")
        after = await sdk.responses.input_tokens.count(
            model="m", input="hello there", previous_response_id=first.id
        )

    assert (alone.object, 0 < alone.input_tokens < 20) == ("response.input_tokens", True)
    assert after.input_tokens > alone.input_tokens + 400


async def test_a_conversation_can_be_made_short_and_gone_on_with() -> None:
    model = Plays()
    said: Json = {"role": "user", "content": "we launch on Tuesday"}
    async with answering(model) as client:
        body = asked([said, {"role": "assistant", "content": "ok"}])
        status, short = await post(client, body, "/compact")
        back = items(short)
        await made(client, asked([*back, {"role": "user", "content": "when?"}], store=False))

    assert (status, short["object"]) == (200, "response.compaction")
    assert [one["type"] for one in back] == ["message", "compaction"]
    assert cast("Json", short["usage"])["total_tokens"] == 13
    assert "Tuesday" in str(model.asked[0].transcript)
    told = [one.content for one in model.asked[1].transcript if isinstance(one, UserSaid)]
    assert told[0] == "we launch on Tuesday"
    assert "well then" in str(told[1])
    assert told[2] == "when?"


async def test_what_is_compact_needs_a_model_and_something_to_say() -> None:
    async with answering(Plays()) as client:
        nobody, _ = await post(client, {"input": "hello"}, "/compact")
        nothing, _ = await post(client, {"model": "p:m"}, "/compact")
        other, _ = await post(client, {"model": "p:none", "input": "hello"}, "/compact")

    assert (nobody, nothing, other) == (400, 400, 404)
