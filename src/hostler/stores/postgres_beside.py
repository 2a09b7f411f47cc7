"""A PostgreSQL store with all that is kept beside its logs, opened together.

Invariant: as `postgres_open`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from hostler.core.events import TenantId
from hostler.core.sealed import Mask
from hostler.core.store import Observer, Outbox
from hostler.stores.lanes import Timed
from hostler.stores.postgres import PostgresStore
from hostler.stores.postgres_audit import PostgresAudits
from hostler.stores.postgres_directory import PostgresDirectory
from hostler.stores.postgres_open import open_postgres
from hostler.stores.postgres_sealed import PostgresSealed
from hostler.stores.postgres_shared import PostgresShared
from hostler.stores.postgres_webhooks import PostgresWebhooks

There: TypeAlias = tuple[
    PostgresStore,
    PostgresAudits,
    PostgresDirectory,
    PostgresSealed,
    PostgresWebhooks,
    PostgresShared,
]


@asynccontextmanager
async def open_all(
    url: str,
    *,
    observer: Observer,
    outbox: Outbox | None,
    timed: Timed | None,
    mask: Callable[[TenantId], Mask | None],
    enlists: bool,
) -> AsyncGenerator[There]:
    """Open a database; see `open_postgres`."""
    async with open_postgres(
        url, observer=observer, outbox=outbox, timed=timed, mask=mask, enlists=enlists
    ) as store:
        beside = (PostgresAudits(store), PostgresDirectory(store), PostgresSealed(store))
        yield store, *beside, PostgresWebhooks(store), PostgresShared(store)
