"""A story as it looks on a terminal: blocks that are done, and what is still moving.

Invariant: what is done is given out once and never changes; only `live` moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown
from rich.padding import Padding
from rich.segment import Segment
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from hostler.app.terminal.blocks import Blocks
from hostler.app.terminal.items import (
    PART,
    Anew,
    Asked,
    Called,
    Calls,
    Decided,
    Item,
    Over,
    Question,
    Replied,
    Shows,
    Spoke,
    Trouble,
    Wants,
    Words,
    Writes,
)
from hostler.app.terminal.story import Story
from hostler.app.terminal.words import (
    arguments_of,
    asked_of,
    brief,
    call_of,
    decided_of,
    end_of,
    printable,
    seconds,
    shown_of,
    wait_of,
)
from hostler.app.terminal.words import trouble_of as told

THEME = Theme(
    {
        "markdown.code": "cyan",
        "markdown.h1": "bold underline",
        "markdown.h2": "bold underline",
        "markdown.h3": "bold",
        "markdown.h4": "bold italic",
        "markdown.block_quote": "italic",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
        "markdown.item.number": "bold",
        "markdown.link": "underline",
        "markdown.link_url": "dim underline",
        "thinking": "dim italic",
        "quiet": "dim",
        "you": "bold",
        "good": "green",
        "bad": "red",
        "warn": "yellow",
        "ask": "bold yellow",
    }
)
"""No background, and no colour where a terminal's own will do: both dark and light ones exist."""
ASKED = 32
"""Characters of a model's name: what is going on is said in one line."""
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_OUTCOME = {"ok": "good", "error": "bad", "denied": "warn", "cancelled": "warn", "unknown": "warn"}


class _Code(CodeBlock):
    """Code in the terminal's colours, on the terminal's background."""

    def __rich_console__(self, *_: object) -> Iterator[RenderableType]:
        code = Syntax(str(self.text).rstrip(), self.lexer_name, theme="ansi_dark", word_wrap=True)
        yield Padding(code, (0, 0, 0, 2))


class _Heading(Heading):
    LEVEL_ALIGN = dict.fromkeys(Heading.LEVEL_ALIGN, "left")


class _Markdown(Markdown):
    """Markdown without the empty lines that some of its elements begin and end with."""

    elements = {  # noqa: RUF012  theirs
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _Code,
        "code_block": _Code,
    }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        try:
            parts = list(super().__rich_console__(console, options))
        except (IndexError, AssertionError, RuntimeError):
            # Rich 15 stumbles over HTML that ends and never began; the text is told all the same.
            parts = [Text(self.markup)]
        segments = [
            one
            for part in parts
            for one in ([part] if isinstance(part, Segment) else console.render(part, options))
        ]
        lines = [list(line) for line in Segment.split_lines(segments)]
        full = [place for place, line in enumerate(lines) if any(s.text.strip() for s in line)]
        for line in lines[full[0] : full[-1] + 1] if full else ():
            yield from line
            yield Segment.line()


class Canvas:
    """Draws one session."""

    def __init__(self, story: Story, clock: Callable[[], float]) -> None:
        self._story, self._clock = story, clock
        self._blocks: dict[PART, Blocks] = {"thinking": Blocks(), "text": Blocks()}
        self._calls: dict[str, tuple[Calls, float]] = {}
        self._asked: str | None = None
        self._writes = ("", 0)
        self._since = clock()
        self._last = ""
        self.wanted: Callable[[], str] = self._waited_for
        """Says what is waited for, and what may be done about it."""
        self.remark: str | None = None
        """Said while something moves: a lost connection, a cancel that is under way."""

    def take(self, item: Item) -> list[RenderableType]:
        """Return what an item completes, to be printed below what came before."""
        match item:
            case Spoke():
                self._since = self._clock()
                return self._next("you", _spoke("> ", item.text, "you"))
            case Words():
                return self._words(item)
            case Anew():
                broken = Text("— that reply broke off; it begins anew —", "warn")
                return [*self._end_reply(), *self._next("note", broken)]
            case Replied():
                return self._end_reply()
            case Called():
                self._calls.pop(item.call, None)
                line = Text(call_of(item))
                line.stylize(_OUTCOME.get(item.outcome, "warn"), 0, 1)
                return self._next("call", line)
            case Wants() | Question():
                return self._next("ask", _put(item))
            case Decided() | Shows():
                return self._next("call", _line(item))
            case Trouble():
                return [*self._end_reply(), *self._next("note", Text(told(item), "warn"))]
            case Over():
                return self._over(item)
            case _:
                self._move(item)
                return []

    def _move(self, item: Item) -> None:
        match item:
            case Asked():
                self._asked, self._writes = item.model, ("", 0)
            case Writes():
                name, size = self._writes
                self._writes = (item.name or name, size + len(item.text))
            case Calls():
                self._calls[item.call] = (item, self._clock())
            case _:
                pass

    def live(self) -> list[RenderableType]:
        """Return what is still moving, the most important last."""
        moving: list[RenderableType] = []
        for part, blocks in self._blocks.items():
            if blocks.open.strip():
                moving += ["", _block(part, blocks.open)]
        wheel = _SPINNER[int(self._clock() * 10) % len(_SPINNER)]
        if self._calls:
            moving.append("")
        for call, since in self._calls.values():
            took = seconds(self._clock() - since)
            line = f"{wheel} {brief(call.name)}({arguments_of(call.arguments)}) · {took}"
            moving.append(Text(line))
        if self._story.waits and not self.remark:
            moving += ["", Text(f"? {self.wanted()}", "warn")]
        elif self._story.is_busy or self.remark:
            moving += ["", Text(f"{wheel} {self._doing()}", "quiet")]
        for text in self._story.waiting:
            moving.append(Text(f"  waits > {brief(text)}", "quiet"))
        return moving

    def _waited_for(self) -> str:
        return f"waiting for {wait_of(self._story.waits[0])}"

    def _doing(self) -> str:
        took = seconds(self._clock() - self._since)
        if self.remark:
            return self.remark
        name, size = self._writes
        if name:
            return f"writing {brief(name)} ({size:,} characters) · {took} · Ctrl-C cancels"
        doing = "working" if self._asked is None else brief(self._asked, ASKED)
        return f"{doing} · {took} · Ctrl-C cancels"

    def _words(self, words: Words) -> list[RenderableType]:
        done = self._end_part("thinking") if words.part == "text" else []
        blocks = self._blocks[words.part].feed(printable(words.text))
        return [*done, *self._done(words.part, blocks)]

    def _done(self, part: PART, blocks: Sequence[str]) -> list[RenderableType]:
        full = [block for block in blocks if block.strip()]
        return [what for block in full for what in self._next(part, _block(part, block))]

    def _end_reply(self) -> list[RenderableType]:
        self._asked, self._writes = None, ("", 0)
        return [*self._end_part("thinking"), *self._end_part("text")]

    def _end_part(self, part: PART) -> list[RenderableType]:
        return self._done(part, self._blocks[part].end())

    def _over(self, over: Over) -> list[RenderableType]:
        style = {"failed": "bad", "cancelled": "warn"}.get(over.status, "quiet")
        self._calls, self.remark = {}, None
        self._since = self._clock()
        return [*self._end_reply(), *self._next("end", Text(end_of(over), style))]

    def _next(self, kind: str, what: RenderableType) -> list[RenderableType]:
        """Return `what` below an empty line, unless it is one more line of the same kind."""
        close = kind == self._last and kind in ("call", "note")
        self._last = kind
        return [what] if close else ["", what]


def _line(item: Decided | Shows) -> Text:
    if isinstance(item, Shows):
        return Text(shown_of(item), "quiet")
    return Text(decided_of(item), "good" if item.decision == "allow" else "warn")


def drawn(console: Console, *what: RenderableType) -> str:
    """Return what a console would print, without the spaces that fill its lines.

    They would break the lines when the window gets narrower.
    """
    with console.capture() as captured:
        console.print(*what, sep="\n")
    return "".join(f"{line.rstrip(' ')}\n" for line in captured.get().splitlines())


def _block(part: PART, text: str) -> RenderableType:
    if part == "thinking":
        return Text(text.strip("\n"), "thinking")
    return _Markdown(text, hyperlinks=False)


def _put(item: Wants | Question) -> RenderableType:
    asked, about = asked_of(item)
    return Group(Text(f"? {asked}", "ask"), Padding(Text(about), (0, 0, 0, 2)))


def _spoke(sign: str, text: str, style: str) -> RenderableType:
    grid = Table.grid()
    grid.add_column(width=len(sign))
    grid.add_column()
    grid.add_row(Text(sign, style), Text(printable(text), style))
    return grid
