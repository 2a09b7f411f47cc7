"""`Idempotency-Key`: a POST that is sent twice happens once, and is answered the same."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import aclosing
from typing import cast

import anyio
import pytest
from tests.serving import Client, Json, Serve
from tests.whole.test_native_api import GatedModel, an_ordinary_agent

from hostler.core.events import Principal, PrincipalId, TenantId
from hostler.core.ports import Reply, Request
from hostler.core.said import UserSaid
from hostler.service.once import Asked
from hostler.testing.doubles import ModelDouble, ToolboxDouble, a_call, a_tool, an_agent

pytestmark = pytest.mark.anyio
Sent = tuple[int, bool, Json]
"""Status, whether it was a replay, body."""


async def post(client: Client, path: str, body: object, *, key: str, **headers: str) -> Sent:
    sent = {"Authorization": f"Bearer {client.key}", "Idempotency-Key": key, **headers}
    async with client.http.post(
        f"{client.url}{path}", data=json.dumps(body), headers=sent
    ) as answer:
        replayed = answer.headers.get("Idempotent-Replayed") == "true"
        return answer.status, replayed, await answer.json(content_type=None)


async def test_a_message_that_is_sent_twice_is_stored_once_and_answered_the_same(
    serve: Serve,
) -> None:
    async with serve(an_ordinary_agent()) as client:
        session = await client.session()
        path = f"/api/sessions/{session}/messages"

        first = await post(client, path, {"content": "hello"}, key="k-1")
        again = await post(client, path, {"content": "hello"}, key='"k-1"')

        assert first[:2] == (202, False)
        assert again == (202, True, first[2])
        other = await post(client, path, {"content": "hello"}, key="k-2")
        assert other[:2] == (202, False)
        assert other[2]["run"] != first[2]["run"]
        facts = await client.facts(session)
        assert [fact["kind"] for fact in facts].count("user_spoke") == 2


async def test_a_key_that_was_used_for_another_body_is_refused(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        path = f"/api/sessions/{await client.session()}/messages"
        await post(client, path, {"content": "hello"}, key="k")

        status, replayed, body = await post(client, path, {"content": "other"}, key="k")

        assert (status, replayed, body["code"]) == (422, False, "key_reused")


@pytest.mark.parametrize("key", ["", '""', " ", "x" * 257])
async def test_a_key_that_is_none_is_refused(serve: Serve, key: str) -> None:
    async with serve(an_ordinary_agent()) as client:
        status, _, body = await post(client, "/api/sessions", {}, key=key)

        assert (status, body["code"]) == (422, "invalid")
        assert (await client.get("/api/sessions"))["items"] == []


async def test_answers_survive_a_restart(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        made = await post(client, "/api/sessions", {"title": "one"}, key="k")
        session = made[2]["id"]
        path = f"/api/sessions/{session}/messages"
        spoken = await post(client, path, {"content": "hello"}, key="k")

    async with serve(an_ordinary_agent()) as client:
        assert await post(client, "/api/sessions", {"title": "one"}, key="k") == (
            201,
            True,
            made[2],
        )
        assert await post(client, path, {"content": "hello"}, key="k") == (202, True, spoken[2])
        ended = await post(client, path, {"content": "hello"}, key="k", Prefer="wait=10")
        assert (ended[0], ended[1], ended[2]["run"]) == (200, True, spoken[2]["run"])
        assert (ended[2]["status"], ended[2]["text"]) == ("done", "all done now")
        assert len(cast("list[Json]", (await client.get("/api/sessions"))["items"])) == 1


async def test_a_stream_that_is_asked_for_again_goes_on_with_the_same_run(serve: Serve) -> None:
    model = GatedModel(["one ", "two "])
    async with serve(an_agent(model)) as client:
        session = await client.session()
        path, body = f"/api/sessions/{session}/messages", {"content": "go"}
        headers = {"Idempotency-Key": "k"}
        with anyio.fail_after(10):
            stream = client.frames(path, method="POST", body=body, headers=headers)
            async with aclosing(stream) as frames:
                first = [await anext(frames)]
                model.let(1)
                while first[-1].event != "delta":
                    first.append(await anext(frames))
            model.let(2)
            again = [
                frame
                async for frame in client.frames(path, method="POST", body=body, headers=headers)
            ]

        assert again[0].event == "receipt"
        assert again[0].data == first[0].data
        facts = [frame.data for frame in again[1:] if frame.event != "delta"]
        assert facts == (await client.facts(session))[1:]
        assert again[-1].event == "run_ended"
        assert [fact["kind"] for fact in facts].count("run_started") == 1


async def test_equal_requests_at_once_start_one_run(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        session = await client.session()
        path, answers = f"/api/sessions/{session}/messages", list[Sent]()

        async def send() -> None:
            answers.append(await post(client, path, {"content": "hello"}, key="k"))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(send)

        assert Counter((status, replayed) for status, replayed, _ in answers)[202, False] == 1
        assert {body["code"] for status, _, body in answers if status == 409} <= {"in_progress"}
        assert len({body["run"] for status, _, body in answers if status == 202}) == 1
        assert {status for status, _, _ in answers} <= {202, 409}
        runs = cast("list[Json]", (await client.get(f"/api/runs?session={session}"))["items"])
        assert len(runs) == 1


async def test_a_message_whose_end_is_still_waited_for_can_be_repeated(serve: Serve) -> None:
    model = GatedModel(["word "])
    async with serve(an_agent(model)) as client:
        path, answers = f"/api/sessions/{await client.session()}/messages", list[Sent]()

        async def send() -> None:
            answers.append(await post(client, path, {"content": "go"}, key="k", Prefer="wait=60"))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                await model.asked.wait()
                answers.append(await post(client, path, {"content": "go"}, key="k"))
                model.let(2)

        (receipt, first) = answers
        assert receipt[:2] == (202, True)
        assert first[:2] == (200, False)
        assert receipt[2]["run"] == first[2]["run"]
        again = await post(client, path, {"content": "go"}, key="k", Prefer="wait=60")
        assert again == (200, True, first[2])


async def test_errors_are_not_kept(serve: Serve) -> None:
    model = GatedModel(["word "])
    async with serve(an_agent(model)) as client:
        session = await client.session()
        path = f"/api/sessions/{session}/messages"
        await client.call("POST", path, {"content": "go"})
        body = {"content": "now", "policy": "reject"}

        refused = await post(client, path, body, key="k")
        model.let(4)
        with anyio.fail_after(10):
            async for _ in client.frames(f"/api/sessions/{session}/events?until=run_end"):
                pass
            accepted = await post(client, path, body, key="k")

        assert (refused[0], refused[2]["code"]) == (409, "busy")
        assert accepted[:2] == (202, False)
        assert (await post(client, "/api/sessions", {"agent": "none"}, key="s"))[0] == 422
        assert (await post(client, "/api/sessions", {}, key="s"))[:2] == (201, False)


async def test_a_key_is_good_for_one_path(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        paths = [f"/api/sessions/{await client.session()}/messages" for _ in range(2)]

        first, second = [await post(client, path, {"content": "x"}, key="k") for path in paths]

        assert (first[:2], second[:2]) == ((202, False), (202, False))
        assert first[2]["session"] != second[2]["session"]


def test_a_key_is_good_for_one_principal_and_one_path_and_one_body() -> None:
    def asked(who: str, what: str, key: str, body: bytes) -> Asked:
        principal = Principal(id=PrincipalId(who), tenant=TenantId("default"))
        return Asked.by(principal, what, key, body)

    one = asked("me", "POST /a", "k", b"{}")
    assert asked("me", "POST /a", '"k"', b"{}") == one
    others = [
        asked("you", "POST /a", "k", b"{}"),
        asked("me", "POST /b", "k", b"{}"),
        asked("me", "POST /a", "l", b"{}"),
    ]
    assert len({one.scope, *(other.scope for other in others)}) == 4
    other_body = asked("me", "POST /a", "k", b"[]")
    assert other_body.scope == one.scope
    assert other_body.digest != one.digest


OPENAIS = ("/v1/responses", "/v1/conversations")


def wait_twice(request: Request) -> Reply:
    """Ask for an approval, then for a client's help, then be done."""
    answers = len(request.transcript) - max(
        place for place, one in enumerate(request.transcript) if isinstance(one, UserSaid)
    )
    if answers > 4:
        return Reply(text="done", stop="end")
    name = "gated" if answers == 1 else "client"
    return Reply(text="", stop="tools", calls=(a_call(name),))


async def test_every_post_can_be_sent_twice(serve: Serve) -> None:
    tools = ToolboxDouble(
        {"gated": a_tool("gated", approval=True), "client": a_tool("client", client=True)}
    )
    async with serve(an_agent(ModelDouble(wait_twice), tools=tools)) as client:

        async def twice(path: str, body: object, **headers: str) -> Json:
            first = await post(client, path, body, key="k", **headers)
            again = await post(client, path, body, key="k", **headers)
            assert first[0] < 300, first
            assert (first[1], again) == (False, (first[0], True, first[2])), path
            return first[2]

        session = (await twice("/api/sessions", {"title": "t"}))["id"]
        here = f"/api/sessions/{session}"
        said = await twice(f"{here}/messages", {"content": "go"}, Prefer="wait=10")
        gated = cast("Json", said["waiting"])["call"]
        await twice(f"{here}/approvals/{gated}", {"decision": "allow"})
        client_call = await next_wait(client, here)
        await twice(f"{here}/calls/{client_call}/result", {"output": "x"})
        await ended(client, here)
        await twice(f"/api/runs/{said['run']}/feedback", {"score": 1})
        fork = await twice(f"{here}/fork", {})
        await twice(f"/api/sessions/{fork['id']}/cancel", {})

        document = cast("dict[str, dict[str, Json]]", (await client.get("/openapi.json"))["paths"])
        keeping = {
            path
            for path, methods in document.items()
            if "Idempotency-Key" in str(methods.get("post", {}).get("parameters"))
        }
        keeping.remove("/api/chat")  # streams: tests/whole/test_chat_refusals.py
        keeping -= {"/v1/chat/completions", "/v1/messages"}  # of agents: test_agents_chat.py
        keeping = {one for one in keeping if not one.startswith(OPENAIS)}  # test_response_once.py
        assert len(keeping) == 7, "a new one has to be tried here as well"
        facts = await client.facts(str(session))
        kinds = Counter(str(fact["kind"]) for fact in facts)
        assert (kinds["approval_given"], kinds["user_spoke"], kinds["run_ended"]) == (1, 1, 1)
        assert len(cast("list[Json]", (await client.get("/api/sessions"))["items"])) == 2


async def next_wait(client: Client, here: str) -> object:
    with anyio.fail_after(10):
        async with aclosing(client.frames(f"{here}/events")) as frames:
            async for frame in frames:
                if frame.event == "tool_started" and "expires_at" in frame.data:
                    return frame.data["call"]
    raise AssertionError


async def ended(client: Client, here: str) -> None:
    with anyio.fail_after(10):
        async for _ in client.frames(f"{here}/events?until=run_end"):
            pass


async def test_finding_a_session_again_is_answered_the_same_when_it_is_repeated(
    serve: Serve,
) -> None:
    async with serve(an_ordinary_agent()) as client:
        body = {"id": "ses_mine_0001"}
        made = await post(client, "/api/sessions", body, key="k-1")
        found = await post(client, "/api/sessions", body, key="k-2")
        await client.speak("ses_mine_0001")

        assert await post(client, "/api/sessions", body, key="k-2") == (200, True, found[2])
        await client.call("DELETE", "/api/sessions/ses_mine_0001")
        assert await post(client, "/api/sessions", body, key="k-2") == (200, True, found[2])

        assert (made[0], found[:2]) == (201, (200, False))
        assert (await client.get("/api/sessions"))["items"] == []
