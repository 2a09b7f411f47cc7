"""How a reply came: the parts it came in, and the pieces of each.

Who numbers what is streamed has to give every piece the same number whenever somebody watches: now,
later, or when all is over.  So what the watchers were given is kept with what came of it.

Invariant: `pieces` of what is kept are the deltas that were streamed, to the character.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from hostler.core.events import AttemptDropped, ModelReplied, Stretch
from hostler.core.ports import Delta, Reply

JOIN_AFTER = 256
"""Deltas of one part kept apart before they are joined into one string."""


class Streamed:
    """What one attempt has streamed so far."""

    def __init__(self) -> None:
        self._deltas: list[Delta] = []
        """The first of each stretch."""
        self._texts: list[list[str]] = []

    def add(self, delta: Delta) -> None:
        last = self._deltas[-1] if self._deltas else None
        if last is None or last.part != delta.part or last.call != delta.call:
            self._deltas.append(delta)
            self._texts.append([delta.text])
        else:
            self._texts[-1].append(delta.text)

    def text(self) -> str:
        """Return the text, without what was thought or asked for."""
        return "".join(
            "".join(texts)
            for delta, texts in zip(self._deltas, self._texts, strict=True)
            if delta.part == "text"
        )

    def stretches(self, reply: Reply | None = None) -> tuple[Stretch, ...]:
        """Return it as facts keep it: beside the reply that came of it, or without one."""
        wholes, taken = _wholes(reply), dict[str | None, int]()
        kept = list[Stretch]()
        for delta, texts in zip(self._deltas, self._texts, strict=True):
            said, of = "".join(texts), delta.call or delta.part
            start = taken.get(of, 0)
            taken[of] = start + len(said)
            is_there = wholes.get(of, "")[start : taken[of]] == said
            if reply is None and delta.part == "text":
                is_there = True  # the fact has all of it
            kept.append(
                Stretch(
                    part=delta.part,
                    sizes=tuple(map(len, texts)),
                    call=delta.call,
                    name=delta.name if reply is None else None,
                    said=None if is_there else said,
                )
            )
        return tuple(kept)


def pieces(fact: ModelReplied | AttemptDropped) -> Iterator[Delta]:
    """Yield what was streamed of an attempt, as it was; nothing where nobody knows.

    A text that was masked since then has other lengths: its pieces are then cut elsewhere.
    """
    is_reply = isinstance(fact, ModelReplied)
    wholes = _wholes(fact) if is_reply else {"text": fact.text or ""}
    names = {call.id: call.name for call in fact.calls} if is_reply else {}
    at = dict[str | None, int]()
    for stretch in fact.streamed:
        of = stretch.call or stretch.part
        begin = at.get(of, 0) if stretch.said is None else 0
        said = wholes.get(of, "") if stretch.said is None else stretch.said
        at[of] = at.get(of, 0) + sum(stretch.sizes)
        name = stretch.name or (None if stretch.call is None else names.get(stretch.call))
        for size in stretch.sizes:
            yield Delta(stretch.part, said[begin : begin + size], stretch.call, name)
            begin, name = begin + size, None


class Joined:
    """Deltas of one part that followed one another, `first` first."""

    __slots__ = ("_sizes", "_texts", "first")

    def __init__(self, first: Delta) -> None:
        self.first = first
        self._texts: list[str] = []
        self._sizes: list[int] = []

    def add(self, delta: Delta) -> None:
        self._texts.append(delta.text)
        self._sizes += delta.sizes or (len(delta.text),)
        if len(self._texts) > JOIN_AFTER:
            self._texts[:] = ["".join(self._texts)]

    def delta(self) -> Delta:
        """Return them as one, which knows their sizes."""
        first, text = self.first, "".join(self._texts)
        return Delta(first.part, text, first.call, first.name, tuple(self._sizes))


def joined(*deltas: Delta) -> Delta:
    """Return deltas of one part as one."""
    made = Joined(deltas[0])
    for delta in deltas:
        made.add(delta)
    return made.delta()


def each(delta: Delta) -> Iterator[Delta]:
    """Yield the deltas that one was joined of, as they came."""
    begin, name = 0, delta.name
    for size in delta.sizes or (len(delta.text),):
        yield Delta(delta.part, delta.text[begin : begin + size], delta.call, name)
        begin, name = begin + size, None


def rest_of(delta: Delta, seen: int) -> Delta:
    """Return what is left of a delta for who has seen so many characters of it."""
    if not seen:
        return delta
    left, sizes = seen, list[int]()
    for size in delta.sizes:
        if size > left:
            sizes.append(size - left)
        left = max(0, left - size)
    return msgspec.structs.replace(delta, text=delta.text[seen:], sizes=tuple(sizes))


def _wholes(reply: Reply | ModelReplied | None) -> Mapping[str | None, str]:
    """Return the text of each part, and the arguments of each call as we write them."""
    if reply is None:
        return {}
    calls = {call.id: msgspec.json.encode(call.arguments).decode() for call in reply.calls}
    return {"text": reply.text, "thinking": reply.thinking or "", **calls}
