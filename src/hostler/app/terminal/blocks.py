"""Markdown that is still being written, cut into blocks that will not change any more.

Invariant: the blocks, joined, are the text; a fence, a table and a list are never cut.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_LIST = re.compile(r" {0,3}([-*+]|\d{1,9}[.)])\s")


class Blocks:
    """Collects a text; gives out each block when the next one has begun."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []
        self._fence: str | None = None
        self._is_list = False

    @property
    def open(self) -> str:
        """The block that is being written."""
        return "".join([*self._lines, *self._line])

    def feed(self, text: str) -> list[str]:
        """Return the blocks that `text` completes."""
        *whole, rest = text.split("\n")
        done: list[str] = []
        for line in whole:
            done += self._take("".join([*self._line, line, "\n"]))
            self._line = []
        if rest:
            self._line.append(rest)
            # Whether a line belongs to a list may not be known before its end; else, at once.
            if self._fence is None and not self._is_list and self._begins_another(self._line[0]):
                done += self._cut()
        return done

    def end(self) -> list[str]:
        """Return the blocks that are left; what comes next begins a new text."""
        done = self._take("".join(self._line)) if self._line else []
        done += self._cut() if self._lines else []
        self._line, self._fence = [], None
        return done

    def _take(self, line: str) -> list[str]:
        if self._fence is not None:
            self._lines.append(line)
            if line.strip().startswith(self._fence) and not line.strip(" \t\r\n`~"):
                self._fence = None
                return [] if self._is_list else self._cut()
            return []
        done = self._cut() if self._begins_another(line) else []
        if not self._lines:
            self._is_list = _LIST.match(line) is not None
        self._lines.append(line)
        fence = _FENCE.match(line.lstrip() if self._is_list else line)
        self._fence = None if fence is None else fence[1]
        return done

    def _begins_another(self, line: str) -> bool:
        if not line.strip() or not self._lines or self._lines[-1].strip():
            return False
        if not any(one.strip() for one in self._lines):
            return False
        return not (line[0] in " \t" or (self._is_list and _LIST.match(line)))

    def _cut(self) -> list[str]:
        block, self._lines, self._is_list = "".join(self._lines), [], False
        return [block]
