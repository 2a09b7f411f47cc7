"""How sockets of all faces are closed, and why.

Invariant: a close tells its client whether to come back.
"""

from __future__ import annotations

from collections.abc import Mapping

import anyio
from starlette.types import Scope, Send

from hostler.faces.http.open_streams import SLOW, Why, cutter

BAD_KEY, GONE, DRAINING, AGAIN = 4401, 4404, 1012, 1013
CLOSING: Mapping[Why, tuple[int, str]] = {
    "draining": (DRAINING, "the server stops; come back with your cursor"),
    "revoked": (BAD_KEY, "the key, ticket or link is good no more"),
    "unshared": (BAD_KEY, "the session is not shared with you as it was"),
    "slow": (SLOW, "too slow; come back with your cursor"),
}


async def close(why: Why, scope: Scope, send: Send) -> None:
    """Close a socket that was cut."""
    code, reason = CLOSING[why]
    if why == "slow" and (cut := cutter(scope)) is not None:
        cut(code, reason)
        return
    with anyio.move_on_after(1, shield=True):
        try:
            await send({"type": "websocket.close", "code": code, "reason": reason})
        except OSError:  # gone, or closed by the server in the same words
            return
