"""Chats on what can only write lines: pipes, logs, dumb terminals.

Invariant: a message is sent when the run of the one before it has ended; what is typed before that
answers what the run waits for.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial

import anyio
from msgspec.structs import asdict

from hostler.app.asking import Back, Lost
from hostler.app.terminal.desk import HERE, Errand, For, give
from hostler.app.terminal.items import Question, Wait
from hostler.app.terminal.place import Place
from hostler.app.terminal.plain import Plain
from hostler.app.terminal.run import RunWatch
from hostler.app.terminal.story import Story
from hostler.core.errors import HostlerError, Invalid
from hostler.core.events import JsonObject

CHUNK = 65536
WAYS = "y allow, n deny, a always, e edit> "
_ERRANDS: Mapping[str, For] = {"y": "allow", "a": "always", "n": "deny", "e": "edited"}


async def line_chat(place: Place) -> None:
    """Send each line of the input, and write what comes of it."""
    plain = Plain(sys.stdout, sys.stdout, tells_user=True)
    lines = Lines(plain)
    if place.session is not None and not await _come_back(place, plain, lines):
        return
    plain.tells_user = False
    while (line := await lines.next("> ")) is not None:
        if line == "/quit":
            return
        if line == "/new":
            place.session = None
            continue
        session = await place.in_session()
        receipt = asdict(await place.client.speak(session, line))
        watch = RunWatch(place.client, receipt, plain)
        watch.story.agent = place.agent or ""
        if not await _to_the_end(place, watch, lines):
            return


async def line_attach(place: Place, after: str) -> None:
    """Write what happens in the session, until Ctrl-C."""
    plain, story = Plain(sys.stdout, sys.stdout, tells_user=True), Story()
    story.agent = place.agent or ""

    async def until_told(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT) as received:
            async for _ in received:
                scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(until_told, tasks.cancel_scope)
        async with aclosing(place.client.api.news(str(place.session), after=after)) as news:
            async for one in news:
                if isinstance(one, Lost):
                    plain.note(f"{one.why}: trying to get back")
                elif isinstance(one, Back):
                    plain.note("the server is back")
                else:
                    plain.take([item for frame in one for item in story.tell(frame)])


class Lines:
    """Lines of the input; waiting for one can be given up, and nothing is lost."""

    def __init__(self, plain: Plain) -> None:
        self._plain = plain
        self._rest = b""

    async def next(self, sign: str, *, may_be_empty: bool = False) -> str | None:
        """Return the next line, None at the end; `sign` asks for it, if somebody is there."""
        is_asked = sys.stdin.isatty()
        while True:
            if is_asked:
                self._plain.ask(sign)
            line = await self._next()
            if is_asked:
                self._plain.typed()
            if line is None or line.strip() or may_be_empty:
                return None if line is None else line.decode(errors="replace").strip()

    async def _next(self) -> bytes | None:
        fd = sys.stdin.fileno()
        while b"\n" not in self._rest:
            with suppress(PermissionError):  # of a file, which can always be read
                await anyio.wait_readable(fd)
            more = os.read(fd, CHUNK)
            if not more:
                last, self._rest = self._rest, b""
                return last or None
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line


async def _come_back(place: Place, plain: Plain, lines: Lines) -> bool:
    """Write what was said last, and end what waits; return whether to go on."""
    frames, cursor = await place.last_exchanges()
    story = Story()
    story.agent = place.agent or ""
    plain.take([item for frame in frames for item in story.tell(frame)])
    if not story.waits:
        return True
    going: JsonObject = {
        "session": place.session,
        "run": story.run,
        "cursor": cursor,
        "position": 0,
    }
    return await _to_the_end(place, RunWatch(place.client, going, plain, story=story), lines)


async def _to_the_end(place: Place, watch: RunWatch, lines: Lines) -> bool:
    """Show a run, and ask for what it waits for; return whether it ended before it was left."""
    watch.settle = partial(_settle, watch, lines)
    if await watch.to_the_end() is not None:
        return True
    watch.plain.note(place.goes_on())
    return False


async def _settle(watch: RunWatch, lines: Lines, waits: Sequence[Wait]) -> None:
    for wait in waits:
        if isinstance(wait, HERE) and not await _answered(watch, lines, wait):
            watch.leave()
            return


async def _answered(watch: RunWatch, lines: Lines, wait: Wait) -> bool:
    """Ask until an answer is taken; return False at the end of the input."""
    while (errand := await _errand(watch.plain, lines, wait)) is not None:
        try:
            await give(watch.client, str(watch.receipt["session"]), wait, *errand)
        except Invalid as error:
            watch.plain.note(f"not sent: {error}")
        except HostlerError as error:
            watch.plain.note(f"not sent: {error}")
            return True
        else:
            return True
    return False


async def _errand(plain: Plain, lines: Lines, wait: Wait) -> tuple[Errand, str] | None:
    if isinstance(wait, Question):
        errand = Errand("answer", wait.call)
        line = await lines.next(errand.sign)
        return None if line is None else (errand, line)
    while (line := await lines.next(WAYS)) is not None:
        if line not in _ERRANDS:
            plain.note(f"not sent: {line!r} is none of y, n, a and e")
            continue
        errand = Errand(_ERRANDS[line], wait.call)
        if errand.is_aside:
            line = await lines.next(errand.sign, may_be_empty=errand.what == "deny")
        return None if line is None else (errand, line)
    return None
