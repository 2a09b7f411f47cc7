"""`hostler backup`: a copy of all that is kept, while servers run."""

from __future__ import annotations

from pathlib import Path

import click

from hostler.app import wiring


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Folder that has hostler.db.")
@click.option("--database", help="sqlite:///PATH or postgresql://…; default: as settings say.")
def backup(**given: object) -> None:
    """Copy all that is in the database, as it is at one moment, to FILE, and read it back.

    Servers go on meanwhile.  FILE is a SQLite database, wherever the copy comes from, for `hostler
    restore`; nothing is overwritten.  The master key and the folder of long tool results are not in it.
    """
    wiring.terminal("backups", "backup")(**given)
