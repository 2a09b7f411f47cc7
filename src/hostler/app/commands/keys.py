"""`hostler keys`: what opens this server to people and programs."""

from __future__ import annotations

from typing import get_args

import click

from hostler.app import wiring
from hostler.app.commands.sessions import where
from hostler.core.events import Role, Scope

tenant = click.option("--tenant", help="Of which tenant; default `default`.")


@click.group()
def keys() -> None:
    """Make, list and revoke keys."""


@keys.command()
@tenant
@click.option("--user", help="Whose it is; without, it is a program's, called by the key's id.")
@click.option(
    "--role",
    type=click.Choice(get_args(Role)),
    default="member",
    show_default=True,
    help="What it opens: all of the tenant, one's own sessions, or all of it to read.",
)
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(get_args(Scope)),
    multiple=True,
    help="Only this, of what the role may do; can be given again.",
)
@click.option("--title", help="What it is for.")
@click.option("--expires-in", metavar="TIME", help="As in 30d, 12h, 90m or 45s; default never.")
@where
def create(**given: object) -> None:
    """Make a key, and print it, this once."""
    wiring.terminal("identity", "create_key")(**given)


@keys.command("list")
@tenant
@click.option("--json", is_flag=True, help="One JSON object a line.")
@where
def list_(**given: object) -> None:
    """List a tenant's keys, newest first."""
    wiring.terminal("identity", "keys")(**given)


@keys.command()
@click.argument("key", metavar="ID")
@tenant
@where
def revoke(**given: object) -> None:
    """End key ID, and all that is open with it."""
    wiring.terminal("identity", "revoke_key")(**given)
