"""About how many tokens a question has, by its characters: no model is asked.

Invariant: pure, and never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import msgspec

from hostler.core.ports import Request
from hostler.core.said import ImagePart, ModelSaid, Said, TextPart, ToolSaid
from hostler.core.shown import FilePart

CHARS_PER_TOKEN = 4
TOKENS_OF_A_MESSAGE = 4
"""What stands round each."""
TOKENS_OF_AN_IMAGE = 1_500
BASE64_PER_TOKEN = 80
"""Of a file that is no text: about ten pages a megabyte, each as dear as an image."""


def estimated(request: Request) -> int:
    """Return about how many tokens a question has."""
    tools = sum(len(msgspec.json.encode(one)) for one in request.tools)
    chars = len(request.system) + tools
    tokens = sum(_tokens(one) for one in request.transcript)
    return max(1, ceil(chars / CHARS_PER_TOKEN) + tokens)


def _tokens(said: Said) -> int:
    if isinstance(said, ToolSaid):
        texts: Sequence[str] = (said.output,)
    elif isinstance(said, ModelSaid):
        calls = [msgspec.json.encode(one.arguments).decode() for one in said.calls]
        texts = (said.text, said.thinking or "", *(one.name for one in said.calls), *calls)
    elif isinstance(said.content, str):
        texts = (said.content,)
    else:
        shown = sum(_shown(one) for one in said.content if not isinstance(one, TextPart))
        texts = [one.text for one in said.content if isinstance(one, TextPart)]
        return shown + _of(texts)
    return _of(texts)


def _of(texts: Sequence[str]) -> int:
    return TOKENS_OF_A_MESSAGE + ceil(sum(map(len, texts)) / CHARS_PER_TOKEN)


def _shown(part: ImagePart | FilePart) -> int:
    if isinstance(part, ImagePart) or part.data is None:
        return TOKENS_OF_AN_IMAGE
    is_text = (part.media_type or "").startswith("text/")
    each = CHARS_PER_TOKEN if is_text else BASE64_PER_TOKEN
    return ceil(len(part.data) / each)
