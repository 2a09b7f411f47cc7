"""Sessions as files: what goes out comes back in, and what is damaged does not."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import cast

import anyio
import anyio.lowlevel
import pytest
from tests.archives import HEAD, SPOKE, a_line, as_file, imported
from tests.serving import Client, Json, Serve, serving
from tests.waiting import (
    a_model,
    answer,
    approve,
    of_kind,
    over,
    parked,
    serving_agents,
)

from hostler import Agent, tool
from hostler.core.errors import NotFound, TooLarge
from hostler.core.events import ClientTool, Principal, PrincipalId, TenantId
from hostler.core.ports import AgentSpec, Reply, World
from hostler.service.archive import LINES_AT_ONCE, Archive
from hostler.service.limits import LARGEST_ARCHIVE, LARGEST_ARCHIVE_LINE
from hostler.service.room import Room
from hostler.stores.memory import MemoryStore
from hostler.testing.doubles import ModelDouble, a_call, a_session, an_agent
from hostler.testing.store_kit import spoke

pytestmark = pytest.mark.anyio
ADMIN = Principal(id=PrincipalId("admin"), tenant=TenantId("default"))


def plain(name: str = "plain") -> AgentSpec:
    return an_agent(ModelDouble(lambda _: Reply(text="well", stop="end")), name=name)


def rich() -> Agent:
    """Return an agent that can do all that a log holds."""

    @tool(approval=True)
    async def remove(path: str) -> str:
        """Remove a file."""
        return f"removed {path}"

    asks = {"look": (a_call("look"),), "remove": (a_call("remove", path="x"), a_call("look"))}
    return Agent(
        "rich",
        model=a_model(lambda said: asks.get(said, ())),
        tools=[remove],
        client_tools=[ClientTool(name="look", parameters={"type": "object"})],
    )


async def exported(client: Client, session: str) -> bytes:
    async with client.http.get(
        f"{client.url}/api/sessions/{session}/export",
        headers={"Authorization": f"Bearer {client.key}"},
    ) as got:
        assert got.status == 200, await got.text()
        assert got.headers["content-type"] == "application/jsonl"
        assert got.headers["content-disposition"] == f'attachment; filename="{session}.jsonl"'
        return await got.read()


async def a_long_talk(client: Client) -> str:
    """Make a session whose log has every kind of step; leave it at rest."""
    session = await client.session(title="Ü 'x'", metadata={"a": [1, None]})
    look = await parked(client, session, "look")
    await client.call("POST", f"/api/sessions/{session}/messages", {"content": "next"})
    await client.call(
        "POST", f"/api/sessions/{session}/messages", {"content": "and", "policy": "steer"}
    )
    await answer(client, session, look["call"], output="seen")
    await over(client, session)
    removal = await parked(client, session, "remove")
    await approve(client, session, removal["call"], decision="allow", reason="yes")
    waits = cast("list[Json]", (await client.get(f"/api/sessions/{session}"))["waits"])
    for wait in waits:
        if wait["kind"] == "client_tool":
            await answer(client, session, wait["call"], output={"a": 1})
    await client.call("POST", f"/api/sessions/{session}/cancel", {})
    await at_rest(client, session)
    return session


async def at_rest(client: Client, session: str) -> None:
    with anyio.fail_after(10):
        while (await client.get(f"/api/sessions/{session}"))["status"] != "idle":
            await anyio.lowlevel.checkpoint()


async def test_what_was_exported_comes_back_fact_for_fact(tmp_path: Path) -> None:
    approvals = "/api/approvals?status="
    async with serving_agents(tmp_path / "a", rich()) as here:
        session = await a_long_talk(here)
        file, before = await exported(here, session), await here.facts(session)
        was = await here.get(f"/api/sessions/{session}")
        rows = [await here.get("/api/runs"), await here.get(approvals)]

    async with serving_agents(tmp_path / "b", rich()) as there:
        status, made = await imported(there, file)

        assert (status, made["id"], made["status"]) == (201, session, "idle"), made
        assert {**made, "updated_at": ""} == {**was, "updated_at": ""}
        assert await there.facts(session) == before
        assert await exported(there, session) == file
        assert [await there.get("/api/runs"), await there.get(approvals)] == rows
        assert (await there.get("/api/search?q=next"))["items"]
        frames = await there.speak(session, "on")
        assert frames[-1].data["status"] == "done"


async def test_a_file_has_one_line_for_the_session_and_one_for_each_fact(serve: Serve) -> None:
    async with serve(plain()) as client:
        session = await client.session(title="T")
        await client.speak(session)
        facts = await client.facts(session)

        head, *lines = [
            json.loads(line) for line in (await exported(client, session)).split(b"\n")[:-1]
        ]

        assert (head["hostler"], head["events"]) == (1, len(facts))
        assert (head["session"]["id"], head["session"]["title"]) == (session, "T")
        assert [line["seq"] for line in lines] == [fact["seq"] for fact in facts]
        assert [line["fact"]["kind"] for line in lines] == [fact["kind"] for fact in facts]
        assert all(
            str(line["at"])[:23] == str(fact["at"])[:23]
            for line, fact in zip(lines, facts, strict=True)
        )


async def test_what_is_here_already_is_not_imported_again(serve: Serve) -> None:
    async with serve(plain()) as client:
        session = await client.session()
        await client.speak(session)
        file = await exported(client, session)

        for query in ("", "?id=ses_another_one"):
            status, problem = await imported(client, file, query)
            assert (status, problem["code"]) == (409, "exists")
        await client.call("DELETE", f"/api/sessions/{session}")
        status, made = await imported(client, file, "?id=ses_another_one")

        assert (status, made["id"]) == (201, "ses_another_one")
        assert len(await client.facts("ses_another_one")) == file.count(b"\n") - 1


async def test_a_log_that_was_cut_anywhere_comes_to_rest(tmp_path: Path) -> None:
    async with serving_agents(tmp_path / "a", rich()) as here:
        session = await a_long_talk(here)
        head, *lines = (await exported(here, session)).split(b"\n")[:-1]
    about = json.loads(head)
    kinds = {json.loads(line)["fact"]["kind"] for line in lines}
    assert {"approval_asked", "tool_started", "user_spoke", "model_asked"} <= kinds

    async with serving_agents(tmp_path / "b", rich()) as there:
        for length in range(len(lines) + 1):
            about["events"] = length
            file = b"\n".join([json.dumps(about).encode(), *lines[:length]])
            status, made = await imported(there, file)

            assert (status, made["status"]) == (201, "idle"), (length, made)
            everything_is_closed(await there.facts(session))
            frames = await there.speak(session, "and now?")
            assert frames[-1].data["status"] == "done"
            await there.call("DELETE", f"/api/sessions/{session}")


def everything_is_closed(facts: Sequence[Json]) -> None:
    inputs = {fact["input"] for fact in of_kind(facts, "user_spoke")}
    done = of_kind(facts, "input_processed") + of_kind(facts, "input_dropped")
    assert sorted(map(str, inputs)) == sorted(str(fact["input"]) for fact in done)
    runs = {fact["run"] for fact in of_kind(facts, "user_spoke")}
    assert sorted(map(str, runs)) == sorted(str(f["run"]) for f in of_kind(facts, "run_ended"))
    replies = of_kind(facts, "model_replied")
    calls = [call["id"] for reply in replies for call in cast("list[Json]", reply.get("calls", []))]
    assert sorted(map(str, calls)) == sorted(
        str(fact["call"]) for fact in of_kind(facts, "tool_finished")
    )
    attempts = {fact["attempt"] for fact in of_kind(facts, "model_asked")}
    ends = [
        fact["attempt"]
        for kind in ("model_replied", "model_failed", "attempt_dropped")
        for fact in of_kind(facts, kind)
    ]
    assert attempts == set(ends)


async def test_what_was_open_says_that_it_was_imported(tmp_path: Path) -> None:
    async with serving_agents(tmp_path / "a", rich()) as here:
        session = await here.session()
        await parked(here, session, "look")
        await here.call("POST", f"/api/sessions/{session}/messages", {"content": "next"})
        before, file = await here.facts(session), await exported(here, session)
        assert (await here.get(f"/api/sessions/{session}"))["status"] == "waiting"

    async with serving_agents(tmp_path / "b", rich()) as there:
        await imported(there, file)

        facts = await there.facts(session)
        assert facts[: len(before)] == before
        assert [
            (fact["kind"], fact.get("reason"), fact.get("outcome")) for fact in facts[len(before) :]
        ] == [
            ("tool_finished", None, "cancelled"),
            ("run_ended", "imported", None),
            ("input_dropped", "imported", None),
            ("run_ended", "imported", None),
        ]
        runs = cast("list[Json]", (await there.get("/api/runs"))["items"])
        assert [(run["status"], run["reason"]) for run in runs] == [("cancelled", "imported")] * 2


async def test_a_fork_s_file_needs_no_parent_and_can_lie_beside_it(tmp_path: Path) -> None:
    async with serving(plain(), file=tmp_path / "a.db") as here:
        parent = await here.session()
        await here.speak(parent, "first")
        _, made = await here.call("POST", f"/api/sessions/{parent}/fork", {})
        fork = str(made["id"])
        await here.speak(fork, "second")
        facts, files = await here.facts(fork), [await exported(here, one) for one in (fork, parent)]

    async with serving(plain(), file=tmp_path / "b.db") as there:
        assert (await imported(there, files[0]))[0] == 201
        assert [{**fact, "session": ""} for fact in await there.facts(fork)] == [
            {**fact, "session": ""} for fact in facts
        ]
        runs = cast("list[Json]", (await there.get("/api/runs"))["items"])
        assert len(runs) == 1, "what the parent ran is the parent's"
        assert (await imported(there, files[1]))[0] == 201


async def test_a_file_may_come_in_pieces_of_any_size(serve: Serve) -> None:
    async with serve(plain()) as client:
        session = await client.session()
        await client.speak(session, "ü" * 50)
        file = await exported(client, session)
        await client.call("DELETE", f"/api/sessions/{session}")

        async def pieces() -> AsyncGenerator[bytes, None]:
            for at in range(0, len(file), 7):
                yield file[at : at + 7]

        async with client.http.post(
            f"{client.url}/api/sessions/import",
            data=pieces(),
            headers={"Authorization": f"Bearer {client.key}"},
        ) as answered:
            assert answered.status == 201, await answered.text()
        assert await exported(client, session) == file


async def test_a_file_that_is_too_large_is_refused(serve: Serve) -> None:
    async with serve(plain()) as client:
        too_large = {"Content-Length": str(LARGEST_ARCHIVE + 1)}
        status, problem = await client.call("POST", "/api/sessions/import", headers=too_large)
        assert (status, problem["code"]) == (413, "too_large")


async def test_a_link_does_not_open_the_file(serve: Serve) -> None:
    async with serve(plain()) as client:
        session = await client.session()
        _, link = await client.call("POST", f"/api/sessions/{session}/shares", {})
        viewer = Client(client.http, client.url, str(link["token"]))
        status, _ = await viewer.call("GET", f"/api/sessions/{session}/export")
        assert status == 403
        assert (await viewer.call("POST", "/api/sessions/import", raw=b""))[0] == 403
        assert (await client.call("GET", "/api/sessions/ses_absent00/export"))[0] == 404


def an_archive() -> tuple[MemoryStore, Archive]:
    store = MemoryStore()
    agents = {"double": plain()}
    archive = Archive(
        store=store, agents=agents, default_agent="double", world=World("w"), room=Room(store)
    )
    return store, archive


async def test_a_session_that_is_deleted_while_it_is_exported_has_no_whole_file() -> None:
    store, archive = an_archive()
    key = await a_session(store)
    await store.append(key, [spoke("run_1")])

    pieces = await archive.export(ADMIN, key.session)
    assert b'"events":1' in await anext(pieces)
    await store.delete(key)

    with pytest.raises(NotFound):
        await anext(pieces)


async def test_a_line_that_does_not_end_is_refused_before_it_is_all_in_memory() -> None:
    _, archive = an_archive()
    read = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal read
        while True:
            read += 1024 * 1024
            yield b" " * 1024 * 1024

    with pytest.raises(TooLarge):
        await archive.restore(ADMIN, endless())
    assert read <= LARGEST_ARCHIVE_LINE + 1024 * 1024


async def test_others_have_a_turn_while_a_long_file_is_read() -> None:
    _, archive = an_archive()
    lines = 2000
    claim = {"kind": "run_claimed", "run": "run_1", "claim": 1, "worker": "w"}
    rest = [a_line(at, claim) for at in range(2, lines + 1)]
    file = as_file([{**HEAD, "events": lines}, a_line(1, SPOKE), *rest])
    turns = 0

    async def at_once() -> AsyncGenerator[bytes, None]:
        yield file

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        await archive.restore(ADMIN, at_once())
        tasks.cancel_scope.cancel()

    assert turns >= lines / LINES_AT_ONCE
