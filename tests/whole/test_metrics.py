"""Metrics: what happens is counted once, labels have an end, and telemetry's trouble is its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from decimal import Decimal
from pathlib import Path
from typing import cast

import anyio
import anyio.lowlevel
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser
from tests.observed import Series, a_worker, lines, observed, parsed, total
from tests.serving import Client, serving

from hostler.app.measuring import measuring
from hostler.core.errors import Unavailable
from hostler.core.events import (
    AttemptId,
    CallId,
    Event,
    Fact,
    Key,
    ModelAsked,
    ModelReplied,
    RunEnded,
    RunId,
    RunKey,
    Seq,
    SessionId,
    TenantId,
    ToolFinished,
    ToolStarted,
    Usage,
)
from hostler.core.trail import here
from hostler.telemetry.loop_watch import LoopWatch
from hostler.telemetry.metrics import Known, Metrics
from hostler.telemetry.readings import BREAKER_STATES
from hostler.telemetry.timeline import Answered, Attempt, Lived, Timeline
from hostler.testing.doubles import ToolboxDouble, a_tool, an_agent

pytestmark = pytest.mark.anyio


def a_turn(
    run: str, *, model: str = "m", tool: str = "t", usage: Usage | None = None
) -> list[Fact]:
    """Return the facts of a run with one reply that calls one tool."""
    it, attempt, call = RunId(run), AttemptId(f"att_{run}"), CallId(f"call_{run}")
    return [
        ModelAsked(run=it, attempt=attempt, provider=model, model=model),
        ModelReplied(
            run=it,
            attempt=attempt,
            seen=Seq(1),
            text="",
            calls=(),
            stop="tools",
            usage=usage or Usage(input_tokens=1),
        ),
        ToolStarted(run=it, call=call, name=tool, arguments={}),
        ToolFinished(run=it, call=call, outcome="ok", output=""),
        RunEnded(run=it, status="done", usage=Usage()),
    ]


def figures(metrics: Metrics) -> Series:
    metrics.read()
    return parsed(metrics.write()[0].decode())


def observe(
    timeline: Timeline, facts: list[Fact], *, tenant: str = "t", session: str = "s"
) -> None:
    key = Key(TenantId(tenant), SessionId(session))
    events = [
        Event(session=key.session, seq=Seq(i), at=100.0 + i, fact=fact, raw=b"")
        for i, fact in enumerate(facts)
    ]
    timeline.observe(key, events)


async def test_what_happens_is_counted_once_by_its_names(tmp_path: Path) -> None:
    async with observed(a_worker(), file=tmp_path / "log.db") as server:
        session = await server.client.session()
        for said in ("look", "hello", "fail"):
            await server.client.speak(session, said)
        seen = await server.series()

    runs = "hostler_runs_total"
    assert total(seen, runs, status="done", agent="worker") == 2
    assert total(seen, runs, status="failed", agent="worker") == 1
    model = {"provider": "openai", "model": "m-1"}
    assert total(seen, "hostler_model_attempts_total", outcome="ok", **model) == 3
    assert total(seen, "hostler_model_attempts_total", outcome="server", **model) == 1
    assert total(seen, "hostler_model_seconds_count", **model) == 4
    assert total(seen, "hostler_model_first_token_seconds_count", **model) == 2, "of two with text"
    assert total(seen, "hostler_tokens_total", kind="input", **model) == 21
    assert total(seen, "hostler_tokens_total", kind="output", **model) == 8
    assert total(seen, "hostler_tokens_total", kind="cache_read", **model) == 8
    assert total(seen, "hostler_cost_dollars_total", **model) == 0.5
    assert total(seen, "hostler_unpriced_replies_total", **model) == 1
    assert total(seen, "hostler_tool_calls_total", tool="look", outcome="ok") == 1
    assert total(seen, "hostler_tool_seconds_count", tool="look") == 1
    assert total(seen, "hostler_run_wait_seconds_count") == 3
    assert total(seen, "hostler_store_commit_seconds_count") > 3
    assert total(seen, "hostler_store_commit_orders_sum") >= 10
    assert total(seen, "hostler_build_info", version="1.2.3") == 1
    assert total(seen, "hostler_telemetry_errors_total") == 0
    assert total(seen, "process_resident_memory_bytes") > 0


async def test_what_is_going_on_is_read_when_somebody_asks(tmp_path: Path) -> None:
    entered, go_on = anyio.Event(), anyio.Event()

    async def waits(started: ToolStarted) -> str:
        del started
        entered.set()
        await go_on.wait()
        return "done"

    tools = ToolboxDouble({"look": a_tool("look")}, {"look": waits})
    during: Series = {}
    async with observed(a_worker(tools=tools), file=tmp_path / "log.db") as server:
        session = await server.client.session()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.client.speak, session, "look")
            with anyio.fail_after(5):
                await entered.wait()
            during = await server.series()
            go_on.set()
        after = await server.series()

    def of(name: str) -> tuple[float, float]:
        return total(during, name), total(after, name)

    assert of("hostler_runs_active") == (1, 0)
    assert total(during, "hostler_streams_open", kind="sse") == 1
    assert of("hostler_streams_open") == (1, 0)
    assert of("hostler_watchers")[0] >= 1
    assert of("hostler_queue_depth") == (0, 0)
    assert of("hostler_admission_limit") == (5000, 5000)
    assert ("hostler_admission_refused_total", ()) in after


def test_names_that_a_client_invents_make_no_series() -> None:
    agent = an_agent(name="known", tools=ToolboxDouble({"t": a_tool("t")}))
    metrics = Metrics("1", Known.of([agent]))
    timeline = Timeline([metrics])
    observe(timeline, a_turn("run_0", model="invented", tool="invented"))
    before = set(figures(metrics))

    for i in range(1000):
        facts = a_turn(f"run_{i}", model=f"m{i}", tool=f"t{i}")
        observe(timeline, facts, tenant=f"tenant{i}", session=f"ses_{i}")

    seen = figures(metrics)
    assert set(seen) == before
    assert total(seen, "hostler_tool_calls_total", tool="other") == 1001
    assert total(seen, "hostler_model_attempts_total", provider="other", model="other") == 1001
    assert total(seen, "hostler_runs_total", agent="other") == 1001
    assert timeline.errors == 0


def test_names_of_a_server_have_an_end_as_well() -> None:
    agents = [an_agent(name=f"a{i}") for i in range(1000)]
    assert len(Known.of(agents).agents) == 200
    metrics = Metrics("1")
    metrics.readings.breakers = lambda: [(f"b{i}", "open") for i in range(1000)]
    seen = figures(metrics)
    assert sum(name == "hostler_breaker_state" for name, _ in seen) == 100 * len(BREAKER_STATES)
    assert total(seen, "hostler_breaker_state", breaker="b1", state="open") == 1
    assert total(seen, "hostler_breaker_state", breaker="b1", state="closed") == 0


def test_a_provider_s_line_is_seen_and_its_bound_if_there_is_one() -> None:
    metrics = Metrics("1")
    metrics.readings.limits = lambda: [("openai", (7, 5, 5)), ("mine", (0, 90, None))]
    seen = figures(metrics)
    assert total(seen, "hostler_model_line", provider="openai") == 7
    assert total(seen, "hostler_model_in_flight", provider="mine") == 90
    assert total(seen, "hostler_model_at_once", provider="openai") == 5
    assert {dict(labels).get("provider") for name, labels in seen if name.endswith("at_once")} == {
        "openai"
    }


def test_tokens_and_cost_are_the_sums_of_what_was_reported() -> None:
    metrics = Metrics("1", Known(models=frozenset({("m", "m")})))
    timeline = Timeline([metrics])
    for i in range(50):
        usage = Usage(input_tokens=i, output_tokens=2 * i, reasoning_tokens=1, cost=Decimal(i) / 8)
        observe(timeline, a_turn(f"run_{i}", usage=usage))

    seen = figures(metrics)
    assert total(seen, "hostler_tokens_total", kind="input", model="m") == sum(range(50))
    assert total(seen, "hostler_tokens_total", kind="output") == 2 * sum(range(50))
    assert total(seen, "hostler_tokens_total", kind="reasoning") == 50
    assert total(seen, "hostler_cost_dollars_total") == sum(range(50)) / 8


async def status_of(client: Client, key: str | None, query: str = "") -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with client.http.get(f"{client.url}/metrics{query}", headers=headers) as answer:
        return answer.status


async def test_figures_take_the_operator_s_key(tmp_path: Path) -> None:
    async with observed(a_worker(), file=tmp_path / "log.db") as server:
        client, session = server.client, await server.client.session()
        _, share = await client.call("POST", f"/api/sessions/{session}/shares", {})
        assert await status_of(client, None) == 401
        assert await status_of(client, "hk_wrong_wrong_wrong_wrong_wrong_wrong") == 401
        assert await status_of(client, str(share["token"])) == 403
        assert await status_of(client, None, f"?share={share['token']}") == 403
        _, admin = await client.call("POST", "/api/keys", {"role": "admin"})
        assert await status_of(client, str(admin["key"])) == 403
        assert await status_of(client, client.key) == 200


async def test_figures_can_be_opened_and_can_be_off(tmp_path: Path) -> None:
    async with observed(a_worker(), file=tmp_path / "a.db", is_open=True) as server:
        assert await status_of(server.client, None) == 200
    async with observed(a_worker(), file=tmp_path / "b.db", metrics=False) as server:
        assert await status_of(server.client, server.client.key) == 404
        session = await server.client.session()
        assert (await server.client.speak(session))[-1].event == "run_ended"
    async with serving(a_worker(), file=tmp_path / "c.db") as client:
        assert await status_of(client, client.key) == 404


async def test_who_accepts_open_metrics_gets_them(tmp_path: Path) -> None:
    async with observed(a_worker(), file=tmp_path / "log.db") as server:
        await server.client.speak(await server.client.session(), "look")
        text = await server.text("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")

    read = cast("Callable[[str], Iterable[Metric]]", parser.text_string_to_metric_families)
    names = {family.name for family in read(text)}
    assert text.endswith("# EOF\n")
    assert {"hostler_runs", "hostler_model_seconds", "hostler_build_info"} <= names


class Broken(Metrics):
    """Fails at whatever it is told."""

    def attempted(self, run: Lived, attempt: Attempt, end: Answered, at: float) -> None:
        raise RuntimeError(f"a bug, about {run.key} {attempt} {end} {at}")


async def test_trouble_of_telemetry_reaches_no_run_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hostler.app.measuring.Metrics", Broken)
    with lines() as told:
        async with observed(a_worker(), file=tmp_path / "log.db") as server:
            frames = await server.client.speak(await server.client.session(), "look")
            seen = await server.series()

    assert frames[-1].data["status"] == "done"
    assert total(seen, "hostler_telemetry_errors_total") == 2
    assert [line["event"] for line in told.all if "telemetry failed" in str(line["event"])]


async def test_a_run_of_a_session_that_cannot_be_read_is_driven_all_the_same() -> None:
    timeline, drove = Timeline(), list[RunKey]()
    key = RunKey(TenantId("t"), SessionId("s"), RunId("run_1"))

    class Gone:
        async def recall(self, key: Key) -> None:
            raise Unavailable(f"{key} cannot be read")

    async def drives(key: RunKey) -> None:
        trail = here.get()
        assert trail is not None
        assert (trail.run, trail.worker) == (key, "w")
        drove.append(key)

    await timeline.driven(drives, Gone(), "w")(key)  # type: ignore[arg-type]
    assert drove == [key]
    assert here.get() is None
    assert timeline.driven_now == 0


@pytest.fixture
def report() -> Generator[threading.Event]:
    """Set once somebody was blamed; whoever waits for it holds the loop meanwhile."""
    seen = threading.Event()
    yield seen
    seen.set()


async def test_whoever_holds_the_event_loop_is_named(report: threading.Event) -> None:
    def hold_the_loop() -> None:
        assert report.wait(10)

    lates = list[float]()
    watch = LoopWatch(lates.append, report.set)
    with lines() as told:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.watch)
            while not lates:
                await anyio.lowlevel.checkpoint()
            hold_the_loop()
            held = len(lates)
            while len(lates) == held:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    [line] = [one for one in told.all if "event loop is blocked" in str(one["event"])]
    assert "hold_the_loop" in str(line["frame"])
    assert "test_metrics" in str(line["frame"])
    assert max(lates) > 0.1


async def test_agents_that_are_measured_need_no_traces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    agent = a_worker()
    async with (
        measuring({agent.name: agent}, version="1") as look,
        serving(agent, file=tmp_path / "log.db", observing=look) as client,
    ):
        assert (await client.speak(await client.session()))[-1].event == "run_ended"
