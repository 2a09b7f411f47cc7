"""What any provider may do, well or badly, whatever its wire API: scenarios of the model kit.

Each name says what the provider does; what the model must make of it stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from hostler.core.events import Usage
from hostler.core.ports import FaultCode
from hostler.testing.model_script import (
    USAGE,
    After,
    Args,
    Begin,
    Call,
    End,
    Fails,
    Fault,
    FaultKind,
    Raw,
    Refuse,
    Replies,
    Scenario,
    Shape,
    Step,
    Text,
    Think,
)

_WORDS = (Text("Größe"), Text(": 5 €"), Text(" 🦄"), Text(".\n\ndata: x"))
_SAID = "Größe: 5 € 🦄.\n\ndata: x"
_PARIS = (Begin("a", "weather", "id-a"), Args("a", '{"city":'), Args("a", ' "Paris"}'))
_TWO = (
    Begin("a", "weather", "id-a"),
    Args("a", '{"city":'),
    Begin("b", "time", "id-b"),
    Args("b", '{"zone": "CET"'),
    Args("a", ' "Paris"}'),
    Args("b", "}"),
)
_WEATHER = Call(name="weather", arguments={"city": "Paris"})
_TIME = Call(name="time", arguments={"zone": "CET"})
_ALL: tuple[Step, ...] = (Think("Hm"), Think(", yes."), *_WORDS, *_TWO, End("tools"))
_ALL_SAID = Replies(
    text=_SAID, thinking="Hm, yes.", calls=[_WEATHER, _TIME], stop="tools", usage=USAGE
)
DEEP = '{"a":' * 65 + "1" + "}" * 65
"""Arguments nested one level deeper than is let through."""


def _answer(name: str, steps: Sequence[Step], expect: Replies) -> Scenario:
    return Scenario(name=name, steps=steps, expect=expect)


ANSWERS: Sequence[Scenario] = (
    _answer("it says something", [*_WORDS, End()], Replies(text=_SAID, usage=USAGE)),
    _answer("it says nothing", [End()], Replies()),
    _answer(
        "it thinks, then speaks",
        [Think("Hm"), Think("."), *_WORDS, End()],
        Replies(text=_SAID, thinking="Hm."),
    ),
    _answer("it calls a tool", [*_PARIS, End("tools")], Replies(calls=[_WEATHER], stop="tools")),
    _answer("it thinks, speaks and calls two tools at once", _ALL, _ALL_SAID),
    _answer(
        "it calls a tool without arguments",
        [Begin("a", "ping", "id-a"), End("tools")],
        Replies(calls=[Call(name="ping", arguments={})], stop="tools"),
    ),
    _answer(
        "it calls one tool twice with equal arguments",
        [
            *_PARIS,
            Begin("b", "weather", "id-b"),
            Args("b", '{"city": "Paris"}'),
            End("tools"),
        ],
        Replies(calls=[_WEATHER, _WEATHER], stop="tools"),
    ),
    _answer(
        "its arguments are no JSON",
        [Begin("a", "weather", "id-a"), Args("a", '{"city": Paris}'), End("tools")],
        Replies(calls=[Call(name="weather", arguments=None)], stop="tools"),
    ),
    _answer(
        "its arguments are no object",
        [Begin("a", "weather", "id-a"), Args("a", '["Paris"]'), End("tools")],
        Replies(calls=[Call(name="weather", arguments=None)], stop="tools"),
    ),
    _answer(
        "its arguments are nested 65 levels deep",
        [Begin("a", "weather", "id-a"), Args("a", DEEP), End("tools")],
        Replies(calls=[Call(name="weather", arguments=None)], stop="tools"),
    ),
    _answer(
        "its arguments are cut by the output limit",
        [*_PARIS[:2], End("length")],
        Replies(calls=[Call(name="weather", arguments=None, cut=True)], stop="length"),
    ),
    _answer(
        "the output limit falls after the name of a tool",
        [Begin("a", "weather", "id-a"), End("length")],
        Replies(calls=[Call(name="weather", arguments=None, cut=True)], stop="length"),
    ),
    _answer(
        "its text is cut by the output limit",
        [*_WORDS, End("length")],
        Replies(text=_SAID, stop="length", usage=USAGE),
    ),
    _answer(
        "it declines",
        [Refuse("I can't"), Refuse(" do that."), End("refusal")],
        Replies(text="I can't do that.", stop="refusal"),
    ),
)
"""Good answers."""

SHAPES: Sequence[Scenario] = tuple(
    Scenario(name=f"it sends {name}", steps=_ALL, shape=shape, expect=_ALL_SAID)
    for name, shape in {
        "all at once": Shape(piece_bytes=0),
        "seven bytes at a time": Shape(piece_bytes=7),
        "one byte at a time": Shape(piece_bytes=1),
        "CRLF for line ends": Shape(line_end=b"\r\n"),
        "CRLF for line ends, one byte at a time": Shape(line_end=b"\r\n", piece_bytes=1),
        "CR for line ends": Shape(line_end=b"\r"),
        "no space after data:": Shape(space=False),
        "comments between the events": Shape(comments=True),
        "a byte order mark first": Shape(start=b"\xef\xbb\xbf"),
        "comments first": Shape(start=b": hello\n\n:\n\n"),
        "fields of no interest": Shape(start=b"event: x\nid: 7\nretry: 10\n\n"),
    }.items()
)
"""One answer in many shapes."""

_BROKEN: dict[str, tuple[After, tuple[FaultCode, ...]]] = {
    "ends the body": ("end", ("truncated",)),
    "closes the connection": ("cut", ("truncated",)),
    "resets the connection": ("reset", ("truncated",)),
    "sends bytes that are no HTTP": ("garbage", ("truncated",)),
    "falls silent": ("stall", ("timeout_idle",)),
    "sends nothing but comments": ("comments", ("timeout_idle",)),
}
_PLACES: dict[str, tuple[Sequence[Step], str]] = {
    "in the middle of a text": (_WORDS, _SAID),
    "in the middle of its thinking": ((Think("Hm"),), ""),
    "in the middle of arguments": (_PARIS[:2], ""),
    "after whole arguments": (_PARIS, ""),
}

BREAKS: Sequence[Scenario] = (
    *(
        Scenario(
            name=f"it {does} {place}",
            steps=steps,
            shape=Shape(piece_bytes=0 if after in {"stall", "comments"} else None),
            after=after,
            expect=Fails(codes=codes, again=True, text=text),
        )
        for does, (after, codes) in _BROKEN.items()
        for place, (steps, text) in _PLACES.items()
        if place == "in the middle of a text" or after in {"end", "cut"}
    ),
    Scenario(
        name="it answers with a status and no body",
        expect=Fails(codes=["truncated"], again=True, text=""),
        body=b"",
    ),
    Scenario(
        name="it takes the question and closes the connection",
        head=False,
        after="cut",
        expect=Fails(codes=["unavailable", "truncated"], again=True),
    ),
    Scenario(
        name="it takes the question and resets the connection",
        head=False,
        after="reset",
        expect=Fails(codes=["unavailable", "truncated"], again=True),
    ),
    Scenario(
        name="it takes the question and falls silent",
        head=False,
        after="stall",
        expect=Fails(codes=["timeout_first_byte"], again=True),
    ),
    Scenario(
        name="it sends a status and falls silent",
        after="stall",
        body=b"",
        expect=Fails(codes=["timeout_first_byte"], again=True),
    ),
    Scenario(
        name="it sends a status and then nothing but comments",
        after="comments",
        body=b"",
        expect=Fails(codes=["timeout_first_byte"], again=True),
    ),
    Scenario(
        name="it speaks no HTTP",
        head=False,
        after="garbage",
        expect=Fails(codes=["unavailable", "server"], again=True),
    ),
    Scenario(
        name="the last event is complete but for its blank line",
        steps=[*_WORDS, Raw(b"data: {}\n")],
        expect=Fails(codes=["truncated"], again=True, text=_SAID),
    ),
)
"""Answers without an end."""

_FAULTS: Sequence[tuple[FaultKind, FaultCode, bool]] = (
    ("overloaded", "overloaded", True),
    ("rate_limit", "rate_limit", True),
    ("server", "server", True),
    ("auth", "auth", False),
)

EVENTS: Sequence[Scenario] = (
    *(
        Scenario(
            name=f"an error in mid-answer: {kind}",
            steps=[*_WORDS, Fault(kind, "so it is")],
            expect=Fails(codes=[code], again=again, text=_SAID, says="so it is"),
        )
        for kind, code, again in _FAULTS
    ),
    Scenario(
        name="an event in mid-answer is no JSON",
        steps=[*_WORDS, Raw(b"data: {oops\n\n"), Text("more"), End()],
        expect=Fails(codes=["server"], again=True, text=_SAID),
    ),
    Scenario(
        name="an event in mid-answer is nested 5,000 levels deep",
        steps=[*_WORDS, Raw(b'data: {"x":' + b"[" * 5000 + b"]" * 5000 + b"}\n\n"), End()],
        expect=Fails(codes=["server"], again=True, text=_SAID),
    ),
    Scenario(
        name="it read more than its window holds",
        steps=[*_WORDS, End(usage=Usage(input_tokens=101, output_tokens=1))],
        window=100,
        expect=Fails(codes=["context_overflow"], again=False),
    ),
)
"""Events that are none of an answer."""
