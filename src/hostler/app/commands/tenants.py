"""`hostler tenants`: who shares this server, each with sessions of their own."""

from __future__ import annotations

import click

from hostler.app import wiring
from hostler.app.commands.sessions import where


@click.group()
def tenants() -> None:
    """Make and list tenants."""


@tenants.command()
@click.argument("tenant")
@click.option("--title", help="What people call it.")
@where
def create(**given: object) -> None:
    """Make TENANT, and print its id."""
    wiring.terminal("identity", "create_tenant")(**given)


@tenants.command("list")
@click.option("--json", is_flag=True, help="One JSON object a line.")
@where
def list_(**given: object) -> None:
    """List tenants by id."""
    wiring.terminal("identity", "tenants")(**given)
