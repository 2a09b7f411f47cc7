"""A fake of a model that does what it is told: the same answer to the same question, every time.

It is no model: a few rules read what is asked in plain words, and what is demanded beside them
(tools, a schema, stop sequences, a limit, effort) is obeyed to the letter, as a good model and a
strict provider would.  So whoever judges what stands before it judges that, and not a model.

Invariant: the answer depends on the question alone; no rule knows who asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import add, mul, sub
from typing import Literal

import msgspec

from hostler.core.events import JsonObject, Stop
from hostler.models.scripted import sample

THOUGHT = "This wants one step after the other, and then a short answer. "
_TOKEN = re.compile(r"\S+\s*|\s+")
_PROPER = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+(?: [A-Z][a-z]+)*")
_CAPITALS = {"France": "Paris", "Japan": "Tokyo"}
_SIGNS = {"+": add, "-": sub, "*": mul}
_ESSAY = "The sea is wide, and old, and never still. " * 40


@dataclass(frozen=True, kw_only=True)
class Turn:
    role: Literal["user", "assistant", "tool"]
    text: str
    images: int = 0


@dataclass(frozen=True, kw_only=True)
class Offered:
    """A tool that may be called."""

    name: str
    parameters: JsonObject

    def is_meant(self, text: str) -> bool:
        """Whether somebody speaks of what it is for."""
        words = [one for one in re.split(r"[^a-z]+", self.name.lower()) if len(one) > 3]
        return any(one in text.lower() for one in words)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, in nobody's wire format."""

    system: str = ""
    turns: Sequence[Turn] = ()
    tools: Sequence[Offered] = ()
    calls: Literal["any", "none", "some"] = "any"
    tool: str | None = None
    """The one that must be called."""
    parallel: bool = True
    json: bool = False
    schema: JsonObject | None = None
    stop: Sequence[str] = ()
    most: int | None = None
    """Tokens of the answer, thoughts included."""
    effort: str | None = None

    @property
    def last(self) -> Turn:
        return self.turns[-1]

    @property
    def asked(self) -> str:
        """What the user said last."""
        return next((one.text for one in reversed(self.turns) if one.role == "user"), "")


@dataclass(frozen=True, kw_only=True)
class Answer:
    thinking: str = ""
    text: str = ""
    calls: Sequence[tuple[str, JsonObject]] = ()
    stop: Stop = "end"
    stopped_by: str | None = None
    """The stop sequence before which it ended."""

    @property
    def tokens(self) -> int:
        called = [msgspec.json.encode(one).decode() for _, one in self.calls]
        return sum(len(tokens(one)) for one in (self.thinking, self.text, *called))


def tokens(text: str) -> list[str]:
    """Return the tokens of a text: this fake's are words."""
    return _TOKEN.findall(text)


def answer(question: Question) -> Answer:
    """Return what is to be said."""
    thinking = THOUGHT if question.effort not in (None, "none") else ""
    calls = _calls(question)
    made = Answer(thinking=thinking, calls=calls, stop="tools" if calls else "end")
    if not calls:
        made = _stopped(replace(made, text=_text(question)), question.stop)
    return _limited(made, question.most)


def _stopped(made: Answer, stops: Sequence[str]) -> Answer:
    """Return the answer up to the first of the stop sequences."""
    found = [(made.text.index(one), one) for one in stops if one and one in made.text]
    if not found:
        return made
    at, by = min(found)
    return replace(made, text=made.text[:at], stopped_by=by)


def _limited(made: Answer, most: int | None) -> Answer:
    """Return as much of the answer as the limit allows; a call that does not fit is not made."""
    if most is None or made.tokens <= most:
        return made
    thought = tokens(made.thinking)[:most]
    text = tokens(made.text)[: most - len(thought)]
    return Answer(thinking="".join(thought), text="".join(text), stop="length")


# -- calls -------------------------------------------------------------------------------------


def _calls(question: Question) -> list[tuple[str, JsonObject]]:
    if question.calls == "none" or not question.tools:
        return []
    asked = question.asked
    if question.tool is not None:
        chosen = [one for one in question.tools if one.name == question.tool]
    elif question.calls == "some":
        chosen = [one for one in question.tools if one.is_meant(asked)] or [question.tools[0]]
    elif question.last.role == "user":
        chosen = [one for one in question.tools if one.is_meant(asked)]
    else:
        chosen = []
    chosen = chosen if question.parallel else chosen[:1]
    return [(one.name, _arguments(one.parameters, asked)) for one in chosen]


def _arguments(parameters: JsonObject, asked: str) -> JsonObject:
    """Return arguments with all that is required, as far as the words have it."""
    known = msgspec.convert(parameters.get("properties", {}), dict[str, JsonObject])
    required = msgspec.convert(parameters.get("required", []), list[str])
    return {name: _argument(name, known.get(name, {}), asked) for name in required}


def _argument(name: str, schema: JsonObject, asked: str) -> object:
    kind = schema.get("type")
    if kind == "boolean":
        return name.lower() in asked.lower()
    if kind in ("integer", "number"):
        return int(next(iter(re.findall(r"\d+", asked)), "0"))
    if kind != "string" or "enum" in schema:
        return sample(schema, asked)
    to_the_letter = re.search(rf"\b{name} exactly:\s+(.*)", asked, re.DOTALL)
    named = re.search(rf"\b{name} (\S+)", asked)
    proper = _PROPER.findall(asked)
    found = to_the_letter or named
    return found[1] if found else proper[0] if proper else asked


# -- words -------------------------------------------------------------------------------------


def _text(question: Question) -> str:
    if question.schema is not None:
        return msgspec.json.encode(sample(question.schema, "Ada")).decode()
    if question.json:
        return msgspec.json.encode(_object(question.asked)).decode()
    if question.last.role == "tool":
        return f"The tool says: {question.last.text}"
    said = _said(question)
    if question.last.role == "assistant":
        return _continued(question.last.text, said)
    if re.search(r"in exactly one word", question.system):
        return said.split()[0]
    return said


def _object(asked: str) -> JsonObject:
    """Return an object with the keys that are asked for: `"age" (a number)`."""
    keys = re.findall(r'"(\w+)" \(an? (\w+)\)', asked)
    return {name: sample({"type": kind}, "Ada") for name, kind in keys} or {"answer": asked}


def _continued(begun: str, whole: str) -> str:
    """Return what is missing of an answer that somebody began."""
    for length in range(len(whole), 0, -1):
        if begun.endswith(whole[:length]):
            return whole[length:] or "."
    return f" {whole}"


def _said(question: Question) -> str:
    if (word := re.search(r'reply with exactly the word "(\w+)"', question.system)) is not None:
        return word[1]
    for pattern, say in _RULES:
        if (found := pattern.search(question.asked)) is not None:
            return say(found, question)
    if any(one.images for one in question.turns):
        return "A picture."
    return f"You said: {question.asked}"


def _counted(found: re.Match[str], _: Question) -> str:
    return ", ".join(map(str, range(int(found[1]), int(found[2]) + 1)))


def _name(_: re.Match[str], question: Question) -> str:
    named = [re.search(r"[Mm]y name is (\w+)", one.text) for one in question.turns]
    return next((one[1] for one in reversed(named) if one is not None), "I do not know.")


def _sum(found: re.Match[str], question: Question) -> str:
    before = [one.text for one in question.turns if one.role == "assistant" and one.text.isdigit()]
    return str(int(before[-1]) + int(found[1])) if before else "There was no answer."


_RULES: Sequence[tuple[re.Pattern[str], Callable[[re.Match[str], Question], str]]] = (
    (re.compile(r"(?:Repeat|Say)\b[^:\n]*\bexactly[^:\n]*: (.+)", re.DOTALL), lambda m, _: m[1]),
    (re.compile(r"Say (\w+) in exactly (?:3|three) words"), lambda m, _: f"{m[1]} to you"),
    (re.compile(r"Say (\w+)"), lambda m, _: m[1].capitalize()),
    (re.compile(r"Count from (\d+) to (\d+)"), _counted),
    (re.compile(r"capital of (\w+)"), lambda m, _: _CAPITALS.get(m[1], "I do not know.")),
    (re.compile(r"What is my name"), _name),
    (re.compile(r"Add (\d+) to your last answer"), _sum),
    (
        re.compile(r"What is (\d+) ([-+*]) (\d+)"),
        lambda m, _: str(_SIGNS[m[2]](int(m[1]), int(m[3]))),
    ),
    (re.compile(r"long essay|at length"), lambda _, __: _ESSAY),
)
