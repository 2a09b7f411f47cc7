"""Forks over HTTP: a session that begins with what another one said, up to a closed step."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from tests.serving import Client, Json, Serve
from tests.waiting import a_model, of_kind, parked, serving_agents

from hostler import Agent, tool
from hostler.core.ports import AgentSpec, Reply, Request
from hostler.core.said import UserSaid
from hostler.testing.doubles import ModelDouble, a_call, an_agent

pytestmark = pytest.mark.anyio


def counting() -> tuple[ModelDouble, AgentSpec]:
    """Return a model that counts what users have said, and its agent."""

    def count(request: Request) -> Reply:
        said = [one for one in request.transcript if isinstance(one, UserSaid)]
        return Reply(text=f"{len(said)}", stop="end")

    model = ModelDouble(count)
    return model, an_agent(model)


async def fork(client: Client, session: str, **body: object) -> str:
    status, made = await client.call("POST", f"/api/sessions/{session}/fork", body)
    assert status == 201, made
    return str(made["id"])


async def said(client: Client, session: str) -> list[object]:
    facts = await client.facts(session)
    return [fact.get("content") or fact.get("text") for fact in facts if is_said(fact)]


def is_said(fact: Json) -> bool:
    return fact["kind"] in ("user_spoke", "model_replied")


async def test_a_fork_begins_with_the_history_and_goes_its_own_way(serve: Serve) -> None:
    model, agent = counting()
    async with serve(agent) as client:
        session = await client.session(title="talk", metadata={"a": 1})
        await client.speak(session, "one")
        history = await client.facts(session)

        branch = await fork(client, session)
        await client.speak(branch, "two")
        await client.speak(session, "other two")
        await client.speak(branch, "three")

        assert await said(client, branch) == ["one", "1", "two", "2", "three", "3"]
        assert await said(client, session) == ["one", "1", "other two", "2"]
        facts = await client.facts(branch)
        assert facts[: len(history)] == history
        forked = facts[len(history)]
        assert forked["kind"] == "session_forked"
        assert (forked["from"], forked["at"]) == (session, len(history))
        assert [fact["seq"] for fact in facts] == list(range(1, len(facts) + 1))
        assert {fact["session"] for fact in facts[len(history) :]} == {branch}
        there = await client.get(f"/api/sessions/{branch}")
        assert (there["title"], there["metadata"], there["status"]) == ("talk", {"a": 1}, "idle")
        assert there["forked"] == {"session": session, "at": len(history)}
        assert there["seq"] == len(facts)
        assert [len(request.transcript) for request in model.asked] == [1, 3, 3, 5]


async def test_a_fork_counts_nothing_again(serve: Serve) -> None:
    _, agent = counting()
    async with serve(agent) as client:
        session = await client.session()
        first = (await client.speak(session, "one needle"))[0].data["run"]
        branch = await fork(client, session)
        second = (await client.speak(branch, "two"))[0].data["run"]

        rows = cast("list[Json]", (await client.get(f"/api/runs?session={branch}"))["items"])
        assert [row["id"] for row in rows] == [second]
        every = cast("list[Json]", (await client.get("/api/runs"))["items"])
        assert [row["id"] for row in every] == [second, first]
        assert len(cast("list[Json]", (await client.get("/api/search?q=needle"))["items"])) == 1


async def test_a_fork_can_begin_at_every_closed_step_and_at_no_open_one(tmp_path: Path) -> None:
    @tool
    async def look(at: str) -> str:
        """Look."""
        return at

    agent = Agent("looker", model=a_model(lambda one: [a_call("look", at=one)]), tools=[look])
    async with serving_agents(tmp_path, agent) as client:
        session = await client.session()
        await client.speak(session, "one")
        facts = await client.facts(session)
        opens, closed = ("model_asked", "tool_started"), list[int]()
        step_is_open = False
        for fact in facts:
            seq, kind = cast("int", fact["seq"]), str(fact["kind"])
            step_is_open = kind in opens or (bool(fact.get("calls")) or step_is_open)
            if kind == "tool_finished" or (kind == "model_replied" and not fact.get("calls")):
                step_is_open = False
            status, made = await client.call(
                "POST", f"/api/sessions/{session}/fork", {"at": seq, "title": "here"}
            )
            if step_is_open:
                assert (status, made["code"]) == (409, "open_step"), fact
            else:
                assert (status, made["seq"], made["title"]) == (201, seq + 1, "here"), fact
                closed.append(seq)

        kinds = [str(fact["kind"]) for fact in facts]
        assert len(closed) < len(facts)
        assert kinds[closed[-1] - 1] == "run_ended"
        branch = await fork(client, session, at=1 + kinds.index("tool_finished"))
        frames = await client.speak(branch, "two")
        assert frames[-1].data["status"] == "done"
        begin = await fork(client, session, at=0)
        assert [fact["kind"] for fact in await client.facts(begin)] == ["session_forked"]
        for wrong in (-1, len(facts) + 1):
            status, body = await client.call("POST", f"/api/sessions/{session}/fork", {"at": wrong})
            assert (status, body["code"]) == (422, "invalid")


async def test_without_a_place_a_fork_begins_at_the_last_closed_step(tmp_path: Path) -> None:
    @tool(approval=True)
    async def remove(path: str) -> str:
        """Remove."""
        return path

    agent = Agent(
        "remover", model=a_model(lambda one: [a_call("remove", path=one)]), tools=[remove]
    )
    async with serving_agents(tmp_path, agent) as client:
        session = await client.session()
        await parked(client, session, "a")
        kinds = [str(fact["kind"]) for fact in await client.facts(session)]

        branch = await fork(client, session)

        facts = await client.facts(branch)
        assert [fact["kind"] for fact in facts] == [
            *kinds[: kinds.index("model_asked")],
            "session_forked",
        ]
        assert of_kind(facts, "approval_asked") == []
        assert (await client.get(f"/api/sessions/{branch}"))["waits"] == []
        assert (await parked(client, branch, "b"))["kind"] == "approval"


async def test_a_fork_of_a_fork_reads_both_after_their_deletion_and_a_restart(
    serve: Serve,
) -> None:
    model, agent = counting()
    async with serve(agent) as client:
        first = await client.session()
        await client.speak(first, "one")
        second = await fork(client, first)
        await client.speak(second, "two")
        third = await fork(client, second)
        await client.speak(third, "three")
        early = await fork(client, second, at=1)
        before = await client.facts(third)

        for session in (second, first):
            assert (await client.call("DELETE", f"/api/sessions/{session}"))[0] == 204
        assert (await client.call("GET", f"/api/sessions/{first}/events"))[0] == 404

    async with serve(agent) as client:
        assert await client.facts(third) == before
        last = await fork(client, third)
        frames = await client.speak(last, "four")
        assert await said(client, last) == ["one", "1", "two", "2", "three", "3", "four", "4"]
        pages = [
            await client.get(f"/api/sessions/{last}/events?after={after}&limit=3")
            for after in range(0, len(await client.facts(last)), 3)
        ]
        read = [frame["data"] for page in pages for frame in cast("list[Json]", page["events"])]
        assert read == await client.facts(last)
        assert frames[-1].data["status"] == "done"
        assert await said(client, early) == ["one"]
        assert len(model.asked[-1].transcript) == 7


async def test_a_deleted_session_s_id_is_not_given_again_while_forks_read_it(
    serve: Serve,
) -> None:
    async with serve(counting()[1]) as client:
        session = await client.session(id="ses_kept-by-its-forks")
        await client.speak(session, "one")
        branch = await fork(client, session)
        await client.call("DELETE", f"/api/sessions/{session}")

        status, body = await client.call("POST", "/api/sessions", {"id": session})
        assert (status, body["code"]) == (409, "exists")
        status, body = await client.call("POST", f"/api/sessions/{session}/fork", {})
        assert status == 404

        await client.call("DELETE", f"/api/sessions/{branch}")
        assert await client.session(id=session) == session
        assert await client.facts(session) == []


async def test_a_fork_can_be_followed_like_any_session(serve: Serve) -> None:
    async with serve(counting()[1]) as client:
        session = await client.session()
        await client.speak(session, "one")
        branch = await fork(client, session)
        at = len(await client.facts(session))
        path = f"/api/sessions/{branch}/messages"
        await client.call("POST", path, {"content": "two"}, headers={"Prefer": "wait=10"})

        stream = client.frames(f"/api/sessions/{branch}/events?until=run_end&after={at - 3}")
        frames = [frame async for frame in stream]
        if frames[-1].data["session"] == session:  # the first end past the cursor is the parent's
            stream = client.frames(f"/api/sessions/{branch}/events?until=run_end&after={at}")
            frames += [frame async for frame in stream]

        facts = [frame.data for frame in frames if frame.event != "delta"]
        assert facts == (await client.facts(branch))[at - 3 :]
