"""An answer that is waited for: a long poll, or the end of a run.

Invariant: whoever waits has a place among the open streams as long as they do, and waits no longer
than their right lasts, or than they are there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send

from hostler.faces.http.answers import tell
from hostler.faces.http.decode import digits
from hostler.faces.http.endpoint import Call, answered
from hostler.faces.http.open_streams import OpenStreams, while_there
from hostler.faces.http.streaming import why_cut

Waited: TypeAlias = Callable[[], Awaitable[ASGIApp]]
LONGEST_WAIT_S = 300


def prefers_wait(call: Call) -> int:
    """Return the seconds of `Prefer: wait=N` (RFC 7240), 0 without it."""
    for preference in call.headers.get("prefer", "").split(","):
        name, _, value = preference.strip().partition("=")
        if name.lower() == "wait" and (wait_s := digits(value)) is not None:
            return min(wait_s, LONGEST_WAIT_S)
    return 0


class Awaited:
    """An ASGI application that answers with what `wait` returns.

    When the wait is cut, it answers with what `cut` returns, which asks again who may know that.
    """

    def __init__(
        self,
        call: Call,
        streams: OpenStreams,
        wait: Waited,
        *,
        cut: Waited,
        owns: ExitStack | None = None,
    ) -> None:
        self._call, self._streams = call, streams
        self._wait, self._cut, self._owns = wait, cut, owns or ExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call, answer = self._call, None
        what = f"{scope['method']} {scope['path']}"
        with self._owns:
            place = self._streams.one(
                scope, send, call.who, until=call.until, session=call.session, kind="poll"
            )
            with place as stream:
                async with while_there(receive):
                    answer = await answered(self._wait(), what)
        if answer is None and stream.why is None:
            return  # nobody is there to be answered
        if answer is None and stream.why == "revoked":
            answer = tell(why_cut(stream))
        if answer is None:
            answer = await answered(self._cut(), what)
        await answer(scope, receive, send)
