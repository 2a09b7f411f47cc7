"""Traces: a run is one tree of spans, whoever drove it, and exporting it holds up nothing."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from tests.observed import a_worker, observed, parsed, total
from tests.serving import Client, serving

from hostler.app.measuring import measuring
from hostler.app.server import listen
from hostler.core.errors import SetupError
from hostler.core.events import RunId, RunKey, SessionId, TenantId, ToolStarted
from hostler.core.ports import Reply, Request
from hostler.core.trail import Trail, here, read_context, trace_headers
from hostler.models.exchange import Patience
from hostler.models.transport import Aiohttp
from hostler.telemetry.traces import Traces
from hostler.testing.doubles import ModelDouble, ToolboxDouble, a_tool, an_agent

pytestmark = pytest.mark.anyio

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{PARENT}-01"


async def speak(client: Client, said: str, traceparent: str | None = None, **more: str) -> str:
    """Say something in a session of its own, wait for the end, and return the run."""
    session = await client.session()
    headers = {"Prefer": "wait=10", **more}
    if traceparent is not None:
        headers["traceparent"] = traceparent
    path = f"/api/sessions/{session}/messages"
    status, ended = await client.call("POST", path, {"content": said}, headers=headers)
    assert status == 200, ended
    return str(ended["run"])


def told(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def ids(span: ReadableSpan) -> tuple[str, str, str | None]:
    """Return trace, span and parent as they are on the wire."""
    context = span.context
    assert context is not None
    parent = None if span.parent is None else f"{span.parent.span_id:016x}"
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", parent


async def test_a_run_is_one_tree_with_the_names_of_the_conventions(tmp_path: Path) -> None:
    async with observed(a_worker(), file=tmp_path / "log.db") as server:
        run = await speak(server.client, "look")
        spans = await server.exported(4)

    by_name = {span.name: span for span in spans}
    root = by_name["invoke_agent worker"]
    trace, own, parent = ids(root)
    assert parent is None
    assert [span.name for span in spans[1:]] == ["chat m-1", "execute_tool look", "chat m-1"]
    assert all(ids(span)[0] == trace and ids(span)[2] == own for span in spans[1:])
    assert len({ids(span)[1] for span in spans}) == 4
    assert told(root)["gen_ai.operation.name"] == "invoke_agent"
    assert told(root)["gen_ai.agent.name"] == "worker"
    assert told(root)["gen_ai.usage.input_tokens"] == 20
    assert told(root)["hostler.run"] == run
    chat = spans[1]
    assert chat.kind is SpanKind.CLIENT
    assert told(chat)["gen_ai.provider.name"] == "openai"
    assert told(chat)["gen_ai.request.model"] == "m-1"
    assert told(chat)["gen_ai.usage.cache_read.input_tokens"] == 4
    assert told(chat)["gen_ai.response.finish_reasons"] == ("tool_call",)
    assert [told(one)["hostler.step"] for one in (spans[1], spans[3])] == [1, 2]
    assert [event.name for event in spans[3].events] == ["first_token"]
    tool = by_name["execute_tool look"]
    assert told(tool)["gen_ai.tool.name"] == "look"
    assert str(told(tool)["gen_ai.tool.call.id"]).startswith("call_")
    assert all((span.end_time or 0) >= (span.start_time or 1) for span in spans)


async def test_what_was_said_is_in_no_span_unless_it_is_asked_for(tmp_path: Path) -> None:
    capture = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
    async with observed(a_worker(), file=tmp_path / "a.db") as server:
        await speak(server.client, "look at Sesame")
        silent = "".join(span.to_json() for span in await server.exported(4))
    async with observed(a_worker(), file=tmp_path / "b.db", environ={capture: "true"}) as server:
        await speak(server.client, "look at Sesame")
        spans = await server.exported(4)

    assert "Sesame" not in silent
    assert "it is so" not in silent
    asked = json.loads(str(told(spans[0])["gen_ai.input.messages"]))
    assert asked == [{"role": "user", "parts": [{"type": "text", "content": "look at Sesame"}]}]
    said = json.loads(str(told(spans[3])["gen_ai.output.messages"]))
    assert said[0]["parts"] == [{"type": "text", "content": "it is so"}]
    assert json.loads(str(told(spans[2])["gen_ai.tool.call.arguments"])) == {"at": "it"}


def as_told(spans: Sequence[ReadableSpan]) -> str:
    """Return a trace as the documentation shows it."""
    shown = ("operation.name", "agent.name", "tool.name", "response.finish_reasons")
    rows = list[str]()
    for span in spans:
        name = span.name if span.parent is None else f"  {span.name}"
        values = [
            f"gen_ai.{one}={str(value).strip('(),').replace(chr(39), '')}"
            for one in shown
            if (value := told(span).get(f"gen_ai.{one}")) is not None
        ]
        rows.append(f"{name:<31}{span.kind.name:<10}{' '.join(values)}")
        rows += [f"    {event.name}" for event in span.events]
    return "\n".join(rows)


async def test_the_trace_in_the_documentation_is_as_it_would_be_recorded_today(
    tmp_path: Path,
) -> None:
    page = Path(__file__).parents[2] / "docs/howto/watch-a-server.md"
    async with observed(a_worker(), file=tmp_path / "log.db") as server:
        await speak(server.client, "look")
        recorded = as_told(await server.exported(4))
    assert recorded in page.read_text(encoding="utf-8"), recorded


async def test_older_names_can_be_had(tmp_path: Path) -> None:
    environ = {"OTEL_SEMCONV_STABILITY_OPT_IN": "http,gen_ai_1_36"}
    async with observed(a_worker(), file=tmp_path / "log.db", environ=environ) as server:
        await speak(server.client, "hello")
        chat = (await server.exported(2))[1]
    assert told(chat)["gen_ai.system"] == "openai"
    assert "gen_ai.provider.name" not in told(chat)


async def test_a_failure_says_what_it_was(tmp_path: Path) -> None:
    async with observed(a_worker(), file=tmp_path / "log.db") as server:
        await speak(server.client, "fail")
        root, chat = await server.exported(2)
    assert (root.status.status_code, chat.status.status_code) == (StatusCode.ERROR,) * 2
    assert told(chat)["error.type"] == "server"
    assert chat.status.description == "it broke"
    assert told(root)["error.type"] == "model_error"


async def test_a_run_goes_on_in_the_trace_that_its_request_came_in(tmp_path: Path) -> None:
    async with observed(a_worker(), file=tmp_path / "log.db") as server:
        await speak(server.client, "hello", GIVEN, tracestate="a=1,b=2")
        root, chat = await server.exported(2)
    assert ids(root)[0] == ids(chat)[0] == TRACE
    assert ids(root)[2] == PARENT
    assert root.context is not None
    assert root.context.trace_state.to_header() == "a=1,b=2"


async def test_what_the_client_does_not_sample_is_not_sent(tmp_path: Path) -> None:
    async with observed(a_worker(), file=tmp_path / "log.db") as server:
        await speak(server.client, "hello", f"00-{TRACE}-{PARENT}-00")
        await speak(server.client, "hello")
        spans = await server.exported(2)
    assert TRACE not in {ids(span)[0] for span in spans}


@pytest.mark.parametrize(
    "given",
    [
        "nonsense",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}",
        "",
    ],
)
def test_a_trace_that_is_not_well_formed_is_none(given: str) -> None:
    assert read_context(given, "a=1") == (None, None)


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert read_context(f"01-{TRACE}-{PARENT}-03-more", "a=1") == (GIVEN, "a=1")
    assert read_context(GIVEN, "x" * 600) == (GIVEN, None)
    assert read_context(GIVEN, "a=\n") == (GIVEN, None)


async def test_a_tool_s_own_requests_are_children_of_its_span(tmp_path: Path) -> None:
    sent: list[dict[str, str]] = []

    async def looks(started: ToolStarted) -> str:
        del started
        sent.append(trace_headers())
        return "seen"

    tools = ToolboxDouble({"look": a_tool("look")}, {"look": looks})
    async with observed(a_worker(tools=tools), file=tmp_path / "log.db") as server:
        await speak(server.client, "look", GIVEN, tracestate="a=1")
        spans = await server.exported(4)
    assert sent[0]["tracestate"] == "a=1"
    _, trace, parent, _ = sent[0]["traceparent"].split("-")
    assert trace == TRACE
    assert parent in {ids(span)[1] for span in spans}


async def test_questions_to_models_carry_the_trace() -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("traceparent"))
        return web.json_response({})

    async with listening(answer) as url:
        transport = Aiohttp()
        key = RunKey(TenantId("t"), SessionId("s"), RunId("r"))
        for trail in (
            Trail(run=key, traceparent=GIVEN, span="att_1"),
            Trail(traceparent=GIVEN),
            None,
        ):
            token = here.set(trail)
            got = await transport.post(url, headers={}, body=b"{}", patience=Patience())
            got.close(kindly=False)
            here.reset(token)
        await transport.aclose()

    first, second, third = seen
    assert first is not None
    assert first.startswith(f"00-{TRACE}-")
    assert first != GIVEN
    assert (second, third) == (GIVEN, None)


async def test_a_run_that_another_process_goes_on_with_stays_one_trace(tmp_path: Path) -> None:
    asked = anyio.Event()

    class Hanging(ModelDouble):
        async def stream(self, request: Request) -> AsyncGenerator[Reply, None]:
            del request
            asked.set()
            await anyio.sleep_forever()
            yield Reply(text="", stop="end")

    hanging = an_agent(
        Hanging(lambda _: Reply(text="", stop="end"), "openai", "m-1"), name="worker"
    )
    async with observed(hanging, file=tmp_path / "log.db") as server:
        session = await server.client.session()
        status, _ = await server.client.call(
            "POST",
            f"/api/sessions/{session}/messages",
            {"content": "hello"},
            headers={"traceparent": GIVEN},
        )
        assert status == 202
        with anyio.fail_after(5):
            await asked.wait()
        assert server.spans.get_finished_spans() == ()

    async with observed(a_worker(), file=tmp_path / "log.db") as server:
        spans = await server.exported(3)

    root = next(span for span in spans if span.name == "invoke_agent worker")
    lost = next(span for span in spans if told(span).get("error.type") == "worker_lost")
    again = next(span for span in spans if span not in (root, lost))
    assert {ids(span)[0] for span in spans} == {TRACE}
    assert ids(root)[2] == PARENT
    assert ids(lost)[2] == ids(again)[2] == ids(root)[1]
    assert [f"{link.context.span_id:016x}" for link in root.links] == [ids(lost)[1]]
    assert [event.name for event in root.events] == ["hostler.claimed"]


@asynccontextmanager
async def listening(answer: object) -> AsyncGenerator[str]:
    """Serve one handler on every path of a free port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)  # type: ignore[arg-type]
    runner = web.AppRunner(app)
    await runner.setup()
    taken = listen("127.0.0.1", 0)
    await web.SockSite(runner, taken).start()
    port = taken.getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def test_a_collector_gets_them_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[ExportTraceServiceRequest] = []
    arrived = anyio.Event()

    async def collect(request: web.Request) -> web.Response:
        assert request.path == "/v1/traces"
        body = await request.read()
        got.append(ExportTraceServiceRequest.FromString(body))
        arrived.set()
        return web.Response(body=b"", content_type="application/x-protobuf")

    agent = a_worker()
    async with listening(collect) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "my-agents")
        async with (
            measuring({agent.name: agent}, version="1.2.3") as look,
            serving(agent, file=tmp_path / "log.db", observing=look) as client,
        ):
            await speak(client, "look", GIVEN)
        with anyio.fail_after(5):
            await arrived.wait()

    spans = [
        span
        for one in got
        for of in one.resource_spans
        for scope in of.scope_spans
        for span in scope.spans
    ]
    resource = {
        one.key: one.value.string_value for one in got[0].resource_spans[0].resource.attributes
    }
    assert sorted(span.name for span in spans) == [
        "chat m-1",
        "chat m-1",
        "execute_tool look",
        "invoke_agent worker",
    ]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert (resource["service.name"], resource["service.version"]) == ("my-agents", "1.2.3")


@dataclass
class Stuck(SpanExporter):
    """A collector that takes nothing until it is let go."""

    go_on: threading.Event = field(default_factory=threading.Event)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        assert self.go_on.wait(10)
        return SpanExportResult.FAILURE


async def test_a_collector_that_takes_nothing_holds_up_nothing_and_drops_are_counted(
    tmp_path: Path,
) -> None:
    stuck, agent = Stuck(), a_worker()
    traces = Traces(stuck, version="1", environ={}, every_s=0.0, room=2)
    async with (
        measuring({agent.name: agent}, version="1", traces=traces) as look,
        serving(agent, file=tmp_path / "log.db", observing=look) as client,
    ):
        with anyio.fail_after(5):
            for _ in range(3):
                await speak(client, "look")
        headers = {"Authorization": f"Bearer {client.key}"}
        async with client.http.get(f"{client.url}/metrics", headers=headers) as answer:
            dropped = total(parsed(await answer.text()), "hostler_spans_dropped_total")
        stuck.go_on.set()
    assert dropped >= 1
    assert traces.counts() == (0, 12)


async def test_a_collector_without_the_extra_is_a_mistake_that_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "hostler.telemetry.traces", None)
    with pytest.raises(SetupError, match=r"hostler\[otel\]"):
        async with measuring({}, version="1"):
            pass
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with measuring({}, version="1"):
        pass
