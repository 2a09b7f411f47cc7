"""What a build finds in a PostgreSQL database before it uses it.

Invariant: nothing is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from hostler.stores.postgres_schema import steps, taken
from hostler.stores.postgres_wire import HOUSE, Lost, Wire, connect
from hostler.stores.survey import KNOWN, Survey

PROCESSES = """
SELECT coalesce(nullif(a.application_name, ''), 'a process of another role'),
    coalesce(host(a.client_addr), 'a local socket')
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.classid = 8420 AND l.objsubid = 2 AND l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY 1, 2
"""
"""As in `postgres_moving`: who holds a lock that says that it lives."""
KINDS = "SELECT DISTINCT kind FROM events WHERE kind <> ALL($1::text[]) ORDER BY 1"
HELD_UP = """
SELECT count(*) FROM heads h WHERE h.active IS NOT NULL AND EXISTS (
    SELECT 1 FROM events e
    WHERE e.tenant = h.tenant AND e.session = h.session AND e.kind <> ALL($1::text[])
)
"""


async def survey(url: str) -> Survey:
    """Look at a database.

    Raises:
        SetupError: the URL is wrong.
        Unavailable: it cannot be reached.
    """
    wire = await connect(url)
    try:
        await wire.show(HOUSE)
        done, known = await taken(wire), steps()
        ((version, size),) = await wire.fetched(
            "SELECT current_setting('server_version'), pg_database_size(current_database())"
        )
        processes = await wire.fetched(PROCESSES)
        left = [step for step in known if step.number not in done]
        newer = sorted(set(done) - {step.number for step in known})
        kinds, held_up = await _foreign(wire) if done else ((), 0)
    finally:
        wire.db.terminate()
    return Survey(
        server=f"PostgreSQL {version}",
        expand=[step.number for step in left if step.phase == "expand"],
        contract=[step.number for step in left if step.phase == "contract"],
        newer=newer,
        is_usable=all(done[number] != "contract" for number in newer),
        kinds=kinds,
        held_up=held_up,
        processes=[f"{name} at {where}" for name, where in processes],
        size=cast("int", size),
    )


async def _foreign(wire: Wire) -> tuple[Sequence[str] | None, int]:
    """Return the kinds that this build does not know, and how many sessions they hold up."""
    ((held_up,),) = await wire.fetched(HELD_UP, KNOWN)
    try:
        kinds = await wire.fetched(KINDS, KNOWN)
    except Lost:  # each fact is looked at, which takes longer than a statement may
        return None, cast("int", held_up)
    return [str(kind) for (kind,) in kinds], cast("int", held_up)
