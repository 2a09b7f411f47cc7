"""What one commit writes: rows of many orders, put together, and sent as one statement.

Invariant: pure, but for sending.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import anyio.to_thread
from msgspec.structs import replace

from hostler.core.events import Key, Seq, SessionId, TenantId
from hostler.core.head import Head
from hostler.core.records import Appended, Once, Session
from hostler.stores.ledger_rows import ledger_rows
from hostler.stores.log_rows import (
    Row,
    approval_row,
    head_row,
    read_head_json,
    session_row,
    timer_rows,
    tools_json,
)
from hostler.stores.postgres_jobs import JobRow, key_text
from hostler.stores.postgres_notices import Noted, noted, notice_rows
from hostler.stores.postgres_sql import combined
from hostler.stores.postgres_wire import Wire, told
from hostler.stores.projection import Projection
from hostler.stores.search_words import digests
from hostler.stores.times import to_us

ANSWERS_KEPT_US = 24 * 3600 * 1_000_000
"""How long the answer to a write that must happen once is kept."""
LONG = 20_000
"""Characters; their words take a few milliseconds."""
PARTS = (
    *("make_sessions", "make_first_heads", "make_heads", "make_answers", "write_forks"),
    *("write_events", "write_client_tools", "write_approvals", "pick_said"),
    *("write_scheduled", "write_unscheduled"),
    *("write_agent_runs", "write_llm_calls", "write_tool_runs", "write_feedback"),
    *("write_direct_calls", "write_notices", "write_jobs"),
)
"""In the order in which they stand in a statement."""
FOLLOWING = {"pick_said": ("write_said", "write_said_words")}
"""Parts that use what another one has picked."""
LEDGER = {
    "upsert_agent_runs": "write_agent_runs",
    "upsert_llm_calls": "write_llm_calls",
    "upsert_tool_runs": "write_tool_runs",
    "upsert_feedback": "write_feedback",
}


@dataclass(slots=True)
class Known:
    """What a writer knows of a session: as it was when it was read or written."""

    head: Head
    agent: str
    owner: str
    made: int
    """Tells it from another session that had its id."""


def new_known(session: Session) -> tuple[Key, Known]:
    """Return a new session's key, and what is known of it before it says anything."""
    made = secrets.randbits(62)
    known = Known(session.head, session.agent, session.principal, made)
    return Key(session.tenant, session.id), known


async def read_known(
    wire: Wire, tenant: TenantId, sessions: Sequence[SessionId]
) -> dict[Key, Known]:
    """Return what is known of those sessions that there are."""
    rows = await wire.rows("heads", tenant=tenant, sessions=sessions)
    found = cast("list[tuple[SessionId, int, str, str, str]]", rows)
    return {
        Key(tenant, session): Known(read_head_json(head), agent, owner, made)
        for session, made, head, agent, owner in found
    }


@dataclass(slots=True)
class Batch:
    """The rows of a commit of one tenant.  Tenants are no columns here: see `Wire`."""

    tenant: TenantId
    at_us: int
    holder: int
    enlists: bool
    rows: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])
    said: list[tuple[SessionId, Seq, str]] = field(default_factory=list[tuple[SessionId, Seq, str]])
    """For the search index."""
    noted: list[Noted] = field(default_factory=list[Noted])
    """Of which somebody may be told."""

    def add(self, part: str, *rows: Row) -> None:
        if rows:
            self.rows.setdefault(part, []).extend(rows)

    def create(self, session: Session, known: Known, done: Projection) -> None:
        """Take in a new session, with what it begins with."""
        key = Key(session.tenant, session.id)
        self.noted += noted(key, known.agent, known.head, done.events)
        self.restore(session, known, done, self.at_us)

    def restore(self, session: Session, known: Known, done: Projection, at_us: int) -> None:
        """Take in a session that was elsewhere, of which nobody is told."""
        if done.client_tools is not None:  # a row is not changed by the statement that makes it
            session = replace(session, client_tools=done.client_tools)
            done.client_tools = None
        self.add("make_sessions", session_row(session)[1:])
        _, name, *rest = head_row(Key(session.tenant, session.id), done.head, at_us)
        self.add("make_first_heads", (name, known.made, done.head.seq, *rest))
        lineage = ((origin, session.id, upto) for origin, upto in session.lineage)
        self.add("write_forks", *lineage)
        self.take(Key(session.tenant, session.id), known, done)

    def append(self, key: Key, known: Known, done: Projection) -> None:
        """Take in what an append writes to a session that is there."""
        _, name, *rest = head_row(key, done.head, self.at_us)
        self.noted += noted(key, known.agent, known.head, done.events)
        self.add("make_heads", (name, known.made, known.head.seq, done.head.seq, *rest))
        self.take(key, known, done)

    def take(self, key: Key, known: Known, done: Projection) -> None:
        session = key.session
        self.add(
            "write_events",
            *((session, e.seq, to_us(e.at), e.kind, e.raw.decode()) for e in done.events),
        )
        self.said += [(session, seq, text) for seq, _, text in done.said if text]
        self.ledger(key, known, done)
        if done.client_tools is not None:
            self.add("write_client_tools", (session, tools_json(done.client_tools)))
        changed = (approval_row(key, call, change) for call, change in done.approvals.items())
        self.add("write_approvals", *(row[1:] for row in changed))
        self.add("write_scheduled", *(row[1:] for row in timer_rows(key, done)))
        self.add("write_unscheduled", *((session, one) for one in done.over))
        if done.activated is not None and self.enlists:
            place = len(self.rows.get("write_jobs", ()))
            wanted = done.activated
            job = JobRow(key_text(wanted.key), priority=wanted.priority, place=place)
            self.add("write_jobs", job)

    def ledger(self, key: Key, known: Known, done: Projection) -> None:
        for name, rows in ledger_rows(key, known.agent, known.owner, done.ledger).items():
            self.add(LEDGER[name], *(row[1:] for row in rows))

    def answer(self, once: Once | None, done: Appended) -> None:
        if once is not None:
            row = (once.scope, once.digest, once.answer(done), self.at_us)
            self.add("make_answers", row)

    async def send(self, wire: Wire, commit: str) -> None:
        """Write all of it, and the commit's own row, in one statement."""
        await self._index()
        if self.noted:
            self.add("write_notices", *await notice_rows(wire, self.tenant, self.noted))
        parts = list[str]()
        for part in PARTS:
            if part in self.rows:
                parts += (part, *FOLLOWING.get(part, ()))
        statement = combined((*parts, "write_commit"))
        arrays = list[object]()
        for part, width in zip((*parts, "write_commit"), statement.widths, strict=True):
            if width:
                columns: Sequence[object] = [*zip(*self.rows[part], strict=True)]
                arrays += [told(column) for column in columns]
        single: dict[str, object] = {
            "tenant": self.tenant,
            "at": self.at_us,
            "commit": commit,
            "holder": self.holder,
            "answered_since": self.at_us - ANSWERS_KEPT_US,
        }
        await wire.fetch(statement.text, *arrays, *(single[name] for name in statement.names))

    async def _index(self) -> None:
        """Make words of what was said: elsewhere, if that takes long enough for others to notice."""
        if sum(len(text) for _, _, text in self.said) > LONG:
            await anyio.to_thread.run_sync(self._make_words)
        else:
            self._make_words()

    def _make_words(self) -> None:
        for session, seq, text in self.said:
            if found := digests(self.tenant, text):
                self.add("pick_said", (session, seq, " ".join(found)))
        self.said = []
