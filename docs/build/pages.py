"""Which pages there are, and which of them do not say what the code says.

Invariant: the reference has these pages and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from docs.build.cli import cli
from docs.build.compliance import compliance
from docs.build.errors import errors
from docs.build.facts import facts
from docs.build.http import http, openapi_json
from docs.build.limits import limits
from docs.build.providers import provider_page
from docs.build.python import python
from docs.build.reliability import reliability
from docs.build.settings import settings
from docs.build.tables import tables

PAGES: Mapping[str, Callable[[], str]] = {
    "cli.md": cli,
    "compliance.md": compliance,
    "errors.md": errors,
    "facts.md": facts,
    "http.md": http,
    "limits.md": limits,
    "openapi.json": openapi_json,
    "providers.md": provider_page,
    "python.md": python,
    "reliability.md": reliability,
    "settings.md": settings,
    "tables.md": tables,
}


def write(folder: Path, pages: Mapping[str, str]) -> None:
    """Make the folder hold these pages and no others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    for file in _superfluous(folder, pages):
        file.unlink()


def stale(folder: Path, pages: Mapping[str, str]) -> list[str]:
    """Return each page that is out of date, missing or superfluous, and which of these it is."""
    found: list[str] = []
    for name, text in pages.items():
        file = folder / name
        if not file.is_file():
            found.append(f"{name} is missing")
        elif file.read_text(encoding="utf-8") != text:
            found.append(f"{name} is out of date")
    return found + [f"{file.name} is superfluous" for file in _superfluous(folder, pages)]


def _superfluous(folder: Path, pages: Mapping[str, str]) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.name not in pages)
