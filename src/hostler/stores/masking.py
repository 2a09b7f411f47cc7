"""What people and programs wrote into rows that no fact tells, and so a scrub has to mask there.

The other fields are words and ids of ours: masked, a row could not be read again.

Invariant: shared by all stores, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hostler.beside.webhooks import Delivery, Webhook
from hostler.core.ledger import DirectCall
from hostler.core.records import Approval, Session
from hostler.core.sealed import Mask

FREE_TEXT: Mapping[type[Struct], tuple[str, ...]] = {
    Session: ("title", "metadata", "client_tools"),
    Approval: ("name", "arguments", "reason"),
    DirectCall: ("purpose", "model", "error_message"),
    Webhook: ("url", "description"),
    Delivery: ("body", "error"),
}


def masked_row(mask: Mask, row: Struct) -> Struct:
    """Return a row with its free text masked; the same one when there is nothing to mask."""
    values = {name: mask.value(getattr(row, name)) for name in FREE_TEXT[type(row)]}
    is_same = all(getattr(row, name) == value for name, value in values.items())
    return row if is_same else replace(row, **values)


def masked_answer(mask: Mask, stored: bytes) -> bytes:
    """Return a kept answer, a status and JSON, masked."""
    status, space, body = stored.partition(b" ")
    try:
        return status + space + mask.json(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return mask.text(stored.decode("utf-8", "replace")).encode()
