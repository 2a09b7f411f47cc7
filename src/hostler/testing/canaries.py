"""Values that must turn up nowhere, and a search that knows all the ways in which they could.

The search does not share the code that masks: it spells the forms in its own way.

Invariant: what is searched is only read.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, quote_plus

KEEPS_IT = frozenset({"admin-key", "master-key"})
"""Files whose one purpose is to hold a key, for their owner alone."""
ODD = "\"/\\+%é'&"
"""Characters that are written in many ways."""


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
        data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        return [
            Sighting(name, form, where, _around(data, at, len(spelled)))
            for name, value in self.values.items()
            for form, spelled in spellings(value).items()
            if (at := data.find(spelled)) >= 0
        ]

    def seen_in(self, folder: Path, *, but: Iterable[str] = KEEPS_IT) -> list[Sighting]:
        """Return where canaries are in the files below a folder: databases, logs, all of them."""
        leave = set(but)
        files = (
            path
            for path in sorted(folder.rglob("*"))
            if path.name not in leave and path.is_file() and not path.is_symlink()
        )
        return [one for path in files for one in self.seen(path.read_bytes(), str(path))]


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
