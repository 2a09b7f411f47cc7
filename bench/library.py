"""A database as years of use leave it: many sessions that many messages are in.

The store's own statements, many rows each; as fast as SQLite takes them.  A log here holds what
was said and nothing else.

Invariant: the server takes the file for one that it wrote.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from hostler.core.codec import dump
from hostler.core.events import (
    AttemptId,
    CallId,
    Fact,
    InputId,
    ModelReplied,
    PrincipalId,
    RunId,
    Seq,
    Usage,
    UserSpoke,
)
from hostler.core.head import Head, Wait
from hostler.stores.sqlite_file import connect, migrate
from hostler.stores.sqlite_rows import SQL

TENANT = "default"
EVERYWHERE, SELDOM, ONCE = "everywhere", "seldom", "unique"
"""Words: in each message, in one of `SELDOM_EVERY`, in the oldest alone."""
SELDOM_EVERY = 100
OTHER_AGENT = "other"
OTHER_EVERY, WAITS_EVERY = 100, 1000
"""Sessions, of which one is of another agent, or waits for an approval."""
WORDS = 20_000
WORDS_EACH = 20
BATCH = 10_000
DAYS_S = 30 * 86_400

Row = Sequence[object]


class _Kept(NamedTuple):
    """A session to be written."""

    id: str
    n: int
    at: float
    messages: int


def build(file: Path, *, sessions: int, messages: int, long: int) -> str:
    """Write the file and return the id of one session more, the newest, with `long` events."""
    file.parent.mkdir(parents=True, exist_ok=True)
    texts, began = _texts(), time.time() - DAYS_S
    each, said = messages // sessions, itertools.count(1)
    with closing(connect(file)) as db:
        migrate(db, file)
        db.execute("PRAGMA synchronous = OFF")  # nobody misses it after a crash
        step = DAYS_S / (sessions + 1)
        for first in range(0, sessions, BATCH // each):
            some = range(first, min(sessions, first + BATCH // each))
            _write(db, [_Kept(session_id(n), n, began + n * step, each) for n in some], texts, said)
        newest = session_id(sessions)
        _write(db, [_Kept(newest, sessions, began + sessions * step, long)], texts, said)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return newest


def session_id(n: int) -> str:
    return f"ses_{n:012x}{n * 0x9E3779B97F4A7C15 % 2**64:016x}"


def _texts() -> list[str]:
    chance = random.Random(1)  # the same words each time
    weights = [1 / rank for rank in range(1, WORDS + 1)]
    words = [f"word{rank}" for rank in range(WORDS)]
    return [" ".join(chance.choices(words, weights, k=WORDS_EACH)) for _ in range(997)]


def _write(
    db: sqlite3.Connection,
    sessions: Sequence[_Kept],
    texts: Sequence[str],
    said: Iterator[int],
) -> None:
    db.execute("BEGIN IMMEDIATE")
    _insert(db, "create_session", map(_session, sessions))
    _insert(db, "insert_heads", map(_head, sessions))
    events, where, words = list[Row](), list[Row](), list[Row]()
    for one in sessions:
        for seq in range(1, one.messages + 1):
            number = next(said)
            text = _text(texts, number)
            fact = _fact(one.id, seq, text)
            row = (TENANT, one.id, seq, _us(one.at), _kind(fact), dump(fact).decode())
            events.append(row)
            where.append((number, TENANT, one.id, seq))
            words.append((number, text))
    _insert(db, "insert_events", events)
    _insert(db, "insert_said", where)
    _insert(db, "insert_said_words", words)
    db.execute("COMMIT")


def _text(texts: Sequence[str], number: int) -> str:
    more = f" {SELDOM}" if number % SELDOM_EVERY == 0 else ""
    return f"{texts[number % len(texts)]} {EVERYWHERE}{more}{f' {ONCE}' if number == 1 else ''}"


def _fact(session: str, seq: int, text: str) -> Fact:
    turn = f"{session[4:24]}{(seq + 1) // 2:08x}"
    if seq % 2:
        return UserSpoke(
            run=RunId(f"run_{turn}"),
            input=InputId(f"inp_{turn}"),
            content=text,
            policy="queue",
            principal=PrincipalId("admin"),
            metadata={},
        )
    return ModelReplied(
        run=RunId(f"run_{turn}"),
        attempt=AttemptId(f"att_{turn}"),
        seen=Seq(seq - 1),
        text=text,
        calls=(),
        stop="end",
        usage=Usage(input_tokens=100, output_tokens=20),
    )


def _kind(fact: Fact) -> str:
    return "user_spoke" if isinstance(fact, UserSpoke) else "model_replied"


def _session(one: _Kept) -> Row:
    agent = OTHER_AGENT if one.n % OTHER_EVERY == 0 else "bench"
    title = f"Session {one.n}"
    return (TENANT, one.id, agent, "admin", title, "{}", _us(one.at), None, None)


def _head(one: _Kept) -> Row:
    seq, due = Seq(one.messages), None
    head = Head(seq=seq, fence=1, base=seq)
    if one.n % WAITS_EVERY == WAITS_EVERY // 2:
        expires_at = time.time() + DAYS_S
        due = _us(expires_at)
        head = Head(
            seq=seq,
            fence=1,
            active=RunId(f"run_{one.n:028x}"),
            started=True,
            unanswered=1,
            waits=(Wait(CallId(f"call_{one.n:x}"), "approval", expires_at),),
        )
    written = msgspec.json.encode(head).decode()
    return (TENANT, one.id, written, head.status, head.active, _us(one.at), due)


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _insert(db: sqlite3.Connection, name: str, rows: Iterable[Row]) -> None:
    rows = list(rows)
    holes = f"({', '.join('?' * len(rows[0]))})"
    db.executemany(SQL[name].replace("{rows}", holes), rows)
