"""A JSON body as the type that its operation names.

Invariant: whatever cannot be read is a 400, and whatever has another form a 422 that names the field.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from hostler.core.errors import Invalid, Malformed

T = TypeVar("T")


def decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Return a body as its type; an empty one counts as `{}`.

    Raises:
        Malformed: it is not JSON, not UTF-8, or nested too deeply to be read.
        Invalid: it does not have the form; names the field.
    """
    try:
        return decoder.decode(body or b"{}")
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `")
        raise Invalid(what, fields=[(_pointer(path.rstrip("`")), what)]) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise Malformed("the body is nested too deeply") from error


def _pointer(path: str) -> str:
    """Return msgspec's `$.content[0].text` as a JSON pointer."""
    return re.sub(r"\[(\d+|\.\.\.)\]", r"/\1", path.removeprefix("$")).replace(".", "/")


def digits(text: str) -> int | None:
    """Return a whole number that a client wrote; None if it is none, or beyond all reason."""
    # `isdigit` also says yes to what `int` refuses: other scripts' digits, and thousands of them.
    return int(text) if re.fullmatch(r"\d{1,18}", text, re.ASCII) else None
