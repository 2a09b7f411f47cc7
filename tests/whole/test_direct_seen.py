"""Direct calls in figures and traces, as attempts of agents are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.direct import REQUEST, USED, Says, answer, somebody
from tests.observed import Observed, lines, total
from tests.serving import serving

from hostler.app.measuring import measuring
from hostler.core.ports import Delta, Failure, Reply
from hostler.core.trail import Trail, here
from hostler.service.service import Service
from hostler.telemetry.traces import Traces
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PRICED = replace(USED, cost=Decimal("0.25"), price="2026-01-01")


@asynccontextmanager
async def seen(model: Says, file: Path) -> AsyncGenerator[tuple[Service, Observed]]:
    agent, spans, houses = an_agent(model), InMemorySpanExporter(), list[Service]()
    traces = Traces(spans, version="1", environ={}, every_s=0.01)
    async with (
        measuring({"double": agent}, version="1", traces=traces, models=["q:listed"]) as look,
        serving(agent, file=file, observing=look, entered=houses.append) as client,
    ):
        yield houses[0], Observed(client, look, traces, spans)


async def test_a_direct_call_is_counted_as_attempts_are(tmp_path: Path) -> None:
    model = Says((Delta("text", "well"), Reply(text="well", stop="end", usage=PRICED)))
    fails = Says((Failure(code="overloaded", message="oh", again=True),), name="m")
    async with seen(model, tmp_path / "log.db") as (service, at):
        await answer(service, model)
        await answer(service, fails)
        await answer(service, replaced(model, provider="q", name="listed"))
        await answer(service, replaced(model, provider="q", name="a client's own"))
        parts = service.direct.ask(somebody(), model, REQUEST)
        await anext(parts)
        await parts.aclose()
        figures = await at.series()

    of, named = {"provider": "p", "model": "m"}, "hostler_model_attempts_total"
    assert total(figures, named, outcome="ok", **of) == 1
    assert total(figures, named, outcome="overloaded", **of) == 1
    assert total(figures, named, outcome="dropped", **of) == 1
    assert total(figures, named, outcome="ok", provider="q", model="listed") == 1
    assert total(figures, named, outcome="ok", provider="other", model="other") == 1
    assert total(figures, "hostler_model_seconds_count", **of) == 3
    assert total(figures, "hostler_model_first_token_seconds_count", **of) == 2
    assert total(figures, "hostler_tokens_total", kind="input", **of) == 10
    assert total(figures, "hostler_cost_dollars_total", **of) == 0.25
    assert total(figures, "hostler_runs_total") == 0
    assert total(figures, "hostler_telemetry_errors_total") == 0


def replaced(model: Says, *, provider: str, name: str) -> Says:
    return Says(model.parts, provider=provider, name=name)


async def test_a_direct_call_is_a_span_in_the_trace_of_whoever_asked(tmp_path: Path) -> None:
    model = Says()
    async with seen(model, tmp_path / "log.db") as (service, at):
        token = here.set(Trail(traceparent=PARENT))
        await answer(service, model)
        here.set(Trail(traceparent=f"{PARENT[:-2]}00"))
        await answer(service, model)
        here.reset(token)
        failed = Failure(code="server", message="it broke", again=False)
        await answer(service, Says((failed,)))
        asked, alone = await at.exported(2)

    assert asked.name == alone.name == "chat m"
    assert asked.context is not None
    assert asked.parent is not None
    assert f"{asked.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{asked.parent.span_id:016x}" == PARENT.split("-")[2]
    assert alone.parent is None
    told = dict(asked.attributes or {})
    assert told["gen_ai.request.model"] == "m"
    assert told["gen_ai.usage.input_tokens"] == 10
    assert str(told["hostler.direct"]).startswith("dir_")
    assert not {"gen_ai.conversation.id", "hostler.run"} & told.keys()
    assert [event.name for event in asked.events] == ["first_token"]
    assert (alone.status.is_ok, alone.status.description) == (False, "it broke")


async def test_what_is_told_wrong_of_a_direct_call_is_not_its_trouble(tmp_path: Path) -> None:
    model = Says()
    async with seen(model, tmp_path / "log.db") as (service, at):
        at.measuring.timeline._readers = [*at.measuring.timeline._readers, Wrong()]  # type: ignore[list-item]
        with lines() as logged:
            assert (await answer(service, model))[-1] == model.parts[-1]

    assert "telemetry failed 1 time(s)" in logged.text
    assert "a bug of ours" in logged.text
    assert at.measuring.timeline.errors == 1


class Wrong:
    def direct(self, *_: object) -> None:
        raise ValueError("a bug of ours")
