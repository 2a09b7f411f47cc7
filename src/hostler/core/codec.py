"""Facts to JSON and back: the only module that knows how a fact is written down.

Old logs stay readable for ever.  Fields may be added with a default; anything else needs an
upcaster here, and a golden log in `tests/logs` that fails without it.

Invariant: `load(dump(fact)) == fact`, and what `load` cannot know comes back as `Unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, get_args

import msgspec

from hostler.core.events import (
    KIND_OF,
    ApprovalGiven,
    CallId,
    ConversationEdited,
    Fact,
    JsonObject,
    Outcome,
    RunId,
    RunStarted,
    Seq,
    SessionForked,
    SessionRewound,
    Stop,
    ToolCall,
    Unknown,
    UserSpoke,
)


class CorruptFact(ValueError):
    """Stored bytes of a kind we know that do not have its form: damage, not a newer build."""


Upcaster = Callable[[JsonObject], JsonObject]

UPCASTERS: Mapping[str, Upcaster] = {}
"""By kind: from the stored form of an older release to today's.  Tried only when today's fails."""


class _Stub(msgspec.Struct, frozen=True):
    kind: str
    run: object = None


class Replied(msgspec.Struct, frozen=True, tag_field="kind", tag="model_replied", gc=False):
    """Of a `ModelReplied`, what the conversation needs."""

    seen: Seq
    text: str
    calls: tuple[ToolCall, ...]
    stop: Stop
    thinking: str | None = None
    replay: JsonObject | None = None


class Finished(msgspec.Struct, frozen=True, tag_field="kind", tag="tool_finished", gc=False):
    """Of a `ToolFinished`, what the conversation needs."""

    call: CallId
    outcome: Outcome
    output: str


Spoken: TypeAlias = (
    UserSpoke
    | RunStarted
    | Replied
    | Finished
    | ApprovalGiven
    | SessionForked
    | SessionRewound
    | ConversationEdited
)
SPOKEN = tuple(str(member.__struct_config__.tag) for member in get_args(Spoken))
"""Of runs that ended, these kinds are all that matters later; see `memory.remember`."""

_encoder = msgspec.json.Encoder(decimal_format="string")
_fact: msgspec.json.Decoder[Fact] = msgspec.json.Decoder(Fact)
_stub = msgspec.json.Decoder(_Stub)
_spoken: msgspec.json.Decoder[list[Spoken]] = msgspec.json.Decoder(list[Spoken])
_spoken_one: msgspec.json.Decoder[Spoken] = msgspec.json.Decoder(Spoken)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
KINDS = frozenset(KIND_OF.values())
"""Every kind this build knows."""

dump = _encoder.encode
"""Return a fact as JSON, `kind` first."""


def load(raw: bytes | str) -> Fact | Unknown:
    """Return the fact that `dump` wrote, in this release, an older or a newer one.

    Raises:
        CorruptFact: it is a kind we know, and not its form.
    """
    try:
        return _fact.decode(raw)
    except msgspec.ValidationError as error:
        return _load_foreign(raw, error)
    except _UNREADABLE as error:
        raise CorruptFact(f"a stored fact is not JSON: {error}") from error


def load_spoken(facts: str | bytes) -> Sequence[Spoken]:
    """Return facts of the kinds in `SPOKEN`, given as JSON with commas between them.

    Most of a long conversation is read this way each time it goes on: what is not needed for that
    (usage, ids of attempts) is passed over, which takes half the time.

    Raises:
        CorruptFact: as `load`.
    """
    brackets = ("[", "]") if isinstance(facts, str) else (b"[", b"]")
    listed = facts.join(brackets)  # type: ignore[arg-type]
    try:
        return _spoken.decode(listed)
    except msgspec.ValidationError:  # an older form: one by one
        return [_spoken_one.decode(dump(load(bytes(one)))) for one in _raws.decode(listed)]
    except _UNREADABLE as error:
        raise CorruptFact(f"a stored fact is not JSON: {error}") from error


def _load_foreign(raw: bytes | str, error: msgspec.ValidationError) -> Fact | Unknown:
    try:
        stub = _stub.decode(raw)
    except (*_UNREADABLE, msgspec.ValidationError):
        raise CorruptFact(f"a stored fact has no kind: {error}") from error
    if stub.kind not in KINDS:
        return Unknown(run=RunId(stub.run) if isinstance(stub.run, str) else None, kind=stub.kind)
    upcast = UPCASTERS.get(stub.kind)
    if upcast is None:
        raise CorruptFact(f"a stored {stub.kind} does not have its form: {error}") from error
    try:
        return msgspec.convert(upcast(msgspec.json.decode(raw, type=dict[str, object])), Fact)
    except msgspec.ValidationError as again:
        raise CorruptFact(f"a stored {stub.kind} cannot be upcast: {again}") from again
