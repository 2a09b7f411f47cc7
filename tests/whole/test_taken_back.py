"""What was taken back, and the tools that messages brought, in files and in long logs."""

from __future__ import annotations

import json
from typing import cast

import pytest
from tests.serving import Client, Json, Serve
from tests.waiting import of_kind

from hostler.core.ports import Reply
from hostler.core.said import UserSaid
from hostler.core.store import LARGEST_READ
from hostler.testing.doubles import ModelDouble, an_agent

pytestmark = pytest.mark.anyio
TOOL: Json = {"name": "locate", "description": "Where the user is.", "parameters": {}}


async def exported(client: Client, session: str) -> bytes:
    url, headers = f"{client.url}/api/sessions/{session}/export", bearer(client)
    async with client.http.get(url, headers=headers) as got:
        assert got.status == 200, await got.text()
        return await got.read()


def bearer(client: Client) -> dict[str, str]:
    return {"Authorization": f"Bearer {client.key}"}


async def chats(client: Client, chat: Json) -> None:
    url, data = f"{client.url}/api/chat", json.dumps(chat)
    async with client.http.post(url, data=data, headers=bearer(client)) as told:
        assert told.status == 200, await told.text()
        await told.read()


def said(name: str, text: str) -> Json:
    return {"id": name, "role": "user", "parts": [{"type": "text", "text": text}]}


def speaks() -> ModelDouble:
    return ModelDouble(lambda _: Reply(text="well", stop="end"))


async def test_a_conversation_that_was_taken_back_comes_back_so(serve: Serve) -> None:
    model = speaks()
    async with serve(an_agent(model)) as client:
        session = await client.session()
        await client.speak(session, "first")
        run = str(of_kind(await client.facts(session), "run_ended")[0]["run"])
        again: Json = {"trigger": "regenerate-message", "messageId": run.replace("run_", "msg_")}
        await chats(client, {"id": session, "message": "other", "tools": [TOOL], **again})
        tools = (await client.get(f"/api/sessions/{session}"))["client_tools"]
        file = await exported(client, session)
        assert (await client.call("DELETE", f"/api/sessions/{session}"))[0] == 204

        status, _ = await client.call("POST", "/api/sessions/import", raw=file)

        assert status == 201
        assert await exported(client, session) == file
        assert len(of_kind(await client.facts(session), "session_rewound")) == 1
        runs = cast("list[Json]", (await client.get("/api/runs"))["items"])
        assert len(runs) == 2, "what was taken back has a row"
        there = await client.get(f"/api/sessions/{session}")
        assert [one["name"] for one in cast("list[Json]", tools)] == ["locate"]
        assert there["client_tools"] == tools
        await client.speak(session, "last")
        said = [one for one in model.asked[-1].transcript if isinstance(one, UserSaid)]
        assert [one.content for one in said] == ["other", "last"]


async def test_what_is_past_much_text_can_be_taken_back(serve: Serve) -> None:
    model, long = speaks(), "x" * (LARGEST_READ * 2 // 3)
    async with serve(an_agent(model)) as client:
        session = await client.session()
        for name in ("one", "two", "three"):
            await chats(client, {"id": session, "message": said(name, f"{name} {long}")})

        await chats(client, {"id": session, "messageId": "three", "message": said("three", "3")})

        asked = [one for one in model.asked[-1].transcript if isinstance(one, UserSaid)]
        assert [str(one.content)[:3] for one in asked] == ["one", "two", "3"]
