"""People in the loop, over HTTP: approvals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import cast

import anyio
import pytest
from tests.serving import Client, Json
from tests.waiting import (
    Removals,
    a_model,
    answer,
    approve,
    of_kind,
    over,
    parked,
    serving_agents,
)

from hostler import Agent, ClientTool, Permissions, SetupError, tool
from hostler.app import engines as app_engines
from hostler.app.agent import read_agent
from hostler.app.building import build_agents
from hostler.app.settings import load_settings
from hostler.core.events import Key, RunId, RunKey, SessionId, TenantId
from hostler.engine.queuer import EmbeddedEngine
from hostler.testing.doubles import a_call

pytestmark = pytest.mark.anyio
NO_CALL = "call_00000000000000000000000000000000"


async def inbox(client: Client, query: str = "") -> list[Json]:
    return cast("list[Json]", (await client.get(f"/api/approvals{query}"))["items"])


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[EmbeddedEngine]:
    """Return the engines of the servers to come."""
    made = list[EmbeddedEngine]()

    def make(*, ahead: Callable[[], int]) -> EmbeddedEngine:
        made.append(EmbeddedEngine(ahead=ahead))
        return made[-1]

    monkeypatch.setattr(app_engines, "EmbeddedEngine", make)
    return made


async def no_job(engine: EmbeddedEngine, session: str, run: object) -> None:
    key = RunKey(*Key(TenantId("default"), SessionId(session)), RunId(str(run)))
    with anyio.fail_after(10):
        while not await engine.idle([key]):
            await anyio.lowlevel.checkpoint()


# -- approvals -------------------------------------------------------------------------------


async def test_an_approval_survives_a_restart_and_meanwhile_nothing_is_in_memory(
    tmp_path: Path, engines: list[EmbeddedEngine]
) -> None:
    removed = Removals()
    async with serving_agents(tmp_path, removed.agent()) as client:
        session = await client.session()
        wait = await parked(client, session, "a.txt")
        there = await client.get(f"/api/sessions/{session}")
        assert there["status"] == "waiting"
        (shown,) = cast("list[Json]", there["waits"])
        assert (shown["call"], shown["kind"]) == (wait["call"], "approval")
        (asked,) = await inbox(client)
        await no_job(engines[0], session, asked["run"])

    async with serving_agents(tmp_path, removed.agent()) as client:
        assert (await client.get(f"/api/sessions/{session}"))["status"] == "waiting"
        assert await inbox(client) == [asked]
        await no_job(engines[1], session, asked["run"])
        status, given = await approve(client, session, wait["call"])
        assert (status, given["kind"], given["decision"]) == (200, "approval_given", "allow")
        assert given["principal"] == (await client.get("/api/me"))["id"]
        facts = await over(client, session)

    assert removed == ["a.txt x1"]
    assert facts[-1]["status"] == "done"
    assert len(of_kind(facts, "approval_asked")) == 1
    assert given in facts


async def test_of_many_answers_at_once_the_first_one_holds(tmp_path: Path) -> None:
    removed = Removals()
    async with serving_agents(tmp_path, removed.agent()) as client:
        session = await client.session()
        wait = await parked(client, session)
        answers = list[tuple[int, Json]]()

        async def one(decision: str) -> None:
            answers.append(await approve(client, session, wait["call"], decision=decision))

        async with anyio.create_task_group() as tasks:
            for place in range(20):
                tasks.start_soon(one, "deny" if place % 2 else "allow")
        facts = await over(client, session)

    assert Counter(status for status, _ in answers) == {200: 1, 409: 19}
    (given,) = of_kind(facts, "approval_given")
    assert [body for status, body in answers if status == 200] == [given]
    for status, body in answers:
        if status == 409:
            assert body["code"] == "already_answered"
            assert body["decision"] == given["decision"]
            assert (body["principal"], body["at"]) == (given["principal"], given["at"])
    assert len(removed) == (given["decision"] == "allow")


async def test_who_comes_second_is_told_what_was_answered_by_whom_and_when(
    tmp_path: Path,
) -> None:
    async with serving_agents(tmp_path, Removals().agent()) as client:
        session = await client.session()
        wait = await parked(client, session)
        _, given = await approve(client, session, wait["call"], decision="deny", reason="no")
        facts = await over(client, session)

        status, body = await approve(client, session, wait["call"])

    assert (status, body["code"], body["decision"]) == (409, "already_answered", "deny")
    assert (body["principal"], body["at"]) == (given["principal"], given["at"])
    (finished,) = of_kind(facts, "tool_finished")
    assert finished["outcome"] == "denied"
    assert finished["output"] == f"Denied by {given['principal']}: no"


@pytest.mark.usefixtures("impatient")
async def test_a_request_that_expires_is_denied_and_the_run_goes_on(tmp_path: Path) -> None:
    removed = Removals()
    async with serving_agents(tmp_path, removed.agent(approval_timeout_s=0.2)) as client:
        session = await client.session()
        wait = await parked(client, session)
        facts = await over(client, session)

        status, body = await approve(client, session, wait["call"])
        (closed,) = await inbox(client, "?status=closed")

    assert (status, body["code"]) == (409, "expired")
    assert removed == []
    assert (facts[-1]["kind"], facts[-1]["status"]) == ("run_ended", "done")
    assert [fact["outcome"] for fact in of_kind(facts, "tool_finished")] == ["denied"]
    assert (closed["call"], closed["principal"]) == (wait["call"], None)


async def test_arguments_can_be_edited_and_are_checked(tmp_path: Path) -> None:
    removed = Removals()
    async with serving_agents(tmp_path, removed.agent()) as client:
        session = await client.session()
        wait = await parked(client, session)
        call = wait["call"]

        for wrong in ({}, {"path": "b", "times": "many"}, {"path": ["b"] * 3}):
            status, body = await approve(client, session, call, arguments=wrong)
            assert (status, body["code"]) == (422, "invalid")
            assert cast("list[Json]", body["errors"])[0]["pointer"] == "/arguments"
        status, given = await approve(client, session, call, arguments={"path": "b", "times": 2})
        facts = await over(client, session)

    assert (status, given["arguments"]) == (200, {"path": "b", "times": 2})
    assert removed == ["b x2"]
    (asked,), (started,) = of_kind(facts, "approval_asked"), of_kind(facts, "tool_started")
    assert asked["arguments"] == {"path": "go"}
    assert started["arguments"] == {"path": "b", "times": 2}


async def test_an_approval_of_something_else_than_would_be_run_is_refused(tmp_path: Path) -> None:
    async with serving_agents(tmp_path, Removals().agent()) as client:
        session = await client.session()
        wait = await parked(client, session)
        (asked,) = await inbox(client)

        status, body = await approve(client, session, wait["call"], digest="0" * 64)
        assert (status, body["code"]) == (422, "invalid")
        assert cast("list[Json]", body["errors"])[0]["pointer"] == "/digest"
        status, _ = await approve(client, session, wait["call"], digest=asked["digest"])
        assert status == 200


async def test_what_is_remembered_is_not_asked_again_but_in_a_fork(tmp_path: Path) -> None:
    removed = Removals()
    async with serving_agents(tmp_path, removed.agent()) as client:
        session = await client.session()
        wait = await parked(client, session, "a")
        status, given = await approve(client, session, wait["call"], remember=True)
        assert (status, given["remembered"]) == (200, "remove")
        await over(client, session)

        assert (await client.speak(session, "b"))[-1].data["status"] == "done"
        _, fork = await client.call("POST", f"/api/sessions/{session}/fork", {})
        again = await parked(client, str(fork["id"]), "c")
        other = await parked(client, await client.session(), "d")

    assert (again["kind"], other["kind"]) == ("approval", "approval")
    assert removed == ["a x1", "b x1"]


async def test_the_inbox_is_over_all_sessions_in_pages_and_shows_what_became_of_each(
    tmp_path: Path,
) -> None:
    async with serving_agents(tmp_path, Removals().agent()) as client:
        sessions = [await client.session() for _ in range(3)]
        calls = [(await parked(client, one))["call"] for one in sessions]
        seen, after = list[Json](), ""
        while True:
            page = await client.get(f"/api/approvals?limit=2&after={after}")
            seen += cast("list[Json]", page["items"])
            after = str(page["cursor"])
            if not page["more"]:
                break
        await approve(client, sessions[1], calls[1], decision="deny", reason="no")

        assert [(one["session"], one["call"]) for one in seen] == list(
            zip(sessions, calls, strict=True)
        )
        assert [one["call"] for one in await inbox(client)] == [calls[0], calls[2]]
        (denied,) = await inbox(client, "?status=deny")
        assert (denied["call"], denied["reason"]) == (calls[1], "no")
        assert len(await inbox(client, "?status=")) == 3
        assert len(await inbox(client, f"?session={sessions[0]}")) == 1


async def test_who_waits_for_the_end_is_told_at_once_what_the_run_waits_for(
    tmp_path: Path,
) -> None:
    async with serving_agents(tmp_path, Removals().agent()) as client:
        session = await client.session()
        first = await parked(client, session)
        assert first["kind"] == "approval"

        steered = await parked(client, session, "hurry", policy="steer")

        assert steered == first
        assert [fact["kind"] for fact in await client.facts(session)][-1] == "user_spoke"


async def test_a_cancel_ends_a_run_that_waits_and_its_request_is_over(tmp_path: Path) -> None:
    async with serving_agents(tmp_path, Removals().agent()) as client:
        session = await client.session()
        wait = await parked(client, session)
        await client.call("POST", f"/api/sessions/{session}/cancel", {"reason": "enough"})
        facts = await over(client, session)

        status, body = await approve(client, session, wait["call"])

        assert (facts[-1]["status"], facts[-1]["reason"]) == ("cancelled", "enough")
        assert [fact["outcome"] for fact in of_kind(facts, "tool_finished")] == ["cancelled"]
        assert (status, body["code"]) == (409, "expired")
        assert await inbox(client) == []


async def test_an_answer_to_what_was_not_asked_is_not_found(tmp_path: Path) -> None:
    async with serving_agents(tmp_path, Removals().agent()) as client:
        session, other = await client.session(), await client.session()
        wait = await parked(client, session)

        assert (await approve(client, session, NO_CALL))[0] == 404
        assert (await approve(client, other, wait["call"]))[0] == 404
        assert (await answer(client, session, wait["call"], output="x"))[0] == 404
        assert (await approve(client, session, wait["call"], decision="maybe"))[0] == 422
        assert (await approve(client, session, wait["call"]))[0] == 200


async def test_rules_ask_about_what_they_name_and_deny_without_asking(tmp_path: Path) -> None:
    done = list[str]()

    @tool
    async def read_file(path: str) -> str:
        """Read."""
        done.append(path)
        return "text"

    model = a_model(lambda said: [a_call("read_file", path=said)])
    rules = {"asking": Permissions(ask=("read_*",)), "denying": Permissions(deny=("*",))}
    agents = [
        Agent(name, model=model, tools=[read_file], permissions=permissions)
        for name, permissions in rules.items()
    ]
    async with serving_agents(tmp_path, *agents) as client:
        assert (await parked(client, await client.session(), "a"))["kind"] == "approval"
        frames = await client.speak(await client.session(agent="denying"), "b")

    finished = [frame.data for frame in frames if frame.event == "tool_finished"]
    assert [fact["outcome"] for fact in finished] == ["denied"]
    assert done == []


# -- how agents say it -----------------------------------------------------------------------


def test_an_agent_file_says_who_is_asked_and_what_clients_bring(tmp_path: Path) -> None:
    file = tmp_path / "guide.md"
    file.write_text(
        "---\n"
        "permissions: {allow: [read_*], ask: ['*'], deny: [rm]}\n"
        "client_tools: [{name: locate, description: Where., timeout_s: 60}]\n"
        "approval_timeout_s: 3600\n"
        "---\nGuide.\n"
    )
    assert read_agent(file) == Agent(
        "guide",
        instructions="Guide.",
        permissions=Permissions(allow=("read_*",), ask=("*",), deny=("rm",)),
        client_tools=(ClientTool(name="locate", description="Where.", timeout_s=60.0),),
        approval_timeout_s=3600.0,
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("permissions: {forbid: [a]}", "forbid"),
        ("permissions: {ask: a}", "ask"),
        ("client_tools: [{description: x}]", "name"),
        ("approval_timeout_s: soon", "approval_timeout_s"),
        ("approval_timeout_s: 0", "approval_timeout_s is 0"),
        ("approval_timeout_s: 1e12", "approval_timeout_s"),
    ],
)
def test_a_mistake_about_waits_in_an_agent_file_is_told(
    tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "guide.md"
    file.write_text(f"---\n{text}\n---\n")
    with pytest.raises(SetupError, match=told):
        read_agent(file)


async def test_an_agent_s_own_tools_and_those_of_its_clients_have_names_of_their_own(
    tmp_path: Path,
) -> None:
    agent = Removals().agent(client_tools=[ClientTool(name="remove")])
    with pytest.raises(SetupError, match="two tools are called remove"):
        async with build_agents([agent], load_settings({"data": tmp_path})):
            pass
