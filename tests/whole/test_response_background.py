"""Responses in the background, and what becomes of those whose clients go away."""

from __future__ import annotations

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
    events,
    items,
    made,
    numbered,
    post,
    raw,
    response,
)
from tests.serving import Client, Json

pytestmark = pytest.mark.anyio
WAIT_S = 10


async def until(client: Client, name: object, *statuses: str) -> Json:
    """Return a response as soon as it is so."""
    with anyio.fail_after(WAIT_S):
        while True:
            told = await client.get(f"{PATH}/{name}")
            if told["status"] in statuses:
                return told
            await anyio.lowlevel.checkpoint()


async def test_a_response_in_the_background_is_told_of_at_once_and_polled() -> None:
    model = Plays(gates={0: anyio.Event()})
    async with answering(model) as client, the_sdk(client) as sdk:
        first = await sdk.responses.create(model="m", input="hello", background=True)
        going = await until(client, first.id, "in_progress")
        model.gates[0].set()
        done = await until(client, first.id, "completed")

    assert (first.status, first.background, first.output) == ("queued", True, [])
    assert going["usage"] is None
    assert (done["status"], done["completed_at"] is None) == ("completed", False)


async def test_a_stream_that_was_dropped_goes_on_from_the_last_number() -> None:
    model, seen, last = Plays(gates={0: anyio.Event()}), list[str](), -1
    async with answering(model) as client, the_sdk(client) as sdk:
        stream = await sdk.responses.create(model="m", input="hello", background=True, stream=True)
        name = ""
        async for event in stream:
            seen.append(event.type)
            last = event.sequence_number
            if event.type == "response.created":
                name = event.response.id
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        model.gates[0].set()
        rest = await sdk.responses.retrieve(name, stream=True, starting_after=last)
        got = [event async for event in rest]
        whole = await raw(client, "GET", f"/{name}?stream=true")

    assert [one.sequence_number for one in got] == [*range(last + 1, last + 1 + len(got))]
    assert seen[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert [*seen, *(one.type for one in got)] == [one["type"] for one in events(whole)]
    assert got[-1].type == "response.completed"


async def test_a_cancel_ends_it_and_may_be_repeated() -> None:
    model = Plays(gates={0: anyio.Event()})
    async with answering(model) as client, the_sdk(client) as sdk:
        first = await sdk.responses.create(model="m", input="hello", background=True)
        with anyio.fail_after(WAIT_S):
            await model.begun.wait()
        told = await sdk.responses.cancel(first.id)
        again = await sdk.responses.cancel(first.id)
        stream = await raw(client, "GET", f"/{first.id}?stream=true")

    assert told.status == "cancelled"
    assert again == told
    assert model.closed == 1
    assert events(stream)[-1]["type"] == "response.incomplete"
    assert response(stream)["status"] == "cancelled"


async def test_what_is_not_in_the_background_cannot_be_cancelled() -> None:
    async with answering(Plays()) as client, the_sdk(client) as sdk:
        first = await sdk.responses.create(model="m", input="hello")
        with pytest.raises(openai.BadRequestError):
            await sdk.responses.cancel(first.id)


async def test_what_is_not_stored_cannot_be_in_the_background() -> None:
    async with answering(Plays()) as client:
        status, told = await post(client, asked(background=True, store=False))

    assert (status, cast("Json", told["error"])["param"]) == (400, "store")


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("store", [False, True])
async def test_who_waits_and_goes_away_ends_the_question(*, streams: bool, store: bool) -> None:
    model = Plays(gates={0: anyio.Event()})
    async with answering(model) as client:

        async def ask() -> None:
            body = asked(stream=streams, store=store)
            headers = {"Authorization": f"Bearer {client.key}"}
            async with client.http.post(f"{client.url}{PATH}", json=body, headers=headers) as one:
                await one.read()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await model.begun.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(WAIT_S):
            while model.closed == 0:
                await anyio.lowlevel.checkpoint()
        runs = cast("list[Json]", (await client.get("/api/runs"))["items"])
        if store:
            told = await until(client, str(runs[0]["id"]).replace("run_", "resp_"), "cancelled")
            assert told["status"] == "cancelled"
        else:
            assert runs == []


async def test_a_run_that_is_watched_by_another_goes_on_when_they_leave() -> None:
    model = Plays(gates={0: anyio.Event()})
    async with answering(model) as client:
        first = await made(client, asked(background=True))

        async def watch() -> None:
            await raw(client, "GET", f"/{first['id']}?stream=true")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await model.begun.wait()
            tasks.cancel_scope.cancel()
        model.gates[0].set()
        done = await until(client, first["id"], "completed", "cancelled")

    assert done["status"] == "completed"


async def test_what_waits_for_its_client_is_completed_and_goes_on_in_the_background() -> None:
    model = Plays((CALLING, SAYING))
    async with answering(model) as client:
        first = await made(client, asked(background=True, tools=[TOOL]))
        done = await until(client, first["id"], "completed")
        (call,) = items(done, "function_call")
        said = {"type": "function_call_output", "call_id": call["call_id"], "output": "x"}
        body = asked([said], background=True, previous_response_id=first["id"], tools=[TOOL])
        second = await made(client, body)
        end = await until(client, second["id"], "completed")
        stream = await raw(client, "GET", f"/{second['id']}?stream=true")

    assert second["status"] == "queued"
    assert [one["type"] for one in items(end)] == ["message"]
    assert [at for at, _ in numbered(stream)] == [*range(len(numbered(stream)))]


async def test_what_goes_on_cannot_be_followed_yet() -> None:
    model = Plays(gates={0: anyio.Event()})
    async with answering(model) as client:
        first = await made(client, asked(background=True))
        status, told = await post(client, asked(previous_response_id=first["id"]))
        model.gates[0].set()

    assert (status, cast("Json", told["error"])["code"]) == (409, "response_not_done")


async def test_what_is_deleted_is_found_no_more() -> None:
    async with answering(Plays()) as client, the_sdk(client) as sdk:
        first = await sdk.responses.create(model="m", input="one")
        await sdk.responses.delete(first.id)
        status, told = await post(client, asked(previous_response_id=first.id))
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(first.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.delete(first.id)
        sessions = await client.get("/api/sessions")

    assert (status, cast("Json", told["error"])["code"]) == (400, "previous_response_not_found")
    assert sessions["items"] == []


async def test_what_is_deleted_stays_in_what_followed_it() -> None:
    model = Plays()
    async with answering(model) as client, the_sdk(client) as sdk:
        first = await sdk.responses.create(model="m", input="one")
        second = await sdk.responses.create(model="m", input="two", previous_response_id=first.id)
        await sdk.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(first.id)
        await sdk.responses.retrieve(second.id)
        await sdk.responses.create(model="m", input="three", previous_response_id=second.id)

    assert len(model.asked[2].transcript) == 5


async def test_a_response_in_a_conversation_is_deleted_without_it() -> None:
    async with answering(Plays()) as client, the_sdk(client) as sdk:
        there = await sdk.conversations.create()
        first = await sdk.responses.create(model="m", input="one", conversation=there.id)
        await sdk.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(first.id)
        items_ = [one async for one in await sdk.conversations.items.list(there.id)]

    assert len(items_) == 2


@pytest.mark.parametrize("parked", [False, True])
async def test_what_goes_on_is_ended_by_its_deletion(*, parked: bool) -> None:
    model = Plays((CALLING,)) if parked else Plays(gates={0: anyio.Event()})
    async with answering(model) as client, the_sdk(client) as sdk:
        body = asked(background=True, tools=[TOOL])
        first = await made(client, body)
        with anyio.fail_after(WAIT_S):
            await model.begun.wait()
        if parked:
            await until(client, first["id"], "completed")
        await sdk.responses.delete(str(first["id"]))
        status, _ = await client.call("GET", f"{PATH}/{first['id']}")
        runs = cast("list[Json]", (await client.get("/api/runs"))["items"])

    assert (status, model.closed) == (404, 1)
    assert {one["status"] for one in runs} <= {"cancelled"}
