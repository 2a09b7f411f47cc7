"""Text that comes in pieces, masked as if it had come whole.

Of what has come, only a tail that is a proper beginning of a form is held back: where a form that
is complete later would begin.  All before it is decided, and passed on.  A tail waits until its
part goes on or the answer ends, whatever else comes meanwhile: to show a little of it at each
turn would show a value bit by bit.

Invariant: pieces of a part, cut anywhere and with any others between, passed on and joined, are
the masked whole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol, TypeVar

from hostler.core.events import CallId
from hostler.core.ports import Delta
from hostler.core.sealed import SHORTEST, Part

T = TypeVar("T")
REMEMBERED = 1 << 13
"""States, which take two megabytes."""
LONGEST_REMEMBERED = 64
SHORT = 4
"""Beginnings up to here are kept as a set: base64 meets nearly all of them."""


class Masking(Protocol):
    @property
    def prefixes(self) -> Prefixes: ...
    def found(self, text: str) -> list[tuple[int, int, str]]: ...
    def value(self, value: T) -> T: ...


class Prefixes:
    """All proper beginnings of some forms, as the states of an automaton that is made as needed.

    A state is the longest end of what was read that is such a beginning.  Ordinary text visits a
    few of the many states, and these are remembered.
    """

    def __init__(self, ordered: Sequence[str]) -> None:
        self._forms = ordered
        self.longest = max(map(len, ordered), default=0)
        self._next: dict[str, str] = {}
        self._short = frozenset(form[:n] for form in ordered for n in range(1, SHORT + 1))

    def after(self, state: str, text: str) -> str:
        """Return the state after `text` was read in `state`."""
        if len(text) > self.longest:
            state, text = "", text[-self.longest :]
        known = self._next
        for char in text:
            longer = state + char
            found = known.get(longer)
            state = self._step(longer) if found is None else found
        return state

    def _step(self, longer: str) -> str:
        state = longer
        while state and not self._has(state):
            state = state[1:]
        if len(longer) <= LONGEST_REMEMBERED:
            if len(self._next) >= REMEMBERED:
                self._next.clear()
            self._next[longer] = state
        return state

    def _has(self, start: str) -> bool:
        """Whether a form begins with `start` and goes on."""
        if len(start) <= SHORT:
            return start in self._short
        at = bisect_left(self._forms, start)
        if at < len(self._forms) and self._forms[at] == start:
            at += 1
        return at < len(self._forms) and self._forms[at].startswith(start)


class Tail:
    """One part of an answer, as far as it has come."""

    __slots__ = ("_masking", "_passed", "_prefixes", "_state", "_text")

    def __init__(self, masking: Masking) -> None:
        self._masking, self._prefixes = masking, masking.prefixes
        self._text = self._state = ""
        self._passed = 0
        """How much of `text` was passed on under a mark, which what overlaps it shares."""

    def feed(self, text: str) -> str:
        """Take more of the part; return what can be passed on."""
        before, self._state = self._state, self._prefixes.after(self._state, text)
        self._text += text
        if not self._passed and len(before) + len(text) < SHORTEST:
            # No form began early enough to be complete now.  So it is with nearly every token.
            whole, self._text = self._text, self._state
            return whole[: len(whole) - len(self._state)]
        return self._decide(len(self._text) - len(self._state))

    def end(self) -> str:
        """Return what was held back: the part is over."""
        self._state = ""
        return self._decide(len(self._text))

    def _decide(self, upto: int) -> str:
        """Return what is decided before `upto`, masked; keep what follows."""
        text, at, out = self._text, self._passed, list[str]()
        for start, stop, name in self._masking.found(text):
            if start >= at:
                if start >= upto:
                    break
                out += (text[at:start], name)
            at = max(at, stop)
        if at < upto:
            out.append(text[at:upto])
            at = upto
        self._text, self._passed = text[upto:], at - upto
        return "".join(out)


async def masked_parts(
    masking: Masking, parts: AsyncGenerator[Part, None]
) -> AsyncGenerator[Part, None]:
    """Yield an answer masked: each delta without what may be a secret, then the ending."""
    tails: dict[tuple[str, CallId | None], Tail] = {}
    async with aclosing(parts):
        async for part in parts:
            if not isinstance(part, Delta):
                for (kind, call), tail in tails.items():
                    if rest := tail.end():
                        yield _delta(kind, rest, call)
                yield masking.value(part)
                continue
            tail = tails.get((part.part, part.call))
            if tail is None:
                tail = tails[part.part, part.call] = Tail(masking)
            told, name = tail.feed(part.text), masking.value(part.name)
            if told == part.text and name == part.name:
                yield part
            elif told or name is not None:
                yield Delta(part.part, told, part.call, name)


def _delta(kind: str, text: str, call: CallId | None) -> Delta:
    if kind == "text":
        return Delta("text", text, call)
    return Delta("thinking" if kind == "thinking" else "arguments", text, call)
