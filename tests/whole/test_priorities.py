"""Runs of low priority, from the message to the queue and its order."""

from __future__ import annotations

from typing import cast

import anyio
import anyio.lowlevel
import pytest
from tests.services import Database
from tests.serving import Serve, quick, serving

from hostler.app.part import Part
from hostler.core.events import RunId, RunKey, SessionId, TenantId
from hostler.core.ports import AgentSpec, Job
from hostler.engine.queuer import EmbeddedEngine
from hostler.engine.turns import Turns
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio


def plain() -> AgentSpec:
    return an_agent(quick(), name="plain")


def key(run: str, tenant: str = "a") -> RunKey:
    return RunKey(TenantId(tenant), SessionId("ses_1"), RunId(run))


async def test_messages_of_low_priority_are_driven_after_all_others(postgres: Database) -> None:
    runs = list[str]()
    async with serving(plain(), file=postgres.url, part=Part(role="api")) as client:
        for priority in ("low", "normal", "low", "normal"):
            session = await client.session()
            body = {"content": "hello", "priority": priority}
            status, receipt = await client.call("POST", f"/api/sessions/{session}/messages", body)
            assert status == 202
            runs.append(cast("str", receipt["run"]))
        rows = await postgres.run("SELECT dedupe_key FROM pgqueuer ORDER BY priority DESC, id")

    order = [str(row[0]).rpartition("/")[2] for row in rows]
    assert order == [runs[1], runs[3], runs[0], runs[2]]


async def test_a_run_that_is_cancelled_while_it_waits_ends_before_others_begin(
    postgres: Database,
) -> None:
    async with serving(plain(), file=postgres.url, part=Part(role="api")) as client:
        session = await client.session()
        body = {"content": "first", "priority": "low"}
        _, first = await client.call("POST", f"/api/sessions/{session}/messages", body)
        await client.call("POST", f"/api/sessions/{session}/cancel", {"run": first["run"]})
        rows = await postgres.run("SELECT dedupe_key, priority FROM pgqueuer")

    ((whose, priority),) = rows
    assert str(whose).endswith(str(first["run"]))
    assert cast("int", priority) > 0


async def test_what_a_message_says_of_its_priority_stands_in_the_log(serve: Serve) -> None:
    async with serve(plain()) as client:
        session = await client.session()
        path = f"/api/sessions/{session}/messages"
        await client.call("POST", path, {"content": "hello", "priority": "low"})
        refused, problem = await client.call("POST", path, {"content": "hi", "priority": "high"})
        spoke = (await client.facts(session))[0]

    assert spoke["priority"] == "low"
    assert (refused, problem["code"]) == (422, "invalid")
    assert "priority" in str(problem)


async def test_a_key_that_waits_in_line_goes_first_once_it_is_rung_as_urgent() -> None:
    handled, over = list[str](), anyio.Event()
    engine = EmbeddedEngine(ahead=lambda: 1)

    async def handler(one: RunKey) -> None:
        handled.append(one.run)
        if len(handled) == 1:
            while engine.waiting()[0] < 3:
                await anyio.lowlevel.checkpoint()
            await engine.enqueue(Job(key("run_3"), priority=1))
        if len(handled) == 4:
            over.set()

    for number in range(4):
        await engine.enqueue(Job(key(f"run_{number}")))
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: engine.serve(handler, slots=1))
            await over.wait()
            tasks.cancel_scope.cancel()

    assert handled == ["run_0", "run_3", "run_1", "run_2"]


def test_nothing_is_kept_of_tenants_who_have_nothing_in_line() -> None:
    turns = Turns()
    for number in range(100):
        turns.put(key(f"run_{number}", f"tenant_{number}"), number % 3 - 1)
    while turns:
        turns.take()

    assert turns._last == {}
