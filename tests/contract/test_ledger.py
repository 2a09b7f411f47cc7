"""Rows of runs are what their logs say, however a log was cut into appends, in every store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.services import Database, emptied

from hostler.core.events import (
    AttemptDropped,
    AttemptId,
    CallId,
    Fact,
    Fault,
    InputId,
    Key,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    PrincipalId,
    RunClaimed,
    RunEnded,
    RunId,
    RunRated,
    RunStarted,
    Seq,
    TenantId,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Usage,
    UserSpoke,
)
from hostler.core.ledger import By
from hostler.core.state import add
from hostler.core.store import Store
from hostler.stores.memory import MemoryStore
from hostler.stores.postgres_open import open_postgres
from hostler.stores.sqlite import SqliteStore
from hostler.testing.doubles import a_session
from hostler.testing.store_kit import Clock

TABLES = ("agent_runs", "llm_calls", "tool_runs", "feedback")
BY: tuple[By, ...] = ("tenant", "user", "agent", "model", "day")

costs = st.none() | st.decimals(0, 10, places=9)
counts = st.integers(0, 10**6)
usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cache_read_tokens=counts,
    cache_write_tokens=counts,
    reasoning_tokens=counts,
    cost=costs,
    price=st.none() | st.just("2026-01-01"),
)
tries = st.lists(st.sampled_from(["failed", "failed and dropped", "dropped"]), max_size=2)
outcomes = st.sampled_from(["ok", "error", "never began"])
steps = st.tuples(tries, st.lists(outcomes, max_size=2), usages, usages)
runs = st.tuples(
    st.lists(steps, max_size=3), st.sampled_from(["done", "failed"]), st.booleans(), st.booleans()
)
RunPlan = tuple[list[tuple[list[str], list[str], Usage, Usage]], str, bool, bool]


class Script:
    """Writes the facts of runs, as a loop would have."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.names = iter(range(10**6))
        self.reported: list[Usage] = []

    def name(self, kind: str) -> str:
        return f"{kind}_{next(self.names):06}"

    def run(self, plan: RunPlan) -> None:
        step_plans, status, has_purpose, is_rated = plan
        run, total = RunId(self.name("run")), Usage()
        self.facts += [
            UserSpoke(
                run=run,
                input=InputId(self.name("inp")),
                content="what " * 100,
                policy="queue",
                principal=PrincipalId("ann" if has_purpose else "bob"),
                metadata={},
                purpose="nightly" if has_purpose else None,
            ),
            RunClaimed(run=run, claim=1, worker="w"),
            RunStarted(run=run),
        ]
        for ends, called, lost, used in step_plans:
            for end in ends:
                total = add(total, self.attempt(run, end, lost))
            total = add(total, self.reply(run, called, used))
        ended = "done" if status == "done" else "failed"
        self.facts.append(RunEnded(run=run, status=ended, reason=None, usage=total))
        if is_rated:
            self.facts += [
                RunRated(run=run, principal=PrincipalId(who), score=score)
                for who, score in (("ann", -1.0), ("bob", 0.5), ("ann", 1.0))
            ]

    def attempt(self, run: RunId, end: str, lost: Usage) -> Usage:
        attempt = AttemptId(self.name("att"))
        self.facts.append(ModelAsked(run=run, attempt=attempt, provider="p", model="m"))
        if end != "dropped":
            self.facts.append(
                ModelFailed(
                    run=run,
                    attempt=attempt,
                    error=Fault(code="server", message="oh"),
                    retry_after_s=0,
                    usage=lost,
                    first_token_s=0.25,
                )
            )
            self.reported.append(lost)
        if end != "failed":
            self.facts.append(AttemptDropped(run=run, attempt=attempt, reason="failed"))
        return Usage() if end == "dropped" else lost

    def reply(self, run: RunId, called: Sequence[str], used: Usage) -> Usage:
        attempt = AttemptId(self.name("att"))
        calls = tuple(
            ToolCall(id=CallId(self.name("call")), name="look", arguments={"at": "x" * 3000})
            for _ in called
        )
        self.facts += [
            ModelAsked(run=run, attempt=attempt, provider="p", model="n"),
            ModelReplied(
                run=run,
                attempt=attempt,
                seen=Seq(0),
                text="so " * 100 if called else "",
                calls=calls,
                stop="tools",
                usage=used,
            ),
        ]
        self.reported.append(used)
        for call, outcome in zip(calls, called, strict=True):
            if outcome != "never began":
                self.facts.append(
                    ToolStarted(run=run, call=call.id, name="look_up", arguments={"at": 1})
                )
            ends = "error" if outcome == "never began" else outcome
            said = "y" * 2001 if outcome == "ok" else "no"
            self.facts.append(
                ToolFinished(run=run, call=call.id, outcome=ends, output=said)  # type: ignore[arg-type]
            )
        return used


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[list[Fact]], list[Usage]]:
    """A session's facts, in the pieces that they were appended in, and the usage told in them."""
    script = Script()
    for plan in draw(st.lists(runs, min_size=1, max_size=3)):
        script.run(plan)
    ends = sorted(draw(st.sets(st.integers(1, len(script.facts)), max_size=12)))
    cuts = [0, *ends, len(script.facts)]
    pieces = [script.facts[a:b] for a, b in pairwise(cuts) if a < b]
    return pieces, script.reported


async def written(store: Store, pieces: Sequence[Sequence[Fact]], clock: Clock) -> Key:
    clock.now = 1_000_000.0
    key = await a_session(store)
    for piece in pieces:
        clock.now += 40_000.25
        await store.append(key, piece)
    return key


async def everything(store: Store, key: Key) -> list[object]:
    """Return all that can be asked, but for the session's id, which differs."""
    rows = await store.runs(key.tenant, session=None, status=None, after="", limit=100)
    told: list[object] = [rows]
    for row in rows:
        assert row.session == key.session
        row.session = Key(key.tenant, row.session).session.__class__("ses")
        calls = await store.ledger.calls(key.tenant, row.id)
        for one in (*calls.models, *calls.tools):
            one.session = row.session
        told += [calls, await store.ledger.ratings(key.tenant, row.id)]
    spent = await store.ledger.usage(key.tenant, BY, since=0, before=10**10, after=(), limit=100)
    return [*told, spent]


def tables(file: Path) -> Iterator[object]:
    db = sqlite3.connect(file)
    for table in TABLES:
        yield table, sorted(db.execute(f"SELECT * FROM {table}").fetchall(), key=str)
    db.close()


@given(log=logs())
@settings(max_examples=30, deadline=None)
def test_rows_do_not_depend_on_how_a_log_was_cut_nor_on_the_store_and_can_be_made_anew(
    log: tuple[list[list[Fact]], list[Usage]],
) -> None:
    async def check(folder: Path) -> None:
        pieces, reported = log
        clock = Clock()
        memory, file = MemoryStore(clock=clock), folder / "log.db"
        in_memory = await everything(memory, await written(memory, pieces, clock))
        store = SqliteStore.open(file, clock=clock)
        key = await written(store, pieces, clock)

        on_disk = await everything(store, key)
        kept = list(tables(file))
        await store.ledger.rebuild()
        anew = list(tables(file))
        (spent,) = await store.ledger.usage(
            key.tenant, ["tenant"], since=0, before=10**10, after=(), limit=9
        ) or [None]
        store.close()

        assert on_disk == in_memory
        assert anew == kept
        if spent is not None:
            assert spent.input_tokens == sum(one.input_tokens for one in reported)
            assert spent.output_tokens == sum(one.output_tokens for one in reported)
            known = [one.cost for one in reported if one.cost is not None]
            assert spent.cost == (sum(known, Decimal(0)) if known else None)

    with TemporaryDirectory() as folder:
        anyio.run(check, Path(folder))


@given(log=logs())
@settings(max_examples=10, deadline=None)
def test_rows_in_postgresql_are_those_in_memory_and_can_be_made_anew(
    log: tuple[list[list[Fact]], list[Usage]], postgres_database: Database
) -> None:
    async def check() -> None:
        pieces, _ = log
        clock = Clock()
        memory = MemoryStore(clock=clock)
        in_memory = await everything(memory, await written(memory, pieces, clock))
        async with open_postgres(postgres_database.url, clock=clock) as store:
            key = await written(store, pieces, clock)

            kept = await everything(store, key)
            await store.ledger.rebuild()
            anew = await everything(store, key)

        assert kept == in_memory
        assert anew == kept

    emptied(postgres_database)
    anyio.run(check)


def test_a_row_says_what_was_cut_and_counts_a_price_that_is_not_known() -> None:
    async def check() -> None:
        script = Script()
        priced, unpriced = Usage(input_tokens=7, cost=Decimal("0.1")), Usage(input_tokens=5)
        script.run(
            ([([], ["ok"], Usage(), priced), ([], [], Usage(), unpriced)], "done", True, False)
        )
        store = MemoryStore()
        await store.append(await a_session(store), script.facts)

        (row,) = await store.runs(TenantId("default"), session=None, status=None, after="", limit=9)
        (call,) = (await store.ledger.calls(row.tenant, row.id)).tools

        assert row.usage is not None
        assert (row.usage.input_tokens, row.usage.cost, row.unpriced_calls) == (12, None, 1)
        assert len(row.input_summary) == len(row.output_summary) == 200
        assert row.input_summary.endswith("…")
        assert (call.name, call.parameters, call.parameters_cut) == ("look_up", '{"at":1}', False)
        assert (len(call.result or ""), call.result_cut) == (2000, True)

    anyio.run(check)
