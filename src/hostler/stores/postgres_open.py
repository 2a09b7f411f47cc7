"""Opening a store in PostgreSQL, and closing it.

Invariant: who is told that it is open finds today's schema, and nothing that the dead left open.
"""

from __future__ import annotations

import logging
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
from hostler.stores.postgres_orders import Enlist
from hostler.stores.postgres_rebuild import recover
from hostler.stores.postgres_schema import is_guarded, migrate
from hostler.stores.postgres_wire import HOUSE, Wire, Wires, connect
from hostler.stores.postgres_writer import WRITERS, Writer

log = logging.getLogger(__name__)

READERS = 6
"""Connections that read."""


@asynccontextmanager
async def open_postgres(
    url: str,
    *,
    observer: Observer = lambda _key, _events: None,
    outbox: Outbox | None = None,
    enlist: Enlist | None = None,
    clock: Callable[[], float] = time.time,
    timed: Timed | None = None,
    mask: Callable[[TenantId], Mask | None] = lambda _: None,
) -> AsyncGenerator[PostgresStore]:
    """Open a database, bring its schema up to date, and finish what was asked for in the end.

    `enlist` is called in the transaction that makes a run active, `outbox` after it; `timed` is
    told of each commit; `mask`: what is kept out of what a tenant writes.

    Raises:
        SetupError: a newer build has changed the schema so that this one cannot use it, or the URL
            is wrong.
        Unavailable: the database cannot be reached.
    """
    await migrate(url)
    writer = Writer(
        url,
        holder=secrets.randbits(31),
        observer=observer,
        clock=clock,
        mask=mask,
        enlist=enlist,
        timed=timed,
    )
    life, reads = await connect(url), Wires(url, most=READERS)
    try:
        await _begin(life, writer)
        async with _working(writer):
            yield PostgresStore(writer, reads, outbox)
    finally:
        life.db.terminate()
        await writer.wires.close()
        await reads.close()


@asynccontextmanager
async def _working(writer: Writer) -> AsyncGenerator[None]:
    """Have the writer work; what it was asked for is done in the end."""
    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(WRITERS):
                tasks.start_soon(writer.work)
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


async def _begin(life: Wire, writer: Writer) -> None:
    """Live from now on, and end what the dead have left."""
    if not await is_guarded(life):
        log.warning(
            "the role of the database URL is a superuser or passes row-level security: tenants are "
            "kept apart by this program alone; give it a role of its own"
        )
    await life.rows("hold", holder=writer.holder)
    await life.show(HOUSE)
    await recover(life, writer.now_us())
