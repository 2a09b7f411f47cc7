"""Deliveries that the writer writes with the facts they tell.

Which webhooks there are is known in memory, so that an append of a tenant without one costs a look
into a dict, and nothing is written.

Invariant: on the writer's thread, but for `ring_if_due`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import msgspec

from hostler.beside.notices import Began, Happened, began, notices, tellable
from hostler.beside.webhooks import EventType
from hostler.core.events import Event, Key, TenantId
from hostler.stores.log_rows import Known, Row
from hostler.stores.sqlite_batches import insert
from hostler.stores.sqlite_rows import SQL
from hostler.stores.times import to_us
from hostler.stores.webhook_rows import run_events

_events = msgspec.json.Decoder(tuple[EventType, ...])


class Notices:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._wanted = dict[TenantId, list[tuple[str, Sequence[EventType] | None]]]()
        self._noted = list[tuple[Key, str, Event]]()
        self._has_written = self._is_due = False
        self.ring: Callable[[], None] = _nobody
        self.read()

    def read(self) -> None:
        """Learn which webhooks there are: they have changed."""
        self._wanted.clear()
        for tenant, name, events in self._db.execute(SQL["wanted_notices"]):
            wants = None if events is None else _events.decode(events)
            self._wanted.setdefault(tenant, []).append((name, wants))

    def note(self, key: Key, known: Known, events: Sequence[Event]) -> None:
        """Take in what was appended to a session; `known` is what was known of it before."""
        if key.tenant in self._wanted:
            found = tellable(known.head, events)
            self._noted += [(key, known.agent, one) for one in found]

    def write(self) -> None:
        """Write what is to be told of what was noted, whose other rows are there by now."""
        if not self._noted:
            return
        noted, self._noted = self._noted, []
        rows = [row for key, agent, event in noted for row in self._rows(key, agent, event)]
        insert(self._db, "insert_notices", rows)
        self._has_written = self._has_written or bool(rows)

    def changed(self) -> None:
        """Remember that something else was written after which something may be due."""
        self._has_written = True

    def undone(self) -> None:
        """Forget what was noted: it was not committed."""
        self._noted, self._has_written = [], False
        self.read()

    def committed(self) -> None:
        if self._has_written:
            self._has_written, self._is_due = False, True

    def ring_if_due(self) -> None:
        """Ring, on the event loop, if something was committed since the last time."""
        if self._is_due:
            self._is_due = False
            self.ring()

    def _rows(self, key: Key, agent: str, event: Event) -> list[Row]:
        began = self._began(key, event)
        since = self._since(key, began, event)
        rows, at_us = list[Row](), to_us(event.at)
        for told in notices(Happened(key, agent, event, began, since)):
            about = (told.id, told.type, told.body.decode(), at_us)
            for webhook, wants in self._wanted.get(key.tenant, ()):
                if wants is None or told.type in wants:
                    state = ("pending", 0, 0, 0, None, None, None, at_us)
                    rows.append((key.tenant, webhook, *about, *state))
        return rows

    def _began(self, key: Key, event: Event) -> Began:
        run = event.fact.run
        row = (key.tenant, run, event.seq)
        return began(run, () if run is None else self._db.execute(SQL["messages_of_run"], row))

    def _since(self, key: Key, began: Began, event: Event) -> Sequence[Event]:
        if began.since is None:
            return ()
        row = (*key, began.since, event.seq)
        return run_events(key.session, self._db.execute(SQL["response_so_far"], row))


def _nobody() -> None:
    """Nobody listens."""
