"""What sessions leave behind goes with them, by hand or by itself; nothing that is needed goes."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from tests.serving import Client, Json, serving
from tests.waiting import a_model, parked, serving_agents

from hostler import Agent
from hostler.app.upkeep import again_and_again
from hostler.core.errors import NotFound, Unavailable
from hostler.core.events import ClientTool, Key, SessionId, TenantId
from hostler.core.ports import AgentSpec, Reply, Request, World
from hostler.core.said import ToolSaid
from hostler.core.store import Store
from hostler.harness.results import Results
from hostler.harness.toolbox import Toolbox
from hostler.service.retention import Forgetting, Keep
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.stores.sqlite import SqliteStore
from hostler.testing.doubles import ModelDouble, a_call, a_session, an_agent, whole_log
from hostler.testing.store_kit import Clock, a_fork, ended, spoke
from hostler.tools.function import function_tool

pytestmark = pytest.mark.anyio
DAY_S = 86_400.0
SECRET = "quinquagesima"


def plain() -> AgentSpec:
    return an_agent(ModelDouble(lambda _: Reply(text="well", stop="end")), name="plain")


def spilling(folder: Path) -> AgentSpec:
    """Return an agent whose tool says more than a model reads."""

    async def long() -> str:
        """Say much."""
        return SECRET * 5000

    def answer(request: Request) -> Reply:
        if isinstance(request.transcript[-1], ToolSaid):
            return Reply(text="read", stop="end")
        return Reply(text="", stop="tools", calls=(a_call("long"),))

    agent = an_agent(ModelDouble(answer), name="spilling")
    tools = Toolbox([function_tool(long)], spill_folder=folder)
    return AgentSpec(name=agent.name, instructions="", models=agent.models, tools=tools)


@pytest.fixture(params=["memory", "sqlite"])
async def opened(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncGenerator[tuple[Store, Clock]]:
    clock = Clock(100 * DAY_S)
    if request.param == "memory":
        yield MemoryStore(clock=clock), clock
        return
    store = SqliteStore.open(tmp_path / "log.db", clock=clock)
    yield store, clock
    store.close()


async def touched(store: Store, clock: Clock, day: float, *, going: bool = False) -> Key:
    """Make a session that was last touched on a day."""
    clock.now = day * DAY_S
    key = await a_session(store)
    await store.append(key, [spoke("run_1"), *([] if going else [ended("run_1")])])
    return key


async def is_there(store: Store, key: Key) -> bool:
    with suppress(NotFound):
        await store.head(key)
        return True
    return False


async def run(store: Store, clock: Clock, keep: Keep) -> None:
    world = World("w", clock=clock)
    with anyio.fail_after(20):
        await keep.once(Forgetting(store=store, signals=LocalSignals()), world)


async def test_idle_sessions_go_when_nobody_touched_them_for_days(
    opened: tuple[Store, Clock],
) -> None:
    store, clock = opened
    old, new = await touched(store, clock, 9.0), await touched(store, clock, 11.0)
    going = await touched(store, clock, 1.0, going=True)
    clock.now = 100 * DAY_S

    await run(store, clock, Keep(days=90))

    assert [await is_there(store, key) for key in (old, new, going)] == [False, True, True]


async def test_of_many_sessions_the_last_touched_are_kept(opened: tuple[Store, Clock]) -> None:
    store, clock = opened
    keys = [await touched(store, clock, day) for day in range(120)]
    going = await touched(store, clock, 0.5, going=True)
    clock.now = 120 * DAY_S

    await run(store, clock, Keep(sessions=3))

    there = [await is_there(store, key) for key in keys]
    assert there == [False] * 118 + [True] * 2, "one of the three is the one that goes on"
    assert await is_there(store, going)


async def test_with_both_rules_off_everything_stays(opened: tuple[Store, Clock]) -> None:
    store, clock = opened
    key = await touched(store, clock, 0.0)
    clock.now = 10_000 * DAY_S
    await run(store, clock, Keep())
    assert await is_there(store, key)


async def test_a_fork_of_a_session_that_went_reads_on(opened: tuple[Store, Clock]) -> None:
    store, clock = opened
    parent = await touched(store, clock, 1.0)
    clock.now = 99 * DAY_S
    fork = await a_fork(store, parent.tenant, (parent.session, 2))
    before = await whole_log(store, fork)
    clock.now = 100 * DAY_S

    await run(store, clock, Keep(days=90))

    assert [await is_there(store, key) for key in (parent, fork)] == [False, True]
    assert await whole_log(store, fork) == before
    await store.append(fork, [spoke("run_2")])


class TouchedMeanwhile:
    """A store in which somebody speaks in a session right after it was chosen."""

    def __init__(self, store: Store, key: Key) -> None:
        self._store, self._key = store, key

    def __getattr__(self, name: str) -> object:
        return cast("object", getattr(self._store, name))

    async def forgettable(self, *, before: float, keep: int, limit: int) -> list[Key]:
        chosen = [*await self._store.forgettable(before=before, keep=keep, limit=limit)]
        if self._key in chosen:
            await self._store.append(self._key, [spoke("run_2"), ended("run_2")])
        return chosen


async def test_what_was_touched_after_it_was_chosen_stays(opened: tuple[Store, Clock]) -> None:
    store, clock = opened
    touched_again, old = await touched(store, clock, 1.0), await touched(store, clock, 2.0)
    clock.now = 100 * DAY_S

    await run(cast("Store", TouchedMeanwhile(store, touched_again)), clock, Keep(days=90))

    assert [await is_there(store, key) for key in (touched_again, old)] == [True, False]


class Failing:
    """A store that cannot serve the first time."""

    def __init__(self, store: Store) -> None:
        self._store, self.tidied = store, 0

    def __getattr__(self, name: str) -> object:
        return cast("object", getattr(self._store, name))

    async def tidy(self) -> None:
        self.tidied += 1
        if self.tidied == 1:
            raise Unavailable("not now")


async def test_a_store_that_fails_is_tried_again() -> None:
    store = Failing(MemoryStore())
    forgetting = Forgetting(store=cast("Store", store), signals=LocalSignals())
    async with anyio.create_task_group() as tasks:
        once = partial(Keep(days=1).once, forgetting, World("w"))
        tasks.start_soon(again_and_again, "retention", once, 0.0)
        with anyio.fail_after(10):
            while store.tidied < 3:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


async def test_a_server_forgets_when_it_starts(tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    async with serving(plain(), file=file) as client:
        made = [await client.session() for _ in range(3)]
    async with serving(plain(), file=file, keep=Keep(sessions=1)) as client:
        with anyio.fail_after(10):
            while len(await listed(client)) > 1:
                await anyio.lowlevel.checkpoint()
        assert await listed(client) == made[-1:]


async def listed(client: Client) -> list[object]:
    return [one["id"] for one in cast("list[Json]", (await client.get("/api/sessions"))["items"])]


async def test_a_run_that_waits_for_somebody_is_never_forgotten(tmp_path: Path) -> None:
    agent = Agent(
        "asking",
        model=a_model(lambda said: [a_call("look")] if said == "go" else []),
        client_tools=[ClientTool(name="look")],
    )
    async with serving_agents(tmp_path, agent) as client:
        waiting, idle = await client.session(), await client.session()
        await parked(client, waiting)
    store = SqliteStore.open(tmp_path / "log.db")
    later = Clock(4_000_000_000.0)
    await run(store, later, Keep(days=1))
    keys = [Key((await a_session(store)).tenant, SessionId(one)) for one in (waiting, idle)]
    assert [await is_there(store, key) for key in keys] == [True, False]
    store.close()


async def test_files_go_with_their_session_and_stay_for_its_forks(tmp_path: Path) -> None:
    results = tmp_path / "results"
    async with serving(spilling(results), file=tmp_path / "log.db", results=results) as client:
        parent, other = await client.session(), await client.session()
        await client.speak(parent)
        await client.speak(other)
        (file,) = [str(f["file"]) for f in await client.facts(parent) if f.get("file")]
        _, fork = await client.call("POST", f"/api/sessions/{parent}/fork", {})

        await client.call("DELETE", f"/api/sessions/{parent}")
        assert await anyio.Path(file).read_text() == SECRET * 5000, "the fork's history names it"
        await client.call("DELETE", f"/api/sessions/{fork['id']}")

        assert not await anyio.Path(file).exists()
        left = [path.name async for path in anyio.Path(results / "default").iterdir()]
        assert left == [other]


async def test_files_that_a_crash_left_behind_are_swept(tmp_path: Path) -> None:
    store, clock = MemoryStore(), Clock()
    key = await a_session(store)
    for name in (f"default/{key.session}", "default/ses_gone00", "other/ses_gone00"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "call_1.txt").write_text("x")
    forgetting = Forgetting(store=store, signals=LocalSignals(), leftovers=Results(tmp_path))

    await Keep().once(forgetting, World("w", clock=clock))

    left = [one async for one in anyio.Path(tmp_path).rglob("*.txt")]
    assert [str(one) for one in left] == [f"{tmp_path}/default/{key.session}/call_1.txt"]


def results_of(folder: Path, *sessions: str) -> list[Path]:
    paths = [folder / "default" / session / "call_1.txt" for session in sessions]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"secret\r\n")
    return paths


async def test_a_session_deleted_during_a_scrub_does_not_stop_it(tmp_path: Path) -> None:
    first, second = results_of(tmp_path, "ses_1", "ses_2")

    def mask(text: str) -> str:
        """Delete one session before any file is written."""
        shutil.rmtree(first.parent, ignore_errors=True)
        return text.replace("secret", "mask")

    changed = await Results(tmp_path).scrub(TenantId("default"), mask)

    assert (changed, first.exists(), second.read_bytes()) == (1, False, b"mask\r\n")


async def test_a_file_that_cannot_be_scrubbed_is_told_as_for_now(tmp_path: Path) -> None:
    (path,) = results_of(tmp_path, "ses_1")
    path.unlink()
    path.mkdir()

    with pytest.raises(Unavailable, match="Is a directory"):
        await Results(tmp_path).scrub(TenantId("default"), str.upper)


async def test_a_session_s_folder_is_never_outside(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("x")
    results = Results(tmp_path / "results")
    for tenant, session in (("..", ".."), ("default", ".."), ("default", "a/../..")):
        await results.remove(Key(TenantId(tenant), SessionId(session)))
    assert (tmp_path / "kept.txt").exists()


async def test_what_is_deleted_is_gone_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    async with serving(plain(), file=file) as client:
        session = await client.session(title=SECRET)
        await client.speak(session, f"{SECRET} of old " * 200)
        _, link = await client.call("POST", f"/api/sessions/{session}/shares", {})
        run_id = str((await client.facts(session))[0]["run"])
        viewer = Client(client.http, client.url, str(link["token"]))

        status, _ = await client.call("DELETE", f"/api/sessions/{session}")

        assert status == 204
        for path in ("", "/events", "/export", "/shares"):
            assert (await client.call("GET", f"/api/sessions/{session}{path}"))[0] == 404, path
        assert (await client.call("GET", f"/api/runs/{run_id}"))[0] == 404
        for path in (
            "/api/sessions",
            "/api/runs",
            "/api/approvals?status=",
            f"/api/search?q={SECRET}",
        ):
            assert (await client.get(path))["items"] == [], path
        assert (await viewer.call("GET", f"/api/sessions/{session}"))[0] == 401
        assert (await client.call("DELETE", f"/api/sessions/{session}"))[0] == 404
    assert f"{SECRET} of old".encode() not in file.read_bytes()
    with sqlite3.connect(file) as db:
        tables = (
            "sessions",
            "heads",
            "events",
            "agent_runs",
            "said",
            "shares",
            "approvals",
            "forks",
        )
        counts = [db.execute(f"SELECT count(*) FROM {one}").fetchone()[0] for one in tables]
    db.close()
    assert counts == [0] * len(tables)


async def test_open_streams_of_a_deleted_session_end(tmp_path: Path) -> None:
    async with serving(plain(), file=tmp_path / "log.db") as client:
        session = await client.session()
        await client.speak(session)
        ends = list[object]()
        read = anyio.Event()

        async def by_sse() -> None:
            async for frame in client.frames(f"/api/sessions/{session}/events"):
                if frame.event == "run_ended":
                    read.set()
            ends.append("sse")

        async def by_socket() -> None:
            url = f"{client.url}/api/sessions/{session}/socket"
            key = {"Authorization": f"Bearer {client.key}"}
            async with client.http.ws_connect(url, headers=key) as socket:
                async for message in socket:
                    assert message.type is aiohttp.WSMsgType.TEXT
                ends.append(socket.close_code)

        async def by_long_poll() -> None:
            path = f"/api/sessions/{session}/events?after=now&wait=60"
            ends.append((await client.call("GET", path))[0])

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for one in (by_sse, by_socket, by_long_poll):
                    tasks.start_soon(one)
                await read.wait()
                for _ in range(50):  # so that the others are there
                    await client.get("/healthz")
                await client.call("DELETE", f"/api/sessions/{session}")
        assert sorted(map(str, ends)) == ["404", "4404", "sse"]


async def test_storage_is_reported_with_the_largest_sessions_first(tmp_path: Path) -> None:
    async with serving(plain(), file=tmp_path / "log.db") as client:
        small, large = await client.session(), await client.session()
        await client.speak(small, "x")
        await client.speak(large, "x" * 100_000)

        told = await client.get("/api/storage?limit=1")

        events = [len(await client.facts(one)) for one in (small, large)]
        assert (told["sessions"], told["events"]) == (2, sum(events))
        assert cast("int", told["fact_bytes"]) > 100_000
        assert cast("int", told["database_bytes"]) > 100_000
        (largest,) = cast("list[Json]", told["largest"])
        assert (largest["session"], largest["events"]) == (large, events[1])
        _, link = await client.call("POST", f"/api/sessions/{small}/shares", {})
        viewer = Client(client.http, client.url, str(link["token"]))
        assert (await viewer.call("GET", "/api/storage"))[0] == 403
