"""`hostler move`: everything from one database to another."""

from __future__ import annotations

from pathlib import Path

import click

from hostler.app import wiring


@click.command()
@click.option("--from", "source", help="Where it is now; default: as settings say.")
@click.option("--to", "target", required=True, help="sqlite:///PATH or postgresql://….")
@click.option("--data", type=click.Path(path_type=Path), help="Folder that has hostler.db.")
@click.option("--check", is_flag=True, help="Write nothing: compare the two.")
def move(**given: object) -> None:
    """Move everything that is kept from one database to another, and compare.

    Both are URLs, as in HOSTLER_DATABASE: sqlite:///PATH or postgresql://….  No server may have either
    of them open, and the target has to be empty.  It has all of it in the end, or nothing: the facts of
    each session, and all other rows, are read on both sides and compared by hash before they are kept.
    If this is cut, do it again.  Exits with 1 if anything is not the same.
    """
    wiring.terminal("moving", "move")(**given)
