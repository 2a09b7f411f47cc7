"""The one thread that writes: it turns a batch of orders into one commit.

Statements take many rows at once.  Each statement lets go of the interpreter lock and has to wait
to get it back; row by row, a busy event loop would make a batch wait thousands of times.

Invariant: an order that is refused has written nothing and fails no other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from hostler.core.errors import HostlerError, NotFound
from hostler.core.events import Fact, Key, RunId, Seq
from hostler.core.ports import Appended, Observer, Session
from hostler.core.state import Head
from hostler.stores.projection import Projection, project
from hostler.stores.sqlite_file import queries, unavailable

SQL = queries()
KEPT_HEADS = 4096
LARGEST_INSERT = 64
"""Rows in one statement; powers of two up to here are used, so that few statements are prepared."""

_json = msgspec.json.Encoder(decimal_format="string")
_head = msgspec.json.Decoder(Head)


@dataclass(slots=True)
class Create:
    session: Session


@dataclass(slots=True)
class Append:
    key: Key
    facts: Sequence[Fact]
    fence: int | None
    expected: Seq | None


@dataclass(slots=True)
class Do:
    """Anything rarer; sees all that was ordered before it."""

    work: Callable[[sqlite3.Connection], object]


Order: TypeAlias = Create | Append | Do


@dataclass(slots=True)
class Written:
    key: Key
    appended: Appended
    activated: RunId | None


Row: TypeAlias = tuple[str | int | None, ...]


@dataclass(slots=True)
class _Rows:
    events: list[Row] = field(default_factory=list[Row])
    heads: dict[Key, Row] = field(default_factory=dict[Key, Row])
    runs: list[Row] = field(default_factory=list[Row])
    said: list[Row] = field(default_factory=list[Row])
    words: list[Row] = field(default_factory=list[Row])


class Writer:
    """Owns the writing connection; `work` runs on the writer's thread, `deliver` on the loop."""

    def __init__(
        self, db: sqlite3.Connection, observer: Observer, clock: Callable[[], float]
    ) -> None:
        self.db, self._observer, self._clock = db, observer, clock
        self._known: dict[Key, tuple[Head, str]] = {}
        self._last_said = self._count_said()
        self._rows = _Rows()

    def work(self, orders: Sequence[Order]) -> Sequence[object]:
        """Commit the orders together; return an answer or an exception for each."""
        try:
            return self._commit(orders)
        except sqlite3.Error as error:
            self._undo()
            refusal = unavailable(error)
            if len(orders) == 1:
                return [refusal]
        return [self.work([order])[0] for order in orders]

    def now_us(self) -> int:
        return round(self._clock() * 1_000_000)

    def deliver(self, answers: Sequence[object]) -> None:
        for answer in answers:
            if isinstance(answer, Written):
                self._observer(answer.key, answer.appended.events)

    def _commit(self, orders: Sequence[Order]) -> Sequence[object]:
        at_us = self.now_us()
        self.db.execute("BEGIN IMMEDIATE")
        answers: list[object] = []
        for order in orders:
            try:
                answers.append(self._carry_out(order, at_us))
            except HostlerError as refusal:
                answers.append(refusal)
        self._flush()
        self.db.execute("COMMIT")
        return answers

    def _undo(self) -> None:
        self._rows = _Rows()
        self._known.clear()
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self._last_said = self._count_said()

    def _count_said(self) -> int:
        (last,) = self.db.execute(SQL["last_said"]).fetchone()
        return int(last)

    def _carry_out(self, order: Order, at_us: int) -> object:
        match order:
            case Create(session=session):
                return self._create(session, at_us)
            case Append(key=key):
                head, agent = self._head(key)
                done = project(
                    key,
                    head,
                    order.facts,
                    at=at_us / 1_000_000,
                    fence=order.fence,
                    expected=order.expected,
                )
                self._take(key, agent, done, at_us)
                return Written(key, Appended(done.events, done.head), done.activated)
            case Do(work=work):
                self._flush()
                self._known.clear()
                return work(self.db)

    def _create(self, session: Session, at_us: int) -> bool:
        key = Key(session.tenant, session.id)
        row = (
            *key,
            session.agent,
            session.principal,
            session.title,
            _json.encode(session.metadata).decode(),
            round(session.created_at * 1_000_000),
        )
        if not self.db.execute(SQL["create_session"], row).rowcount:
            return False
        self._keep(key, session.head, session.agent, at_us)
        return True

    def _head(self, key: Key) -> tuple[Head, str]:
        known = self._known.get(key)
        if known is None:
            row = self.db.execute(SQL["head_and_agent"], key).fetchone()
            if row is None:
                raise NotFound(f"no session {key.session}")
            known = _head.decode(row[0]), str(row[1])
        return known

    def _keep(self, key: Key, head: Head, agent: str, at_us: int) -> None:
        self._known.pop(key, None)
        self._known[key] = head, agent
        if len(self._known) > KEPT_HEADS:
            del self._known[next(iter(self._known))]
        self._rows.heads[key] = (
            *key,
            _json.encode(head).decode(),
            head.status,
            head.active,
            at_us,
        )

    def _take(self, key: Key, agent: str, done: Projection, at_us: int) -> None:
        rows = self._rows
        self._keep(key, done.head, agent, at_us)
        rows.events += [(*key, e.seq, at_us, e.kind, e.raw.decode()) for e in done.events]
        for seq, _, text in done.said:
            self._last_said += 1
            rows.said.append((self._last_said, *key, seq))
            rows.words.append((self._last_said, text))
        for run, change in done.runs.items():
            usage = None if change.usage is None else _json.encode(change.usage).decode()
            rows.runs.append(
                (
                    key.tenant,
                    run,
                    key.session,
                    change.status,
                    agent,
                    change.input,
                    change.first_seq,
                    change.last_seq,
                    at_us if change.created_at is not None else None,
                    at_us if change.started_at is not None else None,
                    at_us if change.ended_at is not None else None,
                    change.reason,
                    usage,
                )
            )

    def _flush(self) -> None:
        rows, self._rows = self._rows, _Rows()
        self._insert("insert_events", rows.events)
        self._insert("insert_heads", list(rows.heads.values()))
        self._insert("upsert_runs", rows.runs)
        self._insert("insert_said", rows.said)
        self._insert("insert_said_words", rows.words)

    def _insert(self, name: str, rows: list[Row]) -> None:
        start = 0
        while start < len(rows):
            count = min(LARGEST_INSERT, 1 << ((len(rows) - start).bit_length() - 1))
            part = rows[start : start + count]
            self.db.execute(_statement(name, count, len(part[0])), [v for row in part for v in row])
            start += count


_statements: dict[tuple[str, int], str] = {}


def _statement(name: str, rows: int, width: int) -> str:
    made = _statements.get((name, rows))
    if made is None:
        row = f"({', '.join('?' * width)})"
        made = _statements[name, rows] = SQL[name].replace("{rows}", ", ".join([row] * rows))
    return made
