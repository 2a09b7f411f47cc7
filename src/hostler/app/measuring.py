"""A house that is looked at: its timeline, its metrics and its traces, put together.

Invariant: what is off is not called; what is on costs some microseconds a fact.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from hostler.app import wiring
from hostler.app.observing import Rooms
from hostler.app.wiring import SpanReader
from hostler.core.events import Event, Key, RunKey
from hostler.core.ledger import DirectCall
from hostler.core.ports import Agents, AgentSpec, Handler
from hostler.core.store import Observer, Store
from hostler.service.scraping import Scraping
from hostler.telemetry.loop_watch import LoopWatch
from hostler.telemetry.metrics import Known, Metrics
from hostler.telemetry.timeline import Timeline

Breakers = Callable[[], Sequence[tuple[str, str]]]
Limits = Callable[[], Sequence[tuple[str, tuple[int, int, int | None]]]]


@dataclass(slots=True)
class Measuring:
    """An `Observing`."""

    timeline: Timeline
    metrics: Metrics | None
    scraping: Scraping
    committed: Callable[[float, int], None] | None = field(init=False)

    def __post_init__(self) -> None:
        self.committed = None if self.metrics is None else self.metrics.committed

    def observer(self, publish: Observer) -> Observer:
        observe = self.timeline.observe

        def both(key: Key, events: Sequence[Event]) -> None:
            publish(key, events)
            observe(key, events)

        return both

    def first(self, key: RunKey) -> None:
        self.timeline.first(key)

    def direct(self, call: DirectCall) -> None:
        self.timeline.direct(call)

    def naming(self, agents: Agents) -> Agents:
        return self.timeline.naming(agents)

    def driven(self, handler: Handler, store: Store, worker: str) -> Handler:
        return self.timeline.driven(handler, store, worker)

    def enter(self, rooms: Rooms) -> None:
        if self.metrics is not None:
            readings = self.metrics.readings
            readings.queue, readings.watchers = rooms.queue, rooms.watchers
            readings.admission, readings.bus = rooms.admission, rooms.bus

    async def watch(self) -> None:
        if self.metrics is not None:
            await LoopWatch(self.metrics.late, self.metrics.blocked).watch()


@asynccontextmanager
async def measuring(
    agents: Mapping[str, AgentSpec],
    *,
    version: str,
    metrics: bool = True,
    is_open: bool = False,
    streams: Callable[[], dict[str, int]] = dict[str, int],
    breakers: Breakers | None = None,
    limits: Limits | None = None,
    traces: SpanReader | None = None,
    models: Sequence[str] = (),
) -> AsyncGenerator[Measuring]:
    """Yield what looks at a house of these agents; leaving sends the spans that are left.

    `models`: others that may be asked, as `provider:model`.  Without `traces`, there are some if the environment names a collector.

    Raises:
        SetupError: it does, and the extra `otel` is not installed.
    """
    traces = traces or wiring.traces(version, os.environ)
    measured = None
    if metrics:
        measured = Metrics(version, Known.of(list(agents.values()), models))
    timeline = Timeline(
        [one for one in (measured, traces) if one is not None],
        makes_spans=traces is not None,
        keeps_inputs=traces is not None and traces.content,
    )
    if measured is not None:
        readings = measured.readings
        readings.active, readings.errors = lambda: timeline.driven_now, lambda: timeline.errors
        readings.streams = streams
        if breakers is not None:
            readings.breakers = breakers
        if limits is not None:
            readings.limits = limits
        if traces is not None:
            readings.spans = traces.counts
    scraping = Scraping(scrape=None if measured is None else measured.scrape, is_open=is_open)
    try:
        yield Measuring(timeline, measured, scraping)
    finally:
        if traces is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(traces.close)
