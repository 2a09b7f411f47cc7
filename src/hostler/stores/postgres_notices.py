"""Deliveries that are written with the facts they tell.

Invariant: which webhooks there are is asked at each commit that has something to tell, so what
another process has added is told, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import msgspec

from hostler.beside.notices import TOLD, Began, Happened, notices
from hostler.core.events import Event, Key, RunId, TenantId, UserSpoke
from hostler.stores.log_rows import Row
from hostler.stores.postgres_wire import Wire
from hostler.stores.times import to_us

_began = msgspec.json.Decoder(Began)


class Noted(NamedTuple):
    """A fact of which somebody may be told, and what its session's append wrote with it."""

    key: Key
    agent: str
    event: Event
    beside: Sequence[Event]


def noted(key: Key, agent: str, events: Sequence[Event]) -> list[Noted]:
    """Return those facts of an append of which somebody may be told."""
    return [Noted(key, agent, one, events) for one in events if isinstance(one.fact, TOLD)]


async def notice_rows(wire: Wire, tenant: TenantId, of: Sequence[Noted]) -> list[Row]:
    """Return what is to be told of facts, none if nobody listens."""
    runs = [one.event.fact.run for one in of if one.event.fact.run is not None]
    found = await wire.rows("wanted_notices", tenant=tenant, runs=[*dict.fromkeys(runs)])
    if not found:
        return []
    there = dict(cast("list[tuple[RunId, str]]", found))
    rows = list[Row]()
    for one in of:
        began = _began_of(one, there)
        for told in notices(Happened(one.key, one.agent, one.event, began)):
            rows.append((told.id, told.type, told.body.decode(), to_us(one.event.at)))
    return rows


def _began_of(one: Noted, there: dict[RunId, str]) -> Began:
    run = one.event.fact.run
    if run is None:
        return Began()
    here = (e.raw for e in one.beside if e.fact.run == run and isinstance(e.fact, UserSpoke))
    message = there.get(run) or next(here, None)
    try:
        return Began() if message is None else _began.decode(message)
    except (msgspec.DecodeError, RecursionError):  # who wrote this is told without it
        return Began()
