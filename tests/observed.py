"""A server that is looked at: its scrape, its spans and its lines, as operators get them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import anyio
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from tests.canaries import EARS, Ears
from tests.serving import Client, Json, serving

from hostler.app.measuring import Measuring, measuring
from hostler.core.events import Usage
from hostler.core.ports import AgentSpec, Failure, Reply, Request
from hostler.core.said import ToolSaid
from hostler.faces.http.open_streams import OpenStreams
from hostler.telemetry.logs import formatter
from hostler.telemetry.traces import Traces
from hostler.testing.doubles import ModelDouble, ToolboxDouble, a_call, a_tool, an_agent
from hostler.vault.vault import SealedVault

Labels = tuple[tuple[str, str], ...]
Series = dict[tuple[str, Labels], float]


@dataclass(frozen=True)
class Observed:
    """A client, and what looks at its server."""

    client: Client
    measuring: Measuring
    traces: Traces
    spans: InMemorySpanExporter = field(repr=False)

    async def text(self, accept: str = "") -> str:
        headers = {"Authorization": f"Bearer {self.client.key}", "Accept": accept}
        async with self.client.http.get(f"{self.client.url}/metrics", headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()

    async def series(self) -> Series:
        return parsed(await self.text())

    async def exported(self, number: int) -> list[ReadableSpan]:
        """Return the spans, once there are so many."""
        with anyio.fail_after(5):
            while len(found := self.spans.get_finished_spans()) < number:
                await anyio.to_thread.run_sync(lambda: None)
        assert len(found) == number, [one.name for one in found]
        # A run begins in the commit that asks its first question: at the very same time.
        return sorted(found, key=lambda one: (one.start_time or 0, "invoke" not in one.name))


def parsed(text: str) -> Series:
    """Return each series of a scrape with its value."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(series: Series, name: str, **labels: str) -> float:
    """Return the sum of the series of this name that have these labels."""
    wanted = set(labels.items())
    return sum(value for (one, has), value in series.items() if one == name and wanted <= set(has))


@asynccontextmanager
async def observed(
    *agents: AgentSpec,
    file: Path | None,
    metrics: bool = True,
    is_open: bool = False,
    environ: Mapping[str, str] | None = None,
    vault: SealedVault | None = None,
    ears: Ears | None = EARS,
) -> AsyncGenerator[Observed]:
    """Serve agents with everything on; spans are kept in memory."""
    spans, streams = InMemorySpanExporter(), OpenStreams()
    traces = Traces(spans, version="1.2.3", environ=environ or {}, every_s=0.01)
    async with (
        measuring(
            {agent.name: agent for agent in agents},
            version="1.2.3",
            metrics=metrics,
            is_open=is_open,
            streams=lambda: streams.by_kind,
            traces=traces,
        ) as look,
        serving(
            *agents, file=file, streams=streams, observing=look, vault=vault, ears=ears
        ) as client,
    ):
        yield Observed(client, look, traces, spans)
    if ears is not None:
        for span in spans.get_finished_spans():
            ears.hear(f"the span {span.name}", span.to_json())


def a_worker(*, tools: ToolboxDouble | None = None) -> AgentSpec:
    """Return an agent that calls `look` once if it is told to, fails if told so, and then answers."""

    def answer(request: Request) -> Reply | Failure:
        last = request.transcript[-1]
        usage = Usage(input_tokens=10, output_tokens=3, cache_read_tokens=4, cost=Decimal("0.25"))
        if isinstance(last, ToolSaid):
            return Reply(text="it is so", stop="end", usage=usage)
        said = str(getattr(last, "content", ""))
        if "fail" in said:
            return Failure(code="server", message="it broke", again=False)
        if "look" in said:
            return Reply(text="", stop="tools", calls=(a_call("look", at="it"),), usage=usage)
        return Reply(text="well then", stop="end", usage=Usage(input_tokens=1, output_tokens=2))

    box = tools or ToolboxDouble({"look": a_tool("look", effects="read")})
    return an_agent(ModelDouble(answer, provider="openai", name="m-1"), tools=box, name="worker")


@dataclass
class Lines:
    """What was logged, as it would be written."""

    written: io.StringIO

    @property
    def text(self) -> str:
        return self.written.getvalue()

    @property
    def all(self) -> list[Json]:
        return [json.loads(line) for line in self.text.splitlines()]

    def of(self, event: str) -> list[Json]:
        return [line for line in self.all if line["event"] == event]


@contextmanager
def lines(*, as_text: bool = False) -> Generator[Lines]:
    """Collect all that is logged, by whomever and of whatever level."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(formatter(as_text=as_text))
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    try:
        yield Lines(written)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
