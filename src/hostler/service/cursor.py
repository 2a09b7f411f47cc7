"""Cursors: how far a client has seen a session, down to the character of the reply in flight.

`12` is all facts up to the twelfth.  `12.10.345` adds 345 characters of the attempt that was
written at 10.  Clients treat both as opaque, except that a decimal position is always a cursor.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from hostler.core.errors import Malformed
from hostler.core.events import START, Event, Seq
from hostler.core.news import Piece

_FORM = re.compile(r"(\d{1,15})(?:\.(\d{1,15})\.(\d{1,15}))?", re.ASCII)


class Cursor(NamedTuple):
    seq: Seq = START
    asked: Seq = START
    """The attempt that `offset` counts in; `START` when none was in flight."""
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.seq}.{self.asked}.{self.offset}" if self.offset else str(self.seq)

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor that `str` wrote.

        Raises:
            Malformed: it is none.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise Malformed(f"{text[:64]!r} is no cursor: pass one that a frame had as its id")
        seq, asked, offset = (int(part or 0) for part in match.groups())
        return cls(Seq(seq), Seq(asked), offset)

    @classmethod
    def after(cls, item: Event | Piece) -> Cursor:
        """Return the cursor of a client that has seen `item` and all before it."""
        if isinstance(item, Event):
            return cls(item.seq, item.asked, item.offset)
        return cls(item.seq, item.asked, item.end)
