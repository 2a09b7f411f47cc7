"""Every documented limit is kept, and what is over it stores nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from tests.serving import Client, Json, Serve, serving

from hostler.core.errors import Conflict
from hostler.core.events import Key, TenantId
from hostler.core.ports import AgentSpec, Reply, Request
from hostler.core.said import ToolSaid
from hostler.faces.http.open_streams import OpenStreams
from hostler.service.limits import (
    DEEPEST,
    LARGEST_CLIENT_TOOL,
    LARGEST_METADATA,
    LONGEST_QUEUE,
    LONGEST_TEXT,
    LONGEST_TITLE,
    MOST_CALLS,
    MOST_CLIENT_TOOLS,
    MOST_PARTS,
)
from hostler.service.room import Room
from hostler.stores.memory import MemoryStore
from hostler.testing.doubles import ModelDouble, ToolboxDouble, a_call, a_session, a_tool, an_agent

pytestmark = pytest.mark.anyio


def plain() -> AgentSpec:
    return an_agent(ModelDouble(lambda _: Reply(text="ok", stop="end")), name="plain")


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def tools(count: int, describe: int = 0) -> Sequence[Json]:
    return [{"name": f"tool_{i}", "description": "x" * describe} for i in range(count)]


LARGE: dict[str, tuple[str, Json, Json, str]] = {
    # where, what just fits, what is over, where the answer points
    "text": (
        "messages",
        {"content": "x" * LONGEST_TEXT},
        {"content": "x" * (LONGEST_TEXT + 1)},
        "",
    ),
    "text in parts": (
        "messages",
        {"content": [{"type": "text", "text": "x" * (LONGEST_TEXT // 2)}] * 2},
        {"content": [{"type": "text", "text": "x" * (LONGEST_TEXT // 2 + 1)}] * 2},
        "",
    ),
    "parts": (
        "messages",
        {"content": [{"type": "text", "text": "x"}] * MOST_PARTS},
        {"content": [{"type": "text", "text": "x"}] * (MOST_PARTS + 1)},
        "/content",
    ),
    "metadata of a message": (
        "messages",
        {"content": "x", "metadata": {"a": "x" * (LARGEST_METADATA - 8)}},
        {"content": "x", "metadata": {"a": "x" * (LARGEST_METADATA - 7)}},
        "/metadata",
    ),
    "depth of metadata": (
        "messages",
        {"content": "x", "metadata": nested(DEEPEST - 1)},
        {"content": "x", "metadata": nested(DEEPEST)},
        "/metadata",
    ),
    "title": ("", {"title": "x" * LONGEST_TITLE}, {"title": "x" * (LONGEST_TITLE + 1)}, "/title"),
    "metadata": (
        "",
        {"metadata": {"a": "x" * (LARGEST_METADATA - 8)}},
        {"metadata": {"a": "x" * (LARGEST_METADATA - 7)}},
        "/metadata",
    ),
    "title of a fork": (
        "fork",
        {"title": "x" * LONGEST_TITLE},
        {"title": "x" * (LONGEST_TITLE + 1)},
        "/title",
    ),
    "client tools": (
        "new",
        {"client_tools": tools(MOST_CLIENT_TOOLS)},
        {"client_tools": tools(MOST_CLIENT_TOOLS + 1)},
        "/client_tools",
    ),
    "a client tool": (
        "new",
        {"client_tools": tools(1, LARGEST_CLIENT_TOOL - 200)},
        {"client_tools": tools(1, LARGEST_CLIENT_TOOL)},
        "/client_tools/0",
    ),
    "depth of a schema": (
        "new",
        {"client_tools": [{"name": "t", "parameters": nested(3)}]},
        {"client_tools": [{"name": "t", "parameters": nested(DEEPEST)}]},
        "/client_tools/0/parameters",
    ),
}


@pytest.mark.parametrize("case", LARGE)
async def test_what_just_fits_is_taken_and_more_is_refused(serve: Serve, case: str) -> None:
    where, fits, over, pointer = LARGE[case]
    async with serve(plain()) as client:
        session = await client.session()
        made = await client.get(f"/api/sessions/{session}")
        method, path = {
            "": ("PATCH", f"/api/sessions/{session}"),
            "new": ("POST", "/api/sessions"),
        }.get(where, ("POST", f"/api/sessions/{session}/{where}"))

        status, problem = await client.call(method, path, over)

        assert status == (422 if pointer else 413), problem
        if pointer:
            (field,) = cast("list[Json]", problem["errors"])
            assert field["pointer"] == pointer
        assert await client.get(f"/api/sessions/{session}") == made
        assert len(cast("list[Json]", (await client.get("/api/sessions"))["items"])) == 1
        status, told = await client.call(method, path, fits)
        assert status in (200, 201, 202), told


async def test_a_full_queue_refuses_every_policy_that_would_wait(serve: Serve) -> None:
    hold = anyio.Event()

    async def wait(_: object) -> str:
        await hold.wait()
        return "done"

    def answer(request: Request) -> Reply:
        if isinstance(request.transcript[-1], ToolSaid):
            return Reply(text="ok", stop="end")
        return Reply(text="", stop="tools", calls=(a_call("wait"),))

    box = ToolboxDouble({"wait": a_tool("wait")}, effects={"wait": wait})
    async with serve(an_agent(ModelDouble(answer), tools=box, name="slow")) as client:
        session = await client.session()
        path = f"/api/sessions/{session}/messages"
        for _ in range(LONGEST_QUEUE + 1):
            assert (await client.call("POST", path, {"content": "x"}))[0] == 202
        before = (await client.get(f"/api/sessions/{session}"))["seq"]

        for policy in ("queue", "interrupt"):
            status, problem = await client.call("POST", path, {"content": "x", "policy": policy})
            assert (status, problem["code"]) == (409, "queue_full"), policy
        assert (await client.get(f"/api/sessions/{session}"))["seq"] == before
        for policy in ("steer", "coalesce", "replace"):
            status, _ = await client.call("POST", path, {"content": "x", "policy": policy})
            assert status == 202, policy
        hold.set()


async def test_of_too_many_calls_in_one_reply_the_first_are_run(serve: Serve) -> None:
    calls = tuple(a_call("do", n=n) for n in range(MOST_CALLS + 3))

    def answer(request: Request) -> Reply:
        if isinstance(request.transcript[-1], ToolSaid):
            return Reply(text="ok", stop="end")
        return Reply(text="", stop="tools", calls=calls)

    box = ToolboxDouble({"do": a_tool("do", effects="read")})
    async with serve(an_agent(ModelDouble(answer), tools=box, name="many")) as client:
        session = await client.session()
        await client.speak(session)

        facts = await client.facts(session)
        assert len(box.done) == MOST_CALLS
        ends = {fact["call"]: fact for fact in facts if fact["kind"] == "tool_finished"}
        assert [ends[call.id]["outcome"] for call in calls] == ["ok"] * MOST_CALLS + ["error"] * 3
        assert str(ends[calls[-1].id]["output"]).startswith("Not run: a reply may make 64 calls")


async def test_a_tenant_has_room_for_so_many_sessions() -> None:
    store = MemoryStore()
    room = Room(store, most=3)
    mine, theirs = TenantId("default"), TenantId("other")
    keys = list[Key]()

    async def make() -> None:
        async with room.one(mine):
            await anyio.lowlevel.checkpoint()
            keys.append(await a_session(store))

    await make()
    refused = 0

    async def try_to() -> None:
        nonlocal refused
        try:
            await make()
        except Conflict:
            refused += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(try_to)
    assert (await store.count(mine), refused) == (3, 4)
    async with room.one(theirs):
        pass
    await store.delete(keys[0])
    await make()
    with pytest.raises(Conflict, match="delete some") as full:
        await make()
    assert full.value.code == "too_many_sessions"
    with pytest.raises(ZeroDivisionError):
        async with Room(store, most=4).one(mine):
            raise ZeroDivisionError


async def test_room_that_was_not_used_is_given_back() -> None:
    store = MemoryStore()
    room = Room(store, most=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with room.one(TenantId("default")):
                raise ZeroDivisionError


async def test_finding_a_session_again_takes_no_room(serve: Serve) -> None:
    async with serve(plain()) as client:
        most = {"settings": {"most_sessions": 2}}
        assert (await client.call("PATCH", "/api/tenants/default", most))[0] == 200
        mine, body = "ses_mine_0001", {"id": "ses_mine_0001"}
        assert await client.session(id=mine) == mine
        for _ in range(3):
            assert (await client.call("POST", "/api/sessions", body))[0] == 200

        await client.session()

        assert (await client.call("POST", "/api/sessions", body))[0] == 200
        status, problem = await client.call("POST", "/api/sessions", {"id": "ses_mine_0002"})
        assert (status, problem["code"]) == (409, "too_many_sessions")


async def test_one_principal_has_so_many_streams_open(tmp_path: Path) -> None:
    streams = OpenStreams(most=2)
    async with serving(plain(), file=tmp_path / "log.db", streams=streams) as client:
        session = await client.session()
        await client.speak(session)
        path = f"/api/sessions/{session}"
        _, link = await client.call("POST", f"{path}/shares", {})
        viewer = Client(client.http, client.url, str(link["token"]))
        sse = {"Accept": "text/event-stream", "Authorization": f"Bearer {client.key}"}

        async with (
            client.http.get(f"{client.url}{path}/events", headers=sse),
            client.http.get(f"{client.url}{path}/events", headers=sse) as second,
        ):
            await second.content.readany()
            before = await client.get(path)
            for method, where, body in (
                ("GET", "events", None),
                ("POST", "messages", {"content": "x"}),
            ):
                status, problem, retry_after = await asked(client, method, f"{path}/{where}", body)
                assert (status, problem["code"], retry_after) == (429, "too_many", "1"), where
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.http.ws_connect(f"{client.url}{path}/socket", headers=sse)
            assert refused.value.status == 429
            assert await client.get(path) == before
            frames = viewer.frames(f"{path}/events")
            assert (await anext(frames)).event == "user_spoke", "others have their own"
            await frames.aclose()
        with anyio.fail_after(10):
            while len(streams):
                await anyio.lowlevel.checkpoint()
        assert (await client.speak(session))[-1].event == "run_ended"


async def asked(
    client: Client, method: str, path: str, body: object
) -> tuple[int, Json, str | None]:
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {client.key}"}
    async with client.http.request(
        method, f"{client.url}{path}", json=body, headers=headers
    ) as answer:
        return (
            answer.status,
            await answer.json(content_type=None),
            answer.headers.get("Retry-After"),
        )
