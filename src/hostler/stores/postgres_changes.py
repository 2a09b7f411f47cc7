"""Changes of whole sessions in PostgreSQL, as work in a transaction of its own.

Invariant: what a change is decided from is locked before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import msgspec
from msgspec import UNSET

from hostler.core.errors import NotFound
from hostler.core.events import Key, SessionId
from hostler.core.records import Labels, Session
from hostler.stores.log_rows import to_session
from hostler.stores.postgres_alone import forked_upto, lock_histories
from hostler.stores.postgres_wire import Wire

_json = msgspec.json.Encoder(decimal_format="string")


def relabel(key: Key, labels: Labels, at_us: int) -> Callable[[Wire], Awaitable[Session]]:
    """Return work: set the labels that are named.  Raises NotFound."""
    tenant, session = key
    metadata = None
    if labels.metadata is not UNSET:
        metadata = _json.encode(labels.metadata).decode()

    async def write(wire: Wire) -> Session:
        changed = await wire.run(
            "relabel",
            tenant=tenant,
            session=session,
            retitles=labels.title is not UNSET,
            title=None if labels.title is UNSET else labels.title,
            metadata=metadata,
        )
        if not changed:
            raise NotFound(f"no session {session}")
        await wire.run("touch", at=at_us, tenant=tenant, session=session)
        row = await wire.row("session", tenant=tenant, session=session)
        assert row is not None
        return to_session(tenant, row)

    return write


def forget(key: Key, since_us: int | None) -> Callable[[Wire], Awaitable[Sequence[SessionId]]]:
    """Return work: remove a session, and of what it alone has read what nobody else reads.

    With `since_us`, only if it is idle and was not touched since.  Answers those of which nothing
    is left.
    """
    tenant, session = key

    async def write(wire: Wire) -> Sequence[SessionId]:
        if await wire.row("lock_head", tenant=tenant, session=session) is None:
            idle = since_us is None
        else:
            idle = since_us is None or await wire.row(
                "is_idle", tenant=tenant, session=session, since=since_us
            )
        if not idle:
            return ()
        read = await wire.rows("origins", tenant=tenant, session=session)
        origins = [cast("SessionId", origin) for (origin,) in read]
        await lock_histories(wire, tenant, [session, *origins])
        await wire.run("delete_session", tenant=tenant, session=session)
        await wire.run("delete_ledger", tenant=tenant, session=session)
        gone = list[SessionId]()
        for one in (session, *origins):
            if await wire.row("is_there", tenant=tenant, session=one) is None:
                upto = await forked_upto(wire, Key(tenant, one))
                await wire.run("delete_events", tenant=tenant, session=one, upto=upto)
                gone += () if upto else (one,)
        return gone

    return write
