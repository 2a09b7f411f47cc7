"""Sealed secrets in PostgreSQL, beside the log; and scrubs, which take values out of what is stored.

Old versions of rows stay in the database's files until PostgreSQL vacuums them away, in its log
for as long as that is kept, and in backups: a scrub has the first done, where it may.

Invariant: only sealed values come here; what is read is what was written.  A step of a scrub is one
short commit; cut anywhere and done again, it leaves nothing out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import msgspec

from hostler.core import codec
from hostler.core.errors import Unavailable
from hostler.core.events import SessionId, TenantId, Unknown
from hostler.core.sealed import DataKey, Mask, Scrubbed, SealedSecret
from hostler.stores.beside_rows import secret_row, to_secret
from hostler.stores.masking_rows import FREE_TEXT, Facts, Rows, first_of
from hostler.stores.postgres import PostgresStore
from hostler.stores.postgres_rebuild import rebuild_some
from hostler.stores.postgres_wire import HOUSE, Lost, Wire, told
from hostler.stores.projection import said_in
from hostler.stores.search_words import digests
from hostler.stores.times import to_us

REBUILT_AT_ONCE = 5
"""Sessions in one commit: their logs may be long."""
AT_ONCE = 500
"""Facts or rows in one commit, so that nobody waits long behind a scrub."""
SCRUBBED = (
    *("events", "said_words", "agent_runs", "llm_calls", "tool_runs", "feedback"),
    *FREE_TEXT,
)
SECRET = ("tenant", "name", "kind", "sealed", "data_key", "created_at", "updated_at")
_json = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class PostgresSealed:
    """A `core.sealed.SealedRows` in the database of a store."""

    store: PostgresStore

    async def secrets(self) -> Sequence[SealedSecret]:
        found = await self.store.finding(HOUSE, "secrets")
        return [to_secret(row) for row in found]

    async def data_keys(self) -> Sequence[DataKey]:
        rows = await self.store.finding(HOUSE, "data_keys")
        found = cast("Sequence[tuple[TenantId, str, bytes, str]]", rows)
        return [
            DataKey(tenant=tenant, id=name, wrapped=wrapped, wrapped_by=by)
            for tenant, name, wrapped, by in found
        ]

    async def put(self, secret: SealedSecret, key: DataKey | None) -> None:
        row = dict(zip(SECRET, secret_row(secret), strict=True))

        async def write(wire: Wire) -> None:
            if key is not None:
                await wire.run("put_data_key", **_wrapped(key))
            await wire.run("put_secret", **row)

        await self.store.writing(secret.about.tenant, write)
        self.store.tell_changed("secrets")

    async def drop(self, tenant: TenantId, name: str) -> bool:
        was_there = await self.store.changing(tenant, "drop_secret", tenant=tenant, name=name)
        self.store.tell_changed("secrets")
        return was_there

    async def rewrap(self, keys: Sequence[DataKey]) -> None:
        async def write(wire: Wire) -> None:
            for key in keys:
                await wire.run("rewrap_data_key", **_wrapped(key))

        await self.store.writing(HOUSE, write)
        self.store.tell_changed("secrets")

    async def scrub(self, tenant: TenantId, mask: Mask, done: Scrubbed) -> Scrubbed:
        sessions = dict[str, None]()
        step = Facts([], 0, ("", 0), more=True)
        facts = unread = 0
        while step.more:
            step = await self.store.writing(tenant, scrub_facts(tenant, mask, step.after))
            facts, unread = facts + len(step.changed), unread + step.unread
            sessions |= dict.fromkeys(step.changed)
        while await self.store.writing(tenant, partial(rebuild_some, most=REBUILT_AT_ONCE)):
            pass
        rows = sum([await self._scrub_rows(table, tenant, mask) for table in FREE_TEXT])
        record = msgspec.structs.replace(
            done, facts=facts, rows=rows, unread=unread, sessions=tuple(sessions)[:1000]
        )
        await self.store.running(
            tenant,
            "put_scrub",
            tenant=tenant,
            id=record.id,
            at=to_us(record.at),
            record=_json.encode(record).decode(),
        )
        if facts or rows:
            await self.store.reading(HOUSE, _vacuum)
        return record

    async def _scrub_rows(self, table: str, tenant: TenantId, mask: Mask) -> int:
        changed, step = 0, Rows(0, first_of(table), more=True)
        while step.more:
            step = await self.store.writing(tenant, scrub_rows(table, tenant, mask, step.after))
            changed += step.changed
        return changed


def _wrapped(key: DataKey) -> Mapping[str, object]:
    return {
        "tenant": key.tenant,
        "id": key.id,
        "wrapped": key.wrapped,
        "wrapped_by": key.wrapped_by,
    }


async def _vacuum(wire: Wire) -> None:
    """Have the versions of rows removed that were before, which is no transaction.

    Raises:
        Unavailable: it was not done to the end.
    """
    try:
        for table in SCRUBBED:
            await wire.execute(f"VACUUM {table}")
    except (Lost, asyncpg.PostgresError) as error:
        raise Unavailable(
            "all is masked, but old text is still in the database's files until PostgreSQL vacuums "
            f"them: {error}; scrub again"
        ) from error


def scrub_facts(
    tenant: TenantId, mask: Mask, after: tuple[str, int]
) -> Callable[[Wire], Awaitable[Facts]]:
    """Return a step: mask the next facts; the rows of their sessions are to be made anew."""

    async def step(wire: Wire) -> Facts:
        session, seq = after
        rows = await wire.rows(
            "scrub_facts", tenant=tenant, session=session, seq=seq, limit=AT_ONCE
        )
        found = cast("list[tuple[str, int, str]]", rows)
        changed, unread = list[str](), 0
        for one, place, stored in found:
            done = await _scrub_fact(wire, mask, (tenant, SessionId(one), place), stored.encode())
            unread += done is None
            if done:
                changed.append(one)
        if changed:
            stale = [*dict.fromkeys(changed)]
            await wire.run("mark_some_stale", tenant=tenant, sessions=stale)
        return Facts(changed, unread, found[-1][:2] if found else after, more=len(found) == AT_ONCE)

    return step


async def _scrub_fact(
    wire: Wire, mask: Mask, place: tuple[TenantId, SessionId, int], raw: bytes
) -> bool | None:
    """Return whether a fact was changed; None for one that cannot be read."""
    try:
        before = codec.load(raw)
    except codec.CorruptFact:
        return None
    if isinstance(before, Unknown):
        return None
    fact, masked = mask.fact(before, raw)
    if masked == raw:
        return False
    where = {"tenant": place[0], "session": place[1], "seq": place[2]}
    await wire.run("scrub_fact", fact=masked.decode(), **where)
    await wire.run("scrub_words", words=" ".join(digests(place[0], said_in(fact))), **where)
    return True


def scrub_rows(
    table: str, tenant: TenantId, mask: Mask, after: tuple[object, ...]
) -> Callable[[Wire], Awaitable[Rows]]:
    """Return a step: mask what is written in the next rows of a table."""
    key, columns = FREE_TEXT[table]
    names = ", ".join(columns)
    marks = ", ".join(f"${at}" for at in range(3, 3 + len(after)))
    # The names are the schema's own.
    select = (
        f"SELECT {key}, {names} FROM {table} "  # noqa: S608
        f"WHERE tenant = $1 AND ({key}) > ({marks}) ORDER BY {key} LIMIT $2"
    )
    first = 2 + len(after)
    sets = ", ".join(f"{name} = ${first + at}" for at, name in enumerate(columns))
    marks = ", ".join(f"${at}" for at in range(2, first))
    update = f"UPDATE {table} SET {sets} WHERE tenant = $1 AND ({key}) = ({marks})"  # noqa: S608

    async def step(wire: Wire) -> Rows:
        found = await wire.fetched(select, tenant, AT_ONCE, *after)
        changed = 0
        for row in found:
            at, before = row[: len(after)], row[len(after) :]
            pairs = zip(columns.values(), before, strict=True)
            masked = tuple(
                None if one is None else cast("Callable[..., object]", of)(mask, one)
                for of, one in pairs
            )
            if masked != before:
                await wire.execute(update, *map(told, (tenant, *at, *masked)))
                changed += 1
        last = found[-1][: len(after)] if found else after
        return Rows(changed, last, more=len(found) == AT_ONCE)

    return step
