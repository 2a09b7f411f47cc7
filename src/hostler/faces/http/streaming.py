"""What streams of all faces are made of: batches of events, sent in chunks of bounded size."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Protocol, TypeAlias

from starlette.types import Message

from hostler.core.errors import Unauthorised, Unavailable
from hostler.core.events import Event
from hostler.core.news import AtOnce, Piece
from hostler.faces.http.open_streams import OpenStream

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
)
LARGEST_CHUNK = 64 * 1024
"""Frames are joined up to here, or sent alone: what waits for a client stays small."""

Batches: TypeAlias = AsyncGenerator[Sequence[Event | Piece], None]


class Follow(Protocol):
    def __call__(self, *, at_once: AtOnce) -> Batches:
        """Begin to follow a session; what `at_once` takes is in no batch."""
        ...


def chunks(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the frames joined, as many as fit a chunk."""
    joined, size = list[bytes](), 0
    for frame in frames:
        if joined and size + len(frame) > LARGEST_CHUNK:
            yield b"".join(joined)
            joined, size = [], 0
        joined.append(frame)
        size += len(frame)
    yield b"".join(joined)


def body(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def why_cut(stream: OpenStream) -> Unauthorised | Unavailable:
    """Return why an answer was cut before it began."""
    if stream.why == "revoked":
        return Unauthorised("the key, ticket or link is good no more")
    return Unavailable("the server is about to stop")
