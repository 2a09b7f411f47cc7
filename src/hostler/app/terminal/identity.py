"""What operators do about tenants and keys, over a server's API.

Where no server runs, the data folder is opened for this alone, and no run goes on.

Invariant: a new key is the whole of the standard output, and is written nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from urllib.parse import quote

import click

from hostler.app.client import Client
from hostler.app.settings import load_settings
from hostler.app.terminal.listing import as_json, console, show, table
from hostler.app.terminal.reach import own, perform, reach
from hostler.app.terminal.words import printable
from hostler.core.errors import SetupError
from hostler.core.events import JsonObject

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def create_tenant(*, tenant: str, title: str | None, **flags: object) -> None:
    """Make a tenant."""

    async def work(client: Client) -> int:
        made = await client.api.post("/api/tenants", {"id": tenant, "title": title})
        click.echo(made["id"])
        return 0

    _perform(work, flags)


def tenants(*, json: bool, **flags: object) -> None:
    """List tenants."""

    async def work(client: Client) -> int:
        _list(await _items(client, "/api/tenants"), ["id", "title", "created_at"], json=json)
        return 0

    _perform(work, flags)


def create_key(
    *,
    tenant: str | None,
    scopes: Sequence[str],
    expires_in: str | None,
    **given: object,
) -> None:
    """Make a key."""
    body: JsonObject = {name: given.pop(name) for name in ("user", "role", "title")}
    body |= {"tenant": tenant, "scopes": list(scopes) or None}
    body["expires_in_s"] = None if expires_in is None else seconds(expires_in)

    async def work(client: Client) -> int:
        # Said once: a second try would make a second key, whose text nobody sees.
        made = await client.api.post("/api/keys", body, tries_s=0)
        click.echo(made["key"])
        return 0

    _perform(work, given)


def keys(*, tenant: str | None, json: bool, **flags: object) -> None:
    """List keys."""
    names = ["id", "prefix", "user", "role", "title", "expires_at", "revoked_at", "used_at"]

    async def work(client: Client) -> int:
        found = await _items(client.acting_in(tenant), "/api/keys")
        _list(found, names, json=json)
        return 0

    _perform(work, flags)


def revoke_key(*, key: str, tenant: str | None, **flags: object) -> None:
    """End a key."""

    async def work(client: Client) -> int:
        await client.acting_in(tenant).api.delete(f"/api/keys/{quote(key, safe='')}")
        return 0

    _perform(work, flags)


def seconds(text: str) -> float:
    """Return how long `30d` is.  Raises SetupError."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", text, re.ASCII)
    if found is None:
        raise SetupError(f"{text!r} is no time: write it as in 30d, 12h, 90m or 45s")
    return float(int(found[1]) * SECONDS[found[2]])


async def _items(client: Client, path: str) -> list[JsonObject]:
    async with aclosing(client.api.items(path, limit=None)) as found:
        return [one async for one in found]


def _list(items: Sequence[JsonObject], names: Sequence[str], *, json: bool) -> None:
    if json:
        as_json(items)
        return
    shown = table(*(name.removesuffix("_at") for name in names))
    for one in items:
        shown.add_row(*(printable(str(one[name] or "")) for name in names))
    show(console(), shown, "none yet")


def _perform(work: Callable[[Client], Awaitable[int]], flags: dict[str, object]) -> None:
    settings = load_settings(flags)

    async def reached() -> int:
        async with reach(settings, own("deciding", settings)) as there:
            return await work(there.client)

    perform(reached)
