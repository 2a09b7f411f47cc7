"""Chats on what can only write lines: pipes, logs, dumb terminals.

Invariant: a message is sent when the run of the one before it has ended.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import anyio

from hostler.app.client import Back, Lost
from hostler.app.terminal.place import Place
from hostler.app.terminal.plain import Plain
from hostler.app.terminal.run import RunWatch
from hostler.app.terminal.story import Story

CHUNK = 65536


async def line_chat(place: Place) -> None:
    """Send each line of the input, and write what comes of it."""
    plain = Plain(sys.stdout, sys.stdout, tells_user=True)
    if place.session is not None:
        frames, _ = await place.last_exchanges()
        story = Story()
        plain.take([item for frame in frames for item in story.tell(frame)])
    plain.tells_user = False
    async with aclosing(_lines(plain)) as lines:
        async for line in lines:
            if line == "/quit":
                return
            if line == "/new":
                place.session = None
                continue
            session = await place.in_session()
            watch = RunWatch(place.client, await place.client.speak(session, line), plain)
            if await watch.to_the_end() is None:
                plain.note(place.goes_on())
                return


async def line_attach(place: Place, after: str) -> None:
    """Write what happens in the session, until Ctrl-C."""
    plain, story = Plain(sys.stdout, sys.stdout, tells_user=True), Story()

    async def until_told(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT) as received:
            async for _ in received:
                scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(until_told, tasks.cancel_scope)
        async with aclosing(place.client.follow(str(place.session), after=after)) as news:
            async for one in news:
                if isinstance(one, Lost):
                    plain.note(f"{one.why}: trying to get back")
                elif isinstance(one, Back):
                    plain.note("the server is back")
                else:
                    plain.take([item for frame in one for item in story.tell(frame)])


async def _lines(plain: Plain) -> AsyncGenerator[str, None]:
    """Yield lines of the input that say something, asking for each if somebody is there."""
    fd, rest = sys.stdin.fileno(), b""
    while True:
        if sys.stdin.isatty():
            plain.ask("> ")
        while b"\n" not in rest:
            with suppress(PermissionError):  # of a file, which can always be read
                await anyio.wait_readable(fd)
            more = os.read(fd, CHUNK)
            if not more:
                if rest.strip():
                    yield rest.decode(errors="replace").strip()
                return
            rest += more
        line, _, rest = rest.partition(b"\n")
        if line.strip():
            yield line.decode(errors="replace").strip()
