"""`hostler attach`: looking on."""

from __future__ import annotations

import click

from hostler.app import wiring


@click.command()
@click.argument("session", metavar="ID")
@click.option("--after", default="0", help="A cursor, or `now`; default from the beginning.")
@click.option("--url", help="The server; default the local one.")
@click.option("--data", type=click.Path(), help="Folder with the server's key.")
def attach(**given: object) -> None:
    """Show what happened in session ID, then what happens; Ctrl-C leaves, and cancels nothing."""
    wiring.terminal("chat", "attach")(**given)
