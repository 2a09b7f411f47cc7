"""What a model wants back word for word, as a token that its client keeps: a block's `signature`.

The API has room for an opaque text beside each thought, and for a block that is nothing else.  What
`Reply.replay` holds goes there, and comes back with the conversation.

Invariant: whatever comes back, opening it never fails: what is no token of ours is as good as none.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec
from msgspec import Struct

from hostler.core.events import JsonObject
from hostler.core.ports import Reply

VERSION = "hostler1."


class Seal(Struct, frozen=True, kw_only=True, omit_defaults=True):
    replay: JsonObject | None = None
    thinking: str | None = None
    """What was thought, where the client was not shown it."""
    calls: dict[str, str] = {}
    """The provider's ids of calls, by ours."""


NOTHING = Seal()
_decode = msgspec.json.Decoder(Seal).decode


def sealed(seal: Seal) -> str:
    """Return the token."""
    return VERSION + urlsafe_b64encode(msgspec.json.encode(seal)).decode()


def seal_of(reply: Reply, *, shown: bool) -> Seal:
    """Return what is to come back of a reply; `shown`: the client gets its thoughts as text."""
    hidden = None if shown else reply.thinking
    if reply.replay is None and hidden is None:
        return NOTHING
    ids = {str(one.id): one.provider_id for one in reply.calls if one.provider_id}
    return Seal(replay=reply.replay, thinking=hidden, calls=ids)


def opened(token: object) -> Seal:
    """Return what a token holds; nothing, of what is none."""
    if not isinstance(token, str) or not token.startswith(VERSION):
        return NOTHING
    try:
        return _decode(urlsafe_b64decode(token.removeprefix(VERSION)))
    except (binascii.Error, ValueError, RecursionError):
        return NOTHING
