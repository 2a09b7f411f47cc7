"""`hostler move` on the terminal: what was moved, and what is to be done now.

Invariant: prints no password; ends with 1 if the two databases are not the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from hostler.app.moving import Moved, Place, compared, shown
from hostler.app.moving import move as moved_over
from hostler.app.settings import load_settings
from hostler.app.terminal.reach import perform
from hostler.stores.moving import Census
from hostler.stores.sqlite_file import moved_mark

DIFFERENT = 1
"""Exit status when something is not the same."""
MOST = 20
"""Differences that are told."""
COUNTED = (
    ("tenants", "tenants"),
    ("keys", "keys"),
    ("agent_runs", "runs"),
    ("approvals", "approvals"),
    ("scheduled", "scheduled messages"),
    ("shares", "shared links"),
    ("secrets", "secrets, sealed as they are"),
    ("webhooks", "webhooks"),
    ("deliveries", "deliveries"),
    ("audit", "rows of the audit log"),
)


def move(*, source: str | None, target: str, data: Path | None, check: bool) -> None:
    """Move from one database to another, or compare the two."""
    here = load_settings({"database": source, "data": data}).place
    there = load_settings({"database": target}).place

    async def work() -> int:
        doing = compared if check else moved_over
        return told(await doing(here, there), here, there, check=check)

    perform(work)


def told(moved: Moved, here: Place, there: Place, *, check: bool) -> int:
    """Print what came of it; return the exit status."""
    for one in moved.broken:
        click.echo(f"{one} (as in {shown(here)})", err=True)
    if moved.differences:
        for one in moved.differences[:MOST]:
            click.echo(one, err=True)
        kept = "" if check else "; nothing was kept"
        click.echo(f"{len(moved.differences)} differences in {shown(there)}{kept}", err=True)
        return DIFFERENT
    click.echo(summary(moved.there))
    if moved.chains:
        click.echo(f"the audit logs of {len(moved.chains)} tenants hold")
    if check:
        return 0
    click.echo("was moved before; nothing was written" if moved.was_there else "moved")
    for line in _next(here, there):
        click.echo(line)
    return 0


def summary(found: Census) -> str:
    """Return what is in a database, in words."""
    facts = f"{found.count('sessions')} sessions with {found.count('events')} facts"
    lines = [f"{facts}: of each session the same on both sides"]
    lines += [f"{found.count(table)} {word}" for table, word in COUNTED if found.count(table)]
    return "\n".join(lines)


def _next(here: Place, there: Place) -> Sequence[str]:
    """Return what is to be done now."""
    lines = [f"now start servers on {shown(there)} (HOSTLER_DATABASE, --database)"]
    if isinstance(here, Path):
        lines.append(
            f"{here} stays as it is; no server opens it while {moved_mark(here).name} is beside it"
        )
    else:
        lines.append(f"start no server on {shown(here)}: it would drive the same runs")
    lines.append(
        "in no database: the master key, the admin key and the folder of long tool results"
    )
    return lines
