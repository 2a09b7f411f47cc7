"""The few forms of Markdown that the pages are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MADE = "<!-- Made by `make docs`: change the code that it is made from. -->"


def page(title: str, *parts: str) -> str:
    """Return a page; empty parts are left out."""
    return "\n\n".join([MADE, f"# {title}", *(part.strip() for part in parts if part)]) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, or "" when it has no rows."""
    lines = ["| " + " | ".join(_cell(one) for one in row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *lines])


def code(text: str) -> str:
    """Return text as a code span, "" as nothing."""
    return f"`{text}`" if text else ""


def fence(text: str, language: str = "text") -> str:
    """Return text as a code block."""
    return f"```{language}\n{text.rstrip()}\n```"


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and MkDocs make it of plain words and code."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def link(name: str) -> str:
    """Return a link to the heading of this page that is `name` as code."""
    return f"[{name}](#{slug(name)})"


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\|", " ".join(text.split()))
