"""Servers of one database: each may be stopped, and a run goes on elsewhere with its next step."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from tests.engine.servers import PATIENCE_S, Server, a_server, script
from tests.fleets import a_redis
from tests.services import Database
from tests.serving import KEY

from hostler import Client
from hostler.app.frames import Frame
from hostler.core.errors import Conflict, HostlerError, Unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]
STEPS = 6
RUNS = 8


async def begun(client: Client, count: int) -> list[str]:
    """Begin runs, each in a session of its own."""
    sessions = [(await client.create_session()).id for _ in range(count)]
    for session in sessions:
        await client.speak(session, "go")
    return sessions


async def ended(client: Client, session: str) -> list[Frame]:
    """Return a session's facts once its run has ended."""
    facts = list[Frame]()
    with anyio.fail_after(PATIENCE_S):
        async for frame in client.follow(session):
            if frame.event != "delta":
                facts.append(frame)
            if frame.event == "run_ended":
                break
    return facts


async def until_asked(client: Client, session: str) -> None:
    """Wait until a session's model is asked."""
    with anyio.fail_after(PATIENCE_S):
        async for frame in client.follow(session):
            if frame.event == "model_asked":
                break


def workers(facts: Sequence[Frame]) -> list[int]:
    """Return the processes that drove a run, in order."""
    claims = [one for one in facts if one.event == "run_claimed"]
    return [int(str(one.data["worker"]).rpartition("-")[2]) for one in claims]


def check(facts: Sequence[Frame]) -> None:
    """Nothing of a run was asked or done a second time, and none of its facts is missing."""
    kinds = [one.event for one in facts]
    assert [one.data["seq"] for one in facts] == list(range(1, len(facts) + 1))
    assert facts[-1].data["status"] == "done"
    assert kinds.count("model_asked") == kinds.count("model_replied") == STEPS
    assert kinds.count("tool_started") == kinds.count("tool_finished") == STEPS - 1
    assert "attempt_dropped" not in kinds


def pid(server: Server) -> int:
    assert server.process is not None
    return server.process.pid


@pytest.fixture(params=["postgres", "redis"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Sequence[str]]:
    """Return the options that say so."""
    if request.param == "postgres":
        yield ()
        return
    async with a_redis(tmp_path) as redis:
        yield "--engine", "redis", "--redis", redis.url


async def test_a_rolling_restart_of_all_nodes_fails_no_run_and_repeats_no_step(
    tmp_path: Path, postgres: Database, engine: Sequence[str]
) -> None:
    (tmp_path / "script.json").write_text(json.dumps(script(STEPS, 0.5)))
    async with (
        a_server(tmp_path, postgres.url, *engine) as first,
        a_server(tmp_path, postgres.url, *engine) as second,
        a_server(tmp_path, postgres.url, *engine) as third,
    ):
        async with first.client() as client:
            sessions = await begun(client, RUNS)
            await until_asked(client, sessions[-1])
        assert await first.stopped() == 0
        assert await second.stopped() == 0
        async with third.client() as client:
            logs = [await ended(client, one) for one in sessions]
            await first.start()
            assert await third.stopped() == 0
        async with first.client() as client:
            later = await ended(client, (await begun(client, 1))[0])

    for log in (*logs, later):
        check(log)
    assert any(len({*workers(log)}) > 1 for log in logs)


async def test_a_run_is_moved_by_hand_to_the_other_node(tmp_path: Path, postgres: Database) -> None:
    (tmp_path / "script.json").write_text(json.dumps(script(STEPS, 0.5)))
    async with (
        a_server(tmp_path, postgres.url) as first,
        a_server(tmp_path, postgres.url) as second,
        first.client() as client,
    ):
        (session,) = await begun(client, 1)
        await until_asked(client, session)
        await client.api.post(f"/api/sessions/{session}/move", {})
        log = await ended(client, session)
        with pytest.raises(Conflict, match="no run"):
            await client.api.post(f"/api/sessions/{session}/move", {})

    check(log)
    assert sorted(workers(log)) == sorted([pid(first), pid(second)])


async def test_nodes_that_take_and_nodes_that_drive_share_the_work(
    tmp_path: Path, postgres: Database
) -> None:
    (tmp_path / "script.json").write_text(json.dumps(script(STEPS, 0.0)))
    async with a_server(tmp_path, postgres.url, "--role", "api") as api, api.client() as client:
        (session,) = await begun(client, 1)
        async with a_server(tmp_path, postgres.url, "--role", "worker") as worker:
            log = await ended(client, session)
            async with worker.client() as of_the_worker:
                with pytest.raises(HostlerError, match="no such route"):
                    await of_the_worker.api.get("/api/me")

    check(log)
    assert workers(log) == [pid(worker)]


async def test_several_processes_serve_one_port_and_are_replaced_when_they_die(
    tmp_path: Path, postgres: Database
) -> None:
    (tmp_path / "script.json").write_text(json.dumps(script(STEPS, 0.2)))
    async with a_server(tmp_path, postgres.url, "--processes", "2") as parent:
        async with parent.client() as client:
            sessions = await begun(client, RUNS)
            await until_asked(client, sessions[-1])
            one, other = children(pid(parent))
            os.kill(one, signal.SIGKILL)
            logs = [await ended(client, session) for session in sessions]
            await until_children(pid(parent), without={one})
            pair = children(pid(parent))
            os.kill(pid(parent), signal.SIGHUP)
            await until_children(pid(parent), without={one, *pair})
            more = [await ended(client, session) for session in await begun(client, RUNS)]
        drove = {child for log in logs for child in workers(log)}
        renewed = children(pid(parent))
        assert await parent.stopped() == 0

    assert all(log[-1].data["status"] == "done" for log in (*logs, *more))
    assert other in pair
    assert drove - {one}, "somebody went on"
    for log in more:
        check(log)
    with pytest.raises(ProcessLookupError):
        os.kill(renewed[0], 0)


async def test_a_process_that_dies_before_it_serves_is_replaced_when_another_one_serves(
    tmp_path: Path, postgres: Database
) -> None:
    async with a_server(tmp_path, postgres.url, "--processes", "2") as parent:
        pair = children(pid(parent))
        for one in pair:
            os.kill(one, signal.SIGKILL)
            await until_children(pid(parent), without={one})
            os.kill(children(pid(parent))[-1], signal.SIGKILL)  # the one that has just been started
        await until_children(pid(parent), without={*pair})
        async with parent.client() as client:
            (session,) = await begun(client, 1)
            log = await ended(client, session)

    assert log[-1].data["status"] == "done"


async def test_servers_that_cannot_be_started_end_their_parent(tmp_path: Path) -> None:
    nowhere = "postgresql://nobody:nothing@127.0.0.1:1/nowhere"
    server = Server(tmp_path, ("--database", nowhere, "--processes", "2"))
    server.prepare()
    server.launch()
    assert server.process is not None
    with anyio.fail_after(PATIENCE_S):
        code = await anyio.to_thread.run_sync(server.process.wait, abandon_on_cancel=True)

    assert code != 0
    assert "database cannot serve" in server.log.read_text(encoding="utf-8")


async def test_no_process_outlives_the_one_that_started_it(
    tmp_path: Path, postgres: Database
) -> None:
    async with a_server(tmp_path, postgres.url, "--processes", "2") as parent:
        orphans = children(pid(parent))
        await parent.stopped(signal.SIGKILL)
        with anyio.fail_after(PATIENCE_S):
            while any(is_there(one) for one in orphans):
                await anyio.lowlevel.checkpoint()


async def test_a_node_that_cannot_reach_the_queue_is_not_ready(
    tmp_path: Path, postgres: Database
) -> None:
    async with a_server(tmp_path, postgres.url) as server, Client(server.url, KEY) as client:
        await postgres.run("ALTER TABLE pgqueuer RENAME TO away")
        try:
            why = await until_unready(client)
        finally:
            await postgres.run("ALTER TABLE away RENAME TO pgqueuer")
        await server.ready()
    assert "queue" in why


async def until_unready(client: Client) -> str:
    """Wait until a server says that it is not ready; return why."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            try:
                await client.api.get("/readyz")
            except Unavailable as error:
                return str(error)


def children(of: int) -> list[int]:
    """Return the processes that a process has started, oldest first."""
    listed = Path(f"/proc/{of}/task/{of}/children").read_text(encoding="ascii")
    return [int(one) for one in listed.split()]


async def until_children(of: int, without: set[int]) -> None:
    """Wait until a process has two children, none of them one of these."""
    with anyio.fail_after(PATIENCE_S):
        while len(now := children(of)) != 2 or without & {*now}:
            await anyio.lowlevel.checkpoint()


def is_there(process: int) -> bool:
    try:
        state = (
            Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        )
    except FileNotFoundError:
        return False
    return state != "Z"
