"""`hostler verify`: see on a server that runs that it keeps what is promised."""

from __future__ import annotations

import click

from hostler.app import wiring


@click.group()
def verify() -> None:
    """Check that a server keeps its promises."""


@verify.command()
@click.argument("url")
@click.option("--admin-key", envvar="HOSTLER_ADMIN_KEY", help="The server's; better as a variable.")
@click.option("--data", type=click.Path(), help="Folder that has the admin key.")
@click.option("--only", multiple=True, help="Only this operation, by its operationId, or `socket`.")
def isolation(**given: object) -> None:
    """Ask the server at URL for everything, as everybody, about what is not theirs.

    Makes two tenants, `isolation-a` and `isolation-b`, with keys and sessions that are removed in
    the end.  No model is asked.  Exits with 1 if anything told whether what is foreign is there.
    """
    wiring.terminal("verifying", "isolation")(**given)
