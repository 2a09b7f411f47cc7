"""What is done with a tenant's endpoints from a terminal.

Invariant: what the server says is shown as it says it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast
from urllib.parse import quote

import click

from hostler.app.client import Client
from hostler.app.settings import load_settings
from hostler.app.terminal.reach import own, perform, reach
from hostler.core.events import JsonObject

PATH = "/api/endpoints"


def put(*, provider: str, base_url: str, tenant: str | None, **flags: object) -> None:
    """Have a provider's models asked at a URL."""

    async def work(client: Client) -> int:
        await client.api.put(f"{PATH}/{quote(provider, safe='')}", {"base_url": base_url})
        return 0

    _perform(work, tenant, flags)


def show(*, tenant: str | None, **flags: object) -> None:
    """List providers and URLs."""

    async def work(client: Client) -> int:
        page = await client.api.get(PATH)
        for one in cast("list[JsonObject]", page["items"]):
            click.echo(f"{one['provider']}\t{one['base_url']}")
        return 0

    _perform(work, tenant, flags)


def remove(*, provider: str, tenant: str | None, **flags: object) -> None:
    """Have them asked where the operator does."""

    async def work(client: Client) -> int:
        await client.api.delete(f"{PATH}/{quote(provider, safe='')}")
        return 0

    _perform(work, tenant, flags)


def _perform(
    work: Callable[[Client], Awaitable[int]], tenant: str | None, flags: dict[str, object]
) -> None:
    settings = load_settings(flags)
    instead = own("deciding", settings)

    async def with_client() -> int:
        async with reach(settings, instead) as reached:
            return await work(reached.client.acting_in(tenant))

    perform(with_client)
