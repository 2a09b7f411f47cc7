"""Figures for Prometheus: a registry of ours, filled from what runs do and from readings.

What happens is counted as it is committed (`Reader`); what merely is (queue, streams, limits) is
read when somebody asks.

Invariant: no label has a value that a client can invent.  Names of agents, models and tools are
those that this server was started with; any other one is `other`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar, get_args

import anyio
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from hostler.core.events import (
    ApprovalAsked,
    ModelFailed,
    ModelReplied,
    RunEnded,
    ToolFinished,
    Usage,
)
from hostler.core.ledger import DirectCall
from hostler.core.ports import AgentSpec, FaultCode
from hostler.core.trail import Trail
from hostler.telemetry.readings import Read, Readings
from hostler.telemetry.timeline import Answered, Attempt, Call, Lived

Child = TypeVar("Child", Counter, Histogram)
Names = tuple[str, ...]

OTHER, CLIENT = "other", "client"
MOST_NAMES = 200
"""Of agents, of models and of tools: with all their series a scrape still takes some milliseconds."""
SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
COMMIT_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
ORDERS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LAG_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
FAULTS = frozenset(get_args(FaultCode))


@dataclass(frozen=True, slots=True)
class Known:
    """The names that may be labels."""

    agents: frozenset[str] = frozenset()
    models: frozenset[Names] = frozenset()
    """(provider, model)"""
    tools: frozenset[str] = frozenset()

    @classmethod
    def of(cls, specs: Sequence[AgentSpec], models: Sequence[str] = ()) -> Known:
        """Return the names in these agents, and of `models`, in order, as many as there may be."""
        asked: list[Names] = [(one.provider, one.name) for spec in specs for one in spec.models]
        asked += [(one.partition(":")[0], one.partition(":")[2]) for one in models]
        tools = [tool.name for spec in specs for tool in spec.tools.specs]
        return cls(
            frozenset(list(dict.fromkeys(spec.name for spec in specs))[:MOST_NAMES]),
            frozenset(list(dict.fromkeys(asked))[:MOST_NAMES]),
            frozenset(list(dict.fromkeys(tools))[:MOST_NAMES]),
        )


@dataclass(slots=True)
class Metrics:
    """A `Reader`, and what `GET /metrics` answers."""

    version: str
    known: Known = field(default_factory=Known)
    readings: Readings = field(default_factory=Readings)
    registry: CollectorRegistry = field(
        default_factory=lambda: CollectorRegistry(auto_describe=True)
    )
    _made: _Families = field(init=False)
    _read: Read = field(init=False)
    _labelled: dict[tuple[object, Names], object] = field(
        default_factory=dict[tuple[object, Names], object]
    )

    def __post_init__(self) -> None:
        self._made = _Families(self.registry)
        self._read = Read(self.readings, self.version)
        self.registry.register(self._read)
        ProcessCollector(registry=self.registry)

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return all figures and their media type: OpenMetrics for who accepts it, else text.

        They are read on the event loop and written on a thread, so that no stream waits for it.
        """
        self.read()
        return await anyio.to_thread.run_sync(self.write, accept)

    def read(self) -> None:
        """Read what is read when somebody asks."""
        self._read.seen = list(self._read.look())

    def write(self, accept: str = "") -> tuple[bytes, str]:
        """Return the figures as of the last `read`; blocks for some milliseconds."""
        encode, media = choose_encoder(accept)
        return encode(self.registry), media

    def started(self, run: Lived) -> None:
        if run.accepted_at and run.started_at is not None:
            self._made.queued.observe(max(0.0, run.started_at - run.accepted_at))

    def attempted(self, run: Lived, attempt: Attempt, end: Answered, at: float) -> None:
        del run
        outcome, usage, first_s = "dropped", None, None
        if isinstance(end, ModelReplied):
            outcome, usage = "ok", end.usage
        elif isinstance(end, ModelFailed):
            outcome = end.error.code if end.error.code in FAULTS else OTHER
        if attempt.first_at is not None:
            first_s = attempt.first_at - attempt.at
        asked = attempt.asked
        self._asked((asked.provider, asked.model), outcome, usage, at - attempt.at, first_s)

    def direct(self, call: DirectCall, trail: Trail) -> None:
        del trail
        outcome, usage = "dropped", None
        if call.status == "replied":
            outcome, usage = "ok", call.usage
        elif call.error_type is not None:
            outcome = call.error_type if call.error_type in FAULTS else OTHER
        took_s = (call.ended_at or call.asked_at) - call.asked_at
        self._asked((call.provider, call.model), outcome, usage, took_s, call.first_token_s)

    def called(self, run: Lived, call: Call, end: ToolFinished, at: float) -> None:
        del run
        name = call.started.name
        if name not in self.known.tools:
            name = OTHER if call.started.expires_at is None else CLIENT
        self._of(self._made.calls, (name, end.outcome)).inc()
        self._of(self._made.tool_s, (name,)).observe(max(0.0, at - call.at))

    def waits(self, run: Lived, asked: ApprovalAsked) -> None:
        del run, asked
        self._made.approvals.inc()

    def ended(self, run: Lived, end: RunEnded, at: float) -> None:
        agent = run.agent if run.agent in self.known.agents else OTHER
        assert agent is not None
        self._of(self._made.runs, (end.status, agent)).inc()
        if run.accepted_at:
            self._of(self._made.run_s, (agent,)).observe(max(0.0, at - run.accepted_at))

    def committed(self, took_s: float, orders: int) -> None:
        """Take in a commit; on any thread."""
        self._made.commit_s.observe(took_s)
        self._made.commit_orders.observe(orders)

    def late(self, late_s: float) -> None:
        """Take in how late the event loop was."""
        self._made.lag_s.observe(late_s)

    def blocked(self) -> None:
        self._made.blocked.inc()

    def _asked(
        self,
        names: Names,
        outcome: str,
        usage: Usage | None,
        took_s: float,
        first_s: float | None,
    ) -> None:
        made = self._made
        if names not in self.known.models:
            names = OTHER, OTHER
        if usage is not None:
            self._used(names, usage)
        self._of(made.attempts, (*names, outcome)).inc()
        self._of(made.model_s, names).observe(max(0.0, took_s))
        if first_s is not None:
            self._of(made.first_s, names).observe(max(0.0, first_s))

    def _used(self, names: Names, usage: Usage) -> None:
        made = self._made
        for kind, tokens in (
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cache_read", usage.cache_read_tokens),
            ("cache_write", usage.cache_write_tokens),
            ("reasoning", usage.reasoning_tokens),
        ):
            if tokens > 0:
                self._of(made.tokens, (*names, kind)).inc(tokens)
        if usage.cost is None:
            self._of(made.unpriced, names).inc()
        elif usage.cost > 0:
            self._of(made.cost, names).inc(float(usage.cost))

    def _of(self, family: Child, names: Names) -> Child:
        found = self._labelled.get((family, names))
        if found is None:
            found = self._labelled[family, names] = family.labels(*names)
        assert isinstance(found, type(family))
        return found


class _Families:
    """What is counted and timed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"hostler_{name}", what, labels, registry=registry)

        def timer(
            name: str, what: str, *labels: str, buckets: Sequence[float] = SECONDS
        ) -> Histogram:
            return Histogram(f"hostler_{name}", what, labels, registry=registry, buckets=buckets)

        model = ("provider", "model")
        self.runs = counter("runs", "Runs that ended", "status", "agent")
        self.run_s = timer("run_seconds", "From acceptance to the end of a run", "agent")
        self.queued = timer("run_wait_seconds", "From acceptance to the start of a run")
        self.attempts = counter("model_attempts", "Questions to models", *model, "outcome")
        self.model_s = timer("model_seconds", "From a question to its end", *model)
        self.first_s = timer("model_first_token_seconds", "To the first text", *model)
        self.tokens = counter("tokens", "Tokens by kind; input includes cached", *model, "kind")
        self.cost = counter("cost_dollars", "What replies cost, where known", *model)
        self.unpriced = counter("unpriced_replies", "Replies of unknown cost", *model)
        self.calls = counter("tool_calls", "Tool calls that ended", "tool", "outcome")
        self.tool_s = timer("tool_seconds", "From the start of a call to its end", "tool")
        self.approvals = counter("approvals_asked", "Calls put before a person")
        self.commit_s = timer("store_commit_seconds", "A commit", buckets=COMMIT_SECONDS)
        self.commit_orders = timer("store_commit_orders", "Orders in a commit", buckets=ORDERS)
        self.lag_s = timer("loop_lag_seconds", "How late the event loop is", buckets=LAG_SECONDS)
        self.blocked = counter("loop_blocked", "Times that something held the event loop")
