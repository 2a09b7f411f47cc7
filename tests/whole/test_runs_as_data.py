"""Runs as clients ask about them: found, summed, explained and rated, over HTTP and in SQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import cast

import pytest
from docs.build import tables
from docs.build.source import Undocumented
from tests.serving import KEY, Client, Json, Serve

from hostler.core.decide import Limits
from hostler.core.events import Usage
from hostler.core.ports import AgentSpec, Failure, Reply, Request
from hostler.core.said import ToolSaid
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_file import migrations
from hostler.testing.doubles import ModelDouble, ToolboxDouble, a_call, a_tool, an_agent

pytestmark = pytest.mark.anyio
CENT = Usage(input_tokens=100, output_tokens=10, cost=Decimal("0.01"), price="2026-01-01")
MANY = Usage(input_tokens=1, output_tokens=1)


def fails_looks_and_says(request: Request) -> Reply | Failure:
    """Fail once, having used tokens; then ask for a tool; then say something."""
    said = request.transcript[-1]
    if isinstance(said, ToolSaid):
        return Reply(text="it is sunny", stop="end", usage=CENT)
    fails_looks_and_says.tries += 1  # type: ignore[attr-defined]
    if fails_looks_and_says.tries % 2:  # type: ignore[attr-defined]
        return Failure(
            code="server", message="oh", again=True, retry_after_s=0, usage=Usage(input_tokens=7)
        )
    return Reply(text="", stop="tools", calls=(a_call("look", at="this"),), usage=CENT)


fails_looks_and_says.tries = 0  # type: ignore[attr-defined]


def agents() -> Sequence[AgentSpec]:
    tools = ToolboxDouble({"look": a_tool("look")})
    free = ModelDouble(lambda _: Reply(text="hi", stop="end", usage=MANY), name="free")
    looking = an_agent(ModelDouble(fails_looks_and_says), tools=tools, name="looking")
    return looking, an_agent(free, name="greeting", limits=Limits())


async def spoken(client: Client, agent: str, **more: object) -> str:
    session = await client.session(agent=agent)
    return str((await client.speak(session, **more))[0].data["run"])


async def usage(client: Client, query: str = "") -> list[Json]:
    return cast("list[Json]", (await client.get(f"/api/usage{query}"))["items"])


async def test_usage_is_the_sum_of_what_was_reported_by_failed_attempts_too(serve: Serve) -> None:
    async with serve(*agents()) as client:
        await spoken(client, "looking")
        await spoken(client, "greeting")
        await spoken(client, "greeting")

        (whole,) = await usage(client)
        by_agent = await usage(client, "?by=agent,model")

        assert (whole["runs"], whole["calls"], whole["failed_calls"]) == (3, 5, 1)
        assert (whole["input_tokens"], whole["output_tokens"]) == (209, 22)
        assert (whole["cost"], whole["unpriced_calls"]) == ("0.02", 3)
        assert [(row["by"], row["cost"], row["calls"]) for row in by_agent] == [
            ({"agent": "greeting", "model": "double:free"}, None, 2),
            ({"agent": "looking", "model": "double:double"}, "0.02", 3),
        ]


async def test_sums_come_in_pages_that_go_on_where_the_last_one_ended(serve: Serve) -> None:
    async with serve(*agents()) as client:
        for agent in ("looking", "greeting"):
            await spoken(client, agent)

        first = await client.get("/api/usage?by=agent&limit=1")
        rest = await client.get(f"/api/usage?by=agent&limit=1&after={first['cursor']}")
        none = await usage(client, "?to=2020-01-01")

        assert (first["more"], rest["more"], none) == (True, False, [])
        (one,), (two,) = cast("list[Json]", first["items"]), cast("list[Json]", rest["items"])
        assert (one["by"], two["by"]) == ({"agent": "greeting"}, {"agent": "looking"})


UNREADABLE = (
    "usage?by=colour",
    "usage?by=day,day",
    "usage?from=yesterday",
    "usage?from=",
    "usage?from=0001-01-01T00:00:00%2B14:00&to=0001-01-02",
    "usage?to=9999-12-31T23:59:59-14:00",
    "usage?to=2026-01-01T00:00:00",
    "usage?after=!",
    "usage?after=WyJhIiwiYiJd",
    "usage?limit=0",
    "runs?from=2026-99-99",
)


async def test_a_question_that_cannot_be_read_is_refused(serve: Serve) -> None:
    async with serve(*agents()) as client:
        told = [(query, (await client.call("GET", f"/api/{query}"))[0]) for query in UNREADABLE]
        assert told == [(query, 422) for query in UNREADABLE]


async def test_runs_are_found_by_each_of_the_things_they_are_about(serve: Serve) -> None:
    async with serve(*agents()) as client:
        nightly = await spoken(client, "greeting", purpose="nightly")
        looking = await spoken(client, "looking")

        async def found(query: str) -> list[object]:
            page = await client.get(f"/api/runs?{query}")
            return [row["id"] for row in cast("list[Json]", page["items"])]

        assert await found("purpose=nightly") == await found("agent=greeting") == [nightly]
        assert await found("user=admin") == await found("status=done") == [looking, nightly]
        assert await found("from=2020-01-01&to=2100-01-01T00:00:00Z") == [looking, nightly]
        assert await found(f"after={looking}") == [nightly]
        assert await found("user=nobody") == await found("to=2020-01-01") == []
        (row,) = cast("list[Json]", (await client.get("/api/runs?agent=looking"))["items"])
        assert (row["steps"], row["unpriced_calls"], row["error"]) == (2, 1, None)
        assert (row["input_summary"], row["output_summary"]) == ("hello", "it is sunny")


async def test_a_purpose_that_is_no_label_is_refused(serve: Serve) -> None:
    async with serve(*agents()) as client:
        session = await client.session()
        for purpose in ("", "two words", "é", "x" * 65, 5):
            body = {"content": "hello", "purpose": purpose}
            status, _ = await client.call("POST", f"/api/sessions/{session}/messages", body)
            assert status == 422, purpose
        assert await client.facts(session) == []


async def test_a_run_tells_what_each_step_cost_and_what_its_prompt_was_made_of(
    serve: Serve,
) -> None:
    async with serve(*agents()) as client:
        run = await spoken(client, "looking", content="h" * 50)

        costs = await client.get(f"/api/runs/{run}/costs")

        first, last = cast("list[dict[str, list[Json]]]", costs["steps"])
        assert [call["status"] for call in first["model_calls"]] == ["failed", "replied"]
        assert [call["number"] for call in first["model_calls"]] == [1, 2]
        assert [(tool["name"], tool["status"]) for tool in first["tool_calls"]] == [("look", "ok")]
        assert last["tool_calls"] == []
        prompt = cast("list[dict[str, object]]", last["model_calls"][0]["prompt"])
        sizes = {one["source"]: one["characters"] for one in prompt}
        assert sizes["user"] == 50
        assert sizes["tool:look"] == len("{'at': 'this'}")
        assert sum(cast("int", one["tokens"]) for one in prompt) == CENT.input_tokens
        assert cast("Json", costs["usage"])["cost"] is None
        assert costs["unpriced_calls"] == 1


async def test_a_rating_holds_until_the_same_principal_rates_the_same_thing_again(
    serve: Serve,
) -> None:
    async with serve(*agents()) as client:
        run = await spoken(client, "greeting")
        path = f"/api/runs/{run}/feedback"
        for body in ({"score": 1}, {"score": 0.5, "key": "tone"}, {"score": -1, "comment": "no"}):
            status, told = await client.call("POST", path, body)
            assert (status, told["score"], told["user"]) == (200, body["score"], "admin")

        detail = await client.get(f"/api/runs/{run}")

        given = cast("list[Json]", detail["feedback"])
        assert [(one["key"], one["score"]) for one in given] == [("tone", 0.5), ("", -1)]
        session = str(cast("Json", detail["run"])["session"])
        frames = await client.speak(session, "and again")
        assert frames[-1].data["status"] == "done"


NO_RATINGS: tuple[Json, ...] = (
    {},
    {"score": 2},
    {"score": -0.5},
    {"score": "good"},
    {"score": True},
    {"score": 1, "key": "a b"},
    {"score": 1, "comment": "x" * 4001},
    {"score": 1, "more": 1},
)


async def test_what_is_no_rating_is_refused(serve: Serve) -> None:
    async with serve(*agents()) as client:
        run = await spoken(client, "greeting")
        for body in NO_RATINGS:
            status, _ = await client.call("POST", f"/api/runs/{run}/feedback", body)
            assert status in (400, 422), body
        assert (await client.get(f"/api/runs/{run}"))["feedback"] == []


async def test_a_run_that_is_not_there_has_no_costs_and_takes_no_rating(serve: Serve) -> None:
    async with serve(*agents()) as client:
        assert (await client.call("GET", "/api/runs/run_0/costs"))[0] == 404
        assert (await client.call("POST", "/api/runs/run_0/feedback", {"score": 1}))[0] == 404


async def test_an_archive_brings_its_runs_and_ratings_along_and_a_fork_counts_nothing_again(
    serve: Serve,
) -> None:
    async with serve(*agents()) as client:
        run = await spoken(client, "greeting", purpose="nightly")
        await client.call("POST", f"/api/runs/{run}/feedback", {"score": 1})
        session = str(cast("Json", (await client.get(f"/api/runs/{run}"))["run"])["session"])
        (before,) = await usage(client)
        status, fork = await client.call("POST", f"/api/sessions/{session}/fork", {})
        assert status == 201
        (after,) = await usage(client)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/jsonl"}
        url = f"{client.url}/api/sessions"
        async with client.http.get(f"{url}/{session}/export", headers=headers) as answer:
            archive = await answer.read()
        for one in (str(fork["id"]), session):
            await client.call("DELETE", f"/api/sessions/{one}")
        assert await usage(client) == []

        async with client.http.post(
            f"{url}/import", data=BytesIO(archive), headers=headers
        ) as answer:
            assert answer.status == 201, await answer.text()

        assert (await usage(client)) == [before] == [after]
        detail = await client.get(f"/api/runs/{run}")
        assert cast("Json", detail["run"])["purpose"] == "nightly"
        assert [one["score"] for one in cast("list[Json]", detail["feedback"])] == [1]


async def test_every_query_of_the_page_on_tables_runs_on_what_a_server_wrote(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve(*agents()) as client:
        run = await spoken(client, "looking", purpose="nightly")
        await client.call("POST", f"/api/runs/{run}/feedback", {"score": 0})
        with closing(sqlite3.connect(f"file:{tmp_path / 'log.db'}?mode=ro", uri=True)) as db:
            found = [db.execute(query).fetchall() for query in tables.QUERIES.values()]
        assert all(found), "a query found nothing"
        assert all(
            f"FROM {name}" in json.dumps(tables.QUERIES) for name in ("llm_calls", "feedback")
        )


def test_a_column_without_a_meaning_fails_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    said, columns = tables.TABLES["tool_runs"]
    less = {name: one for name, one in columns.items() if name != "result"}
    monkeypatch.setattr(tables, "TABLES", {**tables.TABLES, "tool_runs": (said, less)})
    with pytest.raises(Undocumented, match=r"tool_runs\.result has no meaning"):
        tables.tables()


BEFORE = 3
"""The version of the schema that had no tables of calls."""


async def test_rows_of_sessions_that_are_older_than_the_tables_are_made_when_the_file_is_opened(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve(*agents()) as client:
        await spoken(client, "looking", purpose="nightly")
        before = await usage(client, "?by=agent,model,user"), await client.get("/api/runs")
    file = (tmp_path / "log.db").rename(tmp_path / "newer.db")
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        for script in migrations()[:BEFORE]:
            db.executescript(script)
        db.execute(f"PRAGMA user_version = {BEFORE}")
        db.execute("ATTACH ? AS newer", (str(file),))
        for table in ("sessions", "heads", "events"):
            db.execute(f"INSERT INTO main.{table} SELECT * FROM newer.{table}")
        db.commit()

    async with serve(*agents()) as client:
        assert (
            await usage(client, "?by=agent,model,user"),
            await client.get("/api/runs"),
        ) == before


async def test_each_way_to_ask_for_runs_has_an_index_of_its_own(tmp_path: Path) -> None:
    SqliteStore.open(tmp_path / "log.db").close()
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        for column in ("session", "principal", "purpose", "agent", "status"):
            query = "SELECT id FROM agent_runs WHERE tenant = ? AND {} = ? ORDER BY created_at DESC"
            (step,) = db.execute(f"EXPLAIN QUERY PLAN {query.format(column)}", ("t", "x"))
            assert f"tenant=? AND {column}=?" in step[3]
