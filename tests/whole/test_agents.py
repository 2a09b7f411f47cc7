"""Agents as files and as objects: described, loaded, run in this process, mounted in others."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, MutableMapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.canaries import EARS, canary

from hostler import Agent, Budget, SetupError, tool
from hostler.app.agent import load_target, read_agent
from hostler.app.building import build_agents
from hostler.app.house import open_house
from hostler.app.keys import ADMIN
from hostler.app.settings import load_settings
from hostler.core.errors import Conflict
from hostler.core.events import Fault, SessionId
from hostler.core.ports import Delta, Failure, Reply, Request
from hostler.core.said import ToolSaid
from hostler.service.cursor import Cursor
from hostler.service.follow import end_of
from hostler.service.inbox import Message
from hostler.stores.sqlite import SqliteStore
from hostler.testing.doubles import ModelDouble, a_call

pytestmark = pytest.mark.anyio
KEY = canary("key of mounted agents", "hk_agents_0123456789abcdef0123456789abcdef")


@tool
async def weather(city: str) -> str:
    """Say what the weather is in a city."""
    return f"sunny in {city}"


def look_then_say(request: Request) -> Reply:
    last = request.transcript[-1]
    if isinstance(last, ToolSaid):
        return Reply(text=f"It is {last.output}.", stop="end")
    return Reply(text="", stop="tools", calls=(a_call("weather", city="Paris"),))


class NeverAnswers:
    """A model that is asked and says nothing."""

    provider = name = "silent"

    def __init__(self) -> None:
        self.asked = anyio.Event()

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        del request
        self.asked.set()
        await anyio.sleep_forever()
        yield Reply(text="", stop="end")


def forecaster() -> Agent:
    return Agent("forecaster", model=ModelDouble(look_then_say), tools=[weather])


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


async def test_an_agent_runs_in_this_process() -> None:
    finished = await forecaster().run("What is the weather in Paris?")

    assert (finished.text, finished.status, finished.reason) == (
        "It is sunny in Paris.",
        "done",
        None,
    )


async def test_an_agent_s_run_can_be_watched() -> None:
    frames = [frame async for frame in forecaster().stream("What is the weather in Paris?")]

    assert frames[0].event == "receipt"
    assert frames[-1].event == "run_ended"
    deltas = [str(frame.data["text"]) for frame in frames if frame.event == "delta"]
    assert "".join(deltas).strip() == "It is sunny in Paris."


async def test_a_session_in_a_folder_goes_on_in_a_later_call(tmp_path: Path) -> None:
    model = ModelDouble(lambda request: Reply(text=f"{len(request.transcript)}", stop="end"))
    agent = Agent("counter", model=model)

    first = await agent.run("one", data=tmp_path)
    second = await agent.run("two", data=tmp_path, session=first.session)

    assert (first.text, second.text) == ("1", "3")
    assert second.session == first.session


async def test_a_session_of_an_agent_that_is_gone_says_so_instead_of_asking_another(
    tmp_path: Path,
) -> None:
    gone, other = Agent("gone", model="scripted:demo"), Agent("other", model="scripted:demo")
    session = SessionId((await gone.run("Remember me.", data=tmp_path)).session)
    settings = load_settings({"data": tmp_path})

    async with (
        build_agents([other], settings) as agents,
        open_house(agents, default_agent="other", file=settings.database_file) as service,
    ):
        said = Message(content="And now?", policy="queue", metadata={})
        run = (await service.inbox.speak(ADMIN, session, said)).run
        async for _ in service.following.follow(ADMIN, session, after=Cursor(), ends=end_of(run)):
            pass
        detail = await service.runs.get(ADMIN, run)

    (call,) = detail.model_calls
    assert call.error == Fault(
        code="unavailable", message="the agent gone is not served here (any more)"
    )
    assert detail.run.reason == "model_error"


async def test_runs_of_agents_that_this_program_does_not_have_are_left_alone(
    tmp_path: Path,
) -> None:
    settings, said = (
        load_settings({"data": tmp_path}),
        Message(content="Hi", policy="queue", metadata={}),
    )
    silent = NeverAnswers()
    here, away = Agent("here", model="scripted:demo"), Agent("away", model=silent)
    async with (
        build_agents([here, away], settings) as agents,
        open_house(agents, default_agent="away", file=settings.database_file) as service,
    ):
        session, _ = await service.sessions.create(ADMIN)
        run = (await service.inbox.speak(ADMIN, session.id, said)).run
        with anyio.fail_after(5):
            await silent.asked.wait()

    assert (await here.run("Hello", data=tmp_path)).status == "done"

    store = SqliteStore.open(settings.database_file)
    assert (await store.run(ADMIN.tenant, run)).status == "running"
    store.close()


async def test_a_session_of_another_agent_is_refused_in_words(tmp_path: Path) -> None:
    first, other = Agent("first", model="scripted:demo"), Agent("other", model="scripted:demo")
    session = (await first.run("Remember me.", data=tmp_path)).session

    with pytest.raises(Conflict, match="made otherwise"):
        await other.run("And now?", data=tmp_path, session=session)


async def test_a_function_is_made_a_tool_and_a_word_is_a_built_in_one() -> None:
    def double(number: int) -> int:
        """Double a number."""
        return 2 * number

    agent = Agent("a", model=ModelDouble(look_then_say), tools=[double, "python"])
    async with build_agents([agent], load_settings({})) as specs:
        assert [spec.name for spec in specs["a"].tools.specs] == ["double", "python"]


async def test_a_mistake_in_an_agent_names_the_agent() -> None:
    settings = load_settings({})
    for wrong, told in [
        (Agent("a", model="openay:gpt"), "agent a: there is no provider 'openay'; did you mean"),
        (Agent("a", model="gpt"), "agent a: 'gpt' is no model: write provider:model"),
        (Agent("a", model="scripted:demo", tools=["pyton"]), "no built-in tool 'pyton'"),
        (Agent("a"), "agent a: it names no model"),
    ]:
        with pytest.raises(SetupError, match=told):
            async with build_agents([wrong], settings):
                pass


async def test_two_agents_cannot_have_one_name() -> None:
    agent = Agent("a", model="scripted:demo")
    with pytest.raises(SetupError, match="two agents are called a"):
        async with build_agents([agent, agent], load_settings({})):
            pass


def test_a_name_that_makes_no_path_segment_is_refused() -> None:
    for name in ("", "a b", "../x", "a/b", "x" * 65):
        with pytest.raises(SetupError, match="name"):
            Agent(name)


def test_an_agent_file_says_the_same_as_an_object(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "writer.md",
        "---\n"
        "model: [anthropic:claude, openai:gpt-5]\n"
        "description: Writes.\n"
        "tools: [python]\n"
        "policy: steer\n"
        "max_steps: 7\n"
        "budget: {tokens: 1000, usd: 0.5}\n"
        "caps: {python: 2}\n"
        "options: {temperature: 0}\n"
        "---\n"
        "You write.\n\n---\nBriefly.\n",
    )

    assert read_agent(file) == Agent(
        "writer",
        model=["anthropic:claude", "openai:gpt-5"],
        description="Writes.",
        tools=("python",),
        policy="steer",
        max_steps=7,
        budget=Budget(tokens=1000, usd=Decimal("0.5")),
        caps={"python": 2},
        options={"temperature": 0},
        instructions="You write.\n\n---\nBriefly.",
    )


def test_an_agent_file_may_be_instructions_alone(tmp_path: Path) -> None:
    assert read_agent(write(tmp_path, "a.md", "Be kind.\n")) == Agent("a", instructions="Be kind.")
    windows = write(tmp_path, "b.md", "---\r\nmax_steps: 3\r\n---\r\nBe kind.\r\n")
    assert read_agent(windows).max_steps == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("---\nmodle: x\n---\n", "modle is no key of an agent; did you mean model?"),
        ("---\nzzz: x\n---\n", "zzz is no key of an agent; there are model, tools"),
        ("---\nmax_steps: many\n---\n", r"max_steps"),
        ("---\nbudget: {token: 1}\n---\n", "token"),
        ("---\npolicy: now\n---\n", "policy"),
        ("---\n- a\n---\n", "Expected `object`"),
        ("---\na: [\n---\n", "front matter is not YAML"),
        ("---\n!!python/object/apply:os.system [ls]\n---\n", "not YAML"),
    ],
)
def test_a_mistake_in_an_agent_file_names_file_and_key(
    tmp_path: Path, text: str, told: str
) -> None:
    file = write(tmp_path, "a.md", text)
    with pytest.raises(SetupError, match=told.replace("?", "[?]")) as caught:
        read_agent(file)
    assert str(file) in str(caught.value)


def test_a_target_is_a_module_s_agents_or_a_folder_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write(
        tmp_path,
        "mine_to_load.py",
        "from hostler import Agent\none = Agent('one')\nboth = [one, Agent('two')]\nnone = 5\n",
    )
    (tmp_path / "agents").mkdir()
    write(tmp_path / "agents", "three.md", "Be kind.")

    assert [agent.name for agent in load_target("mine_to_load:one")] == ["one"]
    assert [agent.name for agent in load_target("mine_to_load:both")] == ["one", "two"]
    assert [agent.name for agent in load_target("agents")] == ["three"]
    assert [agent.name for agent in load_target("agents/three.md")] == ["three"]
    for target, told in [
        ("mine_to_load:none", "is no Agent"),
        ("mine_to_load:absent", "is no Agent"),
        ("not_there_at_all:one", "cannot be imported"),
        ("nonsense", "neither a folder"),
        (".", "no agent files"),
    ]:
        with pytest.raises(SetupError, match=told):
            load_target(target)


@asynccontextmanager
async def browsing(app: object) -> AsyncGenerator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app if EARS is None else EARS.served(app))  # type: ignore[arg-type]
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://house", headers=headers
    ) as client:
        yield client


async def converse(client: httpx2.AsyncClient, prefix: str) -> str:
    with anyio.fail_after(10):
        session = (await client.post(f"{prefix}/api/sessions", json={})).json()["id"]
        ended = await client.post(
            f"{prefix}/api/sessions/{session}/messages",
            json={"content": "What is the weather in Paris?"},
            headers={"Prefer": "wait=5"},
        )
    return str(ended.json()["text"])


async def test_an_agent_can_be_mounted_where_no_lifespan_reaches_it(tmp_path: Path) -> None:
    mounted = forecaster().asgi(data=tmp_path, admin_key=KEY)
    app = Starlette(routes=[Mount("/agents", mounted)])

    async with browsing(app) as client:
        assert await converse(client, "/agents") == "It is sunny in Paris."
        assert (await client.get("/agents/healthz")).json() == {"status": "ok"}
        assert (await client.get("/agents/nothing")).status_code == 404

    await mounted.aclose()


async def test_an_agent_can_be_an_application_with_a_lifespan(tmp_path: Path) -> None:
    app = forecaster().asgi(data=tmp_path, admin_key=KEY)
    started, over = anyio.Event(), anyio.Event()
    asked, told = ["startup"], list[object]()

    async def receive() -> MutableMapping[str, Any]:
        if not asked:
            await over.wait()
            return {"type": "lifespan.shutdown"}
        return {"type": f"lifespan.{asked.pop()}"}

    async def send(message: MutableMapping[str, Any]) -> None:
        told.append(message["type"])
        started.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.__call__, {"type": "lifespan"}, receive, send)
            await started.wait()
            async with browsing(app) as client:
                assert await converse(client, "") == "It is sunny in Paris."
            over.set()

    assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_mounted_agent_that_cannot_open_says_why_at_startup(tmp_path: Path) -> None:
    app = Agent("a", model="openay:x").asgi(data=tmp_path, admin_key=KEY)
    told: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: MutableMapping[str, Any]) -> None:
        told.append(message)

    await app({"type": "lifespan"}, receive, send)

    assert told[0]["type"] == "lifespan.startup.failed"
    assert "did you mean openai?" in str(told[0]["message"])
