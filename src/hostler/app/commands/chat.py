"""`hostler chat`: a session in the terminal, with a server or without one."""

from __future__ import annotations

import click

from hostler.app import wiring


@click.command()
@click.option("--agent", help="Its name; without a server also MODULE:AGENT or a file.")
@click.option("--model", help="provider:model, in place of what the agent names.")
@click.option("--session", metavar="ID", help="Go on with this one.")
@click.option("--url", help="The server; default the local one, or none.")
@click.option("--data", type=click.Path(), help="Folder for all that is kept.")
def chat(**given: object) -> None:
    """Talk to an agent in the terminal.

    A server that runs is used; where none does, this process is its own.
    """
    wiring.terminal("chat", "chat")(**given)
