"""Facts to JSON and back: the only module that knows how a fact is written down.

Old logs stay readable for ever.  Fields may be added with a default; anything else needs an
upcaster here, and a golden log in `tests/logs` that fails without it.

Invariant: `load(dump(fact)) == fact`, and what `load` cannot know comes back as `Unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from hostler.core.events import KIND_OF, Fact, JsonObject, RunId, Unknown


class CorruptFact(ValueError):
    """Stored bytes of a kind we know that do not have its form: damage, not a newer build."""


Upcaster = Callable[[JsonObject], JsonObject]

UPCASTERS: Mapping[str, Upcaster] = {}
"""By kind: from the stored form of an older release to today's.  Tried only when today's fails."""


class _Stub(msgspec.Struct, frozen=True):
    kind: str
    run: object = None


_encoder = msgspec.json.Encoder(decimal_format="string")
_fact: msgspec.json.Decoder[Fact] = msgspec.json.Decoder(Fact)
_stub = msgspec.json.Decoder(_Stub)
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
