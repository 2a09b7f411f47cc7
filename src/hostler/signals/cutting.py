"""Text of an attempt as items of messages: joined where it goes on, cut where it is too long.

Invariant: items, put together, are the pieces they were made of, to the character.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from hostler.core.events import Key
from hostler.core.news import Piece
from hostler.core.ports import Delta
from hostler.core.streamed import joined, rest_of
from hostler.signals.in_flight import joins
from hostler.signals.words import Said, encode


def said(key: Key, pieces: Sequence[Piece], limit_bytes: int) -> Iterator[bytes]:
    """Yield text as items, adjacent pieces of one part joined, none larger than that."""
    at = 0
    while at < len(pieces):
        first, end = pieces[at], at + 1
        while end < len(pieces) and _goes_on(pieces[end - 1], pieces[end]):
            end += 1
        if end - at > 1:
            whole = joined(*(one.delta for one in pieces[at:end]))
            first = replace(first, delta=whole, seq=pieces[end - 1].seq)
        yield from _parts(key, first, limit_bytes)
        at = end


def _goes_on(a: Piece, b: Piece) -> bool:
    return a.asked == b.asked and a.end == b.start and joins(a.delta, b.delta)


def _parts(key: Key, piece: Piece, limit_bytes: int) -> Iterator[bytes]:
    delta = piece.delta
    item = encode(
        Said(
            key.tenant,
            key.session,
            piece.run,
            piece.asked,
            piece.attempt,
            piece.seq,
            piece.start,
            *(delta.part, delta.text, delta.call, delta.name, delta.sizes),
        )
    )
    if len(item) <= limit_bytes or len(delta.text) < 2:
        yield item
        return
    middle = _middle(delta)
    head = _up_to(delta, middle)
    yield from _parts(key, replace(piece, delta=head), limit_bytes)
    rest = replace(rest_of(delta, middle), name=None)
    yield from _parts(key, replace(piece, start=piece.start + middle, delta=rest), limit_bytes)


def _middle(delta: Delta) -> int:
    """Return where to cut a delta: between two that were joined, if there are two."""
    at, half = 0, len(delta.text) // 2
    for size in delta.sizes:
        if at + size > half:
            return at or (size if size < len(delta.text) else half)
        at += size
    return half


def _up_to(delta: Delta, end: int) -> Delta:
    left, sizes = end, list[int]()
    for size in delta.sizes:
        if left <= 0:
            break
        sizes.append(min(size, left))
        left -= size
    return replace(delta, text=delta.text[:end], sizes=tuple(sizes))
