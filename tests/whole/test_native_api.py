"""The native API as a client meets it: a real server, real sockets, SQLite."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import cast

import anyio
import pytest
from tests.serving import Frame, Json, Serve

from hostler.core.events import Usage
from hostler.core.ports import AgentSpec, Delta, Failure, Reply, Request
from hostler.core.said import ToolSaid
from hostler.testing.doubles import ModelDouble, ToolboxDouble, a_call, a_tool, an_agent

pytestmark = pytest.mark.anyio


def one_tool_then_words(request: Request) -> Reply:
    if isinstance(request.transcript[-1], ToolSaid):
        return Reply(text="all done now", stop="end", usage=Usage(input_tokens=5, output_tokens=3))
    return Reply(text="", stop="tools", calls=(a_call("look", at="this"),))


def an_ordinary_agent() -> AgentSpec:
    tools = ToolboxDouble({"look": a_tool("look")})
    return an_agent(ModelDouble(one_tool_then_words), tools=tools, name="ordinary")


@dataclass
class GatedModel:
    """Says one word each time it is let."""

    words: Sequence[str]
    provider: str = "gated"
    name: str = "gated"
    asked: anyio.Event = field(default_factory=anyio.Event)
    gate: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(0))

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        assert request.transcript
        self.asked.set()
        for word in self.words:
            await self.gate.acquire()
            yield Delta("text", word)
        await self.gate.acquire()
        yield Reply(text="".join(self.words), stop="end")

    def let(self, count: int) -> None:
        for _ in range(count):
            self.gate.release()


def kinds(frames: Sequence[Frame]) -> list[str]:
    return [frame.event for frame in frames]


def text_of(frames: Sequence[Frame]) -> str:
    deltas = [frame.data for frame in frames if frame.event == "delta"]
    return "".join(str(data["text"]) for data in deltas if data["part"] == "text")


async def test_a_message_is_answered_by_a_stream_from_its_receipt_to_the_end_of_its_run(
    serve: Serve,
) -> None:
    async with serve(an_ordinary_agent()) as client:
        session = await client.session()

        frames = await client.speak(session)

        assert kinds(frames) == [
            "receipt",
            "run_claimed",
            "run_started",
            "model_asked",
            "model_replied",
            "input_processed",
            "tool_started",
            "tool_finished",
            "model_asked",
            "delta",
            "model_replied",
            "run_ended",
        ]
        receipt = frames[0].data
        assert (receipt["position"], receipt["status"], receipt["seq"]) == (0, "accepted", 1)
        assert {f.data["run"] for f in frames[1:] if f.event != "delta"} == {receipt["run"]}
        assert text_of(frames) == "all done now "
        assert frames[-1].data["status"] == "done"
        usage = cast("Json", frames[-1].data["usage"])
        assert (usage["input_tokens"], usage["cost"]) == (5, None)


async def test_a_message_without_more_is_answered_by_a_receipt(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        session = await client.session()

        status, receipt = await client.call(
            "POST", f"/api/sessions/{session}/messages", {"content": "hello"}
        )

        assert status == 202
        assert receipt["cursor"] == "1"
        after = receipt["cursor"]
        path = f"/api/sessions/{session}/events?until=run_end&after={after}"
        frames = [frame async for frame in client.frames(path)]
        assert frames[-1].event == "run_ended"
        assert frames[-1].data["run"] == receipt["run"]


async def test_a_caller_may_wait_for_the_end(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        session = await client.session()

        status, ended = await client.call(
            "POST",
            f"/api/sessions/{session}/messages",
            {"content": "hello"},
            headers={"Prefer": "wait=10"},
        )

        assert status == 200
        assert (ended["status"], ended["reason"], ended["text"]) == ("done", None, "all done now")


async def test_a_caller_who_waits_too_briefly_gets_the_receipt(serve: Serve) -> None:
    model = GatedModel(["never "])
    async with serve(an_agent(model)) as client:
        session = await client.session()

        status, receipt = await client.call(
            "POST",
            f"/api/sessions/{session}/messages",
            {"content": "hello"},
            headers={"Prefer": "respond-async, wait=1"},
        )

        assert (status, receipt["status"]) == (202, "accepted")


async def test_a_client_that_comes_back_in_mid_reply_gets_the_rest_once(serve: Serve) -> None:
    model = GatedModel(["one ", "two ", "three ", "four "])
    async with serve(an_agent(model)) as client:
        session = await client.session()
        await client.call("POST", f"/api/sessions/{session}/messages", {"content": "go"})
        path = f"/api/sessions/{session}/events"
        seen: list[Frame] = []
        model.let(2)
        with anyio.fail_after(10):
            async with aclosing(client.frames(path)) as frames:
                async for frame in frames:
                    seen.append(frame)
                    if text_of(seen) == "one two ":
                        break
            model.let(2)
            again = {"Last-Event-ID": seen[-1].id}
            path += "?until=run_end"
            rest: list[Frame] = []
            async for frame in client.frames(path, headers=again):
                rest.append(frame)
                if text_of(rest) == "three four ":
                    model.let(1)

        assert text_of(rest) == "three four "
        facts = [f.data["seq"] for f in (*seen, *rest) if f.event != "delta"]
        assert facts == list(range(1, len(facts) + 1))


async def test_two_watchers_and_a_late_one_see_the_same(serve: Serve) -> None:
    model = GatedModel(["one ", "two ", "three "])
    async with serve(an_agent(model)) as client:
        session = await client.session()
        await client.call("POST", f"/api/sessions/{session}/messages", {"content": "go"})
        path, seen = f"/api/sessions/{session}/events?until=run_end", dict[str, list[Frame]]()
        first_word, late_word = anyio.Event(), anyio.Event()

        async def watch(name: str, heard: anyio.Event) -> None:
            frames = seen.setdefault(name, [])
            async for frame in client.frames(path):
                frames.append(frame)
                if frame.event == "delta":
                    heard.set()

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch, "early", first_word)
                tasks.start_soon(watch, "too", first_word)
                model.let(2)
                await first_word.wait()
                tasks.start_soon(watch, "late", late_word)
                await late_word.wait()
                model.let(2)

        assert {text_of(frames) for frames in seen.values()} == {"one two three "}
        facts = [[f for f in frames if f.event != "delta"] for frames in seen.values()]
        assert facts[0] == facts[1] == facts[2]


async def test_history_comes_in_pages_that_fit_together(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        session = await client.session()
        await client.speak(session)
        pages, after = list[list[Json]](), "0"
        while True:
            page = await client.get(f"/api/sessions/{session}/events?after={after}&limit=4")
            pages.append(cast("list[Json]", page["events"]))
            after = str(page["cursor"])
            if not page["more"]:
                break

        assert [len(page) for page in pages] == [4, 4, 3]
        assert [frame["id"] for page in pages for frame in page] == [str(i) for i in range(1, 12)]
        empty = await client.get(f"/api/sessions/{session}/events?after=11")
        assert empty == {"events": [], "cursor": "11", "more": False}


async def test_a_page_of_large_facts_has_few_of_them(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        session, pages = await client.session(), list[list[Json]]()
        after, more = "0", True
        for _ in range(40):
            said = {"content": "x" * 200_000, "policy": "steer"}
            await client.call("POST", f"/api/sessions/{session}/messages", said)
        while more:
            page = await client.get(f"/api/sessions/{session}/events?after={after}&limit=1000")
            pages.append(cast("list[Json]", page["events"]))
            after, more = str(page["cursor"]), bool(page["more"])

        seqs = [cast("Json", frame["data"])["seq"] for page in pages for frame in page]
        assert seqs == [*range(1, len(seqs) + 1)]
        assert len([one for page in pages for one in page if one["event"] == "user_spoke"]) == 40
        assert max(len(json.dumps(page)) for page in pages) < 3_000_000


async def test_a_long_poll_returns_as_soon_as_something_is_new(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        session, answers = await client.session(), list[Json]()

        async def poll() -> None:
            answers.append(await client.get(f"/api/sessions/{session}/events?wait=60"))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(poll)
                await client.speak(session)

        first = cast("list[Json]", answers[0]["events"])[0]
        assert first["event"] == "user_spoke"


async def test_a_page_can_include_text_in_flight(serve: Serve) -> None:
    model = GatedModel(["one ", "two "])
    async with serve(an_agent(model)) as client:
        session = await client.session()
        await client.call("POST", f"/api/sessions/{session}/messages", {"content": "go"})
        model.let(1)
        await model.asked.wait()
        head = str((await client.get(f"/api/sessions/{session}"))["seq"])
        with anyio.fail_after(10):
            page = await client.get(
                f"/api/sessions/{session}/events?after={head}&deltas=true&wait=9"
            )

        (frame,) = cast("list[Json]", page["events"])
        assert frame["event"] == "delta"
        assert cast("Json", frame["data"])["text"] == "one "


async def test_following_to_the_end_of_a_run_that_is_over_says_so_at_once(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        session = await client.session()
        frames = await client.speak(session)
        path = f"/api/sessions/{session}/events?until=run_end&after={frames[-1].id}"

        status, body = await client.call("GET", path, headers={"Accept": "text/event-stream"})

        assert (status, body) == (204, {})


async def test_a_cancel_ends_the_run_and_keeps_what_had_come(serve: Serve) -> None:
    model = GatedModel(["partly ", "never "])
    async with serve(an_agent(model)) as client:
        session = await client.session()
        model.let(1)
        frames: list[Frame] = []
        with anyio.fail_after(10):
            path = f"/api/sessions/{session}/messages"
            async for frame in client.frames(path, method="POST", body={"content": "go"}):
                frames.append(frame)
                if frame.event == "delta":
                    status, body = await client.call(
                        "POST", f"/api/sessions/{session}/cancel", {"reason": "enough"}
                    )
                    assert status == 202
                    assert body["run"] == frames[0].data["run"]

        dropped = next(frame for frame in frames if frame.event == "attempt_dropped")
        assert dropped.data["text"] == "partly "
        assert frames[-1].event == "run_ended"
        assert (frames[-1].data["status"], frames[-1].data["reason"]) == ("cancelled", "enough")
        assert kinds(frames).count("run_ended") == 1


async def test_a_cancel_with_nothing_to_cancel_is_accepted_and_changes_nothing(
    serve: Serve,
) -> None:
    async with serve(an_ordinary_agent()) as client:
        session = await client.session()

        status, body = await client.call("POST", f"/api/sessions/{session}/cancel", {})

        assert (status, body["run"], body["seq"]) == (202, None, None)
        assert await client.facts(session) == []


async def test_a_run_that_waits_is_cancelled_by_name_and_the_others_go_on(serve: Serve) -> None:
    model = GatedModel(["one "])
    async with serve(an_agent(model)) as client:
        session = await client.session()
        path, cancel = f"/api/sessions/{session}/messages", f"/api/sessions/{session}/cancel"
        runs = [(await client.call("POST", path, {"content": c}))[1]["run"] for c in "abc"]

        status, body = await client.call("POST", cancel, {"run": runs[1], "reason": "not now"})
        again = await client.call("POST", cancel, {"run": runs[1]})
        model.let(4)
        with anyio.fail_after(10):
            frames = list[Frame]()
            async for frame in client.frames(f"/api/sessions/{session}/events"):
                frames.append(frame)
                if kinds(frames).count("run_ended") == len(runs):
                    break

        assert (status, body["run"]) == (202, runs[1])
        assert (again[0], again[1]["run"]) == (202, None), "it is over"
        ends = {f.data["run"]: f.data for f in frames if f.event == "run_ended"}
        assert [ends[run]["status"] for run in runs] == ["done", "cancelled", "done"]
        assert ends[runs[1]]["reason"] == "not now"
        begun = [f.data["run"] for f in frames if f.event == "run_started"]
        assert begun == [runs[0], runs[2]]
        dropped = [f.data for f in frames if f.event == "input_dropped"]
        assert [(one["run"], one["reason"]) for one in dropped] == [(runs[1], "not now")]


async def test_a_run_of_another_session_cannot_be_cancelled_here(serve: Serve) -> None:
    model = GatedModel(["one "])
    async with serve(an_agent(model)) as client:
        mine, other = await client.session(), await client.session()
        _, receipt = await client.call("POST", f"/api/sessions/{mine}/messages", {"content": "x"})
        for run in (receipt["run"], "run_that_is_not_there"):
            status, _ = await client.call("POST", f"/api/sessions/{other}/cancel", {"run": run})
            assert status == 404
        assert "cancel_requested" not in [fact["kind"] for fact in await client.facts(mine)]


async def test_deleting_a_session_ends_what_waits_in_it_too(serve: Serve) -> None:
    model = GatedModel(["never "])
    async with serve(an_agent(model)) as client:
        session = await client.session()
        for _ in range(3):
            await client.call("POST", f"/api/sessions/{session}/messages", {"content": "go"})
        with anyio.fail_after(4):  # it would wait for the wrong end for five seconds
            await model.asked.wait()
            assert (await client.call("DELETE", f"/api/sessions/{session}"))[0] == 204


async def test_messages_that_wait_say_so_and_run_one_after_the_other(serve: Serve) -> None:
    model = GatedModel(["ok"])
    async with serve(an_agent(model)) as client:
        session = await client.session()
        path = f"/api/sessions/{session}/messages"
        receipts = [(await client.call("POST", path, {"content": f"{i}"}))[1] for i in range(3)]
        model.let(6)
        last = str(receipts[-1]["run"])
        with anyio.fail_after(10):
            async with aclosing(client.frames(f"/api/sessions/{session}/events")) as frames:
                async for frame in frames:
                    if frame.event == "run_ended" and frame.data["run"] == last:
                        break

        assert [receipt["position"] for receipt in receipts] == [0, 1, 2]
        ended = [f["run"] for f in await client.facts(session) if f["kind"] == "run_ended"]
        assert ended == [receipt["run"] for receipt in receipts]


async def test_a_run_shows_its_model_calls_and_tool_calls(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        session = await client.session()
        receipt = (await client.speak(session))[0].data

        detail = await client.get(f"/api/runs/{receipt['run']}")

        run = cast("Json", detail["run"])
        assert (run["status"], run["session"], run["input"]) == ("done", session, receipt["input"])
        calls = cast("list[Json]", detail["model_calls"])
        assert [call["status"] for call in calls] == ["replied", "replied"]
        (tool,) = cast("list[Json]", detail["tool_calls"])
        assert (tool["name"], tool["status"], tool["arguments"]) == ("look", "ok", {"at": "this"})
        listed = await client.get(f"/api/runs?session={session}&status=done")
        assert [row["id"] for row in cast("list[Json]", listed["items"])] == [receipt["run"]]


async def test_sessions_are_made_found_labelled_listed_and_deleted(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        first = await client.session(title="one", metadata={"a": 1})
        second = await client.session(agent="ordinary")

        listed = cast("list[Json]", (await client.get("/api/sessions"))["items"])
        assert {row["id"] for row in listed} == {first, second}
        status, changed = await client.call(
            "PATCH", f"/api/sessions/{first}", {"title": None, "metadata": {"b": [2]}}
        )
        assert (status, changed["title"], changed["metadata"]) == (200, None, {"b": [2]})
        assert (await client.call("DELETE", f"/api/sessions/{first}"))[0] == 204
        assert (await client.call("GET", f"/api/sessions/{first}"))[0] == 404
        assert (await client.call("DELETE", f"/api/sessions/{first}"))[0] == 404


async def test_deleting_a_session_cancels_what_goes_on_in_it(serve: Serve) -> None:
    model = GatedModel(["never "])
    async with serve(an_agent(model)) as client:
        session = await client.session()
        await client.call("POST", f"/api/sessions/{session}/messages", {"content": "go"})
        with anyio.fail_after(10):
            await model.asked.wait()
            assert (await client.call("DELETE", f"/api/sessions/{session}"))[0] == 204

        assert (await client.call("GET", f"/api/sessions/{session}/events"))[0] == 404


async def test_the_same_id_with_an_equal_body_is_the_same_session(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        body = {"id": "ses_of-my-own-making", "title": "mine"}
        assert (await client.call("POST", "/api/sessions", body))[0] == 201

        assert (await client.call("POST", "/api/sessions", body))[0] == 200
        status, problem = await client.call("POST", "/api/sessions", {**body, "title": "other"})
        assert (status, problem["code"]) == (409, "exists")


async def test_what_was_said_can_be_searched(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        session = await client.session()
        await client.speak(session, "find the needle in here")

        hits = cast("list[Json]", (await client.get("/api/search?q=NEEDLE"))["items"])

        assert [(hit["session"], hit["kind"]) for hit in hits] == [(session, "user_spoke")]
        assert hits[0]["snippet"] == "find the **needle** in here"


async def test_discovery_says_what_there_is(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        agents = cast("list[Json]", (await client.get("/api/agents"))["items"])
        assert [(agent["name"], agent["tools"]) for agent in agents] == [("ordinary", ["look"])]
        assert (await client.get("/api/agents/ordinary"))["policy"] == "queue"
        assert (await client.get("/api/me"))["tenant"] == "default"
        assert "sse" in cast("list[str]", (await client.get("/api/capabilities"))["transports"])
