"""Writes out a value that came from a sandbox, as Python would, as far as it may go.

Not with `repr`: a list of lists of lists, all the same ones, is small in memory and endless in
text.  Nor does this recurse.

Invariant: the work is bounded by the limit, not by the value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

from pydantic_monty import MontyClassProxy

from hostler.core.events import JsonObject

LONGEST_INT_BITS = 14_000
"""Python refuses to write out an integer of more than 4,300 digits."""
_END = object()


class _Text(NamedTuple):
    """A bit of a literal that is not itself a value."""

    text: str


_COMMA = _Text(", ")


def literal(value: object, limit_chars: int) -> str:
    """Return the start of what Python writes for `value`: all of it, or `limit_chars` and some."""
    texts, length = list[str](), 0
    stack: list[Iterator[object]] = [iter((value,))]
    while stack and length < limit_chars:
        part = next(stack[-1], _END)
        if part is _END:
            stack.pop()
            continue
        inside = part.text if isinstance(part, _Text) else _open(part, limit_chars)
        if isinstance(inside, str):
            texts.append(inside)
            length += len(inside)
        else:
            stack.append(inside)
    return "".join(texts)


def _open(value: object, limit_chars: int) -> str | Iterator[object]:
    """Return the literal of `value`, or its parts: bits of text, and values."""
    match value:
        case str() | bytes():
            return repr(value[:limit_chars])
        case dict():
            return _pairs("{", cast("dict[object, object]", value).items(), "}")
        case list():
            return _series("[", cast("list[object]", value), "]")
        case tuple():
            members = cast("tuple[object, ...]", value)
            return _series("(", members, ",)" if len(members) == 1 else ")")
        case set() | frozenset() if value:
            return _series("{", cast("set[object]", value), "}")
        case MontyClassProxy():
            named = cast("JsonObject", value.attributes).items()
            return _pairs(f"{value.name}(", ((_Text(key), one) for key, one in named), ")", "=")
        case BaseException():
            return _series(f"{type(value).__name__}(", value.args, ")")
        case int() if value.bit_length() > LONGEST_INT_BITS:  # Python refuses to write it out
            return f"<an integer of {value.bit_length():,} bits>"
        case _:
            return repr(value)


def _series(start: str, values: Iterable[object], end: str) -> Iterator[object]:
    yield _Text(start)
    for i, value in enumerate(values):
        if i:
            yield _COMMA
        yield value
    yield _Text(end)


def _pairs(
    start: str, pairs: Iterable[tuple[object, object]], end: str, between: str = ": "
) -> Iterator[object]:
    yield _Text(start)
    for i, (key, value) in enumerate(pairs):
        if i:
            yield _COMMA
        yield key
        yield _Text(between)
        yield value
    yield _Text(end)
