"""What may not be told: the one function that all text passes before it leaves as telemetry.

What looks like a secret of ours or like a key in a header is always covered.  Who knows more
(the values of secrets that are kept) says so with `set_mask`.

Invariant: no line, no attribute of a span and no label of a metric skips `masked`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

Mask: TypeAlias = Callable[[str], str]
COVER = "[secret]"
_OURS = re.compile(
    r"\b(?:hk|ht|hs|whsec|sk|xoxb|ghp)[-_][\w-]{16,}"
    r"|(?<=[Bb]earer )[^\s\"',;]+"
    r"|(?<=\b(?:share)=)[^\s\"'&,;]+|(?<=\b(?:ticket)=)[^\s\"'&,;]+"
)


class _Masking:
    mask: Mask | None = None


def set_mask(mask: Mask | None) -> None:
    """Let all text pass `mask`, too; it must be quick, and is called on any thread."""
    _Masking.mask = mask


def masked(text: str) -> str:
    """Return the text without what is known to be secret."""
    mask = _Masking.mask
    if mask is not None:
        text = mask(text)
    return _OURS.sub(COVER, text)
