"""The one thread that writes: it turns a batch of orders into one commit.

Statements take many rows at once.  Each statement lets go of the interpreter lock and has to wait
to get it back; row by row, a busy event loop would make a batch wait thousands of times.

Invariant: an order that is refused has written nothing and fails no other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET

from hostler.core.codec import load
from hostler.core.errors import Conflict, HostlerError, NotFound, Repeated
from hostler.core.events import Event, Fact, Key, SessionId, TenantId
from hostler.core.records import Appended, Labels, Once, Session
from hostler.core.sealed import Mask
from hostler.core.store import Observer
from hostler.faults import fault_point
from hostler.stores.ledger_rows import ledger_rows
from hostler.stores.log_rows import (
    Known,
    Row,
    approval_row,
    head_row,
    read_head_json,
    session_row,
    timer_rows,
    tools_json,
)
from hostler.stores.projection import (
    Projection,
    imported,
    project,
    said_in,
)
from hostler.stores.sqlite_batches import insert, statement
from hostler.stores.sqlite_entries import erase_ledger
from hostler.stores.sqlite_file import unavailable
from hostler.stores.sqlite_notices import Notices
from hostler.stores.sqlite_orders import Append, Audited, Create, Do, Enter, Order, Restore, Written
from hostler.stores.sqlite_rows import SQL
from hostler.stores.times import to_us

KEPT_HEADS = 4096
ANSWERS_KEPT_US = 24 * 3600 * 1_000_000
"""How long the answer to a write that must happen once is kept."""
PRUNED_EVERY_US = 3600 * 1_000_000

_json = msgspec.json.Encoder(decimal_format="string")


@dataclass(slots=True)
class _Rows:
    events: list[Row] = field(default_factory=list[Row])
    heads: dict[Key, Row] = field(default_factory=dict[Key, Row])
    ledger: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])
    """By the name of the statement that writes them."""
    approvals: list[Row] = field(default_factory=list[Row])
    scheduled: list[Row] = field(default_factory=list[Row])
    unscheduled: list[Row] = field(default_factory=list[Row])
    answers: dict[tuple[str, str], Row] = field(default_factory=dict[tuple[str, str], Row])
    said: list[Row] = field(default_factory=list[Row])
    words: list[Row] = field(default_factory=list[Row])


class Writer:
    """Owns the writing connection; `work` runs on the writer's thread, `deliver` on the loop."""

    def __init__(
        self,
        db: sqlite3.Connection,
        observer: Observer,
        clock: Callable[[], float],
        mask: Callable[[TenantId], Mask | None] = lambda _: None,
    ) -> None:
        self.db, self._observer, self._clock, self._mask = db, observer, clock, mask
        self._known: dict[Key, Known] = {}
        self._last_said = self._count_said()
        self._rows = _Rows()
        self.notices = Notices(db)
        self._prune_at_us = 0

    def work(self, orders: Sequence[Order]) -> Sequence[object]:
        """Commit the orders together; return an answer or an exception for each."""
        try:
            return self._commit(orders)
        except Exception as error:  # noqa: BLE001 # a bug in one order must not be everybody's trouble
            self._undo()
            if len(orders) == 1:
                return [unavailable(error) if isinstance(error, sqlite3.Error) else error]
        return [self.work([order])[0] for order in orders]

    def now_us(self) -> int:
        return to_us(self._clock())

    def deliver(self, answers: Sequence[object]) -> None:
        for answer in answers:
            if isinstance(answer, Written) and answer.appended.events:
                self._observer(answer.key, answer.appended.events)
        self.notices.ring_if_due()

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
        fault_point("before a commit of SQLite")
        self.db.execute("COMMIT")
        fault_point("after a commit of SQLite")
        self.notices.committed()
        return answers

    def _undo(self) -> None:
        self._rows = _Rows()
        self._known.clear()
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self.notices.undone()
        self._last_said = self._count_said()

    def _count_said(self) -> int:
        return int(self.db.execute(SQL["last_said"]).fetchone()[0])

    def _carry_out(self, order: Order, at_us: int) -> object:
        match order:
            case Create(session=session):
                return self._create(session, order.facts, order.once, at_us)
            case Append():
                return self._append(order, at_us)
            case Restore(session=session):
                return self._restore(session, order.events)
            case Enter(statement=name, row=row):
                self._rows.ledger.setdefault(name, []).append(row)
                return None
            case Do(work=work):
                self._flush()
                self._known.clear()
                return work(self.db)
            case Audited(order=inner, write=write):
                if (answer := self._carry_out(inner, at_us)) is not False:
                    write(self.db, at_us)
                return answer

    def _append(self, order: Append, at_us: int) -> Written:
        if order.once is not None:
            self._refuse_repeated(order.key.tenant, order.once, at_us)
        known = self._head(order.key)
        done = self._project(order, known, at_us)
        if done.events:
            self._take(order.key, known, done, at_us)
            self.notices.note(order.key, known, done.events)
        return self._written(order, done, at_us)

    def _project(self, order: Append, known: Known, at_us: int) -> Projection:
        return project(
            order.key,
            known.head,
            order.facts,
            at=at_us / 1_000_000,
            fence=order.fence,
            expected=order.expected,
            mask=self._mask(order.key.tenant),
        )

    def _written(self, order: Append, done: Projection, at_us: int) -> Written:
        appended = Appended(done.events, done.head)
        if order.once is not None:
            self._keep_answer(order.key.tenant, order.once, appended, at_us)
        return Written(order.key, appended, done.activated)

    def _refuse_repeated(self, tenant: TenantId, once: Once, at_us: int) -> None:
        row = (tenant, once.scope, at_us - ANSWERS_KEPT_US)
        waiting = (tenant, once.scope) in self._rows.answers
        if waiting or self.db.execute(SQL["answer"], row).fetchone() is not None:
            raise Repeated(once.scope)

    def _keep_answer(self, tenant: TenantId, once: Once, done: Appended, at_us: int) -> None:
        row = (tenant, once.scope, once.digest, once.answer(done), at_us)
        self._rows.answers[tenant, once.scope] = row
        if at_us >= self._prune_at_us:
            self._prune_at_us = at_us + PRUNED_EVERY_US
            self.db.execute(SQL["delete_old_answers"], (at_us - ANSWERS_KEPT_US,))

    def _create(
        self, session: Session, facts: Sequence[Fact], once: Once | None, at_us: int
    ) -> Written | None:
        if once is not None:
            self._refuse_repeated(session.tenant, once, at_us)
        order = Append(Key(session.tenant, session.id), facts, None, None, once)
        known = Known(session.head, session.agent, session.principal)
        done = self._project(order, known, at_us)  # what is refused has written nothing
        if not self._insert_session(session):
            return None
        self._insert_lineage(session)
        self._take(order.key, known, done, at_us)
        self.notices.note(order.key, known, done.events)
        return self._written(order, done, at_us)

    def _insert_session(self, session: Session) -> bool:
        key = Key(session.tenant, session.id)
        if key not in self._known and self.db.execute(SQL["forked_upto"], key).fetchone()[0]:
            there = self.db.execute(SQL["is_there"], key).fetchone()
            if there is None:
                raise Conflict(f"forks still read what {session.id} had said", code="exists")
        if not self._has_history(session):
            raise NotFound(f"what {session.id} begins with is gone")
        return bool(self.db.execute(SQL["create_session"], session_row(session)).rowcount)

    def _insert_lineage(self, session: Session) -> None:
        for origin, upto in session.lineage:
            row = (session.tenant, origin, session.id, upto)
            self.db.execute(statement("insert_forks", 1, 4), row)

    def _has_history(self, session: Session) -> bool:
        """Whether what a fork begins with is there: said by a session, or kept for other forks."""
        for origin, upto in session.lineage:
            key = Key(session.tenant, origin)
            try:
                end = self._head(key).head.seq
            except NotFound:
                (end,) = self.db.execute(SQL["forked_upto"], key).fetchone()
            if end < upto:
                return False
        return True

    def _restore(self, session: Session, events: Sequence[Event]) -> bool:
        key, at_us = Key(session.tenant, session.id), to_us(session.updated_at)
        self._flush()  # so that the tables say what is taken
        if self.db.execute(SQL["is_there"], key).fetchone() is not None:
            return False
        done = imported(key, events, self._mask(key.tenant))
        for run in done.ledger.runs:
            if self.db.execute(SQL["has_run"], (key.tenant, run)).fetchone() is not None:
                raise Conflict(f"{run} is here already, in another session", code="exists")
        self._insert_session(session)
        self._take(key, Known(done.head, session.agent, session.principal), done, at_us)
        return True

    def _head(self, key: Key) -> Known:
        known = self._known.get(key)
        if known is None:
            row = self.db.execute(SQL["head_and_agent"], key).fetchone()
            if row is None:
                raise NotFound(f"no session {key.session}")
            known = Known(read_head_json(row[0]), str(row[1]), str(row[4]))
        return known

    def _keep(self, key: Key, known: Known, at_us: int) -> None:
        self._known.pop(key, None)
        self._known[key] = known
        if len(self._known) > KEPT_HEADS:
            del self._known[next(iter(self._known))]
        self._rows.heads[key] = head_row(key, known.head, at_us)

    def _take(self, key: Key, known: Known, done: Projection, at_us: int) -> None:
        rows = self._rows
        self._keep(key, known._replace(head=done.head), at_us)
        rows.events += [(*key, e.seq, to_us(e.at), e.kind, e.raw.decode()) for e in done.events]
        for seq, _, text in done.said:
            self._last_said += 1
            rows.said.append((self._last_said, *key, seq))
            rows.words.append((self._last_said, text))
        made = ledger_rows(key, known.agent, known.owner, done.ledger)
        for name, more in made.items():
            rows.ledger.setdefault(name, []).extend(more)
        if done.client_tools is not None:
            self.db.execute(SQL["set_client_tools"], (tools_json(done.client_tools), *key))
        rows.approvals += [
            approval_row(key, call, change) for call, change in done.approvals.items()
        ]
        rows.scheduled += timer_rows(key, done)
        rows.unscheduled += [(*key, one) for one in done.over]

    def _flush(self) -> None:
        rows, self._rows = self._rows, _Rows()
        insert(self.db, "insert_events", rows.events)
        insert(self.db, "insert_heads", list(rows.heads.values()))
        for name, some in rows.ledger.items():
            insert(self.db, name, some)
        insert(self.db, "upsert_approvals", rows.approvals)
        insert(self.db, "insert_scheduled", rows.scheduled)
        self.db.executemany(SQL["end_scheduled"], rows.unscheduled)
        insert(self.db, "insert_answers", list(rows.answers.values()))
        insert(self.db, "insert_said", rows.said)
        insert(self.db, "insert_said_words", rows.words)
        self.notices.write()


def forget(db: sqlite3.Connection, key: Key) -> Sequence[SessionId]:
    """Remove a session, and of the histories that it alone has read what nobody else reads.

    Return those of which nothing is left.
    """
    gone: list[SessionId] = []
    for said, fact in db.execute(SQL["said_of_session"], key).fetchall():
        db.execute(SQL["unsay"], (said, said_in(load(fact))))
    origins = [Key(key.tenant, row[0]) for row in db.execute(SQL["origins"], key).fetchall()]
    erase_ledger(db, key)
    for table in ("said", "approvals", "scheduled", "shares", "grants", "forks", "head", "session"):
        db.execute(SQL[f"delete_{table}"], key)
    for one in (key, *origins):
        if db.execute(SQL["is_there"], one).fetchone() is None:
            (upto,) = db.execute(SQL["forked_upto"], one).fetchone()
            db.execute(SQL["delete_events"], (*one, upto))
            gone += () if upto else (one.session,)
    return gone


def relabel(db: sqlite3.Connection, key: Key, labels: Labels) -> None:
    """Set the labels that are named.  Raises NotFound."""
    row = {
        "tenant": key.tenant,
        "id": key.session,
        "retitles": labels.title is not UNSET,
        "title": None if labels.title is UNSET else labels.title,
        "metadata": None if labels.metadata is UNSET else _json.encode(labels.metadata).decode(),
    }
    if not db.execute(SQL["relabel"], row).rowcount:
        raise NotFound(f"no session {key.session}")
