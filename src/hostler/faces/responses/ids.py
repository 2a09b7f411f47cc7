"""Names of ours as OpenAI's clients know them, and back.

    ses_T                the session      conv_T           the conversation
    what was said in a response           msg_T_12_0, rs_T_12_1, fc_T_12_2: of the model's reply
                                          that was asked for at 12, the first part and so on
    call_T               the call         mcpr_T           the request for an approval of it

Names of responses are in `beside.responses`: webhooks tell them, too.

Invariant: pure; what is none of these is nothing, and never an error.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from hostler.core.events import CallId, RunId, Seq, SessionId

_TAIL = r"[A-Za-z0-9-]{1,128}"
_ITEM = re.compile(rf"(?:msg|rs|fc|ctc|mcp|fco)_({_TAIL})_(\d{{1,18}})_(\d{{1,9}})", re.ASCII)
_CONVERSATION = re.compile(r"conv_([A-Za-z0-9_-]{1,128})", re.ASCII)
_CALL, _APPROVAL = "call_", "mcpr_"


class ItemId(NamedTuple):
    run: RunId
    asked: Seq
    place: int


def item_id(prefix: str, tail: str, asked: int, place: int) -> str:
    return f"{prefix}_{tail}_{asked}_{place}"


def read_item(text: object) -> ItemId | None:
    found = _ITEM.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    return ItemId(RunId(f"run_{found[1]}"), Seq(int(found[2])), int(found[3]))


def conversation_id(session: SessionId) -> str:
    return f"conv_{session.removeprefix('ses_')}"


def read_conversation(text: str) -> SessionId | None:
    """Return the session; a native name of one is taken, too."""
    found = _CONVERSATION.fullmatch(text)
    if found is not None:
        return SessionId(f"ses_{found[1]}")
    return SessionId(text) if text.startswith("ses_") else None


def approval_id(call: CallId) -> str:
    """Return what a request for an approval of a call is called."""
    own = call.startswith(_CALL)
    return f"{_APPROVAL}{call.removeprefix(_CALL)}" if own else f"{_APPROVAL}-{call}"


def read_approval(text: object) -> CallId | None:
    if not isinstance(text, str) or not text.startswith(_APPROVAL):
        return None
    tail = text.removeprefix(_APPROVAL)
    return CallId(tail[1:]) if tail.startswith("-") else CallId(f"{_CALL}{tail}")
