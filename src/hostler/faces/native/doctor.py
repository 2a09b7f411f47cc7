"""Ticks that say when they were sent, for finding out what a proxy does to a stream.

Invariant: sent exactly as sessions' events are, headers and all.
"""

from __future__ import annotations

import time

import anyio
from starlette.types import Receive, Scope, Send

from hostler.faces.http.endpoint import Call
from hostler.faces.http.form import encode
from hostler.faces.http.open_streams import OpenStream, OpenStreams, cutter, while_there
from hostler.faces.http.streaming import HEADERS
from hostler.faces.native.stream import OPENING

MOST_TICKS = 200
LONGEST_EVERY_MS = 5000


class Ticks:
    """An ASGI application that sends a tick, waits, and so on."""

    def __init__(self, call: Call, streams: OpenStreams, count: int, every_ms: int) -> None:
        self._call, self._streams = call, streams
        self._count, self._every_s = count, every_ms / 1000

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        with self._streams.one(scope, send, self._call.who, until=self._call.until) as stream:
            async with while_there(receive):
                await self._send(stream)
        if stream.why == "slow" and (cut := cutter(scope)) is not None:
            cut(0, "slow")

    async def _send(self, stream: OpenStream) -> None:
        await stream.send({"type": "http.response.body", "body": OPENING, "more_body": True})
        for number in range(1, self._count + 1):
            data = encode({"n": number, "of": self._count, "sent_at": time.time()})
            tick = b"id: %d\nevent: tick\ndata: %b\n\n" % (number, data)
            more = number < self._count
            await stream.send({"type": "http.response.body", "body": tick, "more_body": more})
            if more:
                await anyio.sleep(self._every_s)
