"""What a question is asked with: servers that run, how much, and a place for the figures.

Invariant: servers take turns within a repetition, so that what else the machine does hits all.
"""

from __future__ import annotations

import statistics
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

from bench import servers
from bench.machine import allow_files
from bench.servers import Server


class Size(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    reps: int = 3
    secs: float = 5.0
    """Of each closed loop, and of each paced stream."""
    at_once: tuple[int, ...] = (16, 64)
    burst: int = 500
    """Tokens."""
    streams: int = 500
    firsts: int = 20
    """Turns, of which the median time to the first token is taken."""
    sessions: int = 1000
    turns: int = 200
    """Of the long session, before it is measured."""
    late_turns: int = 50
    events: int = 10_000
    answers: int = 40
    """Streams that each client of a model reads."""
    watchers: int = 100
    """Of one run."""
    many_streams: tuple[int, ...] = (1000, 2000)
    idle_sessions: int = 10_000
    idle_streams: int = 2000
    kept_sessions: int = 100_000
    messages: int = 1_000_000
    """In them."""
    asks: int = 200
    """Requests, of which a percentile is taken."""
    live_runs: int = 1000
    """While metrics are asked for."""
    kills: int = 20
    """Of nodes of a fleet, with each lease."""
    leases_s: tuple[float, ...] = (5.0, 1.5)
    between: tuple[int, ...] = (50, 500)
    """Streams that are driven on one node and watched on another."""


SMALLEST = Size(
    reps=1,
    secs=0.1,
    at_once=(2,),
    burst=5,
    streams=3,
    firsts=2,
    sessions=5,
    turns=2,
    late_turns=2,
    events=50,
    answers=1,
    watchers=3,
    many_streams=(3, 4),
    idle_sessions=5,
    idle_streams=3,
    kept_sessions=20,
    messages=100,
    asks=2,
    live_runs=3,
    kills=1,
    leases_s=(1.0,),
    between=(2,),
)


class Row(Struct, frozen=True, kw_only=True):
    """One figure of one server."""

    question: str
    case: str
    figure: str
    unit: str
    server: str
    samples: list[float]
    """One of each repetition."""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        return (max(self.samples) - min(self.samples)) / 2


@dataclass(slots=True)
class Figures:
    """Collects the samples of one question."""

    question: str
    _rows: dict[tuple[str, str, str], Row] = field(default_factory=dict[tuple[str, str, str], Row])

    def add(self, server: str, case: str, figure: str, value: float, unit: str) -> None:
        row = Row(
            question=self.question,
            case=case,
            figure=figure,
            unit=unit,
            server=server,
            samples=[],
        )
        self._rows.setdefault((server, case, figure), row).samples.append(value)

    def rows(self) -> list[Row]:
        return list(self._rows.values())


@dataclass(frozen=True, slots=True)
class Setting:
    """Servers under test, started on empty folders, and the model server behind them."""

    size: Size
    servers: Sequence[Server]
    model_port: int
    folder: Path
    """For more of them."""

    def turns(self) -> Iterator[Server]:
        """Yield each server in each repetition, beginning with another one each time."""
        for rep in range(self.size.reps):
            yield from self.servers if rep % 2 == 0 else reversed(self.servers)


@asynccontextmanager
async def set_up(size: Size) -> AsyncGenerator[Setting]:
    """Start all that a question needs; leaving stops it and removes its folder."""
    allow_files()
    with TemporaryDirectory(prefix="hostler-bench-") as name:
        folder = Path(name)
        for one in ("mock", "hostler", "floor"):
            (folder / one).mkdir()
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(servers.mock(folder / "mock"))
            running = [
                await stack.enter_async_context(servers.hostler(folder / "hostler", port)),
                await stack.enter_async_context(servers.floor(folder / "floor", port)),
            ]
            yield Setting(size, running, port, folder)
