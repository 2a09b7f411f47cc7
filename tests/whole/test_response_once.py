"""`Idempotency-Key` on Responses and conversations: what is sent twice happens once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import anyio
import openai
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
    items,
    numbered,
)
from tests.serving import Client, Json

pytestmark = pytest.mark.anyio
HELLO: Json = {"type": "message", "role": "user", "content": "hello"}


async def post(
    client: Client, body: Json, key: str = "k", path: str = PATH
) -> tuple[int, bool, Json]:
    """Return status, whether it was answered before, and the answer."""
    async with client.http.post(
        f"{client.url}{path}", json=body, headers=keyed(client, key)
    ) as got:
        return got.status, got.headers.get("Idempotent-Replayed") == "true", await got.json()


def keyed(client: Client, key: str = "k") -> Mapping[str, str]:
    return {"Authorization": f"Bearer {client.key}", "Idempotency-Key": key}


async def streamed(client: Client, body: Json, key: str = "k") -> tuple[str | None, bytes]:
    headers = keyed(client, key)
    async with client.http.post(f"{client.url}{PATH}", json=body, headers=headers) as got:
        assert got.status == 200, await got.text()
        return got.headers.get("Idempotent-Replayed"), await got.read()


async def runs(client: Client) -> int:
    return len(cast("list[Json]", (await client.get("/api/runs"))["items"]))


@pytest.mark.parametrize("more", [{}, {"store": False, "instructions": "x"}, {"background": True}])
async def test_a_request_that_is_sent_again_is_answered_with_its_response(more: Json) -> None:
    model = Plays()
    async with answering(model) as client:
        body: Json = {**asked(**more), "model": "agent:double"}
        first, second = await post(client, body), await post(client, body)
        other = await post(client, body, "other")
        count, sessions = await runs(client), (await client.get("/api/sessions"))["items"]

    assert (first[0], first[1]) == (200, False)
    assert second == (200, True, first[2])
    assert other[2]["id"] != first[2]["id"]
    assert (count, len(cast("list[Json]", sessions))) == (2, 2)


async def test_a_key_with_another_body_is_refused_in_openai_s_words() -> None:
    async with answering(Plays()) as client, the_sdk(client) as sdk:
        twice = {"Idempotency-Key": "k"}
        first = await sdk.responses.create(model="m", input="one", extra_headers=twice)
        again = await sdk.responses.create(model="m", input="one", extra_headers=twice)
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            await sdk.responses.create(model="m", input="two", extra_headers=twice)

    assert again == first
    assert refused.value.code == "key_reused"
    assert refused.value.type == "invalid_request_error"


async def test_a_stream_that_is_asked_for_again_has_the_same_bytes() -> None:
    async with answering(Plays((CALLING, SAYING))) as client:
        body = {**asked(tools=[TOOL]), "stream": True}
        new, first = await streamed(client, body)
        old, second = await streamed(client, body)
        _, replayed, other = await post(client, asked(tools=[TOOL]), "whole")
        count = await runs(client)

    assert (new, old, replayed) == (None, "true", False)
    assert numbered(second) == numbered(first)
    assert other["status"] == "completed"
    assert count == 2


async def test_who_went_away_finds_the_run_again_that_goes_on() -> None:
    model = Plays(gates={0: anyio.Event()})
    async with answering(model) as client:
        body = {**asked(), "stream": True}
        got = await client.http.post(f"{client.url}{PATH}", json=body, headers=keyed(client))
        head = await got.content.readuntil(b"well ")
        got.close()
        async with client.http.post(
            f"{client.url}{PATH}", json=body, headers=keyed(client)
        ) as again:
            begun = await again.content.readuntil(b"well ")
            model.gates[0].set()
            rest = await again.read()

    assert begun.startswith(head[:200])
    assert b"response.completed" in rest
    assert len(model.asked) == 1


async def test_while_the_first_is_being_stored_or_after_it_there_is_one_run() -> None:
    model, told = Plays(), list[tuple[int, bool, Json]]()
    async with answering(model) as client:

        async def ask() -> None:
            told.append(await post(client, asked()))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
        count = await runs(client)

    assert count == 1
    assert {status for status, _, _ in told} <= {200, 409}
    assert len({str(one["id"]) for status, _, one in told if status == 200}) == 1
    refused = [cast("Json", one["error"])["code"] for status, _, one in told if status == 409]
    assert set(refused) <= {"in_progress"}


async def test_results_that_are_sent_again_find_the_response_that_they_began() -> None:
    model = Plays((CALLING, SAYING))
    async with answering(model) as client:
        _, _, first = await post(client, asked(tools=[TOOL]), "one")
        (call,) = items(first, "function_call")
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "x"}
        body = asked([result], previous_response_id=first["id"], tools=[TOOL])
        second, third = await post(client, body, "two"), await post(client, body, "two")

    assert (second[0], second[1]) == (200, False)
    assert third == (200, True, second[2])
    assert second[2]["id"] != first["id"]
    assert len(model.asked) == 2


async def test_a_conversation_and_its_items_are_made_once() -> None:
    async with answering(Plays()) as client:
        path = "/v1/conversations"
        bodies, made = list[Json]([{}, {"items": [HELLO]}]), list[tuple[int, bool, Json]]()
        for body in bodies:
            made = [await post(client, body, f"k{len(body)}", path) for _ in range(2)]
            assert made[1] == (200, True, made[0][2])
        other, _, told = await post(client, {"metadata": {"a": "b"}}, "k0", path)
        name = str(made[0][2]["id"])
        added = [await post(client, {"items": [HELLO]}, "x", f"{path}/{name}/items") for _ in "ab"]
        listed = cast("list[Json]", (await client.get(f"{path}/{name}/items"))["data"])
        sessions = cast("list[Json]", (await client.get("/api/sessions"))["items"])

    assert (other, cast("Json", told["error"])["code"]) == (422, "key_reused")
    assert added[1] == (200, True, added[0][2])
    assert (len(listed), len(sessions)) == (2, 2)


async def test_a_response_that_was_deleted_is_not_made_again() -> None:
    async with answering(Plays()) as client:
        _, _, first = await post(client, asked())
        await client.call("DELETE", f"{PATH}/{first['id']}")
        status, _, told = await post(client, asked())

    assert status == 404, told
    assert str(first["id"]) in str(told)


async def test_a_key_that_is_none_is_refused() -> None:
    async with answering(Plays()) as client:
        for key in ("", "x" * 300):
            status, _, told = await post(client, asked(), key)
            assert (status, cast("Json", told["error"])["type"]) == (400, "invalid_request_error")
