"""What a model wants back verbatim, as an opaque token that clients carry.

Chat Completions has no field for it; clients of OpenRouter know `reasoning_details`, and send back
what they got there.

Invariant: a token is data of whoever sends it: what cannot be read is as good as none.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import msgspec

from hostler.core.events import JsonObject
from hostler.faces.chat.bodies import Detail

FORMAT = "hostler-v1"
_decode = msgspec.json.Decoder(dict[str, object]).decode


def detail(replay: JsonObject) -> JsonObject:
    """Return the one item of `reasoning_details`."""
    data = base64.urlsafe_b64encode(msgspec.json.encode(replay)).decode()
    return {
        "type": "reasoning.encrypted",
        "data": data,
        "id": None,
        "format": FORMAT,
        "index": 0,
    }


def replay_of(details: Sequence[Detail] | None) -> JsonObject | None:
    """Return what was given out as `detail`; None if it is not there, or not whole."""
    for one in details or ():
        if one.format == FORMAT and isinstance(one.data, str):
            try:
                return _decode(base64.urlsafe_b64decode(one.data))
            except (binascii.Error, ValueError, RecursionError):
                return None
    return None
