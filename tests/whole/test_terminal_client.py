"""The client that the commands are made of, when its connection breaks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from tests.serving import KEY, Client, Serve

from hostler import Client as HostlerClient
from hostler.core.errors import Conflict, Unavailable
from hostler.core.ports import AgentSpec
from hostler.harness.toolbox import Toolbox
from hostler.models.scripted import scripted

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
Cut: TypeAlias = Literal["request", "answer", "none"]
"""What does not arrive."""


@dataclass
class Cutter:
    """A way to a server on which connections break, one after the other as it is told."""

    server: str
    cuts: list[Cut]
    met: list[Cut] = field(default_factory=list[Cut])

    async def carry(self, client: SocketStream) -> None:
        async with client:
            cut = self.cuts.pop(0) if self.cuts else "none"
            self.met.append(cut)
            if cut == "request":
                await client.receive()
                return
            at = urlsplit(self.server)
            assert at.hostname is not None
            assert at.port is not None
            async with (
                await anyio.connect_tcp(at.hostname, at.port) as server,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(pump, client, server)
                await (pump(server, client) if cut == "none" else server.receive())
                tasks.cancel_scope.cancel()


async def pump(source: SocketStream, sink: SocketStream) -> None:
    try:
        async for data in source:
            await sink.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return


@asynccontextmanager
async def cutting(server: Client, *cuts: Cut) -> AsyncGenerator[tuple[str, Cutter]]:
    """Yield an address that leads to the server, if it leads there."""
    cutter = Cutter(server.url, list(cuts))
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, cutter.carry)
        port = listener.extra(SocketAttribute.local_port)
        yield f"http://127.0.0.1:{port}", cutter
        tasks.cancel_scope.cancel()


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
        async with HostlerClient(url, KEY) as client:
            receipt = await client.speak(session, "hello")
        facts = await server.facts(session)

    spoken = [fact for fact in facts if fact["kind"] == "user_spoke"]
    assert [fact["input"] for fact in spoken] == [receipt.input]
    assert cutter.met[: len(cuts)] == list(cuts)


async def test_a_session_and_a_fork_are_made_once_too(serve: Serve) -> None:
    async with serve(an_echo()) as server, cutting(server, "answer", "none", "answer") as (url, _):
        async with HostlerClient(url, KEY) as client:
            made = await client.create_session()
        async with HostlerClient(url, KEY) as client:
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
        HostlerClient(url, KEY) as client,
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
        async with HostlerClient(server.url, KEY) as client:
            with pytest.raises(Conflict) as refused:
                await client.api.post("/api/sessions", {"id": session, "title": "two"})

    assert refused.value.code == "exists"
    assert refused.value.more["status"] == 409
