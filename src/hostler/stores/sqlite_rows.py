"""What is read from the SQLite file, as the records and events that it stands for.

Invariant: only reads; one call is one consistent view when its caller has a transaction open.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from functools import cache
from typing import cast

import msgspec

from hostler.core import codec
from hostler.core.codec import SPOKEN
from hostler.core.errors import NotFound
from hostler.core.events import (
    START,
    Event,
    Key,
    PrincipalId,
    RunKey,
    Seq,
    SessionId,
    TenantId,
)
from hostler.core.head import Head
from hostler.core.memory import Past
from hostler.core.ports import Job
from hostler.core.records import Hit, Recall, Segment, Storage, Timer
from hostler.core.store import AHEAD_S
from hostler.stores.log_rows import (
    events_of,
    joined,
    lineage_of,
    parts_of,
    read_head_json,
    seqs_of,
    to_timer,
    tools_of,
)
from hostler.stores.projection import said_in, snippet, words
from hostler.stores.sqlite_file import queries
from hostler.stores.times import to_us

SQL = queries()


@cache
def asking(name: str, *given: str) -> str:
    """Return a statement with those of its optional lines that were asked for."""
    lines = [line.partition(" -- if ") for line in SQL[name].splitlines()]
    return "\n".join(line for line, _, wanted in lines if not wanted or wanted in given)


def read_list(
    db: sqlite3.Connection, name: str, wanted: Mapping[str, str | int | None]
) -> list[tuple[object, ...]]:
    """Return the rows of a list, of those values in `wanted` that are asked for: are not None."""
    given = (one for one, value in wanted.items() if value is not None)
    return db.execute(asking(name, *given), wanted).fetchall()


def read_storage(
    db: sqlite3.Connection, tenant: TenantId, limit: int, seen_by: PrincipalId | None
) -> Storage:
    """Return what the sessions of a tenant take, or those of one who may see them."""
    name, values = (
        ("count_sessions", (tenant,)) if seen_by is None else ("count_seen", (tenant, seen_by))
    )
    (sessions,) = db.execute(SQL[name], values).fetchone()
    rows = read_list(db, "storage", {"tenant": tenant, "seen_by": seen_by})
    (database_bytes,) = db.execute(SQL["database_bytes"]).fetchone()
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


def read_head(db: sqlite3.Connection, key: Key) -> Head:
    """Return a session's head.  Raises NotFound."""
    row = db.execute(SQL["head"], key).fetchone()
    if row is None:
        raise NotFound(f"no session {key.session}")
    return read_head_json(row[0])


def read_unfinished(db: sqlite3.Connection, now_us: int) -> list[Job]:
    """Return what can go on, and what is to be said soon; see `Store`."""
    asked = {"now": now_us, "soon": now_us + to_us(AHEAD_S)}
    rows = db.execute(SQL["unfinished"], asked)
    return [Job(RunKey(*key), priority=-is_low) for *key, is_low in rows]


def read_timers(db: sqlite3.Connection, key: Key) -> list[Timer]:
    """Return the messages of a session that are still to be said."""
    return [to_timer(row) for row in db.execute(SQL["scheduled"], key)]


def read_log(db: sqlite3.Connection, key: Key, after: Seq, upto: Seq, most: int) -> list[Event]:
    """Return the events past `after` up to `upto`, of a fork with the history it begins with.

    They end with that with which they have `most` characters, if they have so many.
    """
    end = _page_end(db, key, after, upto, most)
    if end > after:
        return _own(db, key, after, end)
    events, left = list[Event](), most
    for segment, start, stop in parts_of(_lineage_of(db, key), after, upto):
        where = Key(key.tenant, segment)
        end = _page_end(db, where, start, stop, left)
        events += _segment(db, where, start, end)
        left = most - sum(len(event.raw) for event in events)
        if left <= 0:
            return events
    if events and (end := _page_end(db, key, events[-1].seq, upto, left)) > events[-1].seq:
        events += _own(db, key, events[-1].seq, end)
    return events


def _page_end(db: sqlite3.Connection, key: Key, after: Seq, upto: Seq, most: int) -> Seq:
    return Seq(db.execute(SQL["page_end"], (*key, after, upto, most)).fetchone()[0])


def read_recall(db: sqlite3.Connection, key: Key) -> Recall:
    """Return what a worker needs.  Raises NotFound."""
    found = db.execute(SQL["head_and_agent"], key).fetchone()
    if found is None:
        raise NotFound(f"no session {key.session}")
    head = read_head_json(found[0])
    lineage = lineage_of(found[3]) if found[3] else ()
    upto = Seq(max(head.base - 1, 0))
    past = _past(db, key, START, upto)
    for session, start, end in reversed([*parts_of(lineage, START, upto)]):
        past = joined(_past(db, Key(key.tenant, session), start, end), past)
    row = db.execute(SQL["read"], (*key, upto, head.seq)).fetchone()
    return Recall(
        head,
        found[1],
        tools_of(found[2]) if found[2] else (),
        past,
        [] if row[0] is None else events_of(key.session, row, raw=False),
    )


def _lineage_of(db: sqlite3.Connection, key: Key) -> tuple[Segment, ...]:
    row = db.execute(SQL["lineage"], key).fetchone()
    return lineage_of(row[0]) if row is not None and row[0] else ()


def _own(db: sqlite3.Connection, key: Key, after: Seq, upto: Seq) -> list[Event]:
    row = db.execute(SQL["read_own"], (*key, after, upto, *key)).fetchone()
    return [] if row[0] is None else events_of(key.session, row, raw=True)


def _segment(db: sqlite3.Connection, key: Key, after: Seq, upto: Seq) -> list[Event]:
    row = db.execute(SQL["read"], (*key, after, upto)).fetchone()
    return [] if row[0] is None else events_of(key.session, row, raw=True)


def _past(db: sqlite3.Connection, key: Key, after: Seq, upto: Seq) -> Past:
    row = db.execute(SQL["past"], (*key, after, upto, *SPOKEN)).fetchone()
    return Past((), ()) if row[0] is None else Past([*seqs_of(row[0])], codec.load_spoken(row[1]))


def read_forgettable(
    db: sqlite3.Connection,
    before_us: int,
    keep: int,
    limit: int,
    whose: tuple[TenantId | None, Collection[TenantId]],
) -> list[Key]:
    """Return idle sessions, oldest first, of one tenant or of all but some; see `Store`."""
    of, but = whose
    given = {"of": of, "but": msgspec.json.encode(sorted(but)).decode() if but else None}
    old = read_list(db, "idle_since", {**given, "before": before_us, "limit": limit})
    for tenant, over in read_list(db, "crowded", {**given, "keep": keep}):
        old += db.execute(SQL["idle_of"], (tenant, min(int(str(over)), limit))).fetchall()
    keys = cast("list[tuple[int, TenantId, SessionId]]", old)
    return [Key(tenant, session) for _, tenant, session in sorted(set(keys))][:limit]


def read_hits(
    db: sqlite3.Connection, tenant: TenantId, query: str, limit: int, seen_by: PrincipalId | None
) -> list[Hit]:
    """Return the newest places where all words of a query were said."""
    asked = words(query)
    if not asked:
        return []
    match = " ".join(f'"{word}"' for word in asked)
    wanted = {"match": match, "tenant": tenant, "limit": limit, "seen_by": seen_by}
    found = cast("list[tuple[SessionId, Seq, str, str]]", read_list(db, "search", wanted))
    return [
        Hit(session, seq, kind, snippet(said_in(codec.load(fact)), asked))
        for session, seq, kind, fact in found
    ]
