"""What a person is told of a session, whatever it is shown on."""

from __future__ import annotations

import io
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hostler.app.agent import Frame
from hostler.app.terminal.blocks import Blocks
from hostler.app.terminal.canvas import THEME, Canvas, drawn
from hostler.app.terminal.items import Anew, Item, Over, Replied, Shows, Spoke, Waits, Words
from hostler.app.terminal.story import Story
from hostler.app.terminal.words import brief, printable, seconds, shown_of

TEXT = (
    "# Title\n\nA paragraph\nof two lines.\n\n- one\n\n- two\n\n  more of two\n\n"
    "```py\nx = 1\n\ny = 2\n```\nafter it\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nthe end"
)


def frame(event: str, **data: object) -> Frame:
    fields = {"run": "run_1", "at": "2026-01-01T00:00:00.000Z", **data}
    return Frame(id="1", event=event, data=fields)


def text(words: str) -> Frame:
    return frame("delta", part="text", text=words)


def replied(words: str) -> Frame:
    return frame("model_replied", text=words, calls=[])


def failed() -> Frame:
    return frame("model_failed", error={"code": "server", "message": "it broke"}, retry_after_s=1.0)


def told(*frames: Frame) -> list[Item]:
    story = Story()
    return [item for one in frames for item in story.tell(one)]


def words(items: Sequence[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, Words))


def test_a_reply_is_told_once_though_it_comes_in_pieces_and_as_a_whole() -> None:
    assert told(text("to"), text("day"), replied("today")) == [
        Words("text", "to"),
        Words("text", "day"),
        Replied(),
    ]


def test_a_reply_whose_beginning_was_missed_is_told_whole() -> None:
    assert words(told(replied("today"))) == "today"


def test_an_attempt_that_says_the_same_again_is_not_told_again() -> None:
    items = told(
        text("one two "), failed(), text("one "), text("two three"), replied("one two three")
    )

    assert words(items) == "one two three"
    assert Anew() not in items


def test_an_attempt_that_says_something_else_is_told_from_its_beginning() -> None:
    items = told(text("one two "), failed(), text("one "), text("too"), replied("one too"))

    at = items.index(Anew())
    assert words(items[:at]) == "one two "
    assert words(items[at:]) == "one too"


def test_an_attempt_that_is_shorter_than_the_one_before_is_told_anew() -> None:
    items = told(text("one two three"), failed(), replied("one two"))

    assert words(items[items.index(Anew()) :]) == "one two"


@given(st.lists(st.text("ab", max_size=3)), st.lists(st.text("ab", max_size=3)))
def test_whatever_was_told_before_the_last_reply_stands_at_the_end(
    first: list[str], second: list[str]
) -> None:
    whole = "".join(second)

    items = told(*map(text, first), failed(), *map(text, second), replied(whole))

    since = max((at for at, item in enumerate(items) if item == Anew()), default=0)
    assert words(items[since:]) == whole


def test_what_is_said_while_a_run_goes_waits_until_its_turn() -> None:
    def spoke(run: str, content: str) -> Frame:
        return frame("user_spoke", run=run, content=content)

    story = Story()
    first = [*story.tell(spoke("run_1", "a")), *story.tell(frame("run_started"))]
    second = list(story.tell(spoke("run_2", "b")))
    waiting = story.waiting
    end = list(story.tell(frame("run_ended", status="done", usage={})))
    third = list(story.tell(frame("run_started", run="run_2")))

    assert first == [Spoke("a")]
    assert second == [Waits("b")]
    assert waiting == ["b"]
    assert isinstance(end[0], Over)
    assert third == [Spoke("b")]
    assert story.waiting == []


def test_kinds_that_are_not_known_are_passed_over() -> None:
    assert told(frame("something_new", field=1)) == []


@given(st.lists(st.integers(1, 12), min_size=1, max_size=80))
def test_blocks_do_not_depend_on_how_the_text_came(sizes: list[int]) -> None:
    blocks, found, at = Blocks(), list[str](), 0
    for size in [*sizes, len(TEXT)]:
        found += blocks.feed(TEXT[at : at + size])
        at += size

    assert [*found, *blocks.end()] == [
        "# Title\n\n",
        "A paragraph\nof two lines.\n\n",
        "- one\n\n- two\n\n  more of two\n\n",
        "```py\nx = 1\n\ny = 2\n```\n",
        "after it\n\n",
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n",
        "the end",
    ]


@given(st.text("ab`~-1. \n\t>#|", max_size=60))
def test_no_character_is_lost_between_blocks(source: str) -> None:
    blocks = Blocks()

    assert "".join([*blocks.feed(source), *blocks.end()]) == source


def canvas(*frames: Frame, width: int = 60) -> str:
    story = Story()
    drawing = Canvas(story, lambda: 0.0)
    console = Console(file=io.StringIO(), theme=THEME, width=width, force_terminal=False)
    done = [what for one in frames for item in story.tell(one) for what in drawing.take(item)]
    return drawn(console, *done)


def test_a_reply_is_drawn_block_by_block_with_one_empty_line_between() -> None:
    assert (
        canvas(replied(TEXT))
        == """
Title

A paragraph of two lines.

 • one
 • two
   more of two

  x = 1

  y = 2

after it

 a  b
 ────
 1  2

the end
"""
    )


def test_html_that_ends_and_never_began_is_drawn_as_it_is() -> None:
    assert "</kbd>" in canvas(replied("press </kbd> now"))


def test_nothing_that_is_said_can_command_the_terminal() -> None:
    evil = "\x1b]0;title\x07\x1b[2Jwiped\x9b2J"

    shown = canvas(
        replied(evil),
        frame("tool_started", call="call_1", name="t\x1b[2J", arguments={"a": evil}),
        frame("part_shown", call="call_1", part={"type": "source", "url": evil, "title": evil}),
        frame("part_shown", call="call_1", part={"type": "data", "name": evil, "value": evil}),
        frame("tool_finished", call="call_1", outcome="ok", output=evil),
        frame("user_spoke", content=evil),
    )

    assert not set("\x1b\x07\x9b") & set(shown)
    assert "wiped" in shown


def test_what_a_tool_shows_is_a_line_of_its_own() -> None:
    def shows(**part: object) -> Frame:
        return frame("part_shown", call="call_1", part=part)

    link = "https://example.com/" + "a" * 200
    items = told(
        shows(type="data", name="progress", value={"done": 1}),
        shows(type="source", url=link, title="A page"),
        shows(type="document", title="Report", media_type="application/pdf", name="r.pdf"),
        shows(type="file", media_type="image/png", data="aGk=" * 1000, name="a.png"),
        shows(type="from_a_newer_server"),
    )

    assert [shown_of(one) for one in items if isinstance(one, Shows)] == [
        '· progress: {"done":1}',
        f"· source A page {link}",
        "· document Report r.pdf application/pdf",
        "· file a.png image/png",
        "· from_a_newer_server",
    ]


def test_things_are_said_briefly() -> None:
    assert brief("a\n b") == "a b"
    assert brief("x" * 1000, 10) == "xxxxxxxxx…"
    assert [seconds(s) for s in (0.04, 9.9, 10, 61, 600)] == [
        "0.0 s",
        "9.9 s",
        "10 s",
        "1 min 1 s",
        "10 min 0 s",
    ]
    assert printable("a\tb\nc\r\x00") == "a\tb\nc"
