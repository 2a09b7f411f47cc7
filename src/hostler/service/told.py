"""A run's calls as its facts tell them.

Invariant: pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct

from hostler.core.events import (
    Event,
    Fault,
    JsonObject,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    ToolFinished,
    ToolStarted,
    Usage,
)


class ModelCall(Struct, kw_only=True):
    """One attempt: what it cost, how long it took, how it ended."""

    attempt: str
    provider: str
    model: str
    step: int
    number: int
    asked_at: float
    ended_at: float | None = None
    status: str = "open"
    usage: Usage | None = None
    error: Fault | None = None
    first_token_s: float | None = None

    @property
    def latency_s(self) -> float | None:
        return _between(self.asked_at, self.ended_at)


class ToolRun(Struct, kw_only=True):
    """One call of a tool."""

    call: str
    name: str
    step: int
    arguments: JsonObject
    started_at: float
    ended_at: float | None = None
    status: str = "open"
    output: str | None = None

    @property
    def latency_s(self) -> float | None:
        return _between(self.started_at, self.ended_at)


@dataclass(slots=True)
class Told:
    """The calls so far, in order; give it the run's events."""

    models: dict[str, ModelCall] = field(default_factory=dict[str, ModelCall])
    tools: dict[str, ToolRun] = field(default_factory=dict[str, ToolRun])
    step: int = 1
    number: int = 0

    def hear(self, event: Event) -> None:
        """Take in one more event."""
        fact = event.fact
        if isinstance(fact, ModelAsked):
            self.number += 1
            self.models[fact.attempt] = ModelCall(
                attempt=fact.attempt,
                provider=fact.provider,
                model=fact.model,
                step=self.step,
                number=self.number,
                asked_at=event.at,
            )
        elif isinstance(fact, ToolStarted | ToolFinished):
            self._tool(event, fact)
        else:
            self._end(event)

    def _end(self, event: Event) -> None:
        fact = event.fact
        call = self.models.get(getattr(fact, "attempt", ""))
        if call is None or call.status != "open":
            return
        call.ended_at = event.at
        if not isinstance(fact, ModelReplied | ModelFailed):
            call.status = "dropped"
            return
        call.usage, call.first_token_s = fact.usage, fact.first_token_s
        if isinstance(fact, ModelFailed):
            call.status, call.error = "failed", fact.error
        else:
            call.status, self.step, self.number = "replied", self.step + 1, 0

    def _tool(self, event: Event, fact: ToolStarted | ToolFinished) -> None:
        if isinstance(fact, ToolStarted):
            self.tools[fact.call] = ToolRun(
                call=fact.call,
                name=fact.name,
                step=self.step - 1,
                arguments=fact.arguments,
                started_at=event.at,
            )
        elif (call := self.tools.get(fact.call)) is not None:
            call.status, call.output, call.ended_at = fact.outcome, fact.output, event.at


def _between(start: float, end: float | None) -> float | None:
    return None if end is None else round(end - start, 6)
