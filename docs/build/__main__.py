"""`python -m docs.build [--check]`: write the reference, or say what in it is out of date."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.build.pages import PAGES, stale, write
from docs.build.source import Undocumented

REFERENCE = Path(__file__).parents[1] / "reference"


def main(arguments: list[str], *, folder: Path = REFERENCE) -> int:
    """Return the exit status: 1 when a page is out of date or something has no docstring."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m docs.build [--check]\n")
        return 2
    try:
        pages = {name: make() for name, make in PAGES.items()}
    except Undocumented as error:
        sys.stderr.write(f"docs: {error}\n")
        return 1
    if not arguments:
        write(folder, pages)
        return 0
    found = stale(folder, pages)
    for one in found:
        sys.stderr.write(f"docs/reference/{one}; run `make docs`\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
