"""What is done with secrets from a terminal; a value is typed unseen, or comes on a pipe.

Invariant: no value is on a command line or on the screen.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import cast
from urllib.parse import quote

import click

from hostler.app.client import Client
from hostler.app.settings import load_settings
from hostler.app.terminal.reach import own, perform, reach
from hostler.core.errors import SetupError
from hostler.core.events import JsonObject

PATH = "/api/secrets"


def put(*, name: str, kind: str | None, **flags: object) -> None:
    """Keep a value under a name."""
    value = _value(f"Value of {name}")

    async def work(client: Client) -> int:
        body: JsonObject = {"value": value, "kind": kind}
        await client.api.put(f"{PATH}/{quote(name, safe='')}", body)
        return 0

    _perform(work, flags)


def show(**flags: object) -> None:
    """List names, kinds and times."""

    async def work(client: Client) -> int:
        page = await client.api.get(PATH)
        for one in cast("list[JsonObject]", page["items"]):
            click.echo(f"{one['name']}\t{one['kind']}\t{one['updated_at']}")
        return 0

    _perform(work, flags)


def remove(*, name: str, **flags: object) -> None:
    """Remove a secret."""

    async def work(client: Client) -> int:
        await client.api.delete(f"{PATH}/{quote(name, safe='')}")
        return 0

    _perform(work, flags)


def rotate(**flags: object) -> None:
    """Wrap all data keys again."""

    async def work(client: Client) -> int:
        done = await client.api.post("/api/secrets-rotation", {})
        click.echo(f"{done['data_keys']} data keys were wrapped with the newest master key")
        return 0

    _perform(work, flags)


def scrub(*, value_from_stdin: bool, **flags: object) -> None:
    """Take secrets out of what was written."""
    value = _value("Value") if value_from_stdin else None

    async def work(client: Client) -> int:
        done = await client.api.post("/api/secrets-scrub", {"value": value})
        told = ", ".join(f"{done[what]} {what}" for what in ("facts", "rows", "files"))
        click.echo(f"{done['id']}: {told} changed")
        return 0

    _perform(work, flags)


def _value(what: str) -> str:
    """Return what is typed, or all that comes on a pipe but for the last line's end."""
    if sys.stdin.isatty():
        return str(click.prompt(what, hide_input=True, err=True))
    value = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    if not value:
        raise SetupError("nothing came on the standard input")
    return value


def _perform(work: Callable[[Client], Awaitable[int]], flags: dict[str, object]) -> None:
    tenant = cast("str | None", flags.pop("tenant", None))
    settings = load_settings(flags)
    instead = own("reading", settings)

    async def with_client() -> int:
        async with reach(settings, instead) as reached:
            return await work(reached.client.acting_in(tenant))

    perform(with_client)
