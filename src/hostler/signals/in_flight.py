"""The text of an attempt in flight, kept for those who begin to watch.

Invariant: positions count characters since the attempt began, and nothing before a gap is added
after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hostler.core.events import AttemptId, RunKey, Seq
from hostler.core.news import Piece
from hostler.core.ports import Delta
from hostler.core.streamed import Joined, joined


def joins(a: Delta, b: Delta) -> bool:
    """Return whether two deltas that follow one another can be one."""
    return a.part == b.part and a.call == b.call


@dataclass(slots=True)
class Attempt:
    """The text of the attempt in flight, adjacent deltas of one part joined."""

    key: RunKey
    asked: Seq
    attempt: AttemptId
    seq: Seq
    """The last fact published."""
    parts: list[Joined] = field(default_factory=list[Joined])
    length: int = 0
    fresh: list[Delta] = field(default_factory=list[Delta])
    """Come in this turn of the loop, not yet sent to the watchers."""

    def piece(self, start: int, delta: Delta) -> Piece:
        return Piece(
            session=self.key.session,
            run=self.key.run,
            asked=self.asked,
            attempt=self.attempt,
            seq=self.seq,
            start=start,
            delta=delta,
        )

    def take(self, delta: Delta) -> bool:
        """Keep a delta until `flushed`; return whether it is the first since then."""
        fresh = self.fresh
        if fresh and joins(fresh[-1], delta):
            fresh[-1] = joined(fresh[-1], delta)
            return False
        fresh.append(delta)
        return len(fresh) == 1

    def flushed(self) -> list[Piece]:
        """Add what came since the last time to the text, and return it."""
        fresh, self.fresh = self.fresh, []
        return [self._add(delta) for delta in fresh]

    def so_far(self) -> list[Piece]:
        pieces, start = list[Piece](), 0
        for part in self.parts:
            pieces.append(self.piece(start, part.delta()))
            start = pieces[-1].end
        return pieces

    @property
    def end(self) -> int:
        """Where the next delta will begin."""
        return self.length + sum(len(delta.text) for delta in self.fresh)

    def _add(self, delta: Delta) -> Piece:
        piece = self.piece(self.length, delta)
        self.length += len(delta.text)
        if not (self.parts and joins(self.parts[-1].first, delta)):
            self.parts.append(Joined(delta))
        self.parts[-1].add(delta)
        return piece
