"""The schema in PostgreSQL: which steps it has taken, and taking the next ones.

A step is a file `sql/postgres_NNNN.sql` that says its phase in its first line.  What *expands* adds
what the build before does not know and does not mind, so both can run side by side; it is done when
a server starts.  What *contracts* removes what that build still needed: it is done when somebody
says so (`hostler migrate --contract`), once no older server runs.  A step that is `concurrent` is
one statement outside of any transaction, as building an index beside writers is.

Invariant: one process at a time takes steps, each whole or not at all; what was cut is done again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, TypeAlias

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from hostler.core.errors import SetupError
from hostler.faults import fault_point
from hostler.stores.postgres_sql import MIGRATION
from hostler.stores.postgres_wire import HOUSE, OLDEST, SCHEMA, Lost, Wire, connect

Phase: TypeAlias = Literal["expand", "contract"]
LOCK = 842_000_001
"""Of all that may be locked by number in a database, this one is of whoever takes steps."""
PATIENCE_S = 60.0
"""How long another process may take steps before this one gives up waiting for it."""
STEP_LOCK_S = 5.0
"""How long a step waits for a table, and all who use that table behind it."""
TRIES = 5

NOTES = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE IF NOT EXISTS {SCHEMA}.migrations (
    number int PRIMARY KEY,
    phase  text NOT NULL,
    at     timestamptz NOT NULL DEFAULT now()
)
"""
INVALID = """
SELECT c.oid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND NOT i.indisvalid
"""
GUARDED = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change of the schema."""

    number: int
    phase: Phase
    text: str
    concurrent: bool = False


@cache
def steps() -> Sequence[Step]:
    """Return the steps of this build, first to last."""
    folder = resources.files("hostler.stores") / "sql"
    found = list[Step]()
    for file in folder.iterdir():
        match = re.fullmatch(MIGRATION, file.name)
        if match is not None:
            found.append(read_step(int(match[1]), file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda step: step.number)


def read_step(number: int, text: str) -> Step:
    """Return the step that a file says.  Raises SetupError."""
    said = re.match(r"-- phase: (expand|contract)(, concurrent)?\n", text)
    if said is None:
        raise SetupError(f"step {number} does not say its phase in its first line")
    phase: Phase = "expand" if said[1] == "expand" else "contract"
    return Step(number=number, phase=phase, text=text, concurrent=said[2] is not None)


async def migrate(
    url: str,
    *,
    contract: bool = False,
    known: Sequence[Step] | None = None,
    patience_s: float = PATIENCE_S,
) -> Sequence[int]:
    """Take the steps that were not taken, in order; return their numbers.

    Stops before the first that contracts, unless that is asked for.

    Raises:
        SetupError: a newer build has contracted the schema, another process takes steps for longer
            than `patience_s`, or a step failed (it was undone).
        Unavailable: the database cannot be reached.
    """
    wire = await connect(url)
    try:
        await _check_server(wire)
        await take_lock(wire, patience_s)
        done = await _done(wire)
        wanted = _wanted(steps() if known is None else known, done, contract=contract)
        await wire.show(HOUSE)
        for step in wanted:
            await _take(wire, step)
        return [step.number for step in wanted]
    except Lost as error:
        raise SetupError(
            f"the connection was lost while the schema was changed: {error}"
        ) from error
    finally:
        wire.db.terminate()  # which lets go of the lock, whatever state this is in


async def look(url: str) -> tuple[str, bool, Sequence[int]]:
    """Return the server's version, whether it keeps tenants apart for us, and what steps are left.

    Raises:
        SetupError: as `migrate`.
        Unavailable: the database cannot be reached.
    """
    wire = await connect(url)
    try:
        await _check_server(wire)
        ((version,),) = await wire.fetch("SELECT current_setting('server_version')")
        wanted = _wanted(steps(), await _done(wire, look_only=True), contract=False)
        return str(version), await is_guarded(wire), [step.number for step in wanted]
    finally:
        wire.db.terminate()


async def taken(wire: Wire) -> dict[int, str]:
    """Return the steps that were taken, with their phases; none where there is no schema."""
    return await _done(wire, look_only=True)


async def _check_server(wire: Wire) -> None:
    ((version,),) = await wire.fetch("SELECT current_setting('server_version_num')::int / 10000")
    if not isinstance(version, int) or version < OLDEST:
        raise SetupError(f"PostgreSQL {OLDEST} or newer is needed, this is {version}")


async def is_guarded(wire: Wire) -> bool:
    """Whether row-level security holds for us: it does not for superusers."""
    ((passes,),) = await wire.fetch(GUARDED)
    return not passes


async def take_lock(wire: Wire, patience_s: float) -> None:
    """Be the one who changes the schema, until the connection ends.  Raises SetupError."""
    await wire.execute(f"SET lock_timeout = {round(patience_s * 1000)}")
    await wire.execute("SET idle_in_transaction_session_timeout = 0")
    try:
        await wire.execute("SELECT pg_advisory_lock($1)", LOCK)
    except asyncpg.LockNotAvailableError as error:
        raise SetupError(
            f"another process has been changing the schema for {patience_s:g} s: wait for it, or end "
            "it, then do this again"
        ) from error
    await wire.execute(f"SET lock_timeout = {round(STEP_LOCK_S * 1000)}")


async def _done(wire: Wire, *, look_only: bool = False) -> dict[int, str]:
    ((there,),) = await wire.fetch("SELECT to_regclass($1)::text", f"{SCHEMA}.migrations")
    if there is None and look_only:
        return {}
    if there is None:  # who may not make tables need not, once they are there
        await wire.execute(NOTES)
    rows = await wire.fetch(f"SELECT number, phase FROM {SCHEMA}.migrations")  # noqa: S608
    return {int(str(number)): str(phase) for number, phase in rows}


def _wanted(known: Sequence[Step], done: dict[int, str], *, contract: bool) -> Sequence[Step]:
    ours = {step.number for step in known}
    newer = [number for number, phase in done.items() if number not in ours and phase == "contract"]
    if newer:
        raise SetupError(
            f"the schema has taken step {min(newer)}, which removed what this build needs: use the "
            "newer build"
        )
    wanted = list[Step]()
    for step in known:
        if step.phase == "contract" and not contract and step.number not in done:
            break  # what comes after it may need it
        if step.number not in done:
            wanted.append(step)
    return wanted


async def _take(wire: Wire, step: Step) -> None:
    for number in range(1, TRIES + 1):
        fault_point("before a step of PostgreSQL's schema")
        try:
            await (_take_alone if step.concurrent else _take_whole)(wire, step)
            fault_point("after a step of PostgreSQL's schema")
        except asyncpg.LockNotAvailableError as error:
            if number == TRIES:
                raise _failed(step, error) from error
        except asyncpg.PostgresError as error:
            raise _failed(step, error) from error
        else:
            return


def _failed(step: Step, error: Exception) -> SetupError:
    return SetupError(f"step {step.number} of the schema failed and was undone: {error}")


async def _take_whole(wire: Wire, step: Step) -> None:
    try:
        await wire.execute(f"BEGIN;\n{step.text};\n{_noted(step)};\nCOMMIT")
    except asyncpg.PostgresError:
        await wire.execute("ROLLBACK")
        raise


async def _take_alone(wire: Wire, step: Step) -> None:
    """Take a step that is no transaction: first remove what a cut left of one like it."""
    for (index,) in await wire.fetch(INVALID, SCHEMA):
        await wire.execute(f"DROP INDEX CONCURRENTLY {index}")
    await wire.execute(step.text)
    await wire.execute(_noted(step))


def _noted(step: Step) -> str:
    return f"INSERT INTO {SCHEMA}.migrations (number, phase) VALUES ({step.number}, '{step.phase}')"  # noqa: S608
