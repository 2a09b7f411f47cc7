"""What is done with a session as a whole: fork, rename, delete, export, import.

Where no server runs, the data folder is opened for this alone, and no run goes on.

Invariant: the standard output gets what was made, an id or a file, and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import BinaryIO
from urllib.parse import quote

import anyio
import anyio.to_thread
import click

from hostler.app.client import Client
from hostler.app.settings import load_settings
from hostler.app.terminal.reach import own, perform, reach
from hostler.core.errors import Unavailable
from hostler.core.events import JsonObject

CHUNK = 65536
MOVE_S = 30.0
"""A step is ended first, which takes as long as a model or a tool does."""
TOLD_OF_A_MOVE = ("run_claimed", "run_ended")
CUT = 1
"""Exit status of an export that did not come to its end."""


def fork(*, session: str, at: int | None, **flags: object) -> None:
    """Make a session that begins with what another one said."""

    async def work(client: Client) -> int:
        body: JsonObject = {} if at is None else {"at": at}
        made = await client.api.post(f"/api/sessions/{session}/fork", body)
        click.echo(made["id"])
        return 0

    _perform(work, flags)


def rename(*, session: str, title: str, **flags: object) -> None:
    """Set a session's title."""

    async def work(client: Client) -> int:
        await client.api.patch(f"/api/sessions/{session}", {"title": title or None})
        return 0

    _perform(work, flags)


def delete(*, session: str, yes: bool, **flags: object) -> None:
    """Delete a session; whoever sits at a terminal is asked before."""

    async def work(client: Client) -> int:
        found = await client.api.get(f"/api/sessions/{session}")
        if not yes and sys.stdin.isatty():
            about = f"{session} ({found['title']})" if found["title"] else session
            click.confirm(f"Delete {about} and all that was said in it?", abort=True, err=True)
        await client.api.delete(f"/api/sessions/{session}")
        return 0

    _perform(work, flags)


def move(*, session: str, **flags: object) -> None:
    """Have a session's run go on elsewhere, and tell where."""

    async def work(client: Client) -> int:
        moved = await client.api.post(f"/api/sessions/{session}/move", {})
        run, after = str(moved["run"]), str(moved["seq"])
        with anyio.move_on_after(MOVE_S):
            async with aclosing(client.follow(session, after=after)) as frames:
                async for frame in frames:
                    if frame.data.get("run") == run and frame.event in TOLD_OF_A_MOVE:
                        worker = frame.data.get("worker")
                        click.echo(f"{run} goes on at {worker}" if worker else f"{run} has ended")
                        return 0
        click.echo(f"{run} is where it was: no other node took it in {MOVE_S:.0f} s", err=True)
        return 1

    _perform(work, flags)


def export(*, session: str, **flags: object) -> None:
    """Write a session's file."""

    async def work(client: Client) -> int:
        has_begun = False
        async with aclosing(client.api.download(f"/api/sessions/{session}/export")) as pieces:
            try:
                async for piece in pieces:
                    has_begun = True
                    # In a thread: who reads it may be slow; a server of our own must not be.
                    await anyio.to_thread.run_sync(sys.stdout.buffer.write, piece)
            except Unavailable as error:
                if not has_begun:
                    raise
                click.echo(f"hostler: the file is not whole: {error}", err=True)
                return CUT
        sys.stdout.buffer.flush()
        return 0

    _perform(work, flags)


def restore(*, file: BinaryIO, session: str | None, **flags: object) -> None:
    """Make a session of a file."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        while piece := await anyio.to_thread.run_sync(file.read, CHUNK):
            yield piece

    async def work(client: Client) -> int:
        query = "" if session is None else f"?id={quote(session)}"
        async with aclosing(pieces()) as content:
            made = await client.api.upload(f"/api/sessions/import{query}", content)
        click.echo(made["id"])
        return 0

    _perform(work, flags)


def _perform(work: Callable[[Client], Awaitable[int]], flags: dict[str, object]) -> None:
    settings = load_settings(flags)
    instead = own("reading", settings)

    async def with_client() -> int:
        async with reach(settings, instead) as reached:
            return await work(reached.client)

    perform(with_client)
