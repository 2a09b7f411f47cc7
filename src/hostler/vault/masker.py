"""Finds the values that are known, in all their forms, and puts `[secret:NAME]` in their place.

A look at some bytes is one pass of an automaton over a few bytes of each form, which nearly always
finds nothing; only then are whole forms looked for, and only of those that overlap is it asked
which came first.

Invariant: what overlaps is masked as one; the first to begin, and of these the shortest, names it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import TypeVar, cast

import msgspec
from ahocorasick_rs import AhoCorasick, BytesAhoCorasick, Implementation
from msgspec import Struct
from msgspec.structs import replace

from hostler.core import codec
from hostler.core.events import Fact, Usage
from hostler.core.sealed import Part
from hostler.vault.forms import anchors, forms
from hostler.vault.tails import REMEMBERED, Prefixes, masked_parts

T = TypeVar("T")
LEFT = frozenset(
    {
        *("run", "input", "call", "attempt", "id", "principal", "digest", "worker", "tenant"),
        *(
            "policy",
            "stop",
            "outcome",
            "status",
            "decision",
            "kind",
            "media_type",
            "before",
            "part",
        ),
    }
)
"""Texts in structs that are our own ids and words from closed lists."""

_json = msgspec.json.Encoder(decimal_format="string")


def mark(name: str) -> str:
    """Return what stands where a value stood."""
    return f"[secret:{name}]"


def _bytes_taken(patterns: Sequence[str], anchored: int) -> int:
    """Return what automatons for so much take, as measured, and what `Prefixes` remembers."""
    letters = sum(map(len, patterns))
    return 16 * letters + 500 * len(patterns) + 2000 * anchored + 250 * REMEMBERED


def covered(text: str, hits: Sequence[tuple[int, int, str]]) -> str:
    """Return `text` with marks in place of hits, the first to begin first."""
    if not hits:
        return text
    parts, at = list[str](), 0
    for start, end, name in hits:
        if start >= at:
            parts += (text[at:start], name)
        at = max(at, end)
    return "".join((*parts, text[at:]))


class Masker:
    """A `core.sealed.Mask` for values by name."""

    def __init__(self, values: Iterable[tuple[str, str]]) -> None:
        names: dict[str, str] = {}
        for name, value in values:
            for form in forms(value):
                names.setdefault(form, name)
        self._forms = sorted(names)
        self._marks = [mark(names[form]) for form in self._forms]
        found = sorted(anchors(self._forms))
        # A DFA is twice as fast as the other kinds, and small, since anchors are short.  Whole forms
        # are long and looked for seldom: as a DFA they would take a kilobyte a character.
        self._anchors = BytesAhoCorasick(found, implementation=Implementation.DFA)
        self._whole = AhoCorasick(self._forms, implementation=Implementation.ContiguousNFA)
        self.prefixes = Prefixes(self._forms)
        self.bytes_taken = _bytes_taken(self._forms, len(found))

    def may_hold(self, data: bytes) -> bool:
        """Whether some bytes, of a text or of its JSON, may hold a value; nearly always right."""
        return bool(self._anchors.find_matches_as_indexes(data))

    def found(self, text: str) -> list[tuple[int, int, str]]:
        """Return (start, end, mark) of every form in `text`, the first to begin first."""
        data = text.encode("utf-8", "replace")  # lone surrogates: a ? each, so positions hold
        if not self.may_hold(data):
            return []
        if not text.isascii():
            text = data.decode()
        hits = self._whole.find_matches_as_indexes(text, overlapping=True)
        return sorted((start, end, self._marks[which]) for which, start, end in hits)

    def text(self, text: str) -> str:
        return covered(text, self.found(text))

    def value(self, value: T) -> T:
        return cast("T", self._value(value))

    def fact(self, fact: Fact, raw: bytes) -> tuple[Fact, bytes]:
        if not self.may_hold(raw):
            return fact, raw
        masked = self.value(fact)
        return (fact, raw) if masked == fact else (masked, codec.dump(masked))

    def json(self, raw: bytes) -> bytes:
        if not self.may_hold(raw):
            return raw
        return _json.encode(self._value(cast("object", msgspec.json.decode(raw))))

    def stream(self, parts: AsyncGenerator[Part, None]) -> AsyncGenerator[Part, None]:
        return masked_parts(self, parts)

    def _value(self, value: object) -> object:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return self._mapping(cast("Mapping[str, object]", value))
        if isinstance(value, list):
            return [self._value(one) for one in cast("list[object]", value)]
        if isinstance(value, tuple):
            return tuple(self._value(one) for one in cast("tuple[object, ...]", value))
        return self._struct(value) if isinstance(value, Struct) else value

    def _mapping(self, value: Mapping[str, object]) -> dict[str, object]:
        return {self.text(key): self._value(one) for key, one in value.items()}

    def _struct(self, value: Struct) -> Struct:
        if isinstance(value, Usage):
            return value
        changed: dict[str, object] = {}
        for name in value.__struct_fields__:
            before = cast("object", getattr(value, name))
            if before is None or (name in LEFT and isinstance(before, str)):
                continue
            after = self._value(before)
            if after != before:
                # What a provider signed, and would refuse when it is changed, is not played back.
                changed[name] = None if name == "replay" else after
        return replace(value, **changed) if changed else value
