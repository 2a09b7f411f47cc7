"""How far one follower of a session is, and what of all that comes is new to it.

Invariant: an item is given once, in order, and never past a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from hostler.core.events import START, Event, Seq
from hostler.core.news import AtOnce, Piece
from hostler.core.state import ENDS_ATTEMPT
from hostler.core.streamed import rest_of


@dataclass(slots=True)
class Position:
    """How far one follower is, and what of an item it has not seen.

    An item says how far somebody is who has seen it and all before it.  For followers that keep
    up, that is true of the item as it comes, and they share it; others get a copy that says where
    they are.
    """

    seq: Seq
    asked: Seq
    offset: int
    closed: Seq = START
    """Where an attempt last ended: text of older attempts is out of date."""

    def event(self, event: Event) -> Event | None:
        if event.seq <= self.seq:
            return None
        self.seq = event.seq
        if event.kind in ENDS_ATTEMPT:
            self.closed, self.asked, self.offset = event.seq, START, 0
        if (event.asked, event.offset) == (self.asked, self.offset):
            return event
        return replace(event, asked=self.asked, offset=self.offset, wire=None, text=None)

    def piece(self, piece: Piece) -> Piece | None:
        if piece.asked < max(self.asked, self.closed):
            return None
        if piece.asked != self.asked:
            self.asked, self.offset = piece.asked, 0
        if piece.end <= self.offset and (piece.end > piece.start or piece.start < self.offset):
            return None
        seen, self.offset = self.offset - piece.start, piece.end
        if seen <= 0 and piece.seq == self.seq:
            return piece
        delta, start = piece.delta, max(piece.start, piece.start + seen)
        rest = rest_of(delta, start - piece.start)
        return replace(piece, seq=self.seq, start=start, delta=rest, wire=None, text=None)

    def doubted(self, items: Sequence[Event | Piece]) -> Seq | None:
        """Return which attempt, of those whose text comes, may have ended before the cursor.

        A cursor does not tell; `closed` has to be learned before that text is taken.
        """
        if self.asked or self.closed:
            return None
        texts = (one.asked for one in items if isinstance(one, Piece))
        return next((asked for asked in texts if asked < self.seq), None)

    def passes(self, items: Sequence[Event | Piece], to: AtOnce) -> bool:
        """Give `to` what is nothing but the very next text; whether it was, and was taken.

        It spares most tokens a change of tasks, which costs more than all else that is done here.
        """
        offset = self.offset
        for item in items:
            if not isinstance(item, Piece) or item.start != offset:
                return False
            if item.asked != self.asked or item.seq != self.seq:
                return False
            offset = item.end
        if not to(items):
            return False
        self.offset = offset
        return True


def take(at: Position, items: Sequence[Event | Piece]) -> tuple[list[Event | Piece], bool]:
    """Return what is new of `items`, and whether all of them followed without a gap."""
    batch: list[Event | Piece] = []
    for item in items:
        if isinstance(item, Piece):
            if item.asked > at.seq:
                return batch, False
            new = at.piece(item)
        else:
            if item.seq > at.seq + 1:
                return batch, False
            new = at.event(item)
        if new is not None:
            batch.append(new)
    return batch, True
