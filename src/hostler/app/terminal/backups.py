"""`hostler backup` and `hostler restore` on the terminal.

Invariant: what is told to be whole was read back.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import click

from hostler.app.moving import Place, move, shown
from hostler.app.settings import load_settings
from hostler.app.terminal.reach import perform
from hostler.core.errors import SetupError
from hostler.stores.sqlite_backup import Copied, back_up, check_is_new
from hostler.stores.sqlite_backup import restore as restore_file
from hostler.stores.sqlite_file import lock_of


def backup(*, file: Path, data: Path | None, database: str | None) -> None:
    """Copy a database to a file."""
    settings = load_settings({"data": data, "database": database})
    perform(partial(_backup, settings.place, file, settings.data))


async def _backup(place: Place, file: Path, data: Path) -> int:
    if isinstance(place, Path):
        done = back_up(place, file)
    else:
        check_is_new(file)
        done = await _moved(place, file)
        lock_of(file).unlink()  # a copy is opened by nobody
    click.echo(f"{_told(done)} in {file}, read back")
    click.echo(f"not in it, of {data}: master-key, admin-key, results/")
    return 0


def restore(*, file: Path, data: Path | None, database: str | None) -> None:
    """Make a database of a copy."""
    place = load_settings({"data": data, "database": database}).place
    perform(partial(_restore, file, place))


async def _restore(file: Path, place: Place) -> int:
    if isinstance(place, Path):
        done = restore_file(file, place)
    else:
        with tempfile.TemporaryDirectory(prefix="hostler-restore-") as folder:
            copy = Path(folder) / "copy.db"  # the file itself stays as it is
            restore_file(file, copy)
            done = await _moved(copy, place)
    click.echo(f"{_told(done)} in {shown(place)}, read back")
    return 0


async def _moved(source: Place, target: Place) -> Copied:
    moved = await move(source, target, leaves=False)
    if moved.differences:
        raise SetupError(f"the copy is not the same, and was not kept: {moved.differences[0]}")
    for one in moved.broken:
        click.echo(one, err=True)
    return Copied(moved.there.count("sessions"), moved.there.count("events"))


def _told(done: Copied) -> str:
    return f"{done.sessions} sessions with {done.facts} facts"
