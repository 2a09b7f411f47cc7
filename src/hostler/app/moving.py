"""What is in one database, written to another and compared there before it counts.

Invariant: a target has all of it or nothing; what is told to be the same was read on both sides.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit, urlunsplit

from hostler.app import wiring
from hostler.core.audited import AuditRow
from hostler.core.errors import SetupError
from hostler.service.chain import Broken, check
from hostler.stores import sqlite_moving
from hostler.stores.beside_rows import to_audit
from hostler.stores.moving import Census, Tables, Target, census, copy, differences, shared
from hostler.stores.sqlite_file import moved_mark

Place: TypeAlias = Path | str
"""A SQLite file, or the URL of a PostgreSQL database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What came of it."""

    there: Census
    """What is in the source."""
    was_there: bool = False
    """It was moved before; nothing was written."""
    differences: Sequence[str] = ()
    """Where the target is not the same: then nothing was kept."""
    chains: Sequence[str] = field(default=())
    """Tenants whose audit log holds."""
    broken: Sequence[str] = ()
    """In words, of those whose does not: as little as where it came from."""


async def move(source: Place, target: Place, *, leaves: bool = True) -> Moved:
    """Write all that is in a source to an empty target, and compare; keep it if it is the same.

    `leaves`: nobody uses the source any more: none may have it open, and a file is marked.  A target
    that is not empty is compared, so that what was cut can be done again.

    Raises:
        SetupError: somebody has one of them open, or the target has something else.
        Unavailable: a database cannot be reached, or was lost: do it again.
    """
    if _same(source, target):
        raise SetupError("source and target are the same database")
    async with _reading(source, alone=leaves) as here, _writing(target) as there:
        if there.is_empty:
            moved = await _moved(here, there)
        else:
            moved = await compare(here, there)
            if moved.differences:
                raise SetupError(
                    f"{shown(target)} is not empty, and not a copy of {shown(source)}: "
                    f"{moved.differences[0]}.  Nothing was written; name an empty database"
                )
        if leaves and isinstance(source, Path) and not moved.differences:
            moved_mark(source).write_text(f"{shown(target)}\n", encoding="utf-8")
    return moved


async def compared(source: Place, target: Place) -> Moved:
    """Compare two databases; nothing is written.  Raises as `move`."""
    async with _reading(source, alone=True) as here, _reading(target, alone=True) as there:
        return await compare(here, there)


async def compare(here: Tables, there: Tables) -> Moved:
    columns = await shared(here, there)
    first = await census(here, columns)
    found = differences(first, await census(there, columns))
    chains, broken = await _chains(there)
    return Moved(there=first, was_there=True, differences=found, chains=chains, broken=broken)


async def _moved(here: Tables, there: Target) -> Moved:
    columns = await shared(here, there)
    copied = await copy(here, there)
    found = differences(copied, await census(there, columns))
    chains, broken = await _chains(there)
    if not found:
        await there.commit()
    return Moved(there=copied, differences=found, chains=chains, broken=broken)


async def _chains(there: Tables) -> tuple[Sequence[str], Sequence[str]]:
    """Return the tenants whose audit log holds, and of the others where it breaks."""
    held, broken = list[str](), list[str]()
    async with aclosing(there.rows("audit", AuditRow.__struct_fields__)) as read:
        rows = [row async for some in read for row in some]
    for tenant, mine in groupby(rows, key=lambda row: str(row[0])):
        found = check(to_audit(row) for row in mine)
        if isinstance(found, Broken):
            broken.append(f"the audit log of {tenant} breaks at row {found.seq}: {found.what}")
        else:
            held.append(tenant)
    return held, broken


def shown(place: Place) -> str:
    """Return a place as it may be told: without a password."""
    if isinstance(place, Path):
        return str(place)
    parts = urlsplit(place)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def _same(source: Place, target: Place) -> bool:
    if isinstance(source, Path) and isinstance(target, Path):
        is_one = source.exists() and target.exists() and source.samefile(target)  # by a link, too
        return is_one or source.absolute() == target.absolute()
    return source == target


def _reading(place: Place, *, alone: bool) -> AbstractAsyncContextManager[Tables]:
    if isinstance(place, Path):
        return _file(place, is_target=False)
    return wiring.postgres_moving().reading(place, alone=alone)


def _writing(place: Place) -> AbstractAsyncContextManager[Target]:
    if isinstance(place, Path):
        return _file(place, is_target=True)
    return wiring.postgres_moving().writing(place)


@asynccontextmanager
async def _file(path: Path, *, is_target: bool) -> AsyncGenerator[Target]:
    opened = sqlite_moving.writing if is_target else sqlite_moving.reading
    with opened(path) as tables:
        yield tables
