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

from hostler.app.agent import Frame
from hostler.app.client import Back, Lost
from hostler.app.terminal.canvas import Canvas
from hostler.app.terminal.place import Place
from hostler.app.terminal.stage import Cues, Stage
from hostler.app.terminal.story import Spoke, Story
from hostler.core.errors import HostlerError

HISTORY = "history"
TICK_S = 0.1
HELP = """\
/new      begin a new session
/model    which agent and model this is
/quit     leave, as Ctrl-D does
Enter sends, Alt-Enter begins a new line, Ctrl-C cancels the run that is going.
What is sent while a run goes waits for its turn."""


class Room:
    """Shows a place, and asks."""

    def __init__(self, place: Place) -> None:
        self._place, self._client = place, place.client
        self._after = "0"
        self._begun = anyio.Event()
        self._following = anyio.CancelScope()
        self._say, self._said = anyio.create_memory_object_stream[str](math.inf)
        self._ring, self._rung = anyio.create_memory_object_stream[None](math.inf)
        self._presses = 0
        self._story = Story()
        self._canvas = Canvas(self._story, time.monotonic)

    async def talk(self) -> None:
        """Show the session, and send what is typed, until the user leaves."""
        cues = Cues(live=self._live, interrupt=self._interrupt, line=self._line)
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

    def _line(self, text: str) -> None:
        self._presses, self._canvas.remark = 0, None
        self._say.send_nowait(text)

    def _interrupt(self) -> None:
        self._presses += 1
        self._ring.send_nowait(None)

    async def _follow(self, stage: Stage) -> None:
        while True:
            await self._begun.wait()
            with anyio.CancelScope() as self._following:
                session = str(self._place.session)
                async with aclosing(self._client.follow(session, after=self._after)) as news:
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
        async for text in self._said:
            try:
                if text == "/quit":
                    stage.leave()
                elif text == "/new":
                    self._begin_anew(stage)
                elif text == "/model":
                    stage.show("", Text(await self._place.about(), "quiet"))
                elif text[0] == "/" and text[1:].isalpha():
                    stage.show("", Text(HELP, "quiet"))
                else:
                    await self._speak(text)
            except HostlerError as error:
                stage.give_back(text)
                stage.show("", Text(f"not sent: {error}", "bad"))

    async def _speak(self, text: str) -> None:
        is_new = self._place.session is None
        session = await self._place.in_session()
        await self._client.speak(session, text)
        if is_new:
            self._begun.set()

    def _begin_anew(self, stage: Stage) -> None:
        if self._story.is_busy:
            stage.show("", Text(self._place.goes_on(), "quiet"))
        self._place.session, self._after, self._begun = None, "0", anyio.Event()
        self._following.cancel()
        self._story = Story()
        self._canvas = Canvas(self._story, time.monotonic)
        stage.show("", Text("a new session begins with your next message", "quiet"))

    async def _cancel(self, stage: Stage) -> None:
        async for _ in self._rung:
            if self._presses > 1 or self._place.session is None:
                stage.leave()
            elif self._story.is_busy:
                self._canvas.remark = "cancelling · Ctrl-C again leaves"
                try:
                    await self._client.cancel(self._place.session)
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
