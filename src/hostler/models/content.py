"""Pictures and files in a conversation, for wire APIs that take them, and in words for those that do not.

Invariant: a part that a model cannot be shown is named to it, never left out in silence.
"""

from __future__ import annotations

import base64
import binascii

from hostler.core.said import ImagePart
from hostler.core.shown import FilePart

_TEXT_TYPES = ("application/json", "application/xml", "application/yaml", "application/x-yaml")
_MAGIC = {"iVBORw": "image/png", "/9j/": "image/jpeg", "R0lGOD": "image/gif", "UklGR": "image/webp"}
"""How base64 of each begins."""


def media_type(part: ImagePart | FilePart) -> str:
    """Return the part's type: as given, else what its first bytes say, else a guess."""
    if part.media_type:
        return part.media_type
    data = part.data or ""
    for start, kind in _MAGIC.items():
        if data.startswith(start):
            return kind
    return "image/png" if isinstance(part, ImagePart) else "application/octet-stream"


def as_url(part: ImagePart | FilePart) -> str:
    """Return the part's URL; its data as a `data:` URL."""
    return part.url or f"data:{media_type(part)};base64,{part.data or ''}"


def in_words(part: ImagePart | FilePart) -> str:
    """Return what to tell a model that cannot be shown the part: a text file whole, else its name."""
    if isinstance(part, ImagePart):
        place = f" at {part.url}" if part.url else ""
        return f"[An image{place}, which you cannot be shown.]"
    name = part.name or "without a name"
    text = _text(part)
    if text is not None:
        return f"[File {name}]\n{text}\n[End of file {name}]"
    place = f" at {part.url}" if part.url else ""
    return f"[File {name} ({media_type(part)}){place}, which you cannot be shown.]"


def _text(part: FilePart) -> str | None:
    kind = media_type(part).partition(";")[0].strip().lower()
    if part.data is None or not (kind.startswith("text/") or kind in _TEXT_TYPES):
        return None
    try:
        return base64.b64decode(part.data, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
