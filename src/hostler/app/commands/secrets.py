"""`hostler secrets`: what a tenant's models and tools are opened with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from hostler.app import wiring

F = TypeVar("F", bound=Callable[..., object])


def _where(function: F) -> F:
    data = click.option("--data", type=click.Path(), help="Folder for all that is kept.")
    tenant = click.option("--tenant", metavar="T", help="Whose; default the key's own tenant.")
    url = click.option("--url", help="The server; default the local one, or none.")
    return url(tenant(data(function)))


@click.group(subcommand_metavar="COMMAND [ARGS]...")
def secrets() -> None:
    """Set, list and remove secrets; take them out of what was written."""


@secrets.command("set")
@click.argument("name")
@click.option("--kind", type=click.Choice(["model", "tool", "webhook"]), help="What it is for.")
@_where
def set_(**given: object) -> None:
    """Keep what is typed, or comes from the standard input, as secret NAME."""
    wiring.terminal("sealing", "put")(**given)


@secrets.command("list")
@_where
def list_(**given: object) -> None:
    """List secrets, without their values."""
    wiring.terminal("sealing", "show")(**given)


@secrets.command()
@click.argument("name")
@_where
def remove(**given: object) -> None:
    """Remove secret NAME."""
    wiring.terminal("sealing", "remove")(**given)


@secrets.command()
@_where
def rotate(**given: object) -> None:
    """Wrap the keys of all tenants with the newest master key."""
    wiring.terminal("sealing", "rotate")(**given)


@secrets.command()
@click.option("--value-from-stdin", is_flag=True, help="A value that is no secret here.")
@_where
def scrub(**given: object) -> None:
    """Mask secrets in what was written before they were known."""
    wiring.terminal("sealing", "scrub")(**given)
