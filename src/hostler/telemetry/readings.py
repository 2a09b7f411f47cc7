"""Figures that are not counted as things happen, but read when somebody asks.

Invariant: reading changes nothing, and its labels have an end.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MOST_BREAKERS = 100
BREAKER_STATES = ("closed", "half_open", "open")


@dataclass(slots=True, kw_only=True)
class Readings:
    """What is read when somebody asks; each is called on the event loop."""

    active: Callable[[], int] = lambda: 0
    queue: Callable[[], tuple[int, float]] = lambda: (0, 0.0)
    """How many jobs are due and wait, and for how many seconds the oldest."""
    streams: Callable[[], dict[str, int]] = dict[str, int]
    """Open streams by kind: `sse`, `socket`, `file`."""
    watchers: Callable[[], int] = lambda: 0
    admission: Callable[[], tuple[int, int]] = lambda: (0, 0)
    """How many runs may be active, and what was refused so far."""
    bus: Callable[[], tuple[bool, int, int] | None] = lambda: None
    """Whether the bus between nodes is up, items sent and items dropped; None: there is none."""
    breakers: Callable[[], Sequence[tuple[str, str]]] = tuple[tuple[str, str], ...]
    """Name and state of each breaker."""
    limits: Callable[[], Sequence[tuple[str, tuple[int, int, int | None]]]] = tuple[
        tuple[str, tuple[int, int, int | None]], ...
    ]
    """Of each provider: how many wait in line, how many are in flight, and the least that may be."""
    errors: Callable[[], int] = lambda: 0
    """Of telemetry itself."""
    spans: Callable[[], tuple[int, int]] = lambda: (0, 0)
    """Spans exported and dropped so far."""


class Read(Collector):
    """What is read at a scrape."""

    def __init__(self, readings: Readings, version: str) -> None:
        self._readings, self._version = readings, version
        self.seen: Sequence[Metric] = ()

    def collect(self) -> Iterator[Metric]:
        return iter(self.seen)

    def look(self) -> Iterator[Metric]:
        read = self._readings
        depth, oldest_s = read.queue()
        limit, refused = read.admission()
        exported, dropped = read.spans()
        yield _gauge("runs_active", "Runs that workers drive now", read.active())
        yield _gauge("queue_depth", "Runs that are due and wait for a worker", depth)
        yield _gauge("queue_oldest_seconds", "How long the oldest of them waits", oldest_s)
        yield _gauge("watchers", "Who follows sessions now", read.watchers())
        yield _gauge("admission_limit", "Runs that may be active now", limit)
        yield _count("admission_refused", "Requests refused as too much", refused)
        yield _count("telemetry_errors", "Failures of telemetry itself", read.errors())
        yield _count("spans_exported", "Spans given to the collector", exported)
        yield _count("spans_dropped", "Spans that found no room or no collector", dropped)
        if (bus := read.bus()) is not None:
            yield _gauge("bus_up", "Whether the bus between nodes carries", int(bus[0]))
            yield _count("bus_sent", "Items said to other nodes", bus[1])
            yield _count("bus_dropped", "Items that found no room or no bus", bus[2])
        streams = GaugeMetricFamily("hostler_streams_open", "Open streams", labels=("kind",))
        for kind, number in sorted(read.streams().items()):
            streams.add_metric((kind,), number)
        yield streams
        breakers = GaugeMetricFamily(
            "hostler_breaker_state", "1 for the state of each breaker", labels=("breaker", "state")
        )
        for name, state in list(read.breakers())[:MOST_BREAKERS]:
            for one in BREAKER_STATES:
                breakers.add_metric((name, one), int(one == state))
        yield breakers
        yield from _limits(list(read.limits())[:MOST_BREAKERS])
        build = GaugeMetricFamily("hostler_build_info", "This build", labels=("version", "python"))
        build.add_metric((self._version, platform.python_version()), 1)
        yield build

    def describe(self) -> Iterator[Metric]:
        return iter(())


def _limits(read: Sequence[tuple[str, tuple[int, int, int | None]]]) -> Iterator[Metric]:
    line = _of_providers("model_line", "Questions that wait until their key may be used")
    flight = _of_providers("model_in_flight", "Questions on their way to a provider")
    most = _of_providers("model_at_once", "So many may be, where a key has the least room")
    for provider, (waiting, in_flight, bound) in read:
        line.add_metric((provider,), waiting)
        flight.add_metric((provider,), in_flight)
        if bound is not None:
            most.add_metric((provider,), bound)
    return iter((line, flight, most))


def _of_providers(name: str, what: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"hostler_{name}", what, labels=("provider",))


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"hostler_{name}", what, value=value)


def _count(name: str, what: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"hostler_{name}", what, value=value)
