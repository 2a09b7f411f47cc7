"""`hostler restore`: a database made of a copy."""

from __future__ import annotations

from pathlib import Path

import click

from hostler.app import wiring


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Folder to have hostler.db.")
@click.option("--database", help="sqlite:///PATH or postgresql://…; default: as settings say.")
def restore(**given: object) -> None:
    """Make a database of FILE, which `hostler backup` made; there must be none, or an empty one.

    It has all of FILE in the end, or nothing.  A server that is started on it drives the runs that
    went on when the copy was made: stop the one it was made of, or give the copy's server no models.
    """
    wiring.terminal("backups", "restore")(**given)
