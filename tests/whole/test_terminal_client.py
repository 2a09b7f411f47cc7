"""The client that the commands are made of, when its connection breaks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.breaking import Cut, cutting
from tests.serving import KEY, Serve

from hostler import Client
from hostler.core.errors import Conflict, Unavailable
from hostler.core.ports import AgentSpec
from hostler.harness.toolbox import Toolbox
from hostler.models.scripted import scripted

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


def an_echo() -> AgentSpec:
    return AgentSpec(
        name="echo",
        instructions="",
        models=[scripted("demo")],
        tools=Toolbox([], spill_folder=None),
    )


@pytest.mark.parametrize(
    "cuts", [["answer"], ["request"], ["request", "answer", "answer"], ["none"]], ids=str
)
async def test_a_message_is_stored_once_however_often_the_connection_breaks(
    serve: Serve, cuts: Sequence[Cut]
) -> None:
    async with serve(an_echo()) as server, cutting(server, *cuts) as (url, cutter):
        session = await server.session()
        async with Client(url, KEY) as client:
            receipt = await client.speak(session, "hello")
        facts = await server.facts(session)

    spoken = [fact for fact in facts if fact["kind"] == "user_spoke"]
    assert [fact["input"] for fact in spoken] == [receipt.input]
    assert cutter.met[: len(cuts)] == list(cuts)


async def test_a_session_and_a_fork_are_made_once_too(serve: Serve) -> None:
    async with serve(an_echo()) as server, cutting(server, "answer", "none", "answer") as (url, _):
        async with Client(url, KEY) as client:
            made = await client.create_session()
        async with Client(url, KEY) as client:
            fork = await client.fork(made.id)
            found = [one.id async for one in client.list_sessions()]

    assert sorted(found) == sorted([made.id, fork.id])


async def test_a_server_that_does_not_come_back_is_not_waited_for_without_end(
    serve: Serve,
) -> None:
    cuts: list[Cut] = ["request"] * 1000
    async with (
        serve(an_echo()) as server,
        cutting(server, *cuts) as (url, cutter),
        Client(url, KEY) as client,
    ):
        with pytest.raises(Unavailable):
            await client.api.post("/api/sessions", {}, tries_s=0.2)
        tried = len(cutter.met)
        with pytest.raises(Unavailable):
            await client.cancel("ses_0123456789", tries_s=0)

    assert tried > 1
    assert len(cutter.met) == tried + 1, "a cancel is said once"


async def test_a_refusal_keeps_its_code_and_what_is_said_with_it(serve: Serve) -> None:
    async with serve(an_echo()) as server:
        session = await server.session(title="one")
        async with Client(server.url, KEY) as client:
            with pytest.raises(Conflict) as refused:
                await client.api.post("/api/sessions", {"id": session, "title": "two"})

    assert refused.value.code == "exists"
    assert refused.value.more["status"] == 409
