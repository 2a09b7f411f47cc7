"""`hostler chat` and `hostler attach`: a session on a terminal, live.

Invariant: whatever ends a chat, the way back to its session is said.
"""

from __future__ import annotations

import os
import sys

import click

from hostler.app.settings import load_settings
from hostler.app.terminal.line_chat import line_attach, line_chat
from hostler.app.terminal.place import Place
from hostler.app.terminal.reach import agree, own, perform, reach
from hostler.app.terminal.room import Room


def chat(*, agent: str | None, model: str | None, session: str | None, **flags: object) -> None:
    """Talk in a session, new or old, until the user leaves."""
    settings = load_settings(flags)
    instead = own("working", settings, agent, model)
    needed = flags | {"agent": agent, "model": model}

    async def work() -> int:
        async with reach(settings, instead) as reached:
            await agree(reached, agent, model)
            place = Place(reached, settings, needed, agent=reached.agent or agent, session=session)
            if session is not None:
                await place.find()
            try:
                await (Room(place).talk() if can_draw() else line_chat(place))
            finally:
                if (way := place.way_back()) is not None:
                    click.echo(f"\nto come back: {way}", err=not sys.stdout.isatty())
        return 0

    perform(work)


def attach(*, session: str, after: str, **flags: object) -> None:
    """Show a session from a cursor on, and what happens in it, until the user leaves."""
    settings = load_settings(flags)

    async def work() -> int:
        async with reach(settings) as reached:
            place = Place(reached, settings, flags, session=session)
            await place.find()
            if after != "now":
                await reached.client.api.get(
                    f"/api/sessions/{session}/events", after=after, limit=1
                )
            await (Room(place).look_on(after) if can_draw() else line_attach(place, after))
        return 0

    perform(work)


def can_draw() -> bool:
    """Whether there is a terminal that does more than write lines, and somebody at it."""
    is_dumb = os.environ.get("TERM", "dumb") in ("", "dumb", "unknown")
    return not is_dumb and sys.stdin.isatty() and sys.stdout.isatty()
