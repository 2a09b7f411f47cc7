"""What a person is told of a session: the words that a story is made of.

Invariant: no behaviour, and nothing of how it looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from hostler.core.events import JsonObject

PART: TypeAlias = Literal["thinking", "text"]


@dataclass(frozen=True, slots=True)
class Spoke:
    """The user said something, and it is its turn."""

    text: str


@dataclass(frozen=True, slots=True)
class Waits:
    """The user said something that waits for the run that is going."""

    text: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A model was asked, and has not said anything yet."""

    model: str


@dataclass(frozen=True, slots=True)
class Words:
    """More of the reply."""

    part: PART
    text: str


@dataclass(frozen=True, slots=True)
class Anew:
    """What was told of the reply is void; it begins anew."""


@dataclass(frozen=True, slots=True)
class Writes:
    """The model writes the arguments of a call."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Replied:
    """The reply is complete."""


@dataclass(frozen=True, slots=True)
class Calls:
    """A tool began."""

    call: str
    name: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True)
class Shows:
    """A tool that runs shows something."""

    part: JsonObject
    """As the fact has it."""


@dataclass(frozen=True, slots=True)
class Called:
    """A tool ended, or was not run at all."""

    call: str
    name: str
    arguments: JsonObject
    outcome: str
    output: str
    took_s: float | None
    principal: str | None = None
    """Who answered a call that is for clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wants:
    """A call waits for somebody's approval."""

    call: str
    name: str
    arguments: JsonObject
    """As it would run with."""
    digest: str
    """What an approval of just this is bound to."""
    who: str
    """Who asks, and for whom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The model asks whoever is there."""

    call: str
    question: str
    options: Sequence[str] = ()
    schema: JsonObject | None = None
    """What the answer has to fit."""
    who: str


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A call waits for the client that brought its tool."""

    call: str
    name: str
    arguments: JsonObject


Wait: TypeAlias = Wants | Question | Elsewhere
"""What a run waits for, of somebody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A request for an approval was answered."""

    call: str
    name: str
    decision: str
    principal: str
    arguments: JsonObject | None
    """To run with instead."""
    is_remembered: bool
    """There is no more asking about this tool in this session."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A model gave no reply; without `retry_after_s` it is not asked again."""

    code: str
    message: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class Over:
    """A run ended."""

    run: str
    status: str
    reason: str | None
    usage: JsonObject
    took_s: float | None


Item: TypeAlias = (
    Spoke
    | Waits
    | Asked
    | Words
    | Anew
    | Writes
    | Replied
    | Calls
    | Shows
    | Called
    | Wait
    | Decided
    | Trouble
    | Over
)
