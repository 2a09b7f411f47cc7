"""What clients that carry their conversation call a call: an id in which its run is, too.

They send it back with the result, and nothing else that would say where it belongs.  It has the 40
characters that OpenAI takes, so that a conversation can go on with another server.

    42 bits   milliseconds of the run       40 bits   those of the call, from there on
    64 bits   the run's chance              64 bits   the call's

Invariant: a call has one such id, and it tells run and call; whatever else is sent names neither.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from msgspec.structs import replace

from hostler.core.events import CallId, RunId, ToolCall
from hostler.core.ports import Reply
from hostler.core.said import ModelSaid, Said, ToolSaid

_OURS = re.compile(r"(?:call|run)_([0-9a-f]{12})([0-9a-f]{16})", re.ASCII)
"""As `core.ports.mint` makes them."""
_TOLD = re.compile(r"call_([A-Za-z0-9_-]{35})", re.ASCII)
_TIME, _SINCE, _CHANCE = 42, 40, 64
_BYTES = 27
"""The six bits that are left of them are zero, and the last of 36 letters is not sent."""


def told(run: RunId, call: CallId) -> CallId:
    """Return what a client is to call a call; as it is, where ids are not minted as ours are."""
    ran, asked = _OURS.fullmatch(run), _OURS.fullmatch(call)
    if ran is None or asked is None:
        return call
    at, since = int(ran[1], 16), int(asked[1], 16) - int(ran[1], 16)
    if at >> _TIME or not -(1 << _SINCE - 1) <= since < 1 << _SINCE - 1:
        return call
    made = at << _CHANCE | int(ran[2], 16)
    made = (made << _SINCE | since % (1 << _SINCE)) << _CHANCE | int(asked[2], 16)
    text = urlsafe_b64encode((made << 6).to_bytes(_BYTES, "big")).decode()
    return CallId(f"call_{text[:-1]}")


def named(run: RunId, reply: Reply) -> Reply:
    """Return a reply of a run with the ids by which its client is to know the calls."""
    if not reply.calls:
        return reply
    return replace(reply, calls=tuple(replace(one, id=told(run, one.id)) for one in reply.calls))


def read(name: str) -> tuple[RunId, CallId] | None:
    """Return what a client means; None: it is no id of ours."""
    match = _TOLD.fullmatch(name)
    if match is None:
        return None
    try:
        made = int.from_bytes(urlsafe_b64decode(f"{match[1]}A"), "big") >> 6
    except binascii.Error:
        return None
    chance = (1 << _CHANCE) - 1
    asked, made = made & chance, made >> _CHANCE
    since, made = made & (1 << _SINCE) - 1, made >> _SINCE
    ran, at = made & chance, made >> _CHANCE
    since -= since >> _SINCE - 1 << _SINCE
    if at + since < 0:
        return None
    return RunId(f"run_{at:012x}{ran:016x}"), CallId(f"call_{at + since:012x}{asked:016x}")


def renamed(said: Sequence[Said]) -> tuple[list[Said], dict[CallId, RunId]]:
    """Return what was said with the ids that calls have here, and the runs that clients name."""
    runs = dict[CallId, RunId]()

    def one(call: ToolCall) -> ToolCall:
        meant = read(call.id)
        if meant is None:
            return call
        runs[meant[1]] = meant[0]
        return replace(call, id=meant[1], provider_id=None)

    made = list[Said]()
    for each in said:
        if isinstance(each, ModelSaid):
            made.append(replace(each, calls=tuple(map(one, each.calls))) if each.calls else each)
        elif isinstance(each, ToolSaid):
            made.append(replace(each, call=one(each.call)))
        else:
            made.append(each)
    return made, runs
