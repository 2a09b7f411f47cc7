"""Opening a store in PostgreSQL, and closing it.

Invariant: who is told that it is open finds today's schema, and nothing that the dead left open.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio

from hostler.core.events import TenantId
from hostler.core.sealed import Mask
from hostler.core.store import Observer, Outbox
from hostler.stores.lanes import Timed
from hostler.stores.postgres import PostgresStore
from hostler.stores.postgres_life import Life
from hostler.stores.postgres_schema import migrate
from hostler.stores.postgres_wire import Wires
from hostler.stores.postgres_writer import WRITERS, Writer

READERS = 6
"""Connections that read."""


@asynccontextmanager
async def open_postgres(
    url: str,
    *,
    observer: Observer = lambda _key, _events: None,
    outbox: Outbox | None = None,
    clock: Callable[[], float] = time.time,
    timed: Timed | None = None,
    mask: Callable[[TenantId], Mask | None] = lambda _: None,
    enlists: bool = False,
) -> AsyncGenerator[PostgresStore]:
    """Open a database, bring its schema up to date, and finish what was asked for in the end.

    `outbox` is told of each run that becomes active; `timed` of each commit; `mask`: what is kept out
    of what a tenant writes; `enlists`: a job is queued by the commit that makes a run active.

    Raises:
        SetupError: a newer build has changed the schema so that this one cannot use it, or the URL is
            wrong.
        Unavailable: the database cannot be reached.
    """
    await migrate(url)
    writer = Writer(
        url,
        holder=secrets.randbits(31),
        observer=observer,
        clock=clock,
        mask=mask,
        enlists=enlists,
        timed=timed,
    )
    life, reads = Life(url, writer.holder), Wires(url, most=READERS)
    try:
        await life.begin(writer.now_us())
        async with _working(writer, life):
            yield PostgresStore(writer, reads, outbox)
    finally:
        life.end()
        await writer.wires.close()
        await reads.close()


@asynccontextmanager
async def _working(writer: Writer, life: Life) -> AsyncGenerator[None]:
    """Have the writer work; what it was asked for is done in the end."""
    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(WRITERS):
                tasks.start_soon(writer.work)
            tasks.start_soon(life.go_on)
            try:
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    await writer.finish()
                tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        only, *others = group.exceptions
        if others:
            raise
        raise only from group  # what its body raises is no group
