"""Deliveries that are written with the facts they tell.

Invariant: which webhooks there are is asked at each commit that has something to tell, so what
another process has added is told, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from hostler.beside.notices import Began, Happened, began, notices, tellable
from hostler.core.events import Event, Key, RunId, Seq, TenantId, UserSpoke
from hostler.core.head import Head
from hostler.stores.log_rows import Row
from hostler.stores.postgres_wire import Wire
from hostler.stores.times import to_us
from hostler.stores.webhook_rows import run_events


class Noted(NamedTuple):
    """A fact of which somebody may be told, and what its session's append wrote with it."""

    key: Key
    agent: str
    event: Event
    beside: Sequence[Event]


def noted(key: Key, agent: str, head: Head, events: Sequence[Event]) -> list[Noted]:
    """Return those facts of an append of which somebody may be told; `head` is that before it."""
    return [Noted(key, agent, one, events) for one in tellable(head, events)]


async def notice_rows(wire: Wire, tenant: TenantId, of: Sequence[Noted]) -> list[Row]:
    """Return what is to be told of facts, none if nobody listens."""
    runs = [one.event.fact.run for one in of if one.event.fact.run is not None]
    found = await wire.rows("wanted_notices", tenant=tenant, runs=[*dict.fromkeys(runs)])
    if not found:
        return []
    there = cast("list[tuple[RunId | None, Seq, str]]", found)
    rows = list[Row]()
    for one in of:
        run = one.event.fact.run
        before = [*one.beside[: one.event.seq - one.beside[0].seq + 1]]
        messages = [(seq, fact) for of_run, seq, fact in there if of_run == run]
        messages += [(e.seq, e.raw) for e in before if isinstance(e.fact, UserSpoke)]
        known = began(run, messages)
        since = await _since(wire, one.key, known, before)
        for told in notices(Happened(one.key, one.agent, one.event, known, since)):
            rows.append((told.id, told.type, told.body.decode(), to_us(one.event.at)))
    return rows


async def _since(wire: Wire, key: Key, known: Began, before: Sequence[Event]) -> Sequence[Event]:
    """Return what notices need of a response: what is written of it, and what will be with this."""
    if known.since is None:
        return ()
    there = await wire.rows(
        "response_so_far", tenant=key.tenant, session=key.session, since=known.since
    )
    return [*run_events(key.session, there), *(one for one in before if one.seq >= known.since)]
