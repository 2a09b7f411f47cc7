"""Values that must turn up nowhere, and a search that knows all the ways in which they could.

The search does not share the code that masks: it spells the forms in its own way.

Invariant: what is searched is only read.
"""

from __future__ import annotations

import base64
import json
import secrets
import sqlite3
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from ahocorasick_rs import BytesAhoCorasick

KEEPS_IT = frozenset({"admin-key", "master-key"})
"""Files whose one purpose is to hold a key, for their owner alone."""
ODD = "\"/\\+%é'&"
"""Characters that are written in many ways."""
SQLITE = b"SQLite format 3\0"


class Sighting(NamedTuple):
    canary: str
    """Its name."""
    form: str
    where: str
    around: str
    """With the value's place left out."""


@dataclass(slots=True)
class Canaries:
    """Canaries by name; make them with `new`."""

    values: dict[str, str] = field(default_factory=dict[str, str])

    def new(self, name: str, *, odd: bool = False) -> str:
        """Return a value that is nowhere else; an `odd` one is no header's, and harder to mask."""
        value = f"canary-{secrets.token_hex(12)}{ODD if odd else ''}{secrets.token_hex(6)}"
        self.values[name] = value
        return value

    def seen(self, data: bytes | str, where: str) -> list[Sighting]:
        """Return where canaries are in some text."""
        return self.seen_among([(where, data)])

    def seen_among(self, told: Iterable[tuple[str, bytes | str]]) -> list[Sighting]:
        """Return where canaries are in many texts, each with what to call it."""
        ways = dict[bytes, tuple[str, str]]()
        for name, value in self.values.items():
            for form, spelled in spellings(value).items():
                if spelled:  # the first form of those that spell it alike
                    ways.setdefault(spelled, (name, form))
        spelt = list(ways)
        search = BytesAhoCorasick(spelt)
        found = list[Sighting]()
        for where, text in told:
            data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            first = dict[int, int]()
            for way, start, _ in search.find_matches_as_indexes(data, overlapping=True):
                first.setdefault(way, start)
            for way, start in sorted(first.items()):
                name, form = ways[spelt[way]]
                found.append(Sighting(name, form, where, _around(data, start, len(spelt[way]))))
        return found

    def seen_in(self, folder: Path, *, but: Iterable[str] = KEEPS_IT) -> list[Sighting]:
        """Return where canaries are in the files below a folder: databases, logs, all of them."""
        leave = set(but)
        files = (
            path
            for path in sorted(folder.rglob("*"))
            if path.name not in leave and path.is_file() and not path.is_symlink()
        )
        return self.seen_among(one for path in files for one in _told(path))


def _told(path: Path) -> Generator[tuple[str, bytes]]:
    """Yield a file and, if it is a database, its values: pages cut those that are long."""
    data = path.read_bytes()
    yield str(path), data
    if data.startswith(SQLITE):
        yield f"{path}, dumped", b"\n".join(_values(path))


def _values(path: Path) -> Generator[bytes]:
    # Immutable: nothing is made beside it, and what its log still holds was read as a file.
    uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        database.text_factory = bytes
        try:
            tables = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            for (table,) in tables.fetchall():
                name = table.decode().replace('"', '""')
                for row in database.execute(f'SELECT * FROM "{name}"'):  # noqa: S608  its own name
                    yield from (value for value in row if isinstance(value, bytes))
        except sqlite3.DatabaseError:
            return  # broken on purpose, or half of it is in its log


def spellings(value: str) -> Mapping[str, bytes]:
    """Return the ways in which a value may be written, by name."""
    plain = json.dumps(value)[1:-1]
    found = {
        "as it is": value,
        "JSON": plain,
        "JSON with its letters": json.dumps(value, ensure_ascii=False)[1:-1],
        "JSON in JSON": json.dumps(plain)[1:-1],
        "URL": quote(value, safe=""),
        "URL path": quote(value),
        "form": quote_plus(value),
    }
    for shift in range(3):
        inside = base64.b64encode(b"~" * shift + value.encode() + b"~~~~~~")
        # Without what depends on the neighbours: a group before, and two after.
        inner = inside[4 if shift else 0 :][: len(value.encode()) // 3 * 4 - 8]
        found[f"base64, shifted by {shift}"] = inner.decode()
        found[f"URL-safe base64, shifted by {shift}"] = inner.translate(
            bytes.maketrans(b"+/", b"-_")
        ).decode()
    return {form: spelled.encode() for form, spelled in found.items()}


def _around(data: bytes, at: int, length: int) -> str:
    before, after = data[max(0, at - 40) : at], data[at + length : at + length + 40]
    return f"{before.decode(errors='replace')}<here>{after.decode(errors='replace')}"
