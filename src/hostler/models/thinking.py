"""`<think>` in the text of models whose server does not take it out: split off while it streams.

Only a tag that opens the answer counts; later ones are what the model talks about.

Invariant: what comes out does not depend on how the text was split, and is never held back for
longer than it may be (part of) a tag.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Part: TypeAlias = Literal["text", "thinking"]

_OPEN, _CLOSE = "<think>", "</think>"
_LARGEST_INDENT = 64
"""White space before the tag; with more of it, the answer does not begin with a tag."""


class Tags:
    """Splits one answer.  `implied`: the prompt already opened the tag, so only its end comes."""

    __slots__ = ("_held", "_state")

    def __init__(self, *, implied: bool = False) -> None:
        self._held = ""
        self._state: Literal["before", "opened", "inside", "closed", "after"] = (
            "opened" if implied else "before"
        )

    @property
    def settled(self) -> bool:
        """Whether all that is still to come is text."""
        return self._state == "after"

    def feed(self, text: str) -> list[tuple[Part, str]]:
        """Return what `text` adds to each part, in order."""
        out: list[tuple[Part, str]] = []
        text, self._held = self._held + text, ""
        if self._state == "before":
            text = self._before(text)
        if self._state in {"opened", "closed"}:
            text = self._skip_break(text)
        if self._state == "inside" and text:
            text = self._inside(text, out)
        if self._state == "closed":
            text = self._skip_break(text)
        if self._state == "after" and text:
            out.append(("text", text))
        return out

    def end(self) -> list[tuple[Part, str]]:
        """Return what was held back, now that nothing follows it."""
        held, self._held = self._held, ""
        if not held:
            return []
        return [("thinking" if self._state in {"opened", "inside"} else "text", held)]

    def _before(self, text: str) -> str:
        start = text.lstrip()
        if len(text) - len(start) <= _LARGEST_INDENT:
            if start.startswith(_OPEN):
                self._state = "opened"
                return start[len(_OPEN) :]
            if _OPEN.startswith(start):
                self._held = text
                return ""
        self._state = "after"
        return text

    def _skip_break(self, text: str) -> str:
        # The line breaks around the tags are layout, neither thought nor said.
        text = text.lstrip("\n")
        if text:
            self._state = "inside" if self._state == "opened" else "after"
        return text

    def _inside(self, text: str, out: list[tuple[Part, str]]) -> str:
        thought, closed, rest = text.partition(_CLOSE)
        if closed:
            self._state = "closed"
        else:
            held = _tail(text)
            thought, self._held = text[: len(text) - held], text[len(text) - held :]
        if thought:
            out.append(("thinking", thought))
        return rest


def _tail(text: str) -> int:
    """How many characters at the end may begin the closing tag."""
    for length in range(min(len(text), len(_CLOSE) - 1), 0, -1):
        if _CLOSE.startswith(text[-length:]):
            return length
    return 0
