"""What is wanted of whoever sits at a terminal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hostler.app.agent import Frame
from hostler.app.terminal.desk import KEYS, READ_S, Desk, Errand, chosen, edited
from hostler.app.terminal.items import Question
from hostler.app.terminal.story import Story
from hostler.app.terminal.words import in_full
from hostler.core.errors import Invalid


def frame(event: str, **data: object) -> Frame:
    fields = {"run": "run_1", "at": "2026-01-01T00:00:00.000Z", **data}
    return Frame(id="1", event=event, data=fields)


def wants(call: str) -> Frame:
    arguments = {"path": call}
    return frame("approval_asked", call=call, name="rm", arguments=arguments, digest="d")


def allowed(call: str) -> Frame:
    return frame("approval_given", call=call, decision="allow", principal="p")


def asks(call: str) -> Frame:
    arguments = {"question": "Which?"}
    return frame(
        "tool_started", call=call, name="ask_user", arguments=arguments, expires_at="2027-01-01"
    )


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_on(self) -> None:
        self.now += READ_S


def at_a_desk() -> tuple[Callable[[Frame], None], Desk, Clock]:
    story, clock = Story(), Clock()

    def tell(one: Frame) -> None:
        assert list(story.tell(one))

    return tell, Desk(story, clock), clock


def test_a_key_counts_when_its_request_could_be_read() -> None:
    tell, desk, clock = at_a_desk()

    before = desk.keys()
    tell(wants("call_1"))
    at_once = desk.keys(), "y allow" in desk.hint()
    clock.pass_on()
    later = desk.keys(), "y allow" in desk.hint()

    assert (before, at_once, later) == ("", ("", False), (KEYS, True))


def test_a_second_request_has_to_be_read_too() -> None:
    tell, desk, clock = at_a_desk()
    tell(wants("call_1"))
    tell(wants("call_2"))
    assert "(and 1 more)" in desk.hint()
    clock.pass_on()
    first = desk.press("y")

    tell(allowed("call_1"))

    assert first == Errand("allow", "call_1")
    assert desk.keys() == ""
    clock.pass_on()
    assert desk.keys() == KEYS
    assert desk.press("a") == Errand("always", "call_2")


def test_a_line_is_for_what_was_chosen_until_that_is_over() -> None:
    tell, desk, clock = at_a_desk()
    tell(wants("call_1"))
    clock.pass_on()
    desk.keys()

    pressed = desk.press("e"), desk.draft(), desk.errand().what, desk.keys()
    tell(allowed("call_1"))

    assert pressed == (None, '{"path":"call_1"}', "edited", "")
    assert desk.errand() == Errand()
    assert desk.hint() == ""


def test_a_question_takes_the_line_until_it_is_put_off() -> None:
    tell, desk, _ = at_a_desk()
    tell(asks("call_1"))

    first = desk.errand().what
    desk.put_off()
    off = desk.errand().what, "/answer" in desk.hint()
    desk.take_up()

    assert (first, off) == ("answer", ("message", True))
    assert desk.errand().what == "answer"


def test_what_waits_ends_with_its_run() -> None:
    tell, desk, _ = at_a_desk()
    tell(asks("call_1"))

    tell(frame("run_ended", status="cancelled", usage={}))

    assert desk.hint() == ""


def test_a_number_stands_for_an_option_unless_it_is_one() -> None:
    colours = Question(call="c", question="?", options=["red", "green"], who="a")
    numbers = Question(call="c", question="?", options=["2", "1"], who="a")

    assert [chosen(colours, text) for text in ("2", "3", "0", "red")] == ["green", "3", "0", "red"]
    assert chosen(numbers, "1") == "1"


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"a": 1} x', "[" * 100_000])
def test_arguments_that_are_no_object_are_refused(text: str) -> None:
    with pytest.raises(Invalid, match="must be a JSON object"):
        edited(text)


def test_nothing_is_hidden_from_whoever_judges_arguments() -> None:
    shown = in_full({"a": "x\x1b[2J", "b": "one\ntwo\u202e\u200b\x9b", "c": [1, {"d": None}]})

    assert shown == 'a: "x\\u001b[2J"\nb:\n  one\n  two\\u202e\\u200b\nc: [1,{"d":null}]'
    assert in_full({"a": "x" * 20_000}).endswith("more characters)")
