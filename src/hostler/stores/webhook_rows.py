"""Webhooks and deliveries as rows have them: the same in every database.

Invariant: pure; a row that was made here is read here as what it was made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from hostler.beside.webhooks import Delivery, Webhook
from hostler.core import codec
from hostler.core.events import Event, Seq, SessionId
from hostler.stores.log_rows import Row
from hostler.stores.times import to_seconds, to_us

HOOK, DELIVERY = Webhook.__struct_fields__, Delivery.__struct_fields__
_TIMES = frozenset(
    name for name in (*HOOK, *DELIVERY) if name.endswith(("_at", "_until", "_since"))
)


def webhook_row(of: Webhook | Delivery) -> Row:
    return tuple(_column(name, getattr(of, name)) for name in of.__struct_fields__)


def _column(name: str, value: object) -> str | int | None:
    if isinstance(value, tuple):
        return msgspec.json.encode(value).decode()
    if name in _TIMES:
        return None if value is None else to_us(float(str(value)))
    return msgspec.convert(value, str | int | None)


def to_webhook(row: Sequence[object]) -> Webhook:
    values = _values(HOOK, row)
    if values["events"] is not None:
        values["events"] = msgspec.json.decode(str(values["events"]))
    return msgspec.convert(values, Webhook)


def to_delivery(row: Sequence[object]) -> Delivery:
    return msgspec.convert(_values(DELIVERY, row), Delivery)


def _values(names: Sequence[str], row: Sequence[object]) -> dict[str, object]:
    pairs = zip(names, row, strict=True)
    return {name: to_seconds(value) if name in _TIMES else value for name, value in pairs}


def run_events(session: SessionId, rows: Iterable[Sequence[object]]) -> Sequence[Event]:
    """Return events as rows of position, time and fact have them; none, if one cannot be read."""
    found = list[Event]()
    for seq, at, raw in cast("Iterable[tuple[Seq, int, str]]", rows):
        try:
            fact = codec.load(raw)
        except codec.CorruptFact:  # the log says so to whoever reads it; webhooks only tell less
            return ()
        found.append(Event(session=session, seq=seq, at=at / 1_000_000, fact=fact, raw=b""))
    return found
