"""What tools show, as apps of the AI SDK have it: parts of the answer, live and read again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import anyio
import pytest
from tests.ai_chats import App, app
from tests.serving import Client, Json
from tests.waiting import a_model, of_kind, serving_agents

from hostler import Agent, CallContext, DataPart, DocumentPart, FilePart, SourcePart, tool
from hostler.core.shown import MOST_OF_CALL
from hostler.testing.doubles import ModelDouble, a_call

pytestmark = pytest.mark.anyio
PNG = "iVBORw0KGgo="


@dataclass
class Research:
    """An agent whose tool shows things, half of them when it is let."""

    goes_on: anyio.Event = field(default_factory=anyio.Event)
    model: ModelDouble = field(default_factory=lambda: a_model(lambda _: [a_call("research")]))

    def agent(self) -> Agent:
        @tool
        async def research(context: CallContext) -> str:
            """Look it up."""
            await context.show(DataPart(name="progress", value={"done": 1}, key="p"))
            await context.show(SourcePart(url="https://example.com/a", title="A page"))
            await self.goes_on.wait()
            await context.show(DataPart(name="note", value="half"))
            await context.show(DataPart(name="note", value="half"))
            await context.show(DataPart(name="progress", value={"done": 2}, key="p"))
            await context.show(
                DocumentPart(title="Report", media_type="application/pdf", name="report.pdf")
            )
            await context.show(FilePart(media_type="image/png", data=PNG, name="a.png"))
            await context.show(FilePart(media_type="image/png", url="https://example.com/a.png"))
            return "found"

        return Agent(name="helper", model=self.model, tools=[research])


def unnamed(app: App) -> list[Json]:
    """Return the parts of the newest message without the ids that the server made up."""
    return [
        {key: value for key, value in part.items() if key not in ("sourceId", "providerMetadata")}
        | ({"id": None} if str(part.get("id", "")).startswith("part_") else {})
        for part in app.parts
    ]


SHOWN: list[Json] = [
    {"type": "data-progress", "id": "p", "data": {"done": 2}},
    {"type": "source-url", "url": "https://example.com/a", "title": "A page"},
    {"type": "data-note", "id": None, "data": "half"},
    {"type": "data-note", "id": None, "data": "half"},
    {
        "type": "source-document",
        "mediaType": "application/pdf",
        "title": "Report",
        "filename": "report.pdf",
    },
    {"type": "file", "mediaType": "image/png", "url": f"data:image/png;base64,{PNG}"},
    {"type": "file", "mediaType": "image/png", "url": "https://example.com/a.png"},
]


@asynccontextmanager
async def researching(folder: Path) -> AsyncGenerator[tuple[Client, Research]]:
    research = Research()
    async with serving_agents(folder, research.agent()) as client:
        yield client, research


@pytest.mark.parametrize("script", ["chat.mjs", "use_chat.mjs"])
async def test_what_a_tool_shows_is_in_its_step_in_order_and_in_every_tab(
    tmp_path: Path, script: str
) -> None:
    async with researching(tmp_path) as (client, research), app(client, "c", script=script) as tab:
        await tab.begin("send", message={"text": "go"})
        await tab.comes_to(lambda app: len(app.parts) == 3)
        assert [part["type"] for part in tab.parts[1:]] == ["data-progress", "source-url"]
        resumes = {"script": script, "resume": True} if script == "use_chat.mjs" else {}
        async with app(client, "c", **resumes) as other:  # type: ignore[arg-type]
            if not resumes:
                await other.begin("resume")
            await other.comes_to(lambda app: len(app.parts) == 3)
            research.goes_on.set()
            for one in (tab, other):
                await one.comes_to(
                    lambda app: app.state["status"] == "ready" and len(app.parts) == 9
                )

            call, *shown, text = unnamed(tab)
            assert (call["type"], call["state"]) == ("dynamic-tool", "output-available")
            assert shown == SHOWN
            assert text["type"] == "text"
            assert other.messages[-1] == tab.messages[-1]
            types = [part["type"] for part in cast("list[Json]", tab.messages[-1]["parts"])]
            assert [place for place, one in enumerate(types) if one == "step-start"] == [0, 9]
            named = cast("Json", tab.parts[6]["providerMetadata"])["hostler"]
            assert cast("Json", named)["name"] == "a.png"


async def test_data_is_handed_to_the_app_as_it_comes(tmp_path: Path) -> None:
    async with researching(tmp_path) as (client, research), app(client, "c") as tab:
        research.goes_on.set()
        await tab.say("go")
        assert [(one["type"], one["data"]) for one in tab.data] == [
            ("data-progress", {"done": 1}),
            ("data-note", "half"),
            ("data-note", "half"),
            ("data-progress", {"done": 2}),
        ]


async def test_what_was_shown_is_in_the_log_and_in_no_later_prompt(tmp_path: Path) -> None:
    async with researching(tmp_path) as (client, research), app(client, "c") as tab:
        research.goes_on.set()
        await tab.say("go")
        session = str(cast("Json", tab.messages[-1]["metadata"])["session"])
        facts = of_kind(await client.facts(session), "part_shown")
        assert len(facts) == 8
        assert facts[0]["part"] == {
            "type": "data",
            "name": "progress",
            "value": {"done": 1},
            "key": "p",
        }
        await tab.say("again")  # with all that was shown, as the client sends it back
        assert tab.state["error"] is None
        assert len(research.model.asked) == 4
        assert "example.com" not in str(research.model.asked)


async def test_metadata_names_session_run_agent_model_and_usage(tmp_path: Path) -> None:
    async with researching(tmp_path) as (client, research), app(client, "c") as tab:
        research.goes_on.set()
        await tab.say("go")
        metadata = cast("Json", tab.messages[-1]["metadata"])
        assert set(metadata) == {"session", "run", "agent", "model", "usage"}
        assert metadata["agent"] == "helper"


async def test_a_tool_that_shows_too_much_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    @tool
    async def flood(context: CallContext) -> str:
        """Show too much."""
        for n in range(MOST_OF_CALL + 1):
            await context.show(DataPart(name="n", value=n, key="n"))
        return "never"

    agent = Agent(name="helper", model=a_model(lambda _: [a_call("flood")]), tools=[flood])
    async with serving_agents(tmp_path, agent) as client, app(client, "c") as tab:
        await tab.say("go")
        call, data, _ = tab.parts
        assert call["state"] == "output-error"
        assert f"may show {MOST_OF_CALL} parts" in str(call["errorText"])
        assert data["data"] == MOST_OF_CALL - 1


async def test_what_is_shown_after_a_decision_completes_the_message_once(tmp_path: Path) -> None:
    @tool(approval=True)
    async def publish(page: str, context: CallContext) -> str:
        """Publish a page."""
        await context.show(SourcePart(url=f"https://example.com/{page}"))
        await context.show(FilePart(media_type="text/plain", data="aGk="))
        return "published"

    calls = [a_call("publish", page="a"), a_call("publish", page="b")]
    agent = Agent(name="helper", model=a_model(lambda _: calls), tools=[publish])
    async with serving_agents(tmp_path, agent) as client, app(client, "c") as tab:
        await tab.say("go")
        first, second = (str(cast("Json", part["approval"])["id"]) for part in tab.parts)
        for place, call in enumerate((first, second), 1):
            await tab.do("approve", answer={"id": call, "approved": True})
            await tab.do("send", message=None)
            types = [part["type"] for part in tab.parts]
            assert types.count("source-url") == types.count("file") == place
        assert (tab.state["status"], tab.text) == ("ready", "published")
