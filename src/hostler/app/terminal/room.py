"""One terminal and one session at a time: what is typed goes there, what happens there is shown.

What the user says is sent, and shown when it comes back as a fact: the log is what is shown.

Invariant: Ctrl-C cancels a run, never the session; leaving cancels nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import aclosing

import anyio
from rich.console import RenderableType
from rich.text import Text

from hostler.app.asking import Back, Lost
from hostler.app.frames import Frame
from hostler.app.terminal.canvas import Canvas
from hostler.app.terminal.desk import MESSAGE, Desk, Errand
from hostler.app.terminal.items import Spoke
from hostler.app.terminal.place import Place
from hostler.app.terminal.stage import Cues, Stage
from hostler.app.terminal.story import Story
from hostler.app.terminal.words import wait_of
from hostler.core.errors import HostlerError, Invalid

HISTORY = "history"
TICK_S = 0.1
COMMANDS = ("/help", "/new", "/model", "/later", "/answer", "/quit")
HELP = """\
/new      begin a new session
/model    which agent and model this is
/later    answer a question later, and say something else; /answer goes back to it
/quit     leave, as Ctrl-D does
Enter sends, Alt-Enter begins a new line, Ctrl-C cancels the run that is going.
What is sent while a run goes waits for its turn.
When a tool has to be approved, in an empty line: y allows it, n denies it, a allows it from now on
in this session, e edits what it is run with.  A message that begins so begins with a space."""


class Room:
    """Shows a place, and asks."""

    def __init__(self, place: Place) -> None:
        self._place, self._client = place, place.client
        self._after = "0"
        self._begun = anyio.Event()
        self._following = anyio.CancelScope()
        self._say, self._said = anyio.create_memory_object_stream[tuple[Errand, str]](math.inf)
        self._ring, self._rung = anyio.create_memory_object_stream[None](math.inf)
        self._presses = 0
        self._take_seats()

    def _take_seats(self) -> None:
        self._story = Story()
        self._story.agent = self._place.agent or ""
        self._canvas = Canvas(self._story, time.monotonic)
        self._desk = Desk(self._story, time.monotonic)
        self._canvas.wanted = self._desk.hint

    async def talk(self) -> None:
        """Show the session, and send what is typed, until the user leaves."""
        cues = Cues(
            live=self._live,
            interrupt=self._interrupt,
            line=self._line,
            errand=self._errand,
            answering=self._keys,
            press=self._press,
        )
        stage = Stage(cues, history=self._place.settings.data / HISTORY)
        stage.show(Text(f"{await self._place.about()} · /help", "quiet"))
        if self._place.session is not None:
            frames, self._after = await self._place.last_exchanges()
            stage.show(*self._drawn(frames))
            self._begun.set()
        await self._perform(stage)

    async def look_on(self, after: str) -> None:
        """Show the session from a cursor on, until the user leaves."""
        stage = Stage(Cues(live=self._live))
        self._canvas.wanted = self._look_only
        self._after = after
        self._begun.set()
        await self._perform(stage)

    async def _perform(self, stage: Stage) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow, stage)
            tasks.start_soon(self._send, stage)
            tasks.start_soon(self._cancel, stage)
            tasks.start_soon(self._tick, stage)
            await stage.run()
            tasks.cancel_scope.cancel()
        if self._story.is_busy:
            stage.show("", Text(self._place.goes_on(), "quiet"))

    def _live(self) -> Sequence[RenderableType]:
        return self._canvas.live()

    def _look_only(self) -> str:
        told = f"waiting for {wait_of(self._story.waits[0])}"
        return f"{told}\n  to answer: {self._place.way_back()}"

    def _line(self, errand: Errand, text: str) -> None:
        self._presses, self._canvas.remark = 0, None
        self._say.send_nowait((errand, text))

    def _errand(self) -> Errand:
        return self._desk.errand()

    def _keys(self) -> str:
        return self._desk.keys()

    def _press(self, key: str) -> str:
        errand = self._desk.press(key)
        if errand is not None:
            self._line(errand, "")
        return self._desk.draft()

    def _interrupt(self) -> None:
        if self._desk.back():
            return
        self._presses += 1
        self._ring.send_nowait(None)

    async def _follow(self, stage: Stage) -> None:
        while True:
            await self._begun.wait()
            with anyio.CancelScope() as self._following:
                session = str(self._place.session)
                async with aclosing(self._client.api.news(session, after=self._after)) as news:
                    async for one in news:
                        if isinstance(one, Lost):
                            self._canvas.remark = f"{one.why}: trying to get back"
                        elif isinstance(one, Back):
                            self._canvas.remark = None
                        else:
                            stage.show(*self._drawn(one))
                        stage.refresh()

    def _drawn(self, frames: Sequence[Frame]) -> list[RenderableType]:
        items = [item for frame in frames for item in self._story.tell(frame)]
        if any(isinstance(item, Spoke) for item in items):
            self._presses = 0
        return [what for item in items for what in self._canvas.take(item)]

    async def _send(self, stage: Stage) -> None:
        async for errand, text in self._said:
            try:
                if _is_command(errand, text):
                    await self._command(stage, text)
                elif errand is MESSAGE:
                    await self._speak(text)
                else:
                    session = str(self._place.session)
                    await self._desk.give(self._client, session, errand, text)
            except HostlerError as error:
                if errand is MESSAGE or isinstance(error, Invalid):
                    stage.give_back(text)
                stage.show("", Text(f"not sent: {error}", "bad"))

    async def _command(self, stage: Stage, text: str) -> None:
        match text:
            case "/quit":
                stage.leave()
            case "/new":
                self._begin_anew(stage)
            case "/model":
                stage.show("", Text(await self._place.about(), "quiet"))
            case "/later":
                self._desk.put_off()
            case "/answer":
                self._desk.take_up()
            case _:
                stage.show("", Text(HELP, "quiet"))
        stage.refresh()

    async def _speak(self, text: str) -> None:
        is_new = self._place.session is None
        session = await self._place.in_session()
        self._story.agent = self._place.agent or ""
        await self._client.speak(session, text)
        if is_new:
            self._begun.set()

    def _begin_anew(self, stage: Stage) -> None:
        if self._story.is_busy:
            stage.show("", Text(self._place.goes_on(), "quiet"))
        self._place.session, self._after, self._begun = None, "0", anyio.Event()
        self._following.cancel()
        self._take_seats()
        stage.show("", Text("a new session begins with your next message", "quiet"))

    async def _cancel(self, stage: Stage) -> None:
        async for _ in self._rung:
            if self._presses > 1 or self._place.session is None:
                stage.leave()
            elif self._story.is_busy:
                self._canvas.remark = "cancelling · Ctrl-C again leaves"
                try:
                    await self._client.cancel(self._place.session, tries_s=0)
                except HostlerError as error:
                    self._canvas.remark = f"not cancelled: {error} · Ctrl-C again leaves"
            else:
                self._canvas.remark = "nothing is going · Ctrl-C again leaves"
            stage.refresh()

    async def _tick(self, stage: Stage) -> None:
        while True:
            await anyio.sleep(TICK_S)
            if self._story.is_busy or self._canvas.remark:
                stage.refresh()


def _is_command(errand: Errand, text: str) -> bool:
    if errand is MESSAGE:
        return text[0] == "/" and text[1:].isalpha()
    return errand.what == "answer" and text in COMMANDS
