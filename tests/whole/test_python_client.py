"""`hostler.Client`, as programs use it, on servers and connections that break."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketStream
from tests.programs import cutter
from tests.serving import KEY, Json, Serve, quick, serving
from tests.serving import Client as Plain
from tests.terminals import Home, script
from tests.viewers import Speaker, say, some_cuts
from tests.waiting import Removals, a_model, serving_agents

from hostler import (
    Agent,
    CallerError,
    Client,
    ClientTool,
    Conflict,
    Finished,
    Forbidden,
    Frame,
    Invalid,
    NotFound,
    SetupError,
    TooMany,
    Unauthorised,
    Unavailable,
    text_of,
)
from hostler.app.keys import key_file
from hostler.app.settings import Settings
from hostler.app.whereabouts import known_key
from hostler.core.events import ApprovalAsked, ModelReplied, RunId, ToolStarted, Unknown, UserSpoke
from hostler.faces.http.open_streams import OpenStreams
from hostler.service.rates import Limits, Rate, Rates
from hostler.testing.doubles import a_call, an_agent

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
WORDS = ["one ", "two ", "three ", "four ", "five ", "six "]
OPEN = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: open\n\n"


def of(server: Plain, **more: str) -> Client:
    return Client(more.pop("url", server.url), more.pop("key", KEY), **more)  # type: ignore[arg-type]


def frame(number: int, kind: str, **more: object) -> str:
    data = json.dumps({"seq": number, "kind": kind, "run": None, **more}, ensure_ascii=False)
    return f"id: {number}\nevent: {kind}\ndata: {data}\n\n"


@asynccontextmanager
async def answering(*answers: str, piece: int = 1 << 20) -> AsyncGenerator[tuple[str, list[str]]]:
    """Yield the address of a server that gives these answers, the last for ever, and what it was asked."""
    asked, left = list[str](), list(answers)

    async def answer(stream: SocketStream) -> None:
        async with stream:
            asked.append((await stream.receive()).decode())
            told = (left.pop(0) if len(left) > 1 else left[0]).encode()
            for at in range(0, len(told), piece):
                await stream.send(told[at : at + piece])

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        yield f"http://127.0.0.1:{port}", asked
        tasks.cancel_scope.cancel()


async def seen(
    client: Client, session: str, *, after: str = "0", to: str = "run_ended"
) -> list[Frame]:
    """Follow up to the first frame of a kind."""
    frames = list[Frame]()
    with anyio.fail_after(20):
        async with aclosing(client.follow(session, after=after)) as following:
            async for one in following:
                frames.append(one)
                if one.event == to:
                    return frames
    raise AssertionError(frames)


def facts_of(frames: Sequence[Frame]) -> list[Json]:
    return [one.data for one in frames if "kind" in one.data]


# -- saying something ------------------------------------------------------------------------


async def test_a_question_is_answered_in_a_few_lines(serve: Serve) -> None:
    async with serve(an_agent(quick())) as server, of(server) as client:
        first = await client.run("hello", purpose="greeting", metadata={"a": 1})
        frames = [one async for one in client.ask("again", session=first.session)]

        assert isinstance(first, Finished)
        assert (first.text, first.status) == ("well", "done")
        assert frames[0].event == "receipt"
        assert frames[-1].event == "run_ended"
        assert facts_of(frames) == (await server.facts(first.session))[-len(frames) + 2 :]
        runs = [one async for one in client.list_runs(session=first.session)]
        assert [one.purpose for one in runs] == [None, "greeting"]
        assert (await client.get_run(runs[0].id)).run.status == "done"
        assert [one.runs for one in await client.usage("agent")] == [2]


@pytest.mark.parametrize("seen", [[], ["we"], ["we", "ll "]], ids=str)
async def test_the_text_of_a_reply_is_whole_however_much_of_it_was_seen_to_stream(
    seen: list[str],
) -> None:
    async def frames() -> AsyncGenerator[Frame, None]:
        for piece in seen:
            data: Json = {"attempt": "att_1", "part": "text", "text": piece}
            yield Frame(id="1", event="delta", data=data)
        yield Frame(id="2", event="model_replied", data={"attempt": "att_1", "text": "well"})
        yield Frame(id="3", event="model_replied", data={"attempt": "att_2", "text": ", yes"})

    pieces = [piece async for piece in text_of(frames())]

    assert pieces[: len(seen)] == seen
    assert "".join(pieces).replace("well ", "well") == "well, yes"


async def test_frames_give_facts_as_structs_and_pass_kinds_that_are_not_known(
    serve: Serve,
) -> None:
    async with serve(an_agent(quick())) as server, of(server) as client:
        frames = [one async for one in client.ask("hello")]

    facts = [one.fact for one in frames]
    assert facts[0] is None, "a receipt is no fact"
    assert [one.content for one in facts if isinstance(one, UserSpoke)] == []
    assert [one.text for one in facts if isinstance(one, ModelReplied)] == ["well"]
    foreign: Json = {"seq": 1, "kind": "moon_rose", "run": "run_1", "phase": 0.5}
    assert Frame(id="1", event="moon_rose", data=foreign).fact == Unknown(
        run=RunId("run_1"), kind="moon_rose"
    )
    newer: Json = {"seq": 1, "kind": "run_claimed", "run": "run_1", "claim": "of another form"}
    assert isinstance(Frame(id="1", event="run_claimed", data=newer).fact, Unknown)


async def test_sessions_are_made_listed_forked_and_deleted(serve: Serve) -> None:
    async with serve(an_agent(quick())) as server, of(server) as client:
        made = await client.create_session(title="first", metadata={"a": [1]}, id="ses_12345678")
        again = await client.create_session(title="first", metadata={"a": [1]}, id="ses_12345678")
        await client.run("hello", session=made.id)
        fork = await client.fork(made.id, title="second")
        await client.delete_session(made.id)

        assert (made.id, made.title, made.metadata) == (again.id, "first", {"a": [1]})
        assert [one.id async for one in client.list_sessions()] == [fork.id]
        assert (await client.get_session(fork.id)).title == "second"
        with pytest.raises(NotFound):
            await client.get_session(made.id)


async def test_a_call_that_waits_is_allowed_and_one_of_a_client_is_answered(
    tmp_path: Path,
) -> None:
    removals = Removals()
    asker = Agent("asker", model=a_model(lambda said: [a_call("locate")] if said == "go" else []))
    async with (
        serving_agents(tmp_path, removals.agent(), asker) as server,
        of(server) as client,
    ):
        async for one in client.ask("old.txt", agent="remover"):
            if isinstance(asked := one.fact, ApprovalAsked):
                session = str(one.data["session"])
                assert [a.call async for a in client.list_approvals()] == [asked.call]
                await client.approve(
                    session, asked.call, arguments={"path": "new.txt"}, remember=True
                )
                with pytest.raises(Conflict) as late:
                    await client.approve(session, asked.call, "deny", reason="no")
                assert late.value.code == "already_answered"
                assert late.value.more["decision"] == "allow"
        assert removals == ["new.txt x1"]

        where = await client.create_session(agent="asker")
        tools = [ClientTool(name="locate", description="Say where the user is.")]
        receipt = await client.speak(where.id, "go", client_tools=tools)
        frames = await seen(client, where.id, after=receipt.cursor, to="tool_started")
        started = frames[-1].fact
        assert isinstance(started, ToolStarted)
        await client.answer(where.id, started.call, {"city": "Ulm"})
        frames = await seen(client, where.id, after=frames[-1].id)
        assert [one.data["text"] for one in frames if one.event == "model_replied"] == [
            '{"city":"Ulm"}'
        ]


async def test_a_run_is_cancelled_and_one_that_waits_behind_it_by_name(serve: Serve) -> None:
    async with serve(an_agent(Speaker(WORDS))) as server, of(server) as client:
        session = (await client.create_session()).id
        first = await client.speak(session, "one")
        second = await client.speak(session, "two")
        cancelled = await client.cancel(session, run=second.run, reason="not that")
        await client.cancel(session)
        frames = await seen(client, session)
        if frames[-1].data["run"] == second.run:
            frames += await seen(client, session, after=frames[-1].id)

    assert cancelled.run == second.run
    assert {str(one.data["run"]) for one in frames if one.event == "run_ended"} == {
        first.run,
        second.run,
    }


async def test_the_same_key_says_it_once_and_another_body_is_refused(serve: Serve) -> None:
    async with serve(an_agent(quick())) as server, of(server) as client:
        session = (await client.create_session()).id
        first = await client.speak(session, "hello", idempotency_key="mine")
        again = await client.speak(session, "hello", idempotency_key="mine")
        with pytest.raises(Invalid) as refused:
            await client.speak(session, "other", idempotency_key="mine")

    assert again == first
    assert refused.value.code == "key_reused"


# -- following -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_a_stream_that_is_cut_anywhere_loses_nothing_and_repeats_nothing(
    serve: Serve, seed: int
) -> None:
    model = Speaker(WORDS)
    cuts = [cut % 3 + 1 for cut in (*some_cuts(seed), *some_cuts(seed + 10))]
    async with (
        serve(an_agent(model)) as server,
        cutter(server.url, cuts) as between,
        of(server, url=between.url) as client,
    ):
        session = await server.session()
        await say(server, session)
        frames, text = list[Frame](), ""
        model.let()
        with anyio.fail_after(30):
            async with aclosing(client.follow(session)) as following:
                async for one in following:
                    frames.append(one)
                    if one.text:
                        text += one.text
                        model.let()
                    if one.event == "run_ended":
                        break

        assert between.connections > 2
        assert text == "".join(WORDS)
        assert facts_of(frames) == await server.facts(session)


async def test_a_server_that_is_killed_in_mid_run_is_followed_to_the_end(tmp_path: Path) -> None:
    home = Home(tmp_path)
    slowly = script(tmp_path, {"text": "slow and steady", "delay_s": 1})
    with home.server(slowly) as server:
        async with Client(f"http://127.0.0.1:{server.port}", KEY) as client:
            events = list[Frame]()
            async for one in client.ask("hello"):
                events.append(one)
                if one.event == "model_asked" and len(events) < 6:
                    server.kill()
                    await anyio.to_thread.run_sync(server.start)
            session = str(events[-1].data["session"])
            facts = await client.facts(session)

    assert [one.data for one in events if "kind" in one.data] == [one.data for one in facts[1:]]
    assert [one.event for one in events].count("run_claimed") == 2
    assert events[-1].data["status"] == "done"


async def test_who_comes_back_after_the_end_gets_what_is_new_and_nothing_else(
    serve: Serve,
) -> None:
    async with serve(an_agent(quick())) as server, of(server) as client:
        first = [one async for one in client.ask("hello")]
        session = str(first[-1].data["session"])
        await client.speak(session, "again")
        later = await seen(client, session, after=first[-1].id)

        assert facts_of([*first, *later]) == (await server.facts(session))[1:]


async def test_a_server_that_says_how_long_to_wait_is_waited_for() -> None:
    busy = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
    odd = frame(2, "moon_rose", phase=0.5) + "id: 3\nevent: half\nda"
    async with (
        answering(OPEN + frame(1, "run_started"), busy, OPEN + odd, OPEN) as (url, asked),
        Client(url, KEY) as client,
    ):
        begun = anyio.current_time()
        frames = await seen(client, "ses_12345678", to="moon_rose")

        assert [one.id for one in frames] == ["1", "2"]
        assert anyio.current_time() - begun >= 1
        assert [("Last-Event-ID: 1" in one) for one in asked] == [False, True, True]


async def test_a_server_that_stays_away_is_given_up_in_time(serve: Serve) -> None:
    async with serve(an_agent(quick())) as server:
        gone = server.url
        session = await server.session()
    async with Client(gone, KEY) as client:
        with anyio.fail_after(10), pytest.raises(Unavailable, match="no server answers"):
            async for _ in client.follow(session, patience_s=0.3):
                pass


async def test_a_stream_that_ends_at_once_each_time_is_not_asked_without_pause() -> None:
    async with answering(OPEN) as (url, asked), Client(url, KEY) as client:
        with anyio.move_on_after(1.5):
            async for _ in client.follow("ses_12345678"):
                pass

    assert 2 <= len(asked) <= 6


@pytest.mark.parametrize(
    "answer",
    [
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
        f"{OPEN}id: 1\nevent: odd\ndata: {{\n\n",
        f"{OPEN}id: 1\nevent: odd\ndata: []\n\n",
    ],
    ids=["a page", "no JSON", "no object"],
)
async def test_what_is_no_stream_of_frames_is_refused_and_not_tried_for_ever(answer: str) -> None:
    async with answering(answer) as (url, asked), Client(url, KEY) as client:
        with anyio.fail_after(5), pytest.raises(CallerError, match="no Hostler server"):
            await seen(client, "ses_12345678")

    assert len(asked) == 1


async def test_frames_are_read_wherever_the_network_cuts_them_into_pieces() -> None:
    answer = OPEN + frame(1, "run_started", word="größe") + frame(2, "moon_rose", word="ß\n\n")
    async with answering(answer, piece=1) as (url, _), Client(url, KEY) as client:
        frames = await seen(client, "ses_12345678", to="moon_rose")

    assert [(one.id, one.data["word"]) for one in frames] == [("1", "größe"), ("2", "ß\n\n")]


async def test_a_reader_that_is_cut_off_for_being_slow_misses_nothing(tmp_path: Path) -> None:
    streams, text = OpenStreams(slow_s=0.3), "x" * 300_000
    agent, file = an_agent(Speaker(WORDS)), tmp_path / "log.db"
    async with serving(agent, file=file, streams=streams) as server, of(server) as client:
        session = await server.session()
        for _ in range(40):  # more than all that a kernel keeps for a connection
            await say(server, session, text)
        facts = await server.facts(session)
        frames = list[Frame]()
        with anyio.fail_after(30):
            async with aclosing(client.follow(session)) as following:
                async for one in following:
                    frames.append(one)
                    while len(frames) == 1 and len(streams):
                        await anyio.lowlevel.checkpoint()
                    if len(frames) == len(facts):
                        break

        assert facts_of(frames) == facts


# -- what goes wrong -------------------------------------------------------------------------


async def test_refusals_are_of_one_small_tree_with_what_the_problem_says(serve: Serve) -> None:
    async with serve(an_agent(Speaker(WORDS))) as server, of(server) as client:
        session = (await client.create_session(title="one", id="ses_12345678")).id
        await client.speak(session, "hello")
        with pytest.raises(NotFound) as absent:
            await client.get_session("ses_of_nobody")
        with pytest.raises(NotFound):
            await seen(client, "ses_of_nobody")
        with pytest.raises(Conflict) as busy:
            await client.speak(session, "now", policy="reject")
        with pytest.raises(Invalid) as wrong:
            await client.speak(session, "", policy="sometimes")  # type: ignore[arg-type]
        with pytest.raises(CallerError) as malformed:
            await seen(client, session, after="no cursor")
        async with of(server, key="hk_nobody") as nobody:
            with pytest.raises(Unauthorised) as unknown:
                await nobody.get_session(session)

    assert (absent.value.status, absent.value.code) == (404, "not_found")
    assert busy.value.code == "busy"
    assert busy.value.more["request_id"]
    assert wrong.value.fields
    assert (malformed.value.status, malformed.value.code) == (400, "malformed")
    assert unknown.value.code == "unauthorised"


async def test_an_id_that_is_a_path_leads_nowhere_else(serve: Serve) -> None:
    async with serve(an_agent(quick())) as server, of(server) as client:
        for made_up in ("../keys", "../sessions?limit=1", "a/../../keys#"):
            with pytest.raises(NotFound):
                await client.get_session(made_up)
            with pytest.raises(NotFound):
                await client.get_run(made_up)


@pytest.mark.parametrize(
    ("url", "is_shown"),
    [
        (None, True),
        ("http://127.0.0.1:9999", True),
        ("http://localhost/", True),
        ("https://hostler.example/", True),
        ("https://other.example", False),
        ("https://127.0.0.1.other.example", False),
        ("http://127.0.0.1@other.example", False),
        ("http://[", False),
    ],
)
def test_the_key_of_this_machine_is_shown_to_no_server_but_its_own(
    tmp_path: Path, url: str | None, *, is_shown: bool
) -> None:
    key_file(tmp_path).write_text("hk_of_this_machine", encoding="ascii")
    settings = Settings(data=tmp_path, url="https://hostler.example")

    assert (known_key(settings, url=url) is not None) == is_shown


async def test_a_key_that_may_not_is_forbidden(serve: Serve) -> None:
    async with serve(an_agent(quick())) as server, of(server) as operator:
        made = await operator.api.post("/api/keys", {"role": "viewer"})
        async with of(server, key=str(made["key"])) as reader:
            with pytest.raises(Forbidden):
                await reader.create_session()


async def test_too_many_requests_say_when_to_come_back(tmp_path: Path) -> None:
    rates = Rates(lambda _: Limits(None, Rate.of(0.1, 1)))
    agent = an_agent(quick())
    file = tmp_path / "log.db"
    async with serving(agent, file=file, rates=rates) as server, of(server) as client:
        session = (await client.create_session()).id
        await client.speak(session, "one")
        with pytest.raises(TooMany) as refused:
            await client.speak(session, "two")

    assert refused.value.code == "rate"
    assert refused.value.retry_after_s > 1


async def test_a_tenant_is_chosen_by_the_operator_alone(serve: Serve) -> None:
    async with serve(an_agent(quick())) as server, of(server) as operator:
        await operator.api.post("/api/tenants", {"id": "acme"})
        made = await operator.acting_in("acme").create_session()
        async with of(server, tenant="acme") as client:
            assert [one.id async for one in client.list_sessions()] == [made.id]
        assert [one.id async for one in operator.list_sessions()] == []


# -- where the server is ---------------------------------------------------------------------


async def test_what_is_not_given_is_taken_from_the_environment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOSTLER_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("HOSTLER_ADMIN_KEY", raising=False)
    async with serve(an_agent(quick())) as server:
        monkeypatch.setenv("HOSTLER_URL", f"{server.url}/")
        with pytest.raises(SetupError, match="HOSTLER_ADMIN_KEY"):
            async with Client():
                pass
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "admin-key").write_text(f"{KEY}\n")
        async with Client() as client:
            assert (await client.run("hello")).text == "well"
            assert KEY not in repr(client)
        with pytest.raises(SetupError, match="async with"):
            await Client().create_session()


def test_the_client_is_there_without_making_the_import_dear() -> None:
    code = (
        "import sys, hostler; assert 'aiohttp' not in sys.modules; "
        "from hostler import Client; assert Client.__name__ == 'Client'; "
        "assert not hasattr(hostler, 'Clinet')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
