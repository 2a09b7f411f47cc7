"""A session over a WebSocket, as a client meets it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import aiohttp
import anyio
import pytest
from tests.serving import Client, Json, Serve, serving
from tests.viewers import Speaker, say

from hostler.core.ports import Reply
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.native import wire
from hostler.faces.native.socket import LARGEST_BODY
from hostler.stores.memory import MemoryStore
from hostler.testing.doubles import ModelDouble, a_session, an_agent
from hostler.testing.store_suite import spoke

pytestmark = pytest.mark.anyio
Socket = aiohttp.ClientWebSocketResponse


@asynccontextmanager
async def opened(
    client: Client, session: str, query: str = "", headers: Mapping[str, str] | None = None
) -> AsyncGenerator[Socket]:
    url = f"{client.url}/api/sessions/{session}/socket{query}"
    key = {"Authorization": f"Bearer {client.key}"} if client.key else dict[str, str]()
    with anyio.fail_after(15):
        async with client.http.ws_connect(url, headers={**key, **(headers or {})}) as socket:
            yield socket


async def until(socket: Socket, event: str) -> list[Json]:
    """Return frames and answers up to the first frame of this event."""
    found: list[Json] = []
    while not found or found[-1].get("event") != event:
        found.append(cast("Json", await socket.receive_json()))
    return found


async def asked(socket: Socket, verb: str, body: object = None, **more: object) -> Json:
    """Say something and return its answer; frames that come before it are passed over."""
    await socket.send_json({"id": f"my {verb}", "verb": verb, "body": body or {}, **more})
    return await answer(socket)


async def answer(socket: Socket) -> Json:
    while "re" not in (told := cast("Json", await socket.receive_json())):
        pass
    return told


async def closed(socket: Socket) -> int | None:
    """Read to the close; return its code."""
    async for _ in socket:
        pass
    return socket.close_code


def quick() -> ModelDouble:
    return ModelDouble(lambda _: Reply(text="fine", stop="end"))


async def test_what_is_said_is_answered_and_what_comes_of_it_follows(serve: Serve) -> None:
    async with serve(an_agent(quick())) as client:
        session = await client.session()
        async with opened(client, session) as socket:
            receipt = await asked(socket, "message", {"content": "hello"})
            assert (receipt["re"], receipt["status"]) == ("my message", 202)
        async with opened(client, session) as socket:
            frames = await until(socket, "run_ended")

        page = await client.get(f"/api/sessions/{session}/events")
        facts = [frame for frame in frames if frame["event"] != "delta"]
        assert facts == page["events"]
        assert facts[0]["id"] == cast("Json", receipt["body"])["cursor"]


async def test_a_frame_is_encoded_once_for_each_kind_of_stream() -> None:
    store = MemoryStore()
    event = (await store.append(await a_session(store), [spoke("run_1")])).events[0]

    assert wire.text(event) is wire.text(event)
    assert wire.sse(event) is wire.sse(event)
    frame = json.loads(wire.text(event))
    assert wire.sse(event).decode().split("data: ")[1] == f"{wire.data_of(event).decode()}\n\n"
    assert (frame["id"], frame["event"]) == ("1", "user_spoke")
    assert frame["data"] == json.loads(wire.data_of(event))


async def test_every_verb_is_answered_as_http_answers_it(serve: Serve) -> None:
    async with serve(an_agent(quick())) as client:
        session = await client.session()
        path = f"/api/sessions/{session}"
        deep: object = {}
        for _ in range(40):
            deep = {"a": deep}
        said: list[tuple[str, str, Json]] = [
            ("message", f"{path}/messages", {"content": ""}),
            ("message", f"{path}/messages", {"content": "x", "nonsense": 1}),
            ("message", f"{path}/messages", {"content": "x", "metadata": deep}),
            ("cancel", f"{path}/cancel", {"reason": 7}),
            ("cancel", f"{path}/cancel", {}),
            ("approve", f"{path}/approvals/call_none", {"decision": "allow"}),
            ("approve", f"{path}/approvals/call_none", {"decision": "perhaps"}),
            ("result", f"{path}/calls/call_none/result", {"output": "x"}),
        ]
        async with opened(client, session) as socket:
            for verb, where, body in said:
                status, problem = await client.call("POST", where, body)
                more = {"call": "call_none"} if "call_none" in where else {}
                told = await asked(socket, verb, {**body, **more})
                assert (told["re"], told["status"], told["body"]) == (f"my {verb}", status, problem)

            assert (await asked(socket, "ping"))["status"] == 200
            missing = await asked(socket, "approve", {"decision": "allow"})
            assert missing["status"] == 422


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        ("", 400),
        ("nonsense", 400),
        ("[]", 422),
        ('{"id": 1}', 422),
        ('{"verb": "message", "more": 1}', 422),
        ('{"verb": "dance"}', 422),
        ('{"verb": "message", "body": []}', 422),
        ('{"verb": "approve", "body": {"call": 5}}', 422),
        ('{"verb": "message", "body": ' + "[" * 5000 + "]" * 5000 + "}", 400),
        (b"\x00\xff", 400),
    ],
)
async def test_what_cannot_be_read_is_answered_and_the_socket_stays(
    serve: Serve, frame: str | bytes, status: int
) -> None:
    async with serve(an_agent(quick())) as client:
        session = await client.session()
        async with opened(client, session) as socket:
            if isinstance(frame, bytes):
                await socket.send_bytes(frame)
            else:
                await socket.send_str(frame)
            told = await answer(socket)

            assert told["status"] == status
            assert cast("Json", told["body"])["code"] in ("malformed", "invalid")
            assert (await asked(socket, "ping"))["re"] == "my ping"
        assert await client.facts(session) == []


async def test_a_message_that_is_too_large_is_refused(serve: Serve) -> None:
    async with serve(an_agent(quick())) as client:
        session = await client.session()
        async with opened(client, session) as socket:
            told = await asked(socket, "message", {"content": "x" * LARGEST_BODY})
            assert (told["status"], cast("Json", told["body"])["code"]) == (413, "too_large")

            with suppress(ConnectionError):  # the server does not read to its end
                await socket.send_str("x" * (LARGEST_BODY + 100_000))
            await closed(socket)
            assert socket.close_code in (1006, 1009)
        assert await client.facts(session) == []


async def test_an_idempotency_key_is_good_on_a_socket_and_over_http(serve: Serve) -> None:
    async with serve(an_agent(quick())) as client:
        session = await client.session()
        body = {"content": "once"}
        async with opened(client, session) as socket:
            first = await asked(socket, "message", body, idempotency_key="k")
            again = await asked(socket, "message", body, idempotency_key="k")
            other = await asked(socket, "message", {"content": "twice"}, idempotency_key="k")
        raw = json.dumps(body).encode()
        key = {"Idempotency-Key": "k"}
        path = f"/api/sessions/{session}/messages"
        status, receipt = await client.call("POST", path, raw=raw, headers=key)

        assert (again["body"], again["status"], again["replayed"]) == (first["body"], 202, True)
        assert (other["status"], cast("Json", other["body"])["code"]) == (422, "key_reused")
        assert (status, receipt) == (202, first["body"])
        assert sum(fact["kind"] == "user_spoke" for fact in await client.facts(session)) == 1


async def test_a_bad_key_closes_with_4401_and_what_is_absent_is_no_socket(serve: Serve) -> None:
    async with serve(an_agent(quick())) as client:
        session = await client.session()

        async with opened(client, session, headers={"Authorization": "Bearer no"}) as socket:
            assert await closed(socket) == 4401
        for where, status in (("ses_absent00", 404), (f"{session}/../..", 404)):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with opened(client, where):
                    pass
            assert refused.value.status == status
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with opened(client, session, "?after=99"):
                pass
        assert refused.value.status == 400
        status, problem = await client.call("GET", f"/api/sessions/{session}/socket")
        assert (status, problem["code"]) == (426, "upgrade_required")


async def test_a_ticket_opens_one_socket(serve: Serve) -> None:
    async with serve(an_agent(quick())) as client:
        session = await client.session()
        status, given = await client.call("POST", "/api/socket-tickets", {})
        assert (status, given["expires_in_s"]) == (201, 60)
        client.key = ""

        async with opened(client, session, f"?ticket={given['ticket']}") as socket:
            assert (await asked(socket, "message", {"content": "hello"}))["status"] == 202
        for query in (f"?ticket={given['ticket']}", "?ticket=ht_none", ""):
            async with opened(client, session, query) as socket:
                assert await closed(socket) == 4401
        status, _ = await client.call("POST", "/api/socket-tickets", {})
        assert status == 401


@pytest.mark.parametrize(
    ("origin", "is_let_in"),
    [
        ("same", True),
        ("https://app.example.org", True),
        ("https://evil.example.org", False),
        ("null", False),
        ("https://app.example.org.evil.example", False),
    ],
)
async def test_pages_of_other_hosts_are_refused_unless_they_are_named(
    tmp_path: Path, origin: str, *, is_let_in: bool
) -> None:
    named = ["https://app.example.org"]
    async with serving(an_agent(quick()), file=tmp_path / "log.db", origins=named) as client:
        session = await client.session()
        headers = {"Origin": client.url if origin == "same" else origin}
        if is_let_in:
            async with opened(client, session, headers=headers) as socket:
                assert (await asked(socket, "ping"))["status"] == 200
            return
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with opened(client, session, headers=headers):
                pass
        assert refused.value.status == 403


async def test_a_server_that_stops_says_1012_and_cuts_streams(tmp_path: Path) -> None:
    streams = OpenStreams()
    async with serving(an_agent(quick()), file=tmp_path / "log.db", streams=streams) as client:
        session = await client.session()
        await say(client, session)
        async with opened(client, session) as socket:
            await until(socket, "run_ended")
            streams.close()

            assert await closed(socket) == 1012
        assert len(streams) == 0


async def test_a_session_that_is_deleted_closes_its_sockets(serve: Serve) -> None:
    async with serve(an_agent(Speaker([]))) as client:
        session = await client.session()
        async with opened(client, session) as socket:
            assert (await asked(socket, "ping"))["status"] == 200
            status, _ = await client.call("DELETE", f"/api/sessions/{session}")
            assert status == 204

            assert await closed(socket) == 4404


async def test_those_who_want_to_be_seen_see_each_other_come_type_and_go(serve: Serve) -> None:
    async with serve(an_agent(quick())) as client:
        session = await client.session()
        path = f"/api/sessions/{session}"
        stream = client.frames(f"{path}/events?presence=true&after=now")
        async with opened(client, session, "?presence=true") as socket:
            first = await until(socket, "presence")
            assert [one["typing"] for one in watching(first[-1])] == [False]
            assert "id" not in first[-1]

            sse = await anext(stream)
            assert (sse.event, sse.id, len(watching({"data": sse.data}))) == ("presence", "", 2)
            assert len(watching((await until(socket, "presence"))[-1])) == 2
            assert (await client.get(path))["watching"] == 2

            assert (await client.call("POST", f"{path}/typing", {}))[0] == 204
            typing = watching((await until(socket, "presence"))[-1])
            assert {(one["principal"], one["typing"]) for one in typing} == {("admin", True)}

            await stream.aclose()
            assert len(watching((await until(socket, "presence"))[-1])) == 1
            assert (await asked(socket, "typing"))["status"] == 204

        assert await client.facts(session) == []
        assert (await client.call("POST", "/api/sessions/ses_absent00/typing", {}))[0] == 404


def watching(frame: Json) -> list[Json]:
    return cast("list[Json]", cast("Json", frame["data"])["watching"])
