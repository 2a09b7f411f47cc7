"""The audit log in the terminal: out of a server, and checked without one.

Invariant: `verify` believes nothing but the rows and the head that it is given.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, closing
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeAlias

import click
import msgspec
from anyio import from_thread, to_thread

from hostler.app import wiring
from hostler.app.client import Client
from hostler.app.settings import POSTGRES, load_settings
from hostler.app.terminal.reach import own, perform, reach
from hostler.core.audited import AuditRow, ChainHead
from hostler.core.errors import SetupError
from hostler.core.events import TenantId
from hostler.service.chain import Broken, check
from hostler.stores.audit_rows import read_chain, read_tenants
from hostler.stores.sqlite_file import connect

BROKEN = 1
"""Exit status when a chain is not what it was."""
PAGE = 1000
Read: TypeAlias = Callable[[TenantId, int, int], Sequence[AuditRow]]
"""Returns rows of a chain, past one, at most so many."""
_row = msgspec.json.Decoder(AuditRow)


def export(*, after: int, **flags: object) -> None:
    """Write the log's file."""

    async def work(client: Client) -> int:
        async with aclosing(client.api.download(f"/api/audit/export?after={after}")) as pieces:
            async for piece in pieces:
                await to_thread.run_sync(sys.stdout.buffer.write, piece)
        sys.stdout.buffer.flush()
        return 0

    _perform(work, flags)


def head(**flags: object) -> None:
    """Print where the chain ends now."""

    async def work(client: Client) -> int:
        found = await client.api.get("/api/audit/head")
        click.echo(f"{found['seq']}:{found['hash']}")
        return 0

    _perform(work, flags)


def verify(
    *, file: BinaryIO | None, database: str | None, tenant: str | None, kept: str | None
) -> None:
    """Check a file or a database; end the process with 1 if it is not what it was."""
    if (file is None) == (database is None):
        raise click.UsageError("name a FILE, or a --database")
    if file is not None:
        if tenant is not None:
            raise click.UsageError("--tenant goes with --database: a FILE is of one tenant")
        sys.exit(_told(check(_lines(file), head=_head(kept, ""))))
    assert database is not None
    whose = None if tenant is None else TenantId(tenant)
    if database.partition("://")[0] in POSTGRES:
        perform(partial(_verify_url, database, whose, kept))
    if not Path(database).exists():
        raise click.UsageError(f"there is no database {database}")
    with closing(connect(Path(database), read_only=True)) as db:
        tenants = read_tenants(db) if whose is None else [whose]
        sys.exit(_checked(tenants, kept, partial(read_chain, db)))


async def _verify_url(url: str, tenant: TenantId | None, kept: str | None) -> int:
    async with wiring.postgres_chains()(url) as chains:
        tenants = await chains.tenants() if tenant is None else [tenant]
        # What is checked is computed in a thread, which asks for one page after the other.
        read = partial(from_thread.run, chains.rows)
        return await to_thread.run_sync(_checked, tenants, kept, read)


def _checked(tenants: Sequence[TenantId], kept: str | None, read: Read) -> int:
    """Check the chains of tenants; return the exit status."""
    if kept is not None and len(tenants) != 1:
        raise click.UsageError("--head is of one chain: say which with --tenant")

    def rows(one: TenantId) -> Iterator[AuditRow]:
        after = 0
        while found := read(one, after, PAGE):
            yield from found
            after = found[-1].seq

    return max((_told(check(rows(one), head=_head(kept, one))) for one in tenants), default=0)


def _told(found: Broken | ChainHead) -> int:
    """Say what was found; return the exit status."""
    if isinstance(found, Broken):
        click.echo(f"broken at row {found.seq}: {found.what}", err=True)
        return BROKEN
    whole = f"{found.tenant}: whole" if found.tenant else "whole"
    click.echo(f"{whole} up to {found.seq}:{found.hash}")
    return 0


def _head(text: str | None, tenant: str) -> ChainHead | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", text, re.ASCII)
    if found is None:
        raise click.UsageError("--head is SEQ:HASH, as `hostler audit head` prints it")
    return ChainHead(tenant=TenantId(tenant), seq=int(found[1]), hash=found[2])


def _lines(file: Iterable[bytes]) -> Iterator[AuditRow]:
    for number, line in enumerate(file, start=1):
        try:
            yield _row.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SetupError(f"line {number} is no row of an audit log: {error}") from error


def _perform(work: Callable[[Client], Awaitable[int]], flags: dict[str, object]) -> None:
    settings = load_settings(flags)

    async def with_client() -> int:
        async with reach(settings, own("reading", settings)) as reached:
            return await work(reached.client)

    perform(with_client)
