"""A story as plain text: for pipes, logs and terminals that can only write.

Invariant: `out` gets the replies and nothing else; all remarks go to `notes`.
"""

from __future__ import annotations

from typing import TextIO

from hostler.app.terminal.items import (
    Anew,
    Called,
    Decided,
    Elsewhere,
    Item,
    Over,
    Question,
    Replied,
    Shows,
    Spoke,
    Trouble,
    Wants,
    Words,
)
from hostler.app.terminal.words import (
    asked_of,
    call_of,
    decided_of,
    end_of,
    printable,
    shown_of,
    trouble_of,
)


class Plain:
    """Writes items as they come."""

    def __init__(self, out: TextIO, notes: TextIO, *, tells_user: bool = False) -> None:
        self._out, self._notes = out, notes
        self._is_terminal = out.isatty()
        self.tells_user = tells_user
        self._mid_line = False

    def take(self, items: list[Item]) -> None:
        """Write what the items say.  Raises BrokenPipeError."""
        for item in items:
            self._take(item)
        self._out.flush()

    def note(self, text: str) -> None:
        """Write a remark on a line of its own."""
        if self._mid_line and (self._is_terminal or self._out is self._notes):
            self._end_line()
        self._notes.write(f"{text}\n")
        self._notes.flush()

    def ask(self, sign: str) -> None:
        """Write the sign that something may be typed now."""
        self._end_line()
        self._out.write(sign)
        self._out.flush()
        self._mid_line = True

    def typed(self) -> None:
        """A line was typed, so the next thing stands below it."""
        self._mid_line = False

    def _take(self, item: Item) -> None:
        match item:
            case Words(part="text"):
                # A pipe gets what was said; a terminal would obey it.
                self._out.write(printable(item.text) if self._is_terminal else item.text)
                self._mid_line = not item.text.endswith("\n")
            case Replied():
                self._end_line()
            case Spoke() if self.tells_user:
                self._end_line()
                self.note(f"> {printable(item.text)}")
            case Anew():
                self.note("that reply broke off; it begins anew")
                self._end_line()
            case Called():
                self.note(call_of(item))
            case Over():
                self._end_line()
                if item.status != "done":
                    self.note(end_of(item))
            case _:
                self._remark(item)

    def _remark(self, item: Item) -> None:
        match item:
            case Wants() | Question() | Elsewhere():
                asked, about = asked_of(item)
                self.note("\n  ".join([f"? {asked}", *about.splitlines()]))
            case Shows():
                self.note(shown_of(item))
            case Decided():
                self.note(decided_of(item))
            case Trouble():
                self.note(trouble_of(item))
            case _:
                pass

    def _end_line(self) -> None:
        if self._mid_line:
            self._out.write("\n")
            self._out.flush()
            self._mid_line = False
