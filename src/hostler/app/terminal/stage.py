"""A terminal with one thing moving at its lower end: what is done scrolls away above it.

Invariant: what was shown is the terminal's own text, in its history, and is never drawn again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import (
    AnyContainer,
    BufferControl,
    ConditionalContainer,
    Dimension,
    FormattedTextControl,
    HSplit,
    Layout,
    Window,
)
from prompt_toolkit.output import create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from rich.console import Console, RenderableType

from hostler.app.terminal.canvas import THEME, drawn
from hostler.app.terminal.desk import KEYS, MESSAGE, Errand

FRAME_S = 0.05
"""Between two drawings: more are not seen, and cost."""
INPUT_ROWS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Cues:
    """What the stage tells, and asks."""

    live: Callable[[], Sequence[RenderableType]]
    interrupt: Callable[[], None] | None = None
    """Ctrl-C, with nothing typed; without it, that leaves."""
    line: Callable[[Errand, str], None] | None = None
    """A line that was typed; without it there is none to type in."""
    errand: Callable[[], Errand] = lambda: MESSAGE
    """What a line is for that is begun now."""
    answering: Callable[[], str] = str
    """Which keys mean something by themselves, in an empty line."""
    press: Callable[[str], str] = str
    """One of them; returns what a line then begins with."""


class Stage:
    """Shows and asks, until it is left."""

    def __init__(self, cues: Cues, *, history: Path | None = None) -> None:
        self._cues = cues
        self._console = Console(theme=THEME, force_terminal=True, highlight=False)
        self._input = Buffer(
            multiline=True,
            history=None if history is None else FileHistory(_private(history)),
            on_text_changed=self._changed,
        )
        self._begun: Errand | None = None
        """What the line is for that is being typed."""
        output = create_output()
        if isinstance(output, Vt100_Output):
            # Asking where the cursor is tells nothing that is needed here, and not every terminal
            # answers.
            output.enable_cpr = False
        live = Window(FormattedTextControl(self._live), dont_extend_height=True)
        line = Window(
            BufferControl(self._input),
            height=Dimension(min=1, max=INPUT_ROWS),
            wrap_lines=True,
            dont_extend_height=True,
            get_line_prefix=self._prefix,
        )
        is_moving = Condition(lambda: bool(self._cues.live()))
        rows: list[AnyContainer] = [ConditionalContainer(live, is_moving)]
        if cues.line is not None:
            rows += [Window(height=1), line]
        self._app: Application[None] = Application(
            layout=Layout(HSplit(rows), focused_element=line if cues.line is not None else None),
            key_bindings=self._keys(),
            erase_when_done=True,
            min_redraw_interval=FRAME_S,
            output=output,
        )

    async def run(self) -> None:
        """Show and ask; returns when the stage is left."""
        await self._app.run_async()

    def leave(self) -> None:
        if self._app.is_running and not self._app.is_done:
            self._app.exit()

    def refresh(self) -> None:
        self._app.invalidate()

    def give_back(self, text: str) -> None:
        """Put a message that could not be sent back into the line, if that is empty."""
        if not self._input.text:
            self._input.insert_text(text)

    def show(self, *what: RenderableType) -> None:
        """Print above what moves."""
        text = drawn(self._console, *what) if what else ""
        app = self._app
        if not app.is_running or app.is_done:
            sys.stdout.write(text)
            sys.stdout.flush()
        elif text:
            # Not `run_in_terminal`: it gives the terminal back its own way of reading lines for
            # that time, and keys that are pressed then are lost.
            app.renderer.erase()
            app.output.write_raw(text)
            app.renderer.render(app, app.layout)

    @property
    def _errand(self) -> Errand:
        return self._begun or self._cues.errand()

    def _end_line(self) -> None:
        text, errand = self._input.text.strip(), self._errand
        if self._cues.line is not None and (text or errand.what == "deny"):
            if errand is MESSAGE:
                self._input.append_to_history()
            self._clear()
            self._cues.line(errand, text)

    def _interrupt(self) -> None:
        has_text, is_aside = bool(self._input.text), self._errand.is_aside
        self._clear()
        if has_text and not is_aside:
            return
        if self._cues.interrupt is not None:
            self._cues.interrupt()
        else:
            self.leave()

    def _clear(self) -> None:
        self._input.reset()
        self._begun = None

    def _changed(self, line: Buffer) -> None:
        self._begun = (self._begun or self._cues.errand()) if line.text else None

    def _answers(self, key: str) -> bool:
        return not self._input.text and key in self._cues.answering()

    def _prefix(self, line: int, wrapped: int) -> str:
        sign = self._errand.sign
        return sign if line == wrapped == 0 else " " * len(sign)

    def _live(self) -> ANSI:
        lines = drawn(self._console, *self._cues.live()).splitlines()
        room = max(3, self._console.height - INPUT_ROWS // 2)
        return ANSI("\n".join(lines if len(lines) <= room else ["…", *lines[1 - room :]]))

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        def enter(_: KeyPressEvent) -> None:
            self._end_line()

        def press(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text(self._cues.press(event.data))

        def newline(event: KeyPressEvent) -> None:
            event.current_buffer.newline(copy_margin=False)

        def interrupt(_: KeyPressEvent) -> None:
            self._interrupt()

        def leave(_: KeyPressEvent) -> None:
            self.leave()

        if self._cues.line is None:
            keys.add("q")(leave)
        else:
            keys.add("enter")(enter)
            keys.add("escape", "enter")(newline)
        for key in KEYS:
            keys.add(key, filter=Condition(partial(self._answers, key)))(press)
        keys.add("c-c")(interrupt)
        keys.add("<sigint>")(interrupt)
        keys.add("c-d", filter=Condition(lambda: not self._input.text))(leave)
        return keys


def _private(history: Path) -> str:
    history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    history.touch(mode=0o600)
    return os.fspath(history)
