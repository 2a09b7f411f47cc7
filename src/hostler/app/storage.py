"""Where things are kept: in memory, in a SQLite file, or in PostgreSQL.

Invariant: whoever asks for it is told by nothing but its speed and its limits which one it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from hostler.app import wiring
from hostler.beside.shared import Shared
from hostler.beside.webhooks import Webhooks
from hostler.core.audited import Audits
from hostler.core.directory import Directory
from hostler.core.events import TenantId
from hostler.core.sealed import Mask, SealedRows
from hostler.core.store import Observer, Outbox, Store
from hostler.stores.lanes import Timed
from hostler.stores.memory import MemoryStore
from hostler.stores.memory_audit import MemoryAudits
from hostler.stores.memory_directory import MemoryDirectory
from hostler.stores.memory_sealed import MemorySealed
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_audit import SqliteAudits
from hostler.stores.sqlite_directory import SqliteDirectory
from hostler.stores.sqlite_sealed import SqliteSealed
from hostler.stores.sqlite_webhooks import SqliteWebhooks


class Storage(NamedTuple):
    """A store, and what is kept beside the logs in the same place."""

    store: Store
    audits: Audits
    directory: Directory
    sealed: SealedRows
    webhooks: Webhooks
    shared: Shared | None = None
    """None: no other process has it open."""


def nobody(*_: object) -> None:
    """Observe nothing."""


def nothing(tenant: TenantId) -> None:
    """Mask nothing."""
    del tenant


@asynccontextmanager
async def open_storage(
    place: Path | str | None,
    *,
    observer: Observer = nobody,
    outbox: Outbox | None = None,
    timed: Timed | None = None,
    mask: Callable[[TenantId], Mask | None] = nothing,
    enlists: bool = False,
) -> AsyncGenerator[Storage]:
    """Open a SQLite file, a PostgreSQL database by its URL, or memory (None).

    `enlists`: in PostgreSQL, a job is queued by the commit that makes a run active.

    Raises:
        SetupError: it cannot be used, or another process has it.
    """
    if place is None:
        memory = MemoryStore(observer=observer, outbox=outbox, mask=mask)
        directory, sealed = MemoryDirectory(memory), MemorySealed(memory)
        yield Storage(memory, MemoryAudits(), directory, sealed, memory.webhooks)
    elif isinstance(place, str):
        async with wiring.postgres()(
            place, observer=observer, outbox=outbox, timed=timed, mask=mask, enlists=enlists
        ) as there:
            yield Storage(*there)
    else:
        store = SqliteStore.open(place, observer=observer, outbox=outbox, timed=timed, mask=mask)
        try:
            directory, sealed = SqliteDirectory(store), SqliteSealed(store, place)
            yield Storage(store, SqliteAudits(store), directory, sealed, SqliteWebhooks(store))
        finally:
            store.close()
