"""The page on the tables that can be queried in SQL: every column, with what it means.

The columns are read from the schema that the migrations make; one without a meaning here, or a
meaning without a column, is an error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing

from docs.build.markdown import code, fence, page, table
from docs.build.source import Undocumented

from hostler.stores.entries import SNAPSHOT, SUMMARY
from hostler.stores.sqlite_file import migrations

INTRO = """
Runs are rows, too: written in the commit that writes the facts they tell, and made from these
alone. Query them in the database (`hostler.db` in the data folder; open it read-only while a server
runs), or ask [`/api/runs` and `/api/usage`](http.md). A history that a fork begins with is counted
in the session that said it, once. A question that a client asks a model itself has no run: it is a
row of `direct_calls`, and of no log. Columns keep their names and meanings; new ones may come.

Times are Unix microseconds, costs US dollars as exact decimal text. **A cost that is not known is
NULL, never 0**, and is counted: `sum(cost)` is the sum of what is known, and needs
`sum(unpriced)` beside it to be honest. `sum` makes a floating-point number of it; `/api/usage` adds
exactly, to 10⁻¹² dollars.
"""
COMMON = {
    "tenant": "Whose it is: part of every key.",
    "session": "The session that it happened in.",
    "run": "The run that it belongs to: `agent_runs.id`.",
    "step": "In which step: 1 until the run's first reply, and for the calls that this asked for.",
    "input_tokens": "As the provider counted them, cached ones included.",
    "output_tokens": "As the provider counted them, reasoning included.",
    "cache_read_tokens": "Of the input, what came from the provider's cache.",
    "cache_write_tokens": "Of the input, what was put into it.",
    "reasoning_tokens": "Of the output, what was thought and not said.",
    "price_version": "The price table that gave the cost; NULL when the provider told it, or nobody.",
    "latency_us": "Microseconds from its beginning to its end.",
}
TABLES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "agent_runs": (
        "One row for each run, from the message that it was made for.",
        {
            "id": "`run_…`.",
            "agent": "The session's agent.",
            "owner": "Who made the session.",
            "principal": "Who spoke first in the run: its user.",
            "purpose": "What the run is for, as the first message said; NULL for nothing.",
            "status": "`queued`, `running` (also while it waits for somebody), `done`, `failed` or `cancelled`.",
            "reason": "Why it ended so, as in `run_ended`; NULL for an ordinary `done`.",
            "input": "The first message, `inp_…`.",
            "first_seq": "Where its facts begin in the session's log.",
            "last_seq": "Where they end.",
            "created_at": "When the first message was accepted.",
            "started_at": "When it began.",
            "ended_at": "When it ended.",
            "steps": "Replies of models so far.",
            "input_tokens": "Of all its model calls so far, failed ones included.",
            "output_tokens": "As above.",
            "cache_read_tokens": "As above.",
            "cache_write_tokens": "As above.",
            "reasoning_tokens": "As above.",
            "cost": "Of all its model calls, once it has ended; NULL when that of any is not known.",
            "unpriced_calls": "Model calls so far that may have cost something, and what is not known.",
            "error_type": "The fault of the last model call, if that failed.",
            "error_message": "The same in words.",
            "input_summary": f"The first {SUMMARY} characters of the first message.",
            "output_summary": f"The first {SUMMARY} characters of the last reply that said something.",
        },
    ),
    "llm_calls": (
        "One row for each attempt at a reply, from the moment before the provider is asked.",
        {
            "id": "`att_…`.",
            "number": "Of the attempts at this reply: 2 is the first retry, or the next model.",
            "provider": "As in `provider:model`.",
            "model": "The provider's name for it.",
            "status": "`open`, `replied`, `failed`, or `dropped`: given up in the middle.",
            "error_type": "Why it failed: a [fault](errors.md).",
            "error_message": "The same in words.",
            "cost": "What it cost; NULL when that is not known.",
            "unpriced": "1 when it may have cost something, and what is not known.",
            "asked_at": "When it was asked.",
            "ended_at": "When its end was written.",
            "first_token_us": "Microseconds to the first delta; NULL when the end came first.",
        },
    ),
    "direct_calls": (
        "One row for each question that a client asks a model itself; kept as long as idle sessions.",
        {
            "id": "`dir_…`.",
            "principal": "Who asked: its user.",
            "purpose": "What for, as the client said; NULL for nothing.",
            "provider": "As in `provider:model`.",
            "model": "The provider's name for it.",
            "status": "`open`, `replied`, `failed`, or `dropped`: the client went away, or the server stopped.",
            "error_type": "Why it failed: a [fault](errors.md).",
            "error_message": "The same in words.",
            "cost": "What it cost; NULL when that is not known.",
            "unpriced": "1 when it may have cost something, and what is not known.",
            "asked_at": "When it was asked.",
            "ended_at": "When it ended.",
            "first_token_us": "Microseconds to the first delta; NULL when the end came first.",
        },
    ),
    "tool_runs": (
        "One row for each call that a model asked for, those that were refused included.",
        {
            "id": "`call_…`.",
            "name": "The tool; while the call has not begun, as the model wrote it.",
            "status": "`asked`, `running`, or its outcome: `ok`, `error`, `denied`, `cancelled`, `unknown`.",
            "asked_at": "When the model's reply was written.",
            "started_at": "When it began; NULL when it never did.",
            "ended_at": "When its outcome was written.",
            "parameters": f"Its arguments as JSON, up to {SNAPSHOT} characters; the log has all.",
            "parameters_cut": "1 when that is not all of them.",
            "result": f"What the model read, up to {SNAPSHOT} characters.",
            "result_cut": "1 when that is not all of it.",
        },
    ),
    "feedback": (
        "One row for each principal and key that rated a run: their last word.",
        {
            "principal": "Who rated it.",
            "key": "What was rated; empty for the run as a whole.",
            "score": "-1, or from 0 to 1.",
            "comment": "Why, in their words.",
            "at": "When.",
        },
    ),
}
QUERIES = {
    "What each agent cost on each day, and how much of it is not known": """
SELECT date(c.asked_at / 1000000, 'unixepoch') AS day, r.agent, count(*) AS calls,
    sum(c.cost) AS dollars, sum(c.unpriced) AS calls_of_unknown_cost
FROM llm_calls c JOIN agent_runs r ON r.tenant = c.tenant AND r.id = c.run
WHERE c.tenant = 'default'
GROUP BY day, r.agent ORDER BY day, r.agent;
""",
    "The tools that fail most": """
SELECT name, count(*) AS calls, sum(status <> 'ok') AS failed,
    avg(latency_us) / 1e6 AS seconds
FROM tool_runs WHERE tenant = 'default' AND ended_at IS NOT NULL
GROUP BY name ORDER BY failed DESC LIMIT 10;
""",
    "How long models take, and how often they are asked in vain": """
SELECT provider, model, count(*) AS calls, sum(status = 'failed') AS failed,
    avg(first_token_us) / 1e6 AS first_token_s, avg(latency_us) / 1e6 AS whole_s
FROM llm_calls WHERE tenant = 'default' GROUP BY provider, model;
""",
    "The worst rated runs of a purpose": """
SELECT r.id, f.score, f.comment, r.input_summary
FROM feedback f JOIN agent_runs r ON r.tenant = f.tenant AND r.id = f.run
WHERE r.tenant = 'default' AND r.purpose = 'nightly' AND f.key = ''
ORDER BY f.score LIMIT 20;
""",
}


def tables() -> str:
    """Return the page."""
    parts: list[str] = []
    for name, (said, columns) in TABLES.items():
        rows = [
            [code(column), kind, _meaning(name, columns, column)]
            for column, kind in schema()[name].items()
        ]
        parts += [f"## `{name}`", said, table(["column", "type", "meaning"], rows)]
        for gone in set(columns) - set(schema()[name]):
            raise Undocumented(f"{name}.{gone} has a meaning and is gone")
    parts.append("## Queries")
    for title, query in QUERIES.items():
        parts += [f"{title}:", fence(query.strip(), "sql")]
    return page("Tables", INTRO, *parts)


def schema() -> Mapping[str, Mapping[str, str]]:
    """Return the types of the columns of the tables, generated ones included."""
    with closing(sqlite3.connect(":memory:")) as db:
        for script in migrations():
            db.executescript(script)
        return {
            name: {row[1]: row[2].lower() for row in db.execute(f"PRAGMA table_xinfo({name})")}
            for name in TABLES
        }


def _meaning(name: str, columns: Mapping[str, str], column: str) -> str:
    said = columns.get(column) or COMMON.get(column)
    if not said:
        raise Undocumented(f"{name}.{column} has no meaning")
    return said
