"""The streams of one server: cut at shutdown, when a right ends, or when nobody reads them.

A stream says when it begins to wait for its client; one timer looks at all of them.

Invariant: a client that stops reading holds what fits the buffers of its connection, one chunk,
and `signals`' bounded list, for `SLOW_S` and a little more; then it holds nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal, TypeAlias, cast

import anyio
import anyio.lowlevel
from starlette.types import Message, Scope, Send

from hostler.core.errors import TooMany
from hostler.core.events import PrincipalId
from hostler.service.limits import MOST_STREAMS

SLOW_S = 30.0
"""A chunk that is not taken in this time ends its stream: less than 2 KiB a second."""
LOOKS = 6
"""How often a stream is looked at in that time."""
SLOW = 4008
"""The close code of a socket whose client does not read."""
CUT, DROP = "hostler.cut", "drop"
"""The extension of an ASGI scope under which our server lets us drop a connection as it is."""

Why: TypeAlias = Literal["draining", "revoked", "slow"]


class OpenStream:
    """What a stream sends through, and can be cut by."""

    __slots__ = ("_send", "scope", "since", "who", "why")

    def __init__(self, send: Send, who: PrincipalId) -> None:
        self._send = send
        self.scope = anyio.CancelScope()
        self.who = who
        self.since: float | None = None
        """When it began to wait for its client; None: it does not."""
        self.why: Why | None = None
        """Why it was cut, if it was."""

    async def send(self, message: Message) -> None:
        if self.since is None:
            self.since = time.monotonic()
        try:
            await self._send(message)
        except OSError:  # the client is gone
            self.scope.cancel()
            await anyio.lowlevel.checkpoint()
        # Some chunk was taken: whoever else waits for this client has begun to wait anew.
        self.since = None

    def cut(self, why: Why) -> None:
        self.why = self.why or why
        self.scope.cancel()

    def look(self, slow_s: float) -> None:
        """Cut the stream if its client does not read."""
        if self.since is not None and time.monotonic() - self.since >= slow_s:
            self.cut("slow")


class OpenStreams:
    """All of one server, which have no end of their own."""

    def __init__(self, *, slow_s: float = SLOW_S, most: int = MOST_STREAMS) -> None:
        """`most`: of one principal."""
        self._slow_s, self._most = slow_s, most
        self._of = Counter[PrincipalId]()
        self._streams = set[OpenStream]()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._streams)

    def check(self, who: PrincipalId) -> None:
        """Return if `who` may open one more.  Raises TooMany."""
        if self._of[who] >= self._most:
            raise TooMany(f"{self._most:,} streams are open, which is all there may be")

    @contextmanager
    def one(self, send: Send, who: PrincipalId, until: float | None) -> Generator[OpenStream]:
        """Let a stream be cut while it is open: what is in this context is then left."""
        stream = OpenStream(send, who)
        self._streams.add(stream)
        self._of[who] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._slow_s / LOOKS, self._look)
        try:
            with stream.scope:
                if until is not None:
                    stream.scope.deadline = anyio.current_time() + until - time.time()
                yield stream
            if stream.why is None and until is not None and time.time() >= until:
                stream.why = "revoked"
        finally:
            self._streams.discard(stream)
            self._of -= Counter((who,))
            if not self._streams:
                self._rest()

    def close(self) -> None:
        """Cut every stream; its client comes back with its cursor."""
        for stream in self._streams:
            stream.cut("draining")

    def revoke(self, who: PrincipalId) -> None:
        """Cut all streams of somebody whose right has ended."""
        for stream in self._streams:
            if stream.who == who:
                stream.cut("revoked")

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        for stream in self._streams:
            stream.look(self._slow_s)
        self._timer = asyncio.get_running_loop().call_later(self._slow_s / LOOKS, self._look)


def cutter(scope: Scope) -> Callable[[int, str], None] | None:
    """Return what drops the connection without waiting for its client, if the server has it."""
    found = scope.get("extensions", {}).get(CUT, {}).get(DROP)
    return cast("Callable[[int, str], None] | None", found)
