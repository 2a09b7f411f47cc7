"""What is in the store once all servers have stopped, read from it and from the files beside it.

Invariant: nothing is written, but for what opening a store writes by itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from hostler.beside.webhooks import Webhooks
from hostler.core.audited import Audits
from hostler.core.directory import Directory
from hostler.core.events import Key, TenantId
from hostler.core.records import RunRow, Session
from hostler.core.sealed import SealedRows
from hostler.core.store import Store
from hostler.service.chain import Broken, check
from hostler.stores.postgres_beside import open_all
from hostler.stores.postgres_wire import HOUSE, SCHEMA, Wire, connect
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_audit import SqliteAudits
from hostler.stores.sqlite_directory import SqliteDirectory
from hostler.stores.sqlite_sealed import SqliteSealed
from hostler.stores.sqlite_webhooks import SqliteWebhooks
from hostler.testing.canaries import Canaries, Sighting
from hostler.testing.crash.invariants import Found
from hostler.testing.crash.nodes import Site
from hostler.testing.doubles import whole_log

ALL = 1000
OWN = frozenset({"hostler.db", "hostler.db-wal", "hostler.db-shm", "hostler.db.lock"})
KEYS = frozenset({"admin-key", "master-key"})
Opened: TypeAlias = "tuple[Store, Audits, Directory, SealedRows, Webhooks]"


@dataclass(frozen=True)
class _Reader:
    store: Store
    audits: Audits
    directory: Directory
    sealed: SealedRows
    webhooks: Webhooks

    async def found(self) -> Found:
        tenants = [one.id for one in await self.directory.tenants(after="", limit=ALL)]
        sessions = [one for tenant in tenants for one in await self._sessions(tenant)]
        keys = [Key(one.tenant, one.id) for one in sessions]
        runs = [one for tenant in tenants for one in await self._runs(tenant)]
        return Found(
            logs={key.session: await whole_log(self.store, key) for key in keys},
            runs=runs,
            calls={
                row.id: (await self.store.ledger.calls(row.tenant, row.id)).models for row in runs
            },
            titles={one.id: one.title for one in sessions},
            webhooks=frozenset(
                [
                    one.id
                    for tenant in tenants
                    for one in await self.webhooks.webhooks(tenant, after="", limit=ALL)
                ]
            ),
            secrets=frozenset(one.about.name for one in await self.sealed.secrets()),
            keys=frozenset(
                [
                    one.id
                    for tenant in tenants
                    for one in await self.directory.keys(tenant, user=None, after="", limit=ALL)
                ]
            ),
            tenants=frozenset(tenants),
            scheduled=[
                f"{timer.input} of {key.session}"
                for key in keys
                for timer in await self.store.scheduled(key)
            ],
            chains=[told for tenant in tenants for told in await self._chain(tenant)],
        )

    async def _sessions(self, tenant: TenantId) -> list[Session]:
        found, after = list[Session](), ""
        while page := await self.store.sessions(
            tenant, agent=None, status=None, after=after, limit=ALL
        ):
            found += page
            after = page[-1].id
        return found

    async def _runs(self, tenant: TenantId) -> list[RunRow]:
        found, after = list[RunRow](), ""
        while page := await self.store.runs(
            tenant, session=None, status=None, after=after, limit=ALL
        ):
            found += page
            after = page[-1].id
        return found

    async def _chain(self, tenant: TenantId) -> Sequence[str]:
        rows, after = [*await self.audits.rows(tenant, after=0, limit=ALL)], 0
        while len(rows) > after and len(rows) % ALL == 0:
            after = len(rows)
            rows += await self.audits.rows(tenant, after=rows[-1].seq, limit=ALL)
        told = check(rows, head=await self.audits.head(tenant))
        return [f"the audit log of {tenant}: {told}"] if isinstance(told, Broken) else []


@asynccontextmanager
async def opened(site: Site) -> AsyncGenerator[Opened]:
    """Open what the nodes of a site kept; none of them may be running on SQLite."""
    if site.database is not None:
        async with open_all(
            site.database,
            observer=lambda _key, _events: None,
            outbox=None,
            timed=None,
            mask=lambda _: None,
            enlists=False,
        ) as (store, audits, directory, sealed, webhooks, *_):
            yield store, audits, directory, sealed, webhooks
        return
    path = site.data(1) / "hostler.db"
    store = SqliteStore.open(path)
    try:
        beside = (SqliteAudits(store), SqliteDirectory(store), SqliteSealed(store, path))
        yield store, *beside, SqliteWebhooks(store)
    finally:
        store.close()


async def read(site: Site, canaries: Canaries) -> Found:
    """Return what is there, with what the files and the database say of themselves."""
    async with opened(site) as there:
        store, audits, directory, sealed, webhooks, *_ = there
        found = await _Reader(store, audits, directory, sealed, webhooks).found()
    found.sightings = [
        *canaries.seen_in(site.folder, but=KEYS),
        *(await _sightings(site.database, canaries) if site.database else ()),
    ]
    found.damage = [] if site.database else damage(site.data(1) / "hostler.db")
    found.strays = [
        f"{path} is left" for path in _files(site) if not is_known(path, site, found.logs)
    ]
    return found


def damage(path: Path) -> list[str]:
    """Return what SQLite finds wrong with a file."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        told = [row[0] for row in db.execute("PRAGMA integrity_check")]
        told += [f"foreign key: {row}" for row in db.execute("PRAGMA foreign_key_check")]
    return [f"{path}: {one}" for one in told if one != "ok"]


async def _sightings(url: str, canaries: Canaries) -> Sequence[Sighting]:
    wire = await connect(url)
    try:
        await wire.show(HOUSE)
        return canaries.seen_among([one async for one in _tables(wire)])
    finally:
        wire.db.terminate()


async def _tables(wire: Wire) -> AsyncGenerator[tuple[str, str]]:
    named = await wire.fetched("SELECT tablename FROM pg_tables WHERE schemaname = $1", SCHEMA)
    for (table,) in named:
        rows = await wire.fetched(f"SELECT t::text FROM {SCHEMA}.{table} t")  # noqa: S608  its own
        yield f"the table {table}", "\n".join(str(row[0]) for row in rows)


def _files(site: Site) -> list[Path]:
    return [path for path in sorted(site.folder.glob("data*/**/*")) if path.is_file()]


def is_known(path: Path, site: Site, sessions: Iterable[str]) -> bool:
    """Whether a file of a data folder is there for a reason: results are, of sessions that are."""
    parts = path.relative_to(site.folder).parts[1:]
    if len(parts) == 1:
        return parts[0] in OWN | KEYS
    is_result = parts[0] == "results" and len(parts) == 4 and path.suffix == ".txt"
    return is_result and parts[2] in set(sessions)
