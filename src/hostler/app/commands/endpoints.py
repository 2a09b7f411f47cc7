"""`hostler endpoints`: where a tenant has models asked."""

from __future__ import annotations

import click

from hostler.app import wiring
from hostler.app.commands.sessions import where

tenant = click.option("--tenant", metavar="T", help="Whose; default the key's own tenant.")


@click.group(subcommand_metavar="COMMAND [ARGS]...")
def endpoints() -> None:
    """Have a provider's models asked at a URL of the tenant's, with its own key."""


@endpoints.command("set")
@click.argument("provider")
@click.argument("base_url", metavar="URL")
@tenant
@where
def set_(**given: object) -> None:
    """Ask the models of PROVIDER at URL, with the secret model:PROVIDER."""
    wiring.terminal("placing", "put")(**given)


@endpoints.command("list")
@tenant
@where
def list_(**given: object) -> None:
    """List endpoints by provider."""
    wiring.terminal("placing", "show")(**given)


@endpoints.command()
@click.argument("provider")
@tenant
@where
def remove(**given: object) -> None:
    """Ask the models of PROVIDER where the operator does again."""
    wiring.terminal("placing", "remove")(**given)
