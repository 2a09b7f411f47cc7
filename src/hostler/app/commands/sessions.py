"""`hostler sessions`: what was talked about, newest first."""

from __future__ import annotations

import click

from hostler.app import wiring


@click.command()
@click.option("--limit", type=click.IntRange(min=1), help="At most so many; default all.")
@click.option("--agent", help="Only of this agent.")
@click.option("--status", help="Only idle, queued or running ones.")
@click.option("--json", is_flag=True, help="One JSON object a line.")
@click.option("--url", help="The server; default the local one, or none.")
@click.option("--data", type=click.Path(), help="Folder for all that is kept.")
def sessions(**given: object) -> None:
    """List sessions, newest first."""
    wiring.terminal("listing", "sessions")(**given)
