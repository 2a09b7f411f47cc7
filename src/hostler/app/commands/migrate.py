"""`hostler migrate`: the schema of a PostgreSQL database."""

from __future__ import annotations

import anyio
import click

from hostler.app import wiring
from hostler.app.settings import load_settings
from hostler.core.errors import SetupError


@click.command()
@click.option("--database", help="postgresql://USER:PASSWORD@HOST/NAME.")
@click.option(
    "--contract",
    is_flag=True,
    help="Also remove what the build before needed: no older server runs.",
)
def migrate(*, database: str | None, contract: bool) -> None:
    """Bring a PostgreSQL database's schema up to date.

    A server does that itself when it starts, but for steps that --contract takes.  Needed where its
    role may not change the schema, or where that is to be done before servers are exchanged.
    """
    place = load_settings({"database": database}).place
    if not isinstance(place, str):
        raise SetupError(
            "a SQLite file is brought up to date when it is opened; name a PostgreSQL URL"
        )
    done = anyio.run(_migrate, place, contract)
    click.echo(f"took step {', '.join(map(str, done))}" if done else "the schema is up to date")


async def _migrate(url: str, contract: bool) -> list[int]:  # noqa: FBT001  as anyio.run passes it
    return [*await wiring.postgres_schema().migrate(url, contract=contract)]
