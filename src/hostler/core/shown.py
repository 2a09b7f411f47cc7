"""What a tool shows to people: parts of an answer that no model reads.

    data            a value for the app to draw
    source          where something is from, on the web
    document        where something is from, elsewhere
    file            a picture, a table: something to look at or to take along

Invariant: nothing here imports anything of ours but `errors`; a part that `taken` returned can be
written, read by any client, and is changed by nobody.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

import msgspec
from msgspec import Struct

from hostler.core.errors import ToolError

LARGEST_SHOWN = 1024 * 1024
"""Bytes of one part as JSON: a picture of 700 KB.  What is larger has a URL."""
LARGEST_OF_CALL = 4 * 1024 * 1024
"""Bytes of all parts of one call: they are read whenever the run is taken up again."""
MOST_OF_CALL = 200
"""Parts of one call: steps of a progress bar, not its every move."""
DEEPEST = 32
"""Levels of nesting in any JSON that is kept: every later reader has to survive it."""

_MASKED = r"\[secret:[^\]\s]{1,200}\]"
"""What stands in a part in which a secret was found."""
_NAME = re.compile(rf"(?:[\w-]|{_MASKED}){{1,64}}", re.ASCII)
_URL = re.compile(rf"(?:https?://[^\s/]|{_MASKED})[^\s\x00-\x1f\x7f]*", re.ASCII | re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,100}", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}", re.ASCII)


class DataPart(Struct, frozen=True, kw_only=True, tag_field="type", tag="data", omit_defaults=True):
    """A value for the app to draw: progress, a chart, a card."""

    name: str
    """Says how to draw it: 1 to 64 letters, digits, `_` and `-`."""
    value: object
    """Any JSON."""
    key: str | None = None
    """In one run, a later one of this name and key takes the place of the earlier one."""


class SourcePart(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="source", omit_defaults=True
):
    """A page that was used."""

    url: str
    """It begins with `https://` or `http://`."""
    title: str | None = None
    """For people."""


class DocumentPart(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="document", omit_defaults=True
):
    """A document that was used and has no URL for those who watch."""

    title: str
    """For people."""
    media_type: str
    """Such as `application/pdf`."""
    name: str | None = None
    """Of its file."""


class FilePart(Struct, frozen=True, kw_only=True, tag_field="type", tag="file", omit_defaults=True):
    """Exactly one of `url` and `data` (base64, with its `media_type`).

    In a message, something for the model to read; shown by a tool, something for people, and then
    `media_type` is always there.
    """

    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    name: str | None = None
    """What to call it."""


Shown: TypeAlias = DataPart | SourcePart | DocumentPart | FilePart
Show: TypeAlias = Callable[[Shown], Awaitable[None]]
_decoder: msgspec.json.Decoder[Shown] = msgspec.json.Decoder(Shown)
_UNFIT = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


def taken(part: object) -> tuple[Shown, int]:
    """Return a part as it will be for ever, whatever its maker does next, and its bytes as JSON.

    Raises:
        ToolError: it cannot be kept or shown; says what is wrong.
    """
    try:
        raw = msgspec.json.encode(part)
        size = len(raw)
        if size > LARGEST_SHOWN:
            most = f"a part has at most {LARGEST_SHOWN:,}"
            raise ToolError(f"This was not shown: it is {size:,} bytes of JSON, and {most}.")
        read = _decoder.decode(raw)
    except _UNFIT as error:
        raise ToolError(f"This was not shown: {type(part).__name__}: {error}.") from error
    if (why := fault(read)) is not None:
        raise ToolError(f"This was not shown: {why}.")
    return read, size


def fault(part: Shown) -> str | None:
    """Return what is wrong with a part of the right form, in words; None when nothing is."""
    match part:
        case DataPart():
            if not _NAME.fullmatch(part.name):
                return "the name of data has 1 to 64 letters, digits, _ and -"
            if is_deeper(part.value, DEEPEST):
                return f"the data is nested more than {DEEPEST} levels deep"
            return None
        case SourcePart():
            return _linked(part.url)
        case DocumentPart():
            return _typed(part.media_type)
        case FilePart():
            return _typed(part.media_type) or _kept(part)


def is_deeper(value: object, levels: int) -> bool:
    """Whether JSON is nested deeper than that."""
    level: list[object] = [value]
    for _ in range(levels):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return False
    return True


def _inside(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _linked(url: str) -> str | None:
    return None if _URL.fullmatch(url) else "its url has to begin with https:// or http://"


def _typed(media_type: str | None) -> str | None:
    wanted = "its media_type has to be one, such as image/png"
    return None if media_type and _MEDIA_TYPE.fullmatch(media_type) else wanted


def _kept(file: FilePart) -> str | None:
    if (file.url is None) == (file.data is None):
        return "a file has either a url or data"
    if file.url is not None:
        return _linked(file.url)
    data = file.data or ""
    is_whole = len(data) % 4 == 0 and _BASE64.fullmatch(data)
    return None if is_whole or re.search(_MASKED, data) else "its data has to be base64"


class Stage:
    """Where one call shows its parts, in order, while it runs.

    Invariant: nothing is shown of a call whose outcome is known.
    """

    def __init__(self, write: Show) -> None:
        """`write` returns when a part is durable."""
        self._write, self._count, self._bytes = write, 0, 0
        self.is_over = False

    async def show(self, part: Shown) -> None:
        """See `CallContext.show`."""
        kept, size = taken(part)
        if self.is_over:
            raise ToolError("This was not shown: the call is over.")
        if self._count >= MOST_OF_CALL:
            raise ToolError(f"This was not shown: a call may show {MOST_OF_CALL} parts, and did.")
        if self._bytes + size > LARGEST_OF_CALL:
            all_of_it = f"the parts of a call may have {LARGEST_OF_CALL:,} bytes of JSON in all"
            raise ToolError(f"This was not shown: {all_of_it}.")
        self._count, self._bytes = self._count + 1, self._bytes + size
        await self._write(kept)


async def unseen(part: Shown) -> None:
    """Show a part to nobody: of calls that tests make.  Raises ToolError: as `taken`."""
    taken(part)
