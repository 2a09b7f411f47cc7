"""`hostler search`: where words were said."""

from __future__ import annotations

import click

from hostler.app import wiring


@click.command()
@click.argument("words", nargs=-1, required=True)
@click.option(
    "--limit",
    type=click.IntRange(1, 100),
    default=20,
    show_default=True,
    help="At most so many.",
)
@click.option("--json", is_flag=True, help="One JSON object a line.")
@click.option("--url", help="The server; default the local one, or none.")
@click.option("--data", type=click.Path(), help="Folder for all that is kept.")
def search(**given: object) -> None:
    """Find where all the WORDS were said, newest first; exit with 1 if nowhere."""
    wiring.terminal("listing", "search")(**given)
