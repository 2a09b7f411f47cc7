"""The AI SDK's own packages over our face: what an app sees of runs, answered and watched."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import anyio
import pytest
from tests.ai_chats import App, app
from tests.serving import Client, Json, Serve
from tests.viewers import Speaker
from tests.waiting import Removals, a_model, of_kind, serving_agents

from hostler import Agent, tool
from hostler.core.ports import Delta, Failure, Reply, Request
from hostler.core.said import ModelSaid, UserSaid
from hostler.testing.doubles import a_call, an_agent

pytestmark = pytest.mark.anyio


@dataclass
class Sequel:
    """A model that says, for each question, what comes next in a list."""

    answers: Sequence[Sequence[Delta | Reply | Failure]]
    provider: str = "double"
    name: str = "sequel"
    asked: list[Request] = field(default_factory=list[Request])

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        said = request.transcript
        self.asked.append(Request(system="", transcript=tuple(said), tools=request.tools))
        for one in self.answers[(len(self.asked) - 1) % len(self.answers)]:
            yield one


def says(text: str) -> Sequence[Delta | Reply]:
    return [Delta("text", text), Reply(text=text, stop="end")]


async def session_of(client: Client, chat: str) -> str:
    """Return the session that a chat is."""
    page = await client.get("/api/sessions")
    found = cast("list[Json]", page["items"])
    return next(str(one["id"]) for one in found if cast("Json", one["metadata"])["chat"] == chat)


async def facts_of(client: Client, chat: str) -> list[Json]:
    return await client.facts(await session_of(client, chat))


def kinds(app: App) -> list[object]:
    return [part["type"] for part in app.parts]


async def test_what_is_said_is_answered_and_the_next_turn_knows_of_it(serve: Serve) -> None:
    model = Sequel([says("Hello Ann."), says("You are Ann.")])
    async with serve(an_agent(model)) as client, app(client, "first") as tab:
        await tab.say("I am Ann.")

        assert (tab.text, tab.state["status"]) == ("Hello Ann.", "ready")
        assert tab.finishes[0]["finishReason"] == "stop"
        metadata = cast("Json", tab.messages[-1]["metadata"])
        assert metadata["session"] == await session_of(client, "first")
        assert metadata["model"] == "double:sequel"
        assert cast("Json", metadata["usage"])["totalTokens"] == 0

        await tab.say("Who am I?")
        assert (tab.text, len(tab.messages)) == ("You are Ann.", 4)
        assert len(model.asked[1].transcript) == 3


async def test_a_client_may_send_its_newest_message_alone(serve: Serve) -> None:
    model = Sequel([says("one"), says("two")])
    async with serve(an_agent(model)) as client, app(client, "short", newest=True) as tab:
        await tab.say("first")
        await tab.say("second")
        assert tab.text == "two"
        assert len(model.asked[1].transcript) == 3


async def test_a_tool_of_the_server_is_shown_and_is_not_the_app_s(tmp_path: Path) -> None:
    @tool
    async def weather(city: str) -> dict[str, object]:
        """Say the weather."""
        return {"city": city, "degrees": 21}

    model = a_model(lambda _: [a_call("weather", city="Ulm"), a_call("nothing")])
    agent = Agent(name="helper", model=model, tools=[weather])
    async with serving_agents(tmp_path, agent) as client, app(client, "weather") as tab:
        await tab.say("go")

        shown, failed, text = tab.parts
        assert shown["type"] == "dynamic-tool"
        assert (shown["state"], shown["toolName"]) == ("output-available", "weather")
        assert shown["providerExecuted"] is True
        assert (shown["input"], shown["output"]) == (
            {"city": "Ulm"},
            {"city": "Ulm", "degrees": 21},
        )
        assert failed["state"] == "output-error"
        assert "nothing" in str(failed["errorText"])
        assert text["type"] == "text"
        assert tab.calls == []


async def test_a_second_viewer_and_one_who_comes_back_end_with_the_same_message(
    serve: Serve,
) -> None:
    model = Speaker(["one ", "two ", "three ", "four"])
    async with (
        serve(an_agent(model)) as client,
        app(client, "both") as first,
        app(client, "both") as second,
    ):
        await first.begin("send", message={"text": "count", "id": "mine"})
        model.let(2)
        await first.comes_to(lambda app: app.text == "one two ")
        await second.begin("resume")
        await second.comes_to(lambda app: app.text == "one two ")
        await first.do("leave")
        model.let()
        await second.comes_to(lambda app: app.text == "one two three ")
        await first.begin("resume")
        await first.comes_to(lambda app: app.text == "one two three ")
        model.let(2)
        for tab in (first, second):
            await tab.comes_to(lambda app: app.state["status"] == "ready" and "four" in app.text)
        assert first.messages[-1] == second.messages[-1]
        assert len(first.messages) == 2

        await second.do("resume")
        assert second.messages[-1] == first.messages[-1]


async def test_nothing_is_resumed_where_nothing_runs(serve: Serve) -> None:
    async with serve(an_agent(Sequel([says("well")]))) as client, app(client, "still") as tab:
        await tab.do("resume")
        await tab.say("go")
        await tab.do("resume")
        assert (tab.state["status"], len(tab.messages)) == ("ready", 2)
        status, _ = await client.call("GET", "/api/chat/never%20was/stream")
        assert status == 204


async def test_stop_ends_the_run_for_all_who_watch_and_keeps_what_was_said(serve: Serve) -> None:
    model = Speaker(["one ", "two ", "three"])
    async with (
        serve(an_agent(model)) as client,
        app(client, "stopped") as first,
        app(client, "stopped") as second,
    ):
        await first.begin("send", message={"text": "count"})
        model.let()
        await first.comes_to(lambda app: app.text == "one ")
        await second.begin("resume")
        await second.comes_to(lambda app: app.text == "one ")

        await second.do("stop")

        for tab in (first, second):
            await tab.comes_to(lambda app: app.state["status"] == "ready")
            assert tab.text == "one "
            assert tab.state["error"] is None
        assert first.messages[-1] == second.messages[-1]
        facts = await facts_of(client, "stopped")
        assert of_kind(facts, "run_ended")[0]["status"] == "cancelled"
        status, _ = await client.call("GET", "/api/chat/stopped/stream")
        assert status == 204


async def test_an_app_that_goes_away_stops_nothing(serve: Serve) -> None:
    model = Speaker(["one ", "two"])
    async with serve(an_agent(model)) as client:
        async with app(client, "gone") as tab:
            await tab.begin("send", message={"text": "count"})
            model.let()
            await tab.comes_to(lambda app: app.text == "one ")
        async with app(client, "gone") as tab:
            await tab.begin("resume")
            await tab.comes_to(lambda app: app.text == "one ")
            model.let(2)
            await tab.comes_to(lambda app: app.state["status"] == "ready")
            assert tab.text == "one two"


@pytest.mark.parametrize("approved", [True, False])
async def test_a_person_decides_in_the_app(tmp_path: Path, *, approved: bool) -> None:
    removed = Removals()
    async with (
        serving_agents(tmp_path, removed.agent()) as client,
        app(client, "asks", automatic=True) as tab,
        app(client, "asks") as other,
    ):
        await tab.say("old.txt")
        asked = tab.parts[0]
        assert asked["state"] == "approval-requested"
        assert tab.finishes[-1]["finishReason"] == "tool-calls"
        await other.do("resume")
        assert other.messages[-1] == tab.messages[-1]

        call = cast("Json", asked["approval"])["id"]
        answer = {"id": call, "approved": approved, "reason": "as I say"}
        await tab.begin("approve", answer=answer)
        await tab.comes_to(lambda app: len(app.finishes) == 2 and app.state["status"] == "ready")

        assert len(tab.messages) == 2
        state, told = tab.parts[0]["state"], tab.text
        assert state == ("output-available" if approved else "output-denied")
        assert told == ("old.txt is gone" if approved else "Denied by admin: as I say")
        assert removed == (["old.txt x1"] if approved else [])
        assert tab.calls == []


async def test_a_tab_that_answers_late_is_told_what_came_of_it(tmp_path: Path) -> None:
    removed = Removals()
    async with (
        serving_agents(tmp_path, removed.agent()) as client,
        app(client, "late", automatic=True) as tab,
        app(client, "late", automatic=True) as other,
    ):
        await tab.say("old.txt")
        await other.do("resume")
        call = cast("Json", tab.parts[0]["approval"])["id"]
        await tab.begin("approve", answer={"id": call, "approved": True})
        await tab.comes_to(lambda app: "gone" in app.text and app.state["status"] == "ready")

        await other.begin("approve", answer={"id": call, "approved": False})
        await other.comes_to(lambda app: "gone" in app.text and app.state["status"] == "ready")
        assert other.messages[-1] == tab.messages[-1]
        assert len(of_kind(await facts_of(client, "late"), "approval_given")) == 1


async def test_a_tool_of_the_app_is_run_by_it_and_the_run_goes_on(serve: Serve) -> None:
    model = a_model(lambda _: [a_call("locate")])
    tools: Json = {"name": "locate", "description": "Say where the user is.", "parameters": {}}
    body: Json = {"tools": [tools]}
    async with (
        serve(an_agent(model)) as client,
        app(client, "where", automatic=True, body=body) as tab,
    ):
        await tab.say("go")
        assert [call["toolName"] for call in tab.calls] == ["locate"]
        assert kinds(tab) == ["tool-locate"]

        call = tab.calls[0]["toolCallId"]
        answer = {"tool": "locate", "toolCallId": call, "output": {"city": "Ulm"}}
        await tab.begin("output", answer=answer)
        await tab.comes_to(lambda app: '{"city":"Ulm"}' in app.text)
        await tab.comes_to(lambda app: app.state["status"] == "ready")

        assert tab.parts[0]["output"] == {"city": "Ulm"}
        assert (len(tab.messages), len(tab.calls)) == (2, 1)


async def test_reasoning_is_a_part_of_its_own_wherever_it_comes(serve: Serve) -> None:
    reply = Reply(text="Four.", thinking="Two and two. Yes.", stop="end")
    parts = [
        Delta("thinking", "Two and two."),
        Delta("text", "Four"),
        Delta("thinking", " Yes."),
        Delta("text", "."),
        reply,
    ]
    async with serve(an_agent(Sequel([parts]))) as client, app(client, "thinks") as tab:
        await tab.say("2 + 2?")
        assert [(one["type"], one["text"], one["state"]) for one in tab.parts] == [
            ("reasoning", "Two and two. Yes.", "done"),
            ("text", "Four.", "done"),
        ]


async def test_what_a_failed_attempt_had_said_is_taken_back(serve: Serve) -> None:
    failed = Failure(code="overloaded", message="busy", again=True, retry_after_s=0.0)
    model = Sequel([[Delta("text", "Wro"), failed], says("Right.")])
    async with serve(an_agent(model)) as client, app(client, "again") as tab:
        await tab.say("go")
        assert (tab.text, kinds(tab)) == ("Right.", ["text"])


async def test_a_run_that_fails_says_why_in_short(serve: Serve) -> None:
    failed = Failure(code="auth", message="the key is wrong\n  at line 1", again=False)
    async with serve(an_agent(Sequel([[failed]]))) as client, app(client, "fails") as tab:
        await tab.say("go")
        assert tab.state["status"] == "error"
        assert tab.state["error"] == "The model failed (auth: the key is wrong)"
        assert tab.finishes[-1]["isError"] is True


async def test_a_refusal_is_shown_as_a_short_text(serve: Serve) -> None:
    async with (
        serve(an_agent(Sequel([says("well")]))) as client,
        app(client, "no", headers={"Hostler-Agent": "nobody"}) as tab,
    ):
        await tab.say("go")
        assert tab.state["status"] == "error"
        assert "there is no agent named" in str(tab.state["error"])
        assert len(str(tab.state["error"])) < 400


async def test_the_agent_is_chosen_once(serve: Serve) -> None:
    one, two = (an_agent(Sequel([says(name)]), name=name) for name in ("one", "two"))
    async with serve(one, two) as client:
        async with app(client, "chosen", body={"agent": "two"}) as tab:
            await tab.say("go")
            assert tab.text == "two"
        async with app(client, "purpose", body={"purpose": "two"}) as tab:
            await tab.say("go")
            assert tab.text == "two"
            assert of_kind(await facts_of(client, "purpose"), "user_spoke")[0]["purpose"] == "two"
        async with app(client, "chosen", body={"agent": "one"}) as tab:
            await tab.say("go")
            assert "this chat is with two, not with one" in str(tab.state["error"])


async def test_files_and_context_reach_the_model(serve: Serve) -> None:
    model = Sequel([says("seen")])
    files = [
        {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,iVBORw0KGgo="},
        {"type": "file", "mediaType": "text/plain", "url": "data:,a%20b", "filename": "a.txt"},
        {"type": "file", "mediaType": "image/png", "url": "https://example.com/a.png"},
    ]
    body = {"context": {"page": "basket"}}
    async with serve(an_agent(model)) as client, app(client, "files", body=body) as tab:
        await tab.do("send", message={"text": "see", "files": files})
        assert tab.text == "seen"
        said = of_kind(await facts_of(client, "files"), "user_spoke")[0]["content"]
        parts = cast("list[Json]", said)
        assert parts[0]["text"] == 'Context, from the client (JSON):\n{"page": "basket"}'
        assert sorted(str(part["type"]) for part in parts[1:]) == ["file", "image", "image", "text"]
        file = next(part for part in parts if part["type"] == "file")
        assert (file["data"], file["name"]) == ("YSBi", "a.txt")


async def test_a_session_of_the_native_api_is_watched_by_its_own_id(serve: Serve) -> None:
    model = Speaker(["one ", "two"])
    async with serve(an_agent(model)) as client:
        session = await client.session()
        async with app(client, session) as tab:
            path = f"/api/sessions/{session}/messages"
            assert (await client.call("POST", path, {"content": "go"}))[0] == 202
            await tab.begin("resume")
            await tab.comes_to(lambda app: app.state["status"] == "submitted")
            model.let()
            await tab.comes_to(lambda app: app.text == "one ")
            model.let(2)
            await tab.comes_to(lambda app: app.state["status"] == "ready" and app.text == "one two")
            model.let(3)
            await tab.say("again")
            assert tab.text == "one two"
            with anyio.fail_after(5):
                assert len(of_kind(await client.facts(session), "run_ended")) == 2


def said_to(request: Request) -> list[object]:
    """Return what a model was shown, in words."""
    return [
        one.content if isinstance(one, UserSaid) else one.text
        for one in request.transcript
        if isinstance(one, UserSaid | ModelSaid)
    ]


async def test_another_answer_takes_the_place_of_the_last_one(serve: Serve) -> None:
    model = Sequel([says("one"), says("two"), says("three")])
    async with serve(an_agent(model)) as client, app(client, "again") as tab:
        await tab.say("first")
        await tab.say("second")
        before = tab.messages[-1]["id"]
        await tab.do("regenerate", options={})

        assert tab.text == "three"
        assert len(tab.messages) == 4
        assert tab.messages[-1]["id"] != before
        assert said_to(model.asked[-1]) == ["first", "one", "second"]
        facts = await facts_of(client, "again")
        assert len(of_kind(facts, "session_rewound")) == 1
        assert len(of_kind(facts, "run_ended")) == 3

        first = tab.messages[1]["id"]
        await tab.do("regenerate", options={"messageId": first})
        assert said_to(model.asked[-1]) == ["first"]
        assert len(tab.messages) == 2


async def test_what_was_said_is_edited(serve: Serve) -> None:
    model = Sequel([says("one"), says("two"), says("three"), says("four")])
    async with serve(an_agent(model)) as client, app(client, "edit") as tab:
        await tab.say("first")
        await tab.say("second")
        mine = tab.messages[0]["id"]
        await tab.do("send", message={"text": "other", "messageId": mine})
        assert (tab.text, len(tab.messages)) == ("three", 2)
        assert said_to(model.asked[-1]) == ["other"]

        await tab.do("send", message={"text": "another", "messageId": mine})
        assert said_to(model.asked[-1]) == ["another"]


async def test_of_two_tabs_that_take_back_one_turn_one_wins(serve: Serve) -> None:
    model = Sequel([says("one"), says("two")])
    async with serve(an_agent(model)) as client, app(client, "race") as tab:
        await tab.say("first")
        async with app(client, "race", messages=tab.messages) as other:
            await tab.do("regenerate", options={"messageId": tab.messages[-1]["id"]})
            await other.do("regenerate", options={"messageId": other.messages[-1]["id"]})
            assert "no part of the conversation" in str(other.state["error"])
        assert len(model.asked) == 2


async def test_nothing_is_taken_back_while_a_run_is_going(serve: Serve) -> None:
    model = Speaker(["one"])
    async with serve(an_agent(model)) as client, app(client, "busy") as tab:
        await tab.begin("send", message={"text": "first"})
        model.let()
        await tab.comes_to(lambda app: app.text == "one")
        async with app(client, "busy", messages=tab.messages) as other:
            await other.do("regenerate", options={})
            assert "a run is going" in str(other.state["error"])
        model.let()
        await tab.comes_to(lambda app: app.state["status"] == "ready")


async def test_a_later_message_brings_tools(serve: Serve) -> None:
    model = a_model(lambda said: [a_call(said)] if said in ("locate", "look") else [])
    locate: Json = {"name": "locate", "description": "Say where the user is."}
    look: Json = {"name": "look", "description": "Say what the user sees."}
    async with serve(an_agent(model)) as client, app(client, "tools", automatic=True) as tab:
        await tab.say("hello")
        for name, tools in (("locate", [locate]), ("look", [locate, look])):
            await tab.say(name, options={"body": {"tools": tools}})
            assert kinds(tab) == [f"tool-{name}"]
            call = tab.calls[-1]["toolCallId"]
            answer = {"tool": name, "toolCallId": call, "output": f"done {name}"}
            await tab.begin("output", answer=answer)
            await tab.comes_to(lambda app, name=name: app.text == f"done {name}")
            await tab.comes_to(lambda app: app.state["status"] == "ready")
        spoken = of_kind(await facts_of(client, "tools"), "user_spoke")
        assert ["client_tools" in one for one in spoken] == [False, True, True]
        assert [spec.name for spec in model.asked[-1].tools] == ["locate", "look"]


async def test_the_hook_renders_a_chat_and_comes_back_to_it(tmp_path: Path) -> None:
    removed = Removals()
    async with (
        serving_agents(tmp_path, removed.agent()) as client,
        app(client, "hook", script="use_chat.mjs") as page,
    ):
        await page.say("old.txt")
        await page.comes_to(lambda app: app.state["status"] == "ready" and bool(app.parts))
        async with app(client, "hook", script="use_chat.mjs", resume=True) as other:
            await other.comes_to(lambda app: bool(app.parts) and app.state["status"] == "ready")
            assert other.messages[-1] == page.messages[-1]

        call = cast("Json", page.parts[0]["approval"])["id"]
        await page.begin("approve", answer={"id": call, "approved": True})
        await page.comes_to(lambda app: app.text == "old.txt is gone")
        await page.comes_to(lambda app: app.state["status"] == "ready")
        await page.do("show")
        shown = cast("list[Json]", page.calls[-1]["children"])
        assert [one["children"] for one in shown] == [["old.txt"], ["old.txt is gone"]]
