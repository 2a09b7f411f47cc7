"""What is read from PostgreSQL, as the records and events that it stands for.

Invariant: only reads.  What has to be one consistent view is one statement, or of parts of a log,
which do not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from hostler.core import codec
from hostler.core.codec import SPOKEN
from hostler.core.errors import NotFound
from hostler.core.events import START, Event, Key, PrincipalId, Seq, SessionId, TenantId
from hostler.core.head import Head
from hostler.core.memory import Past
from hostler.core.records import Hit, Recall, Storage
from hostler.stores.log_rows import (
    events_of,
    joined,
    lineage_of,
    parts_of,
    read_head_json,
    seqs_of,
    tools_of,
)
from hostler.stores.postgres_wire import Wire
from hostler.stores.projection import said_in, snippet, words
from hostler.stores.search_words import digests

KINDS = list(SPOKEN)


async def read_head(key: Key, wire: Wire) -> Head:
    """Return a session's head.  Raises NotFound."""
    row = await wire.row("head", tenant=key.tenant, session=key.session)
    if row is None:
        raise NotFound(f"no session {key.session}")
    return read_head_json(str(row[0]))


async def read_log(key: Key, after: Seq, upto: Seq, most: int, wire: Wire) -> Sequence[Event]:
    """Return the events past `after` up to `upto`, of a fork with the history it begins with.

    They end with that with which they have `most` bytes, if they have so many.  Raises NotFound.
    """
    row = await _page(key, after, upto, most, wire)
    if row is None:
        raise NotFound(f"no session {key.session}")
    lineage, *page = row
    own = _events(key.session, page)
    if (own and own[0].seq == after + 1) or lineage is None:
        return own
    events, left = list[Event](), most
    for segment, start, stop in parts_of(lineage_of(str(lineage)), after, upto):
        where = Key(key.tenant, segment)
        events += _events(segment, await _segment(where, start, stop, left, wire))
        left = most - sum(len(event.raw) for event in events)
        if left <= 0:
            return events
    last = events[-1].seq if events else after
    if last < upto and (row := await _page(key, last, upto, left, wire)):
        events += _events(key.session, row[1:])
    return events


async def _page(
    key: Key, after: Seq, upto: Seq, most: int, wire: Wire
) -> tuple[object, ...] | None:
    where = {"tenant": key.tenant, "session": key.session}
    return await wire.row("page", **where, after=after, upto=upto, most=most)


async def _segment(key: Key, after: Seq, upto: Seq, most: int, wire: Wire) -> Sequence[object]:
    where = {"tenant": key.tenant, "session": key.session}
    return (await wire.rows("segment", **where, after=after, upto=upto, most=most))[0]


def _events(session: SessionId, page: Sequence[object], *, raw: bool = True) -> list[Event]:
    return [] if page[0] is None else events_of(session, cast("Sequence[str]", page), raw=raw)


async def read_recall(key: Key, wire: Wire) -> Recall:
    """Return what a worker needs.  Raises NotFound."""
    found = await wire.row("recall", tenant=key.tenant, session=key.session, kinds=KINDS)
    if found is None:
        raise NotFound(f"no session {key.session}")
    head, agent, tools, lineage, seqs, facts, *events = found
    known, past = read_head_json(str(head)), _past(seqs, facts)
    upto = Seq(max(known.base - 1, 0))
    if lineage is not None:
        for session, start, end in reversed([*parts_of(lineage_of(str(lineage)), START, upto)]):
            part = await wire.rows(
                "past", tenant=key.tenant, session=session, after=start, upto=end, kinds=KINDS
            )
            past = joined(_past(*part[0]), past)
    return Recall(
        known,
        str(agent),
        tools_of(str(tools)) if tools is not None else (),
        past,
        _events(key.session, events, raw=False),
    )


def _past(seqs: object, facts: object) -> Past:
    if seqs is None:
        return Past((), ())
    return Past([*seqs_of(str(seqs))], codec.load_spoken(str(facts)))


async def read_storage(
    tenant: TenantId, limit: int, seen_by: PrincipalId | None, wire: Wire
) -> Storage:
    """Return what the sessions of a tenant take, or those of one who may see them."""
    if seen_by is None:
        ((sessions,),) = await wire.rows("count_sessions", tenant=tenant)
    else:
        ((sessions,),) = await wire.rows("count_seen", tenant=tenant, seen_by=seen_by)
    rows = await wire.rows("storage", tenant=tenant, seen_by=seen_by)
    ((database_bytes,),) = await wire.rows("database_bytes")
    return msgspec.convert(
        {
            "sessions": sessions,
            "events": sum(int(str(row[1])) for row in rows),
            "fact_bytes": sum(int(str(row[2])) for row in rows),
            "largest": rows[:limit],
            "database_bytes": database_bytes,
        },
        Storage,
    )


async def read_forgettable(
    before_us: int,
    keep: int,
    limit: int,
    of: TenantId | None,
    but: Sequence[TenantId],
    wire: Wire,
) -> list[Key]:
    """Return idle sessions, oldest first, of one tenant or of all but some; see `Store`."""
    given: dict[str, object] = {"of": of, "but": but or None}
    old = await wire.rows("idle_since", **given, before=before_us, limit=limit)
    for tenant, over in await wire.rows("crowded", **given, keep=keep):
        most = min(cast("int", over), limit)
        old += await wire.rows("idle_of", tenant=tenant, limit=most)
    keys = cast("list[tuple[int, TenantId, SessionId]]", old)
    return [Key(tenant, session) for _, tenant, session in sorted(set(keys))][:limit]


async def read_hits(
    tenant: TenantId, query: str, limit: int, seen_by: PrincipalId | None, wire: Wire
) -> list[Hit]:
    """Return the newest places where all words of a query were said."""
    asked = digests(tenant, query)
    if not asked:
        return []
    match = " & ".join(f"'{one}'" for one in asked)
    found = await wire.rows("search", match=match, tenant=tenant, limit=limit, seen_by=seen_by)
    return [
        Hit(session, seq, kind, snippet(said_in(codec.load(fact)), words(query)))
        for session, seq, kind, fact in cast("list[tuple[SessionId, Seq, str, str]]", found)
    ]
