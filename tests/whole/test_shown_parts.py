"""What tools show, over the native API: told, exported, imported, and shared like all facts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
from tests.serving import Client, Json, Serve
from tests.waiting import a_model, of_kind, serving_agents

from hostler import Agent, CallContext, DataPart, DocumentPart, FilePart, SourcePart, tool
from hostler.testing.doubles import a_call, an_agent

pytestmark = pytest.mark.anyio
PARTS = (
    DataPart(name="map", value={"pins": [1, None, "ä"]}, key="paris"),
    SourcePart(url="https://example.com/a", title="A"),
    DocumentPart(title="Report", media_type="application/pdf"),
    FilePart(media_type="text/plain", data="aGk=", name="a.txt"),
)
WIRE: Sequence[Json] = (
    {"type": "data", "name": "map", "value": {"pins": [1, None, "ä"]}, "key": "paris"},
    {"type": "source", "url": "https://example.com/a", "title": "A"},
    {"type": "document", "title": "Report", "media_type": "application/pdf"},
    {"type": "file", "media_type": "text/plain", "data": "aGk=", "name": "a.txt"},
)


def guide() -> Agent:
    @tool
    async def look(context: CallContext) -> str:
        """Look it up."""
        for part in PARTS:
            await context.show(part)
        return "found"

    calls = a_model(lambda said: [a_call("look")] if said == "look" else [])
    return Agent("guide", model=calls, tools=[look])


async def export(client: Client, session: str) -> bytes:
    url = f"{client.url}/api/sessions/{session}/export"
    async with client.http.get(url, headers={"Authorization": f"Bearer {client.key}"}) as got:
        assert got.status == 200
        return await got.read()


async def test_a_part_is_an_event_between_its_call_s_beginning_and_end(tmp_path: Path) -> None:
    async with serving_agents(tmp_path, guide()) as client:
        session = await client.session()
        frames = await client.speak(session, "look")

        shown = [frame.data for frame in frames if frame.event == "part_shown"]
        assert [one["part"] for one in shown] == list(WIRE)
        kinds = [frame.event for frame in frames if "call" in frame.data and frame.event != "delta"]
        assert kinds == ["tool_started", *["part_shown"] * 4, "tool_finished"]
        assert of_kind(await client.facts(session), "part_shown") == shown


async def test_what_was_shown_goes_out_and_comes_back_in_and_is_forked(tmp_path: Path) -> None:
    async with serving_agents(tmp_path / "a", guide()) as here:
        session = await here.session()
        await here.speak(session, "look")
        file, before = await export(here, session), await here.facts(session)
        at = before[-1]["seq"]
        _, fork = await here.call("POST", f"/api/sessions/{session}/fork", {"at": at})
        shown = of_kind(await here.facts(str(fork["id"])), "part_shown")
        assert [one["part"] for one in shown] == list(WIRE)
    async with serving_agents(tmp_path / "b", guide()) as there:
        status, _ = await there.call("POST", "/api/sessions/import", raw=file)
        assert status == 201
        assert await there.facts(session) == before
        assert (await there.speak(session, "on"))[-1].data["status"] == "done"


async def test_who_has_a_link_sees_what_was_shown_and_others_do_not(tmp_path: Path) -> None:
    async with serving_agents(tmp_path, guide()) as client:
        session = await client.session()
        await client.speak(session, "look")
        _, link = await client.call("POST", f"/api/sessions/{session}/shares", {})
        viewer = Client(client.http, client.url, str(link["token"]))
        assert len(of_kind(await viewer.facts(session), "part_shown")) == 4
        stranger = Client(client.http, client.url, "hk_nobody")
        status, _ = await stranger.call("GET", f"/api/sessions/{session}/events")
        assert status == 401


HOSTILE: dict[str, Json] = {
    "a script": {"part": {"type": "source", "url": "javascript:alert(1)"}},
    "a script as a file": {
        "part": {"type": "file", "media_type": "a/b", "url": "data:text/html,<script>"}
    },
    "a media type that ends a header": {
        "part": {"type": "file", "media_type": "a/b,<script>", "data": "aGk="}
    },
    "a name of another form": {"part": {"type": "data", "name": "../a", "value": 1}},
    "too large": {"part": {"type": "data", "name": "a", "value": "x" * (1 << 20)}},
    "too deep": {"part": {"type": "data", "name": "a", "value": json.loads("[" * 40 + "]" * 40)}},
    "a file without anything": {"part": {"type": "file", "media_type": "a/b"}},
    "of an unknown type": {"part": {"type": "widget", "html": "<b>"}},
    "no part": {"part": "text"},
    "of no run": {"run": None},
    "of another run": {"run": "run_2"},
    "of no call of ours": {"call": "../x"},
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_file_with_what_no_tool_could_show_is_refused(serve: Serve, what: str) -> None:
    at = "2026-01-01T00:00:00Z"
    spoke: Json = {
        "kind": "user_spoke",
        "run": "run_1",
        "input": "inp_1",
        "content": "hi",
        "policy": "queue",
        "principal": "p",
        "metadata": {},
    }
    good: Json = {"kind": "part_shown", "run": "run_1", "call": "call_1", "part": WIRE[0]}
    about = {"id": "ses_12345678", "agent": "double", "created_at": at}

    def file(fact: Json) -> bytes:
        lines: list[Json] = [
            {"hostler": 1, "session": about, "events": 2},
            {"seq": 1, "at": at, "fact": spoke},
            {"seq": 2, "at": at, "fact": fact},
        ]
        return b"\n".join(json.dumps(line).encode() for line in lines)

    async with serve(an_agent(a_model(lambda _: []))) as client:
        bad = file(good | HOSTILE[what])
        status, problem = await client.call("POST", "/api/sessions/import", raw=bad)
        assert (status, problem["code"], problem["line"]) == (422, "bad_archive", 3), problem
        assert cast("list[Json]", (await client.get("/api/sessions"))["items"]) == []
        status, made = await client.call("POST", "/api/sessions/import", raw=file(good))
        assert status == 201, made
