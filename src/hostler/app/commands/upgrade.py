"""`hostler upgrade --check`: what this build would do to a database."""

from __future__ import annotations

from pathlib import Path

import click

from hostler.app import wiring


@click.command()
@click.option("--check", is_flag=True, required=True, help="Look, and change nothing.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder that has hostler.db.")
@click.option("--database", help="sqlite:///PATH or postgresql://…; default: as settings say.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
def upgrade(**given: object) -> None:
    """See what a server of this build would do to the database, and whether it can.

    Run it with the new build, before servers are exchanged: which steps of the schema are to be taken,
    which kinds of facts this build does not know, which processes have the database open and of which
    builds, and how much room is left.  Exits with 1 if something has to be done first.
    """
    wiring.terminal("upgrading", "upgrade")(**given)
