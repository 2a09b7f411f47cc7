"""`hostler audit`: take the audit log away, and check that it is what it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from hostler.app import wiring

F = TypeVar("F", bound=Callable[..., object])


def _where(function: F) -> F:
    data = click.option("--data", type=click.Path(), help="Folder for all that is kept.")
    return click.option("--url", help="The server; default the local one, or none.")(data(function))


@click.group()
def audit() -> None:
    """Who did what: export the audit log, and verify it."""


@audit.command()
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only rows past this one.")
@_where
def export(**given: object) -> None:
    """Write the audit log to the standard output, a line of JSON for each row."""
    wiring.terminal("audit_log", "export")(**given)


@audit.command()
@_where
def head(**given: object) -> None:
    """Print the last row's number and hash, SEQ:HASH; keep it somewhere else."""
    wiring.terminal("audit_log", "head")(**given)


@audit.command()
@click.argument("file", type=click.File("rb"), required=False)
@click.option(
    "--database", help="hostler.db, or the URL of a PostgreSQL database, in place of FILE."
)
@click.option("--tenant", help="Whose chain, of a database; default all.")
@click.option("--head", "kept", metavar="SEQ:HASH", help="What `hostler audit head` told once.")
def verify(**given: object) -> None:
    """Check a FILE that `export` wrote (- for the standard input), or a database.

    Says where the chain breaks and exits with 1 if it does.  Rows that were cut off at the end are
    missed only against a --head that was kept elsewhere.
    """
    wiring.terminal("audit_log", "verify")(**given)
