"""`hostler sessions` and `hostler search`: what there is, as tables for people or JSON for programs.

Invariant: nothing is changed, and where no server runs, nothing is started.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import cast

import anyio
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hostler.app.client import Client
from hostler.app.settings import load_settings
from hostler.app.terminal.canvas import THEME, drawn
from hostler.app.terminal.reach import own, perform, reach
from hostler.app.terminal.story import said
from hostler.app.terminal.words import brief, printable
from hostler.core.events import JsonObject

WIDE = 1000
"""Columns of what is no terminal."""
NARROW = 90
"""Columns below which a table of sessions has only what is needed to find one."""
ASKS = 8
"""Sessions without a title that are asked for their first words at once."""
_MARKED = re.compile(r"\*\*(.+?)\*\*")
_STATUS = {"running": "good", "queued": "warn", "waiting": "warn"}


def sessions(
    *, limit: int | None, agent: str | None, status: str | None, json: bool, **flags: object
) -> None:
    """List sessions, newest first."""
    settings = load_settings(flags)
    instead = own("reading", settings)

    async def work() -> int:
        async with reach(settings, instead) as reached:
            found = reached.client.api.items(
                "/api/sessions", limit=limit, agent=agent, status=status
            )
            async with aclosing(found):
                items = [one async for one in found]
            if json:
                as_json(items)
            else:
                shown, titles = console(), await _titles(reached.client, items)
                show(shown, _sessions(items, titles, shown.width), "no sessions yet")
        return 0

    perform(work)


def search(*, words: Sequence[str], limit: int, json: bool, **flags: object) -> None:
    """List the places where all the words were said, newest first."""
    settings = load_settings(flags)
    instead = own("reading", settings)

    async def work() -> int:
        async with reach(settings, instead) as reached:
            page = await reached.client.api.get("/api/search", q=" ".join(words), limit=limit)
        items = cast("list[JsonObject]", page["items"])
        if json:
            as_json(items)
        else:
            show(console(), _hits(items), "no such words were said")
        return 0 if items else 1

    perform(work)


async def _titles(client: Client, items: Sequence[JsonObject]) -> dict[str, str]:
    """Return what the sessions are about: their titles, or what was said first in them."""
    titles = {str(one["id"]): str(one["title"]) for one in items if one["title"]}
    limiter = anyio.CapacityLimiter(ASKS)

    async def ask(session: str) -> None:
        async with limiter:
            page = await client.api.get(f"/api/sessions/{session}/events", limit=1)
        for frame in cast("list[JsonObject]", page["events"]):
            data = cast("JsonObject", frame["data"])
            titles[session] = said(data["content"]) if "content" in data else ""

    async with anyio.create_task_group() as tasks:
        for one in items:
            if str(one["id"]) not in titles and one["seq"]:
                tasks.start_soon(ask, str(one["id"]))
    return titles


def _sessions(items: Sequence[JsonObject], titles: dict[str, str], width: int) -> Table:
    """Return a table of sessions; where there is little room, less of each."""
    names = ["session", "agent", "about", "status", "when"]
    shown = names if width >= NARROW else ["session", "about", "status"]
    made = table(*shown)
    for one in items:
        status = str(one["status"])
        row = {
            "session": str(one["id"]),
            "agent": brief(str(one["agent"])),
            "about": brief(titles.get(str(one["id"]), "")),
            "status": Text(status, _STATUS.get(status, "quiet")),
            "when": _ago(str(one["updated_at"])),
        }
        made.add_row(*(row[name] for name in shown))
    return made


def _hits(items: Sequence[JsonObject]) -> Table:
    made = table("session", "who", "what was said")
    for one in items:
        who = "you" if one["kind"] == "user_spoke" else "agent"
        made.add_row(str(one["session"]), who, _marked(str(one["snippet"])))
    return made


def _marked(snippet: str) -> Text:
    """Return a snippet with its matches, which are in double stars, made bold."""
    text, end = Text(), 0
    line = " ".join(printable(snippet).split())
    for match in _MARKED.finditer(line):
        text.append(line[end : match.start()]).append(match[1], "bold reverse")
        end = match.end()
    return text.append(line[end:])


def table(*names: str) -> Table:
    """Return an empty table."""
    made = Table(box=None, header_style="quiet", pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        is_long = name in ("about", "what was said")
        made.add_column(name, no_wrap=name != "what was said", ratio=1 if is_long else None)
    return made


def console() -> Console:
    """Return the standard output; of what is no terminal, as wide as need be."""
    made = Console(theme=THEME, highlight=False)
    if not made.is_terminal:
        made.width = WIDE  # for grep and cut: one line each, whole
    return made


def show(console: Console, table: Table, nothing: str) -> None:
    """Write a table, or to the standard error that there is `nothing`."""
    if not table.row_count:
        sys.stderr.write(f"{nothing}\n")
        return
    if not console.is_terminal:
        for column in table.columns:
            column.ratio = None
    sys.stdout.write(drawn(console, table))
    sys.stdout.flush()


def as_json(items: Sequence[JsonObject]) -> None:
    """Write items as JSON, a line each."""
    sys.stdout.buffer.write(b"".join(msgspec.json.encode(one) + b"\n" for one in items))
    sys.stdout.buffer.flush()


def _ago(stamp: str) -> str:
    """Return a time as a person says it."""
    then = datetime.fromisoformat(stamp)
    minutes = int((datetime.now(UTC) - then).total_seconds() // 60)
    if minutes < 1:
        return "just now"
    if minutes < 60:
        return f"{minutes} min ago"
    if minutes < 24 * 60:
        return f"{minutes // 60} h ago"
    return f"{then.astimezone():%Y-%m-%d}"
