"""What a docstring says about a function, and what about each of its parameters.

Reads the two styles that agents' authors use: Google's `Args:` and reST's `:param name:`.

Invariant: never raises; what it does not understand stays part of the description.
"""

from __future__ import annotations

import inspect
import re

_SECTION = re.compile(
    r"^(?:Args|Arguments|Parameters|Params):[ \t]*\n((?:[ \t]+.*(?:\n|$)|\n)+)", re.MULTILINE
)
_ITEM = re.compile(r"^\*{0,2}(\w+)[ \t]*(?:\(.*?\))?:(.*(?:\n(?:[ \t].*)?)*)", re.MULTILINE)
_REST = re.compile(
    r"^:(?:param|arg)[a-z]*[ \t]+(?:[^:\n]*[ \t])?(\w+):(.*(?:\n[ \t]+.*)*)", re.MULTILINE
)
_REST_OTHER = re.compile(
    r"^:(?:type|rtype|returns?|raises?)\b[^:\n]*:.*(?:\n[ \t]+.*)*", re.MULTILINE
)


def read_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """Return what is said about the function, and about each parameter (Google style or reST)."""
    items = _REST.findall(doc)
    for section in _SECTION.findall(doc):
        items += _ITEM.findall(inspect.cleandoc(section))
    for gone in (_SECTION, _REST, _REST_OTHER):
        doc = gone.sub("", doc)
    return doc.strip(), {name: " ".join(text.split()) for name, text in items}
