"""`hostler doctor`: whether this installation is well."""

from __future__ import annotations

import click

from hostler.app import wiring


@click.command()
@click.option("--model", help="Ask this one, provider:model, for one call of a tool instead.")
@click.option("--json", is_flag=True, help="One JSON object a line.")
@click.option("--url", help="The server; default the local one.")
@click.option("--data", type=click.Path(), help="Folder for all that is kept.")
def doctor(**given: object) -> None:
    """Look at disk, database, server and models, and say what to do; exit with 1 if one is broken."""
    wiring.terminal("doctor", "doctor")(**given)
