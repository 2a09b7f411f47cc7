"""Events whose JSON is broken in ways that do not matter: half a character, half an emoji.

Servers that send each token as it comes cut characters in two: as bytes that are no UTF-8, or as
one escaped half of a surrogate pair.  Each half becomes a replacement character.

Invariant: what is broken in any other way is a failure, told as such.
"""

from __future__ import annotations

import json
import re
from typing import TypeVar

import msgspec

from hostler.models.faults import Failed

T = TypeVar("T")

_SURROGATE = re.compile("[\ud800-\udfff]")


def mended(decoder: msgspec.json.Decoder[T], payload: bytes) -> T:
    """Return the event that `decoder` could not read.

    Raises:
        Failed: it is no JSON, or not what an event looks like.
    """
    try:
        value = json.loads(payload.decode("utf-8", "replace"))
        text = _SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False))
        return decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise Failed("server", f"it sent an event that cannot be read: {error}") from error
