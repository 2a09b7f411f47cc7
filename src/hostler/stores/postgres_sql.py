"""The statements of `sql/postgres*.sql`, by name, as PostgreSQL is sent them.

A commit is one statement of many parts (`combined`): a message each way, whatever is in it.

Invariant: a name and what of it is asked for is one text, so that it is prepared once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

VALUE = re.compile(r"(?<!:):([a-z_][a-z_0-9]*)")
MIGRATION = r"postgres_(\d+)\.sql"


class Statement(NamedTuple):
    """A text with `$1`, `$2`, …, and what these are called."""

    text: str
    names: tuple[str, ...]


class Combined(NamedTuple):
    """A statement of parts: first the columns of each part's rows, then single values."""

    text: str
    widths: tuple[int, ...]
    """How many columns each part has; 0 for one without rows of its own."""
    names: tuple[str, ...]


class _Part(NamedTuple):
    body: str
    columns: tuple[tuple[str, str, str | None], ...]
    """Name, type, and as what it is written."""


def _read() -> dict[str, _Part]:
    folder, found = resources.files("hostler.stores") / "sql", dict[str, _Part]()
    for file in folder.iterdir():
        if file.name.startswith("postgres") and not re.fullmatch(MIGRATION, file.name):
            text = file.read_text(encoding="utf-8")
            parts = re.split(r"^-- name: (\w+)(.*)$", text, flags=re.MULTILINE)[1:]
            for name, columns, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
                lines = [line for line in body.splitlines() if not line.startswith("--")]
                found[name] = _Part("\n".join(lines).strip(), _columns(columns))
    return found


def _columns(listed: str) -> tuple[tuple[str, str, str | None], ...]:
    found = list[tuple[str, str, str | None]]()
    for one in filter(None, listed.strip(" ()").split(", ")):
        name, _, kind = one.partition(" ")
        kind, _, written = kind.partition("::")
        found.append((name, kind, written or None))
    return tuple(found)


_PARTS = _read()
NAMES = tuple(sorted(_PARTS))


@cache
def asking(
    name: str, given: tuple[str, ...] = (), filled: tuple[tuple[str, str], ...] = ()
) -> Statement:
    """Return a statement with those of its optional lines that are asked for, and `{…}` filled in."""
    lines = [line.partition(" -- if ") for line in _PARTS[name].body.splitlines()]
    text = "\n".join(line for line, _, wanted in lines if not wanted or wanted in given)
    for place, filling in filled:
        text = text.replace(f"{{{place}}}", filling)
    names = list[str]()
    return Statement(_numbered(text, names, 0), tuple(names))


@cache
def combined(parts: tuple[str, ...]) -> Combined:
    """Return one statement that does what all these parts do, and undoes all if one cannot."""
    first, widths, names = 1, list[int](), list[str]()
    bodies, counts = list[str](), list[str]()
    for name in parts:
        body, columns = _PARTS[name]
        if name.startswith("make_"):
            counts.append(f"(SELECT count(*) FROM {name}) = cardinality(${first})")  # noqa: S608  names of ours
        bodies.append(f"{name} AS (\n{_filled(body, columns, first)}\n)")
        widths.append(len(columns))
        first += len(columns)
    text = _numbered(",\n".join(bodies), names, first - 1)
    end = f"insist({' AND '.join(counts)})" if counts else "true"
    return Combined(f"WITH {text}\nSELECT {end}", tuple(widths), tuple(names))


def _filled(body: str, columns: Sequence[tuple[str, str, str | None]], first: int) -> str:
    names = ", ".join(name for name, _, _ in columns)
    arrays = ", ".join(f"${first + at}::{kind}[]" for at, (_, kind, _) in enumerate(columns))
    values = [f"r.{name}::{kind}" if kind else f"r.{name}" for name, _, kind in columns]
    body = body.replace("{columns}", names).replace("{values}", ", ".join(values))
    return body.replace("{rows}", f"unnest({arrays}) AS r ({names})")


def _numbered(text: str, names: list[str], before: int) -> str:
    """Return a text with numbers in place of names, which are appended to `names`."""

    def number(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in names:
            names.append(name)
        return f"${before + names.index(name) + 1}"

    return VALUE.sub(number, text)
