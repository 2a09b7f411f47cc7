"""A real server process is killed with no warning, in mid-reply and in mid-call, and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import aiohttp
import anyio
import anyio.to_thread
import pytest
from tests.canaries import Process, provider_keys
from tests.services import Database
from tests.serving import KEY, Client, Frame, Json

from hostler.app.server import listen
from hostler.core.codec import load
from hostler.core.events import Event, Seq, SessionId
from hostler.testing.crashing import check_log

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

AGENT = '''
import os, pathlib, time
from threading import Event
from hostler import Agent, tool

HERE = pathlib.Path(__file__).parent

def work(name):
    with open(HERE / f"{name}.effects", "a") as file:
        file.write("x")
    while not (HERE / "go").exists():
        Event().wait(0.01)
    return f"{name} did it"

@tool(twice="safe", effects="read")
def safe() -> str:
    """May be repeated."""
    return work("safe")

@tool(effects="read")
def unsafe() -> str:
    """May not."""
    return work("unsafe")

agent = Agent("killed", model=f"scripted:{HERE / 'script.json'}", tools=[safe, unsafe])
'''
WORDS = " ".join(f"w{i}" for i in range(60))


@dataclass
class Server:
    """A server in a process of its own, on a folder and a port that outlive it."""

    folder: Path
    port: int
    database: str | None = None
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "hostler", "serve", "killed_agent:agent"]
        self.process = Process(
            [*command, "--port", str(self.port), "--data", str(self.folder / "data")],
            cwd=self.folder,
            env={
                "HOSTLER_ADMIN_KEY": KEY,
                "PATH": "",
                **provider_keys(),
                **({} if self.database is None else {"HOSTLER_DATABASE": self.database}),
            },
            stderr=subprocess.PIPE,
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.read()
            self.process.stderr.close()

    async def healthy(self, client: Client) -> None:
        with anyio.fail_after(20):
            while True:
                assert self.process is not None
                assert self.process.poll() is None, self.process.communicate()[1]
                try:
                    if (await client.call("GET", "/readyz"))[0] == 200:
                        return
                except aiohttp.ClientConnectionError:
                    await anyio.to_thread.run_sync(lambda: None)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str | None:
    """Return the URL of the server's database; None for a file in its folder."""
    if request.param == "sqlite":
        return None
    return cast("Database", request.getfixturevalue("postgres")).url


@contextmanager
def a_server(folder: Path, script: object, database: str | None = None) -> Generator[Server]:
    (folder / "killed_agent.py").write_text(AGENT)
    (folder / "script.json").write_text(json.dumps(script))
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
    server = Server(folder, port, database)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def a_client(server: Server) -> AsyncGenerator[Client]:
    async with aiohttp.ClientSession() as http:
        client = Client(http, f"http://127.0.0.1:{server.port}")
        await server.healthy(client)
        yield client


async def to_the_end(client: Client, session: str, after: str) -> list[Frame]:
    path = f"/api/sessions/{session}/events?until=run_end"
    with anyio.fail_after(30):
        frames = client.frames(path, headers={"Last-Event-ID": after})
        async with aclosing(frames):
            return [frame async for frame in frames]


async def events(client: Client, session: str) -> list[Event]:
    page = await client.get(f"/api/sessions/{session}/events?limit=1000")
    return [
        Event(
            session=SessionId(session),
            seq=Seq(cast("int", frame["data"]["seq"])),
            at=0.0,
            fact=load(json.dumps(frame["data"])),
            raw=b"",
        )
        for frame in cast("list[dict[str, Json]]", page["events"])
    ]


async def test_a_run_that_was_killed_in_mid_reply_finishes_by_itself(
    tmp_path: Path, database: str | None
) -> None:
    with a_server(tmp_path, [{"text": WORDS, "delay_s": 2}], database) as server:
        async with a_client(server) as client:
            session = await client.session()
            seen: list[Frame] = []
            path = f"/api/sessions/{session}/messages"
            with suppress(aiohttp.ClientError):
                async for frame in client.frames(path, method="POST", body={"content": "go"}):
                    seen.append(frame)
                    if len([f for f in seen if f.event == "delta"]) == 10:
                        server.kill()
        server.start()
        async with a_client(server) as client:
            rest = await to_the_end(client, session, seen[-1].id)
            log = await events(client, session)

    check_log(log)
    facts = [frame.data["seq"] for frame in (*seen[1:], *rest) if frame.event != "delta"]
    assert facts == list(range(2, len(log) + 1)), "the client saw each fact once, in order"
    assert [f.event for f in rest if f.event != "delta"] == [
        "run_claimed",
        "attempt_dropped",
        "model_asked",
        "model_replied",
        "input_processed",
        "run_ended",
    ]
    assert next(f for f in rest if f.event == "attempt_dropped").data["reason"] == "worker_lost"
    streamed = "".join(str(f.data["text"]) for f in rest if f.event == "delta")
    replied = next(f for f in rest if f.event == "model_replied").data["text"]
    assert streamed in ("", WORDS)
    assert replied == WORDS
    assert rest[-1].data["status"] == "done"


def has_begun(effects: Path) -> bool:
    return effects.exists() and effects.stat().st_size > 0


async def test_a_call_that_was_killed_is_repeated_only_if_that_is_safe(
    tmp_path: Path, database: str | None
) -> None:
    calls = [{"name": "safe"}, {"name": "unsafe"}]
    with a_server(tmp_path, [{"calls": calls}, {"text": "done"}], database) as server:
        async with a_client(server) as client:
            session = await client.session()
            await client.call("POST", f"/api/sessions/{session}/messages", {"content": "go"})
            with anyio.fail_after(20):
                while not all(has_begun(tmp_path / f"{c['name']}.effects") for c in calls):
                    await anyio.to_thread.run_sync(lambda: None)
            server.kill()
        (tmp_path / "go").touch()
        server.start()
        async with a_client(server) as client:
            rest = await to_the_end(client, session, "0")
            log = await events(client, session)

    check_log(log)
    assert (tmp_path / "safe.effects").read_text() == "xx"
    assert (tmp_path / "unsafe.effects").read_text() == "x"
    names = {f.data["call"]: f.data["name"] for f in rest if f.event == "tool_started"}
    outcomes = {
        names[f.data["call"]]: f.data["outcome"] for f in rest if f.event == "tool_finished"
    }
    assert outcomes == {"safe": "ok", "unsafe": "unknown"}
    assert rest[-1].data["status"] == "done"


async def test_many_runs_that_were_killed_at_once_all_go_on(
    tmp_path: Path, database: str | None
) -> None:
    with a_server(tmp_path, [{"text": WORDS, "delay_s": 1}], database) as server:
        async with a_client(server) as client:
            sessions = [await client.session() for _ in range(50)]
            for session in sessions:
                await client.call("POST", f"/api/sessions/{session}/messages", {"content": "go"})
            server.kill()
        server.start()
        async with a_client(server) as client:
            for session in sessions:
                await to_the_end(client, session, "0")
                check_log(await events(client, session))
            listed = await client.get("/api/runs?status=done&limit=100")

    assert len(cast("list[Json]", listed["items"])) == 50


async def test_a_server_that_is_told_to_stop_stops_and_its_runs_go_on_later(
    tmp_path: Path, database: str | None
) -> None:
    with a_server(tmp_path, [{"text": WORDS, "delay_s": 2}], database) as server:
        async with a_client(server) as client:
            session = await client.session()
            seen: list[Frame] = []
            with anyio.fail_after(10):
                path = f"/api/sessions/{session}/messages"
                with suppress(aiohttp.ClientError):
                    async for frame in client.frames(path, method="POST", body={"content": "go"}):
                        seen.append(frame)
                        if len(seen) == 8 and server.process is not None:
                            server.process.send_signal(signal.SIGTERM)
            assert server.process is not None
            _, told = await anyio.to_thread.run_sync(server.process.communicate)
            assert server.process.returncode == 0, told
            assert "Traceback" not in told
        server.start()
        async with a_client(server) as client:
            rest = await to_the_end(client, session, seen[-1].id)

    assert rest[-1].data["status"] == "done"
    assert "cancel_requested" not in [frame.event for frame in rest]
