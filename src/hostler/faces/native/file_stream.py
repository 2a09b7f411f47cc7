"""A file that is made while it is sent.

Invariant: a file that could not be finished does not end as if it were whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from hostler.core.errors import HostlerError
from hostler.faces.http.endpoint import Call
from hostler.faces.http.open_streams import OpenStreams, cutter, while_there
from hostler.faces.http.request import REQUEST_ID, request_of

JSONL = "application/jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStream:
    """An ASGI application that sends `pieces`."""

    call: Call
    streams: OpenStreams
    name: str
    pieces: AsyncGenerator[bytes, None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", JSONL.encode()),
            (b"content-disposition", f'attachment; filename="{self.name}"'.encode()),
            (b"cache-control", b"no-store"),
            (REQUEST_ID, request_of(scope).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with self.streams.one(
            scope,
            send,
            self.call.who,
            until=self.call.until,
            session=self.call.session,
            kind="file",
        ) as stream:
            async with while_there(receive), aclosing(self.pieces) as pieces:
                try:
                    async for piece in pieces:
                        body = {"type": "http.response.body", "body": piece, "more_body": True}
                        await stream.send(body)
                except HostlerError:
                    return  # a cut, which no client takes for the end
            await stream.send({"type": "http.response.body", "body": b"", "more_body": False})
        if stream.why == "slow" and (cut := cutter(scope)) is not None:
            cut(0, "slow")
