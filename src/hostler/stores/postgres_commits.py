"""Whether a commit happened whose connection was lost: its own row tells.

The row is written by the commit itself.  Whoever asks writes it, too: if it is there, the commit
happened; if it could be written, it did not, and never will, for then its own row is in the way.
PostgreSQL lets the one that comes second wait until the first is over.

Invariant: an answer is final.
"""

from __future__ import annotations

import logging
import time

import anyio
import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from hostler.core.errors import Unavailable
from hostler.core.ports import mint
from hostler.stores.postgres_wire import AGAIN_S, Lost, connect

log = logging.getLogger(__name__)

RESOLVED_S = 10.0
"""How long it is tried to find out."""

END = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = $1 AND usename = current_user AND pid <> pg_backend_pid()
"""
SETTLE = "INSERT INTO commits (id, at) VALUES ($1, $2) ON CONFLICT DO NOTHING"


def new_commit() -> str:
    """Return the id of a commit that is to be."""
    return mint("com")


async def settled(
    url: str, commit: str, at_us: int, wire: str, *, patience_s: float | None = None
) -> bool:
    """Return whether a commit happened; if not, it never will.  `wire`: the connection's name.

    Raises:
        Unavailable: it could not be found out in that time (`unknown_outcome`).
    """
    until = time.monotonic() + (RESOLVED_S if patience_s is None else patience_s)
    while True:
        try:
            return await _ask(url, commit, at_us, wire, until - time.monotonic())
        except (Unavailable, Lost, asyncpg.PostgresError) as error:
            if time.monotonic() > until:
                log.warning("it is not known whether %s was written: %s", commit, error)
                raise Unavailable(
                    "the connection to the database was lost, and it is not known whether this was "
                    "written: look before you try again",
                    code="unknown_outcome",
                ) from error
        await anyio.sleep(AGAIN_S)


async def _ask(url: str, commit: str, at_us: int, wire: str, left_s: float) -> bool:
    asking = await connect(url, patience_s=max(left_s, 0.0))
    try:
        await asking.execute(END, wire)  # nobody reads what it would answer
        done = await asking.execute(SETTLE, commit, at_us)
    finally:
        asking.db.terminate()
    happened = done == "INSERT 0 0"
    log.warning(
        "the connection was lost at a commit, which %s", "was done" if happened else "was not"
    )
    return happened
