"""Clients in the loop, over HTTP: questions to users, and tools that clients answer."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import anyio
import pytest
from tests.serving import Client, Json
from tests.waiting import Removals, a_model, answer, of_kind, over, parked, serving_agents

from hostler import Agent, ClientTool, tool
from hostler.testing.doubles import a_call

pytestmark = pytest.mark.anyio

# -- questions -------------------------------------------------------------------------------


async def asking(client: Client, session: str, **question: object) -> object:
    """Have the model ask; return the call."""
    wait = await parked(client, session)
    assert wait["kind"] == "client_tool"
    started = of_kind(await client.facts(session), "tool_started")[-1]
    assert started["arguments"] == question
    assert str(started["expires_at"]).endswith("Z")
    return wait["call"]


@pytest.mark.parametrize(
    ("question", "wrong", "right", "read"),
    [
        ({}, [], "whatever", "whatever"),
        ({"options": ["red", "blue"]}, ["green", "", ["red"]], "blue", "blue"),
        ({"schema": {"type": "integer"}}, ["many", 1.5, {"a": 1}, ""], 7, "7"),
        ({"schema": {"type": "string", "maxLength": 3}}, ["four"], "7", "7"),
        (
            {"schema": {"type": "object", "required": ["to"], "properties": {"to": {"enum": [1]}}}},
            [{}, {"to": 2}, "to", "[" * 5000 + "]" * 5000],
            {"to": 1},
            '{"to":1}',
        ),
    ],
)
async def test_a_question_takes_the_answers_that_fit_it(
    tmp_path: Path, question: Json, wrong: list[object], right: object, read: str
) -> None:
    asked = {"question": "Which?", **question}
    model = a_model(lambda _: [a_call("ask_user", **asked)])
    async with serving_agents(tmp_path, Agent("asker", model=model, tools=["ask_user"])) as client:
        session = await client.session()
        call = await asking(client, session, **asked)
        for output in wrong:
            status, body = await answer(client, session, call, output=output)
            assert (status, body["code"]) == (422, "invalid"), output
            assert "must" in str(body["detail"])
        status, finished = await answer(client, session, call, output=right)
        facts = await over(client, session)

    assert (status, finished["kind"], finished["output"]) == (200, "tool_finished", read)
    assert of_kind(facts, "model_replied")[-1]["text"] == read


async def test_a_user_may_decline_to_answer(tmp_path: Path) -> None:
    model = a_model(lambda _: [a_call("ask_user", question="?", options=["a"])])
    async with serving_agents(tmp_path, Agent("asker", model=model, tools=["ask_user"])) as client:
        session = await client.session()
        call = await asking(client, session, question="?", options=["a"])
        status, finished = await answer(client, session, call, output="not now", is_error=True)

    assert (status, finished["outcome"], finished["output"]) == (200, "error", "not now")


# -- tools of clients ------------------------------------------------------------------------

LOCATE = {
    "name": "locate",
    "description": "Where the user is.",
    "parameters": {"type": "object", "properties": {"exact": {"type": "boolean"}}},
}


async def test_a_tool_that_a_session_brings_is_answered_by_its_client_across_a_restart(
    tmp_path: Path,
) -> None:
    model = a_model(lambda _: [a_call("locate", exact="true")])
    agent = Agent("guide", model=model)
    async with serving_agents(tmp_path, agent) as client:
        session = await client.session(client_tools=[LOCATE])
        wait = await parked(client, session)
        assert wait["kind"] == "client_tool"
        shown = cast("list[Json]", (await client.get(f"/api/sessions/{session}"))["client_tools"])
        assert shown[0]["name"] == "locate"

    async with serving_agents(tmp_path, agent) as client:
        status, finished = await answer(client, session, wait["call"], output={"city": "Ulm"})
        facts = await over(client, session)
        again, problem = await answer(client, session, wait["call"], output="Bonn")

    assert (status, finished["outcome"], finished["output"]) == (200, "ok", '{"city":"Ulm"}')
    (started,) = of_kind(facts, "tool_started")
    assert started["arguments"] == {"exact": True}
    assert of_kind(facts, "model_replied")[-1]["text"] == '{"city":"Ulm"}'
    assert (again, problem["code"], problem["outcome"]) == (409, "already_answered", "ok")
    assert (problem["principal"], problem["at"]) == (finished["principal"], finished["at"])
    assert [spec.name for spec in model.asked[0].tools] == ["locate"]


async def test_the_file_of_a_long_answer_is_that_of_the_answer_that_holds(tmp_path: Path) -> None:
    agent = Agent("guide", model=a_model(lambda _: [a_call("locate")]))
    outputs, statuses = [str(number) * 40_000 for number in range(8)], dict[int, str]()
    async with serving_agents(tmp_path, agent) as client:
        session = await client.session(client_tools=[LOCATE])
        wait = await parked(client, session)

        async def one(output: str) -> None:
            status, _ = await answer(client, session, wait["call"], output=output)
            statuses.setdefault(status, output)

        async with anyio.create_task_group() as tasks:
            for output in outputs:
                tasks.start_soon(one, output)
        (finished,) = of_kind(await over(client, session), "tool_finished")

    assert set(statuses) == {200, 409}
    assert beside(Path(str(finished["file"]))) == [statuses[200]], "of the others nothing is left"


def beside(file: Path) -> list[str]:
    """Return what is in a file, and after it what is in the others of its folder."""
    others = [one for one in file.parent.iterdir() if one != file]
    return [one.read_text() for one in (file, *others)]


async def test_an_agent_that_got_a_tool_of_a_client_s_name_goes_on_with_its_own(
    tmp_path: Path,
) -> None:
    @tool
    async def locate() -> str:
        """Say where the server is."""
        return "here"

    model = a_model(lambda _: [a_call("locate")])
    async with serving_agents(tmp_path, Agent("guide", model=model)) as client:
        session = await client.session(client_tools=[LOCATE])
        wait = await parked(client, session)

    async with serving_agents(tmp_path, Agent("guide", model=model, tools=[locate])) as client:
        assert (await answer(client, session, wait["call"], output="there"))[0] == 200
        await over(client, session)
        frames = await client.speak(session, "again")

    outputs = [frame.data["output"] for frame in frames if frame.event == "tool_finished"]
    assert outputs == ["here"]


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_does_not_answer_in_time_is_an_error_and_the_run_goes_on(
    tmp_path: Path,
) -> None:
    agent = Agent(
        "guide",
        model=a_model(lambda _: [a_call("locate")]),
        client_tools=[ClientTool(name="locate", timeout_s=0.2)],
    )
    async with serving_agents(tmp_path, agent) as client:
        session = await client.session()
        wait = await parked(client, session)
        facts = await over(client, session)
        status, body = await answer(client, session, wait["call"], output="late")

    assert facts[-1]["status"] == "done"
    assert [fact["outcome"] for fact in of_kind(facts, "tool_finished")] == ["error"]
    assert (status, body["code"]) == (409, "expired")


@pytest.mark.parametrize(
    "tools",
    [
        [{"name": "remove"}],
        [LOCATE, LOCATE],
        [{"name": "no such name"}],
        [{"name": "locate", "parameters": {"type": "colour"}}],
        [{"name": "locate", "parameters": {"properties": {"a": {"$ref": "file:///x"}}}}],
        [{"name": "locate", "timeout_s": 0}],
        [{"name": "locate", "timeout_s": 1e12}],
        [{"name": "locate", "colour": "blue"}],
    ],
)
async def test_tools_that_cannot_be_served_are_refused_with_the_session(
    tmp_path: Path, tools: list[Json]
) -> None:
    async with serving_agents(tmp_path, Removals().agent()) as client:
        status, body = await client.call("POST", "/api/sessions", {"client_tools": tools})

        assert (status, body["code"]) == (422, "invalid")
        assert str(cast("list[Json]", body["errors"])[0]["pointer"]).startswith("/client_tools")
        assert (await client.get("/api/sessions"))["items"] == []
