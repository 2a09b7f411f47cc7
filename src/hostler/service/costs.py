"""What in a run cost what: its steps, the model calls of each with what their prompts were made of,
and the tool calls they led to.

Characters are counted, tokens are apportioned: a provider says how many the whole prompt had, and
each source gets the part of them that it has of the characters.  Instructions and schemas of tools
are not in the log, so those of the agent as it is served now are counted.

Invariant: pure; linear in the log, however many calls a run makes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from hostler.core.events import Event, ModelAsked, RunId, Usage
from hostler.core.ports import ToolSpec
from hostler.core.records import RunRow
from hostler.core.said import Content, ModelSaid, Said, TextPart, ToolSaid, UserSaid
from hostler.core.state import State, add, fold, prompt
from hostler.service.told import ModelCall, Told, ToolRun


class Source(Struct, frozen=True, kw_only=True):
    """A part of a prompt."""

    source: str
    """`system`, `tools`, `user`, `assistant`, `thinking`, `attachments` or `tool:NAME`."""
    characters: int
    tokens: int | None
    """Its share of the tokens that the provider counted; null when it told none."""


class CallCost(Struct, frozen=True, kw_only=True):
    attempt: str
    number: int
    provider: str
    model: str
    status: str
    usage: Usage | None
    latency_s: float | None
    first_token_s: float | None
    prompt: Sequence[Source]


class ToolCost(Struct, frozen=True, kw_only=True):
    call: str
    name: str
    status: str
    latency_s: float | None
    output_characters: int


class StepCost(Struct, frozen=True, kw_only=True):
    step: int
    usage: Usage
    """Of all its model calls; the cost is null when any is not known."""
    model_calls: Sequence[CallCost]
    tool_calls: Sequence[ToolCost]


class Costs(Struct, frozen=True, kw_only=True):
    run: RunId
    session: str
    usage: Usage
    unpriced_calls: int
    steps: Sequence[StepCost]


@dataclass(slots=True)
class CostTree:
    """The tree in the making; give it the session's events from the first one on."""

    run: RunId
    system: str
    tools: Sequence[ToolSpec]
    state: State = field(default_factory=State)
    told: Told = field(default_factory=Told)
    counted: int = 0
    """Entries of the transcript."""
    sizes: Counter[str] = field(default_factory=Counter[str])
    prompts: dict[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    """By attempt: characters by source."""

    def take(self, events: Iterable[Event]) -> None:
        """Take in more events."""
        for event in events:
            if event.fact.run == self.run:
                if isinstance(event.fact, ModelAsked):
                    self.prompts[event.fact.attempt] = self._prompt()
                self.told.hear(event)
            fold(self.state, [event])

    def costs(self, row: RunRow) -> Costs:
        """Return the tree."""
        models, tools = self.told.models.values(), self.told.tools.values()
        numbers = sorted({one.step for one in (*models, *tools)})
        steps = [
            self._step(
                number,
                [one for one in models if one.step == number],
                [one for one in tools if one.step == number],
            )
            for number in numbers
        ]
        return Costs(
            run=row.id,
            session=row.session,
            usage=_sum(step.usage for step in steps),
            unpriced_calls=row.unpriced_calls,
            steps=steps,
        )

    def _prompt(self) -> Mapping[str, int]:
        said = prompt(self.state)
        if len(said) < self.counted:  # it was made shorter
            self.counted = 0
            self.sizes.clear()
        for one in said[self.counted :]:
            self.sizes.update(sizes_of(one))
        self.counted = len(said)
        fixed = {"system": len(self.system), "tools": sum(map(_schema, self.tools))}
        return {name: size for name, size in (fixed | self.sizes).items() if size}

    def _step(self, number: int, models: Sequence[ModelCall], tools: Sequence[ToolRun]) -> StepCost:
        return StepCost(
            step=number,
            usage=_sum(one.usage for one in models),
            model_calls=[self._call(one) for one in models],
            tool_calls=[
                ToolCost(
                    call=one.call,
                    name=one.name,
                    status=one.status,
                    latency_s=one.latency_s,
                    output_characters=len(one.output or ""),
                )
                for one in tools
            ],
        )

    def _call(self, call: ModelCall) -> CallCost:
        told = None if call.usage is None else call.usage.input_tokens or None
        return CallCost(
            attempt=call.attempt,
            number=call.number,
            provider=call.provider,
            model=call.model,
            status=call.status,
            usage=call.usage,
            latency_s=call.latency_s,
            first_token_s=call.first_token_s,
            prompt=apportioned(self.prompts[call.attempt], told),
        )


def apportioned(sizes: Mapping[str, int], tokens: int | None) -> list[Source]:
    """Return the sources, largest first; their tokens add up to `tokens` (largest remainders).

    Attachments are sent in a form whose tokens do not follow from their size: they get none.
    """
    worded = {name: size for name, size in sizes.items() if name != "attachments"}
    total, shares = sum(worded.values()), dict[str, int]()
    if tokens is not None and total:
        exact = {name: divmod(size * tokens, total) for name, size in worded.items()}
        left = tokens - sum(whole for whole, _ in exact.values())
        by_rest = sorted(exact, key=lambda name: (-exact[name][1], name))
        shares = {name: exact[name][0] + (name in by_rest[:left]) for name in exact}
    return [
        Source(source=name, characters=size, tokens=shares.get(name))
        for name, size in sorted(sizes.items(), key=lambda one: (-one[1], one[0]))
    ]


def sizes_of(said: Said) -> Mapping[str, int]:
    """Return the characters of one entry of a prompt by source."""
    match said:
        case UserSaid(content=content):
            return _content(content)
        case ModelSaid(text=text, calls=calls, thinking=thinking):
            asked = sum(len(call.name) + _json(call.arguments) for call in calls)
            return {"assistant": len(text) + asked, "thinking": len(thinking or "")}
        case ToolSaid(call=call, output=output):
            return {f"tool:{call.name}": len(output)}


def _content(content: Content) -> Mapping[str, int]:
    if isinstance(content, str):
        return {"user": len(content)}
    sizes = Counter[str]()
    for part in content:
        if isinstance(part, TextPart):
            sizes["user"] += len(part.text)
        else:
            sizes["attachments"] += len(part.data or part.url or "")
    return sizes


def _schema(spec: ToolSpec) -> int:
    return len(spec.name) + len(spec.description) + _json(spec.parameters)


def _json(value: object) -> int:
    return len(msgspec.json.encode(value).decode())


def _sum(usages: Iterable[Usage | None]) -> Usage:
    total = Usage()
    for usage in usages:
        if usage is not None:
            total = add(total, usage)
    return total
