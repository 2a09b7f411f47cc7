"""Clients that stop reading: bounded, cut, and nobody else's trouble."""

from __future__ import annotations

import gc
import socket
import time
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import anyio
import anyio.lowlevel
import pytest
from tests.serving import KEY, Client, Json, serving
from tests.viewers import TRANSPORTS, Speaker, Viewer, say

from hostler.app import server
from hostler.faces.http.open_streams import OpenStreams
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio
SLOW_S = 0.6
UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
KINDS = {"events": "Accept: text/event-stream", "socket": UPGRADE}
MESSAGES, SIZE = 40, 300_000


@asynccontextmanager
async def a_long_session(
    folder: Path, streams: OpenStreams, model: Speaker
) -> AsyncGenerator[tuple[Client, str]]:
    """Serve a session whose log is larger than all that a kernel keeps for a connection."""
    async with serving(an_agent(model), file=folder / "log.db", streams=streams) as client:
        session = await client.session()
        for _ in range(MESSAGES):
            await say(client, session, "x" * SIZE)
        yield client, session


@asynccontextmanager
async def a_stuck_client(client: Client, session: str, kind: str) -> AsyncGenerator[socket.socket]:
    """Ask for a stream and read nothing of it: a bare socket, since any reader reads ahead."""
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", int(client.url.rpartition(":")[2])))
        stuck.settimeout(0)
        path = f"/api/sessions/{session}/{kind}"
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        stuck.send(f"{head}{KINDS[kind]}\r\n\r\n".encode())
        yield stuck


async def all_of(stuck: socket.socket) -> tuple[int, bytes]:
    """Return how much still comes, and its end."""
    size, tail = 0, b""
    try:
        while True:
            await anyio.wait_readable(stuck)
            got = stuck.recv(65536)
            size, tail = size + len(got), (tail + got)[-200:]
            if not got or tail.endswith(b"cursor"):  # the end of a reason to close
                return size, tail
    except ConnectionResetError:
        return size, tail


async def none_open(streams: OpenStreams, but: int = 0) -> None:
    while len(streams) > but:
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_stops_reading_is_cut_and_may_come_back(
    tmp_path: Path, kind: str
) -> None:
    streams = OpenStreams(slow_s=SLOW_S)
    async with (
        a_long_session(tmp_path, streams, Speaker([])) as (client, session),
        a_stuck_client(client, session, kind) as stuck,
    ):
        begun = time.monotonic()
        with anyio.fail_after(10):
            while not streams:
                await anyio.lowlevel.checkpoint()
            await none_open(streams)
            assert SLOW_S <= time.monotonic() - begun < 3 * SLOW_S
            size, tail = await all_of(stuck)

    assert size < (MESSAGES - 1) * SIZE
    if kind == "socket":
        assert (4008).to_bytes(2, "big") + b"too slow" in tail


@pytest.mark.parametrize("kind", KINDS)
async def test_clients_that_stop_reading_do_not_slow_the_others(tmp_path: Path, kind: str) -> None:
    streams, words = OpenStreams(slow_s=60), [f"{number} " for number in range(60)]
    model, viewer = Speaker(words), Viewer([TRANSPORTS["sse"]])
    delays: list[float] = []
    async with (
        a_long_session(tmp_path, streams, model) as (client, session),
        a_stuck_client(client, session, kind),
        a_stuck_client(client, session, kind),
        anyio.create_task_group() as tasks,
    ):
        with anyio.fail_after(15):
            tasks.start_soon(viewer.watch, client, session)
            await viewer.comes_to(lambda v: v.kinds.count("model_asked") > 0)
            for number in range(1, len(words) + 1):
                begun = time.monotonic()
                model.let()
                said = "".join(words[:number])
                await viewer.comes_to(lambda v, text=said: v.text == text)
                delays.append(time.monotonic() - begun)
            assert len(streams) == 3
            model.let()
            await viewer.comes_to(lambda v: v.ends > 0)

    assert sorted(delays)[len(delays) // 2] < 0.05


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_client_that_stops_reading_costs_is_bounded(tmp_path: Path, kind: str) -> None:
    streams, count, each = OpenStreams(slow_s=60), 6, 0.0
    agent = an_agent(Speaker([]))
    # Nobody listens: what is heard is kept, and memory is what is measured.
    async with serving(agent, file=tmp_path / "log.db", streams=streams, ears=None) as client:
        session = await client.session()
        for _ in range(99):
            await say(client, session, "x" * 200_000)
        with anyio.fail_after(15):  # a run that is read just now would be counted
            while not await is_asking(client, session):
                await anyio.lowlevel.checkpoint()
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            async with anyio.create_task_group() as tasks:
                for _ in range(count):
                    tasks.start_soon(_be_stuck, client, session, kind)
                with anyio.fail_after(15):
                    while not is_still(streams, count):
                        await anyio.lowlevel.checkpoint()
                gc.collect()
                after, _ = tracemalloc.get_traced_memory()
                each = (after - before) / count
                tasks.cancel_scope.cancel()
        finally:
            tracemalloc.stop()

    assert 0 < each < 6_000_000, "of the 20 MB there are"


async def is_asking(client: Client, session: str) -> bool:
    """Say whether the session's run waits for its model."""
    running = await client.get(f"/api/runs?session={session}&status=running")
    for run in cast("list[Json]", running["items"]):
        if (await client.get(f"/api/runs/{run['id']}"))["model_calls"]:
            return True
    return False


async def _be_stuck(client: Client, session: str, kind: str) -> None:
    async with a_stuck_client(client, session, kind):
        await anyio.sleep_forever()


def is_still(streams: OpenStreams, count: int) -> bool:
    """Whether all of the streams wait for their clients."""
    waiting = [one for one in streams._streams if one.since is not None]
    return len(waiting) == count and all(
        time.monotonic() - (one.since or 0) > 0.1 for one in waiting
    )


async def test_a_client_that_answers_no_ping_is_closed_in_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PING_S", 0.1)
    monkeypatch.setattr(server, "SLOW_S", 0.1)
    async with serving(an_agent(Speaker([])), file=tmp_path / "log.db") as client:
        session = await client.session()
        async with a_stuck_client(client, session, "socket") as stuck:
            with anyio.fail_after(5):
                _, tail = await all_of(stuck)

    assert (4008).to_bytes(2, "big") + b"too slow" in tail
