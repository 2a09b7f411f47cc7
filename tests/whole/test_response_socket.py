"""Responses over a WebSocket, with OpenAI's own client and by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import aiohttp
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
    events,
    items,
    made,
    streamed,
)
from tests.serving import Client, Json

from hostler.core.ports import Failure
from hostler.core.said import ModelSaid, ToolSaid, UserSaid
from hostler.faces.responses import socket as socket_

pytestmark = pytest.mark.anyio
WAIT_S = 10
Socket = aiohttp.ClientWebSocketResponse


@asynccontextmanager
async def opened(client: Client) -> AsyncGenerator[Socket]:
    headers = {"Authorization": f"Bearer {client.key}"}
    async with client.http.ws_connect(f"{client.url}{PATH}", headers=headers) as socket:
        yield socket


async def create(socket: Socket, said: object = "hello", **more: object) -> list[Json]:
    """Ask for a response; return its events, or the error instead."""
    body = {"type": "response.create", "model": "p:m", "input": said, **more}
    await socket.send_str(json.dumps(body))
    got = list[Json]()
    with anyio.fail_after(WAIT_S):
        while True:
            event = cast("Json", json.loads(await socket.receive_str()))
            got.append(event)
            ends = ("response.completed", "response.failed", "response.incomplete", "error")
            if event["type"] in ends:
                return got


def told(events: list[Json]) -> Json:
    return cast("Json", events[-1]["response"])


async def test_the_sdk_asks_over_a_socket() -> None:
    async with (
        answering(Plays()) as client,
        the_sdk(client) as sdk,
        sdk.responses.connect() as connection,
    ):
        await connection.response.create(model="p:m", input="hello")
        got = list[str]()
        async for event in connection:
            got.append(str(event.type))
            if event.type == "response.completed":
                break

    assert got[:2] == ["response.created", "response.in_progress"]
    assert got.count("response.output_text.delta") == 2


@pytest.mark.parametrize("store", [False, True])
async def test_numbers_have_no_holes(*, store: bool) -> None:
    async with answering(Plays()) as client, opened(client) as socket:
        got = await create(socket, store=store, stream=True)

    assert [one["sequence_number"] for one in got] == list(range(len(got)))
    assert told(got)["status"] == "completed"


@pytest.mark.parametrize("store", [False, True])
async def test_a_chain_goes_on_with_only_what_is_new(*, store: bool) -> None:
    model = Plays((CALLING, SAYING))
    async with answering(model) as client, opened(client) as socket:
        first = told(await create(socket, store=store, tools=[TOOL]))
        (call,) = items(first, "function_call")
        said = {"type": "function_call_output", "call_id": call["call_id"], "output": "water"}
        more = {"previous_response_id": first["id"], "tools": [TOOL], "store": store}
        second = told(await create(socket, [said], **more))
        last = {"previous_response_id": second["id"], "store": store}
        await create(socket, "and?", **last)
        sessions = await client.get("/api/sessions")

    assert [type(one) for one in model.asked[2].transcript] == [
        UserSaid,
        ModelSaid,
        ToolSaid,
        ModelSaid,
        UserSaid,
    ]
    assert len(cast("list[Json]", sessions["items"])) == int(store)


async def test_what_goes_on_from_memory_says_what_it_follows() -> None:
    async with answering(Plays()) as client, opened(client) as socket:
        warm = told(await create(socket, [], generate=False, store=False))
        first = await create(socket, "one", store=False, previous_response_id=warm["id"])
        name = told(first)["id"]
        second = await create(socket, "two", store=False, previous_response_id=name)
        last = told(second)["id"]
        again = told(
            await create(socket, [], generate=False, store=False, previous_response_id=last)
        )
        kept = told(await create(socket, "three", store=True, previous_response_id=again["id"]))
        found = await client.get(f"{PATH}/{kept['id']}")

    begun = [cast("Json", one["response"]) for one in second if "response" in one]
    assert {one["previous_response_id"] for one in begun} == {name}
    assert told(first)["previous_response_id"] == warm["id"]
    assert (again["previous_response_id"], kept["previous_response_id"]) == (last, again["id"])
    assert found == kept


@pytest.mark.parametrize("store", [False, True])
async def test_text_comes_while_the_model_speaks_and_as_over_http(*, store: bool) -> None:
    model = Plays(gates={0: anyio.Event()})
    async with answering(model) as client, opened(client) as socket:
        body = {"type": "response.create", "model": "p:m", "input": "hello", "store": store}
        await socket.send_str(json.dumps(body))
        got = list[Json]()
        with anyio.fail_after(WAIT_S):
            while not got or got[-1].get("delta") != "then":
                got.append(json.loads(await socket.receive_str()))
            model.gates[0].set()
            while got[-1]["type"] != "response.completed":
                got.append(json.loads(await socket.receive_str()))
        over_http = events(await streamed(client, {"model": "p:m", "input": "x", "store": store}))

    assert [one["sequence_number"] for one in got] == [*range(len(got))]
    assert [one["type"] for one in got] == [one["type"] for one in over_http]
    assert [one.get("delta") for one in got] == [one.get("delta") for one in over_http]


async def test_a_continuation_that_failed_is_forgotten() -> None:
    failed = (Failure(code="invalid_request", message="no", again=False),)
    async with answering(Plays((SAYING, failed, SAYING))) as client, opened(client) as socket:
        first = told(await create(socket, store=False))
        more = {"previous_response_id": first["id"], "store": False}
        (refused,) = await create(socket, "two", **more)
        (again,) = await create(socket, "three", **more)
        fresh = await create(socket, "four", store=False)

    assert (refused["type"], refused["status"]) == ("error", 400)
    error = cast("Json", again["error"])
    assert (again["status"], error["code"]) == (400, "previous_response_not_found")
    assert told(fresh)["status"] == "completed"


async def test_what_is_warmed_up_asks_nobody() -> None:
    model = Plays()
    lead = [{"type": "message", "role": "developer", "content": "be brief"}]
    async with answering(model) as client, opened(client) as socket:
        warm = await create(socket, lead, generate=False, store=False)
        asked_before = len(model.asked)
        await create(socket, "hello", previous_response_id=told(warm)["id"], store=False)

    assert (told(warm)["status"], told(warm)["output"], asked_before) == ("completed", [], 0)
    assert (model.asked[0].system, list(model.asked[0].transcript)) == (
        "be brief",
        [UserSaid("hello")],
    )


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("", "malformed"),
        ("{", "malformed"),
        ("[]", "invalid_value"),
        ('{"type": "response.steer"}', "invalid_value"),
        ('{"type": "response.create"}', "missing_required_parameter"),
        ('{"type": "response.create", "model": "p:x", "input": "a"}', "model_not_found"),
        ('{"type": "response.create", "model": "p:x", "generate": false}', "model_not_found"),
        ('{"type": "response.create", "model": "p:m", "input": 5}', "invalid_value"),
    ],
)
async def test_what_cannot_be_read_is_told_and_the_socket_stays(frame: str, code: str) -> None:
    async with answering(Plays()) as client, opened(client) as socket:
        await socket.send_str(frame)
        with anyio.fail_after(WAIT_S):
            error = cast("Json", json.loads(await socket.receive_str()))
        after = await create(socket)

    assert (error["type"], cast("Json", error["error"])["code"]) == ("error", code)
    assert told(after)["status"] == "completed"


async def test_who_goes_away_ends_what_is_asked() -> None:
    model = Plays(gates={0: anyio.Event()})
    async with answering(model) as client:
        async with opened(client) as socket:
            body = {"type": "response.create", "model": "p:m", "input": "hello"}
            await socket.send_str(json.dumps(body))
            with anyio.fail_after(WAIT_S):
                await model.begun.wait()
        with anyio.fail_after(WAIT_S):
            while model.closed == 0:
                await anyio.lowlevel.checkpoint()
        runs = cast("list[Json]", (await client.get("/api/runs"))["items"])

    assert len(runs) == 1


async def test_a_ticket_opens_it_and_a_bad_key_does_not() -> None:
    async with answering(Plays()) as client:
        _, ticket = await client.call("POST", "/api/socket-tickets", {})
        url = f"{client.url}{PATH}?ticket={ticket['ticket']}"
        async with client.http.ws_connect(url) as socket:
            got = await create(socket)
        async with client.http.ws_connect(f"{client.url}{PATH}") as socket:
            await socket.receive()
            closed = socket.close_code
        whole = await made(client, {"model": "p:m", "input": "hello"})

    assert (told(got)["status"], closed, whole["status"]) == ("completed", 4401, "completed")


async def test_after_an_hour_it_is_said_to_open_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_, "LONGEST_S", 0.05)
    async with answering(Plays()) as client, opened(client) as socket:
        with anyio.fail_after(WAIT_S):
            error = cast("Json", json.loads(await socket.receive_str()))
            await socket.receive()

    assert cast("Json", error["error"])["code"] == "websocket_connection_limit_reached"
    assert socket.close_code == 1000
