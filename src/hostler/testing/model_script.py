"""What a provider says, apart from the wire API it says it in: the language of the model kit.

A `Scenario` is a list of steps (say this, begin that call, end), a `Shape` that its bytes are
given, the way its connection ends, and what a model must make of it.  A `WireFormat` renders the
steps; so one scenario tests every wire API, and a wire API adds the ones that only it can have.

Invariant: data only; nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from hostler.core.events import JsonObject, Stop, Usage
from hostler.core.ports import FaultCode

USAGE = Usage(input_tokens=20, output_tokens=9, cache_read_tokens=5, reasoning_tokens=4)

# -- steps: one event of the stream each, or what the wire API needs for one ------------------


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Think:
    text: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """The model declines, in words."""

    text: str


@dataclass(frozen=True, slots=True)
class Begin:
    """A call begins.  `call` is the script's name for it; `id` what the provider calls it."""

    call: str
    name: str
    id: str


@dataclass(frozen=True, slots=True)
class Args:
    """A fragment of the JSON text of a call's arguments."""

    call: str
    text: str


@dataclass(frozen=True, slots=True)
class Fault:
    """An error where an event should be."""

    kind: FaultKind
    message: str


@dataclass(frozen=True, slots=True)
class Raw:
    """These bytes, as they are."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """Whatever says, in this wire API, that the message is complete; with its usage."""

    stop: Stop = "end"
    usage: Usage = USAGE


Step: TypeAlias = Text | Think | Refuse | Begin | Args | Fault | Raw | End
FaultKind: TypeAlias = Literal["overloaded", "rate_limit", "server", "invalid", "auth"]


# -- how it comes ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is done to the bytes of the events; nothing of it may change what they say."""

    line_end: bytes = b"\n"
    space: bool = True
    """After `data:`."""
    comments: bool = False
    """Before each event."""
    start: bytes = b""
    """Before the first event."""
    piece_bytes: int | None = None
    """Sent in pieces of this size; None: an event at a time; 0: all at once."""


After: TypeAlias = Literal["end", "cut", "reset", "stall", "comments", "flood", "garbage"]
"""What comes after the last step: the body's end, the connection's without it, a reset, nothing,
comments for ever, the last step for ever, bytes that are no HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that must come out.  `arguments` of None: their text could not be parsed."""

    name: str
    arguments: JsonObject | None
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """The model must end with a `Reply` of this."""

    text: str = ""
    thinking: str | None = None
    calls: Sequence[Call] = ()
    stop: Stop = "end"
    usage: Usage | None = None
    """None: any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fails:
    """The model must end with a `Failure` of this, after deltas of `text`."""

    codes: Sequence[FaultCode]
    again: bool
    text: str | None = None
    """None: any."""
    retry_after_s: float | None = None
    says: str = ""
    """Words in the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    name: str
    """A sentence about the provider; it is the test's id."""
    expect: Replies | Fails
    steps: Sequence[Step] = ()
    shape: Shape = Shape()
    after: After = "end"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None
    """Instead of the steps."""
    head: bool = True
    """False: not even a status line is sent."""
    window: int | None = None
    """Tokens of context the model is told to have."""

    def __str__(self) -> str:
        return self.name


class WireFormat(Protocol):
    """One wire API, as a provider speaks it.  `testing.wire_chat` is an example.

    What only this wire API can say is a `Scenario` in `Raw` steps, as in `testing.chat_quirks`.
    A scenario may ask for what a wire API cannot say: fragments of two calls interleaved may then
    be sent one call after the other, and `Think` as whatever it shows of its reasoning.
    """

    @property
    def name(self) -> str: ...
    def events(self, steps: Sequence[Step]) -> Sequence[bytes]:
        """Return the events, each as it stands in the stream, its blank line included.

        Without an `End` the stream just stops: no event that closes anything is made up.
        """
        ...

    def refusal(self, kind: FaultKind, message: str) -> bytes:
        """Return the body of an answer with an error's status."""
        ...
