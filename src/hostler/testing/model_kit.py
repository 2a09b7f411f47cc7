"""What every `core.ports.Model` that speaks to a provider promises: run it on yours.

    @pytest.mark.parametrize("case", model_kit.cases(CHAT, CHAT_QUIRKS), ids=str)
    async def test_my_model(case):
        await case.check(lambda setup: open_my_model(setup))

`open_my_model` takes a `model_trial.Setup` and is an async context manager that gives the model.
Each case is one thing that providers do, played byte by byte by a server on loopback, or one
thing that a model owes its caller.  What is checked of all of them stands in `model_trial`.

A new wire API needs a `WireFormat` (`testing.wire_chat` is one, in 150 lines) and its own quirks
as scenarios (`testing.chat_quirks`); everything else is here already.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import anyio

from hostler.testing.model_behaviours import BEHAVIOURS
from hostler.testing.model_refusals import FLOODS, STATUSES, WORDINGS
from hostler.testing.model_scenarios import ANSWERS, BREAKS, EVENTS, SHAPES
from hostler.testing.model_script import Scenario, WireFormat
from hostler.testing.model_trial import DEADLINE_S, Make, play

SCENARIOS: Sequence[Scenario] = (
    *ANSWERS,
    *SHAPES,
    *BREAKS,
    *FLOODS,
    *EVENTS,
    *STATUSES,
    *WORDINGS,
)
"""Those that every wire API can have."""


@dataclass(frozen=True, slots=True)
class Case:
    """One test of the kit."""

    name: str
    run: Callable[[WireFormat, Make], Awaitable[None]]
    wire: WireFormat

    def __str__(self) -> str:
        return self.name

    async def check(self, make: Make) -> None:
        """Raise AssertionError if the model that `make` makes does not hold to it."""
        try:
            with anyio.fail_after(DEADLINE_S):
                await self.run(self.wire, make)
        except ExceptionGroup as group:  # the server's tasks wrap what went wrong beside them
            raise _first(group) from group


def _first(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    if not isinstance(first, ExceptionGroup):
        return first
    return _first(cast("ExceptionGroup[Exception]", first))


def cases(wire: WireFormat, quirks: Sequence[Scenario] = ()) -> Sequence[Case]:
    """Return all cases for a wire API; `quirks` are its own."""
    return [
        *(Case(one.name, partial(play, one), wire) for one in (*SCENARIOS, *quirks)),
        *(Case(one.__name__.replace("_", " "), one, wire) for one in BEHAVIOURS),
    ]
