"""Webhooks tell what the face of Responses shows: the same names, ended in the same way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import anyio
import pytest
from openai import OpenAI
from openai.types.webhooks import (
    ResponseCancelledWebhookEvent,
    ResponseCompletedWebhookEvent,
    ResponseFailedWebhookEvent,
    ResponseIncompleteWebhookEvent,
)
from tests.canaries import master_keys
from tests.direct import USED
from tests.receivers import Came, Receiver, a_hook, receiving, to_loopback
from tests.responses import CALLING, PATH, SAYING, TOOL, Plays, answering, asked, items, made, post
from tests.serving import Client, Json

from hostler.core.ports import AgentSpec, Failure, Reply
from hostler.core.sealed import Part
from hostler.testing.doubles import ToolboxDouble, a_call, a_tool, an_agent
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio
ENDS = [f"response.{one}" for one in ("completed", "incomplete", "failed", "cancelled")]


@dataclass
class Told:
    """A server, and who is told by it."""

    client: Client
    receiver: Receiver
    secret: str

    async def is_told(self, count: int) -> tuple[object, Json]:
        """Return the newest of so many events as the SDK has it, and the response of its name."""
        came = (await self.receiver.got(count))[-1]
        event = self._unwrapped(came)
        return event, await self.client.get(f"{PATH}/{event.data.id}")

    def _unwrapped(self, came: Came) -> ResponseCompletedWebhookEvent:
        sdk = OpenAI(api_key="none", webhook_secret=self.secret)
        event = sdk.webhooks.unwrap(came.body, dict(came.headers))
        return cast("ResponseCompletedWebhookEvent", event)


@asynccontextmanager
async def told(model: Plays, *agents: AgentSpec) -> AsyncGenerator[Told]:
    more = {"vault": SealedVault(master_keys()), "outbound": to_loopback()}
    async with receiving() as receiver, answering(model, *agents, **more) as client:
        hook = await a_hook(client, receiver.url, events=ENDS)
        yield Told(client, receiver, str(hook["secret"]))


async def test_a_response_that_stops_for_its_client_is_told_and_so_is_what_follows_it() -> None:
    async with told(Plays((CALLING, SAYING))) as at:
        first = await made(at.client, asked(background=True, tools=[TOOL]))
        event, there = await at.is_told(1)
        (call,) = items(there, "function_call")
        said = {"type": "function_call_output", "call_id": call["call_id"], "output": "x"}
        body = asked([said], background=True, previous_response_id=first["id"], tools=[TOOL])
        second = await made(at.client, body)
        last, end = await at.is_told(2)

    assert isinstance(event, ResponseCompletedWebhookEvent)
    assert isinstance(last, ResponseCompletedWebhookEvent)
    assert (there["id"], there["status"]) == (first["id"], "completed")
    assert (end["id"], end["status"]) == (second["id"], "completed")
    assert first["id"] != second["id"]
    assert [one["type"] for one in items(end)] == ["message"]


async def test_a_response_that_asks_for_an_approval_is_told() -> None:
    calling = Reply(text="", stop="tools", calls=(a_call("dig"),))
    model = Plays(((calling,), SAYING))
    tools = ToolboxDouble({"dig": a_tool("dig", approval=True)})
    async with told(model, an_agent(model, tools=tools, name="digger")) as at:
        asks: Json = {"model": "agent:digger", "input": "dig", "background": True}
        first = await made(at.client, asks)
        event, there = await at.is_told(1)
        (request,) = items(there, "mcp_approval_request")
        call = "call_" + str(request["id"]).removeprefix("mcpr_")
        (session,) = cast("list[Json]", (await at.client.get("/api/sessions"))["items"])
        path = f"/api/sessions/{session['id']}/approvals/{call}"
        _, given = await at.client.call("POST", path, {"decision": "allow"})
        _, end = await at.is_told(2)

    assert isinstance(event, ResponseCompletedWebhookEvent)
    assert there["id"] == first["id"]
    assert (end["id"], end["status"]) == (f"{first['id']}_{given['seq']}", "completed")
    assert [one["type"] for one in items(end)] == ["mcp_call", "message"]


LONG: Sequence[Part] = (Reply(text="well th", stop="length", usage=USED),)
WRONG: Sequence[Part] = (Failure(code="overloaded", message="too much", again=False),)


@pytest.mark.parametrize(
    ("replies", "kind", "status"),
    [
        (SAYING, ResponseCompletedWebhookEvent, "completed"),
        (LONG, ResponseIncompleteWebhookEvent, "incomplete"),
        (WRONG, ResponseFailedWebhookEvent, "failed"),
    ],
    ids=["completed", "incomplete", "failed"],
)
async def test_a_response_is_told_to_have_ended_as_it_is_shown(
    replies: Sequence[Part], kind: type, status: str
) -> None:
    async with told(Plays((replies,))) as at:
        first = await made(at.client, asked(background=True))
        event, there = await at.is_told(1)

    assert isinstance(event, kind)
    assert (there["id"], there["status"]) == (first["id"], status)


async def test_a_cancelled_response_is_told() -> None:
    model = Plays(gates={0: anyio.Event()})
    async with told(model) as at:
        first = await made(at.client, asked(background=True))
        await model.begun.wait()
        await post(at.client, {}, f"/{first['id']}/cancel")
        event, there = await at.is_told(1)

    assert isinstance(event, ResponseCancelledWebhookEvent)
    assert (there["id"], there["status"]) == (first["id"], "cancelled")


async def test_a_response_in_front_of_its_client_is_not_told() -> None:
    async with told(Plays()) as at:
        await made(at.client, asked())
        second = await made(at.client, asked(background=True))
        _, there = await at.is_told(1)

    assert there["id"] == second["id"]
    assert len(at.receiver.came) == 1
