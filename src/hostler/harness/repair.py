"""Reads a tool call as it was meant, where there is one way to mean it: its name and its arguments.

A name is repaired by spelling alone (case, separators, what protocols put around it); one that is
merely similar is suggested, and never run: the nearest name may be the wrong command.  Arguments
that are no JSON are read as the JSON they were meant to be; text that just ends is never completed.

    name        exact ▸ spelling ▸ without its namespace ▸ without `_tool` ▸ refused, with suggestions
    arguments   an object ▸ strict JSON ▸ lenient JSON ▸ JSON inside a string ▸ refused, with the place

Invariant: pure; evaluates nothing; what is strict JSON is never changed, and every mend is said.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar, cast

import msgspec

from hostler.core.errors import ToolError
from hostler.core.events import JsonObject, ToolCall

T = TypeVar("T")

LARGEST_TEXT = 4 * 1024 * 1024
"""Characters of arguments that are read at all; providers cut a reply long before."""
LARGEST_MENDED = 128 * 1024
"""Characters that are read leniently, which is not done in C: 50 ms at the worst."""
DEEPEST = 64
"""Levels of nesting; deeper arguments are an attack or a loop, and code downstream recurses."""
WRAPPED = 3
"""How often JSON may be found inside a JSON string."""
LONGEST_NAME = 200
LISTED = 20
"""Names told to a model that asked for one that is not there, if there are no more."""
COMPARED = 500
"""Names that are compared for suggestions; a comparison costs microseconds."""


class Mended(NamedTuple, Generic[T]):
    """What was meant, and what was done to read it so, in words."""

    value: T
    repairs: tuple[str, ...] = ()


# -- names -----------------------------------------------------------------------------------

_TAG = re.compile(r"<[^<>]*+>?")
_IN_TAG = re.compile(r"=\s*[\"']?([\w.:/-]+)")
_AROUND = " \t\r\n\"'`()[]{}"
_NUMBERED = re.compile(r":\d+$")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SEPARATORS = re.compile(r"[\s\-./:_]+")
_NAMESPACE = re.compile(r"[./:]+|__+")


class Names:
    """The names of an agent's tools, to find the one a model meant."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._spelt = dict[str, list[str]]()
        for name in sorted(self._names):
            for spelling in _spellings(name):
                self._spelt.setdefault(spelling, []).append(name)

    def find(self, asked: str) -> Mended[str]:
        """Return the tool that `asked` names.

        Raises:
            ToolError: there is none, or there are two; the text suggests what to ask for.
        """
        if asked in self._names:
            return Mended(asked)
        for spelling in _meanings(asked[:LONGEST_NAME]):
            meant = self._spelt.get(spelling, ())
            if len(meant) == 1:
                return Mended(meant[0], (f"read the name {_short(asked)} as {meant[0]}",))
            if meant:
                raise ToolError(f"{_short(asked)} may be {_either(meant)}: call one by its name.")
        raise ToolError(self._no_such(asked))

    def _no_such(self, asked: str) -> str:
        if not self._names:
            return f"There is no tool {_short(asked)}; there are no tools at all."
        told = f"There is no tool {_short(asked)}."
        spelt = _spellings(asked[:LONGEST_NAME])[0]
        near = difflib.get_close_matches(spelt, sorted(self._spelt)[:COMPARED])
        if near:
            told += f" Did you mean {_either(dict.fromkeys(self._spelt[one][0] for one in near))}?"
        if len(self._names) <= LISTED:
            told += f" There are: {', '.join(sorted(self._names))}."
        return told


def _spellings(name: str) -> list[str]:
    """Return what `name` shares with its other spellings: by case, then by its humps too."""
    low, split = name.lower(), _HUMP.sub("_", name).lower()
    return list(dict.fromkeys(_SEPARATORS.sub("_", one).strip("_") for one in (low, split)))


def _meanings(asked: str) -> Iterator[str]:
    """Yield the spellings to look for: as asked, then without what may have been put around."""
    pieces = [*_TAG.split(asked), *(_IN_TAG.findall(asked) if "<" in asked else ())]
    bare = [_NUMBERED.sub("", piece.strip(_AROUND)) for piece in pieces]
    inner = list[str]()
    for piece in bare:
        parts = [part for part in _NAMESPACE.split(piece) if part]
        inner += ["_".join(parts[i:]) for i in range(1, len(parts))]
    spelt = [spelling for name in (*bare, *inner) for spelling in _spellings(name) if spelling]
    yield from spelt
    for spelling in spelt:
        if spelling.endswith("_tool"):
            yield spelling.removesuffix("_tool")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def _either(names: Iterable[str]) -> str:
    return " or ".join(names)


# -- arguments -------------------------------------------------------------------------------

_FENCE = "```"
_LANGUAGE = re.compile(r"[A-Za-z0-9]*")
_TOKEN = re.compile(
    r"""
    (?P<space> [\s\x00-\x1f\ufeff]++ )
  | (?P<string> "(?:[^"\\]++|\\.)*+" | '(?:[^'\\]++|\\.)*+' )
  | (?P<mark> [{}\[\],:] )
  | (?P<word> [A-Za-z_]\w*+ )
  | (?P<number> [+\-0-9.][\w+\-.]*+ )
    """,
    re.VERBOSE | re.DOTALL,
)
_HALF = re.compile(r"[\ud800-\udfff]")
"""Half of a surrogate pair is no character, and cannot be stored."""
_OPEN_STRING = re.compile(r"[\"']")
_WORDS = {"true": "true", "false": "false", "null": "null"}
_PYTHON = {"True": "true", "False": "false", "None": "null"}
_IN_STRING = re.compile(
    r"\\(?:u[0-9a-fA-F]{4}|x(?P<hex>[0-9a-fA-F]{2})|(?P<escaped>.))|(?P<raw>[\"\x00-\x1f])",
    re.DOTALL,
)

COMMA = "removed a trailing comma"
QUOTES = "read single quotes as double quotes"
PYTHON = "read Python's True, False and None as JSON's"
CONTROL = "read control characters as written"
ESCAPE = "read a backslash that escapes nothing as written"
FENCED = "took the arguments out of a code fence"
INSIDE = "read the JSON inside a string"
TOO_DEEP = f"The arguments are nested more than {DEEPEST} levels deep."
NOTHING = "read empty arguments as {}"


def read_arguments(call: ToolCall) -> Mended[JsonObject]:
    """Return the arguments object that the model meant to send.

    Raises:
        ToolError: it cannot be told; the text says what is wrong, and where.
    """
    if call.unparsed is None:
        return Mended(call.arguments)
    text = call.unparsed
    if len(text) > LARGEST_TEXT:
        raise ToolError(f"The arguments are {len(text):,} characters long; send less at once.")
    repairs = list[str]()
    value = _read(text, repairs)
    for _ in range(WRAPPED):
        if not isinstance(value, str):
            break
        _note(repairs, INSIDE)
        value = _read(value, repairs)
    if not isinstance(value, dict):
        raise ToolError(f"The arguments must be one JSON object, not {_kind(value)}.")
    return Mended(cast("JsonObject", value), tuple(repairs))


def _read(text: str, repairs: list[str]) -> object:
    """Return the value that `text` is strictly or leniently the JSON of."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return _read_leniently(text, repairs)


def _read_leniently(text: str, repairs: list[str]) -> object:
    if len(text) > LARGEST_MENDED:
        raise ToolError("The arguments are no JSON, and too long to be mended; send strict JSON.")
    if not text.strip():
        _note(repairs, NOTHING)
        return {}
    strict = " ".join(_strict(_HALF.sub("\ufffd", _unfenced(text, repairs)), repairs))
    try:
        return msgspec.json.decode(strict)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        why = str(error).partition(" (byte")[0]  # its place is in the mended text, not in theirs
        raise ToolError(f"The arguments are no JSON: {why}. Send one JSON object.") from error


def _unfenced(text: str, repairs: list[str]) -> str:
    bare = text.strip()
    if not (bare.startswith(_FENCE) and bare.endswith(_FENCE) and len(bare) > 2 * len(_FENCE)):
        return text
    _note(repairs, FENCED)
    return _LANGUAGE.sub("", bare[len(_FENCE) : -len(_FENCE)], count=1)


def _strict(text: str, repairs: list[str]) -> list[str]:
    """Return the tokens of `text` as strict JSON has them; whether they fit is not looked at."""
    strict, depth, at = list[str](), 0, 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ToolError(_unreadable(text, at))
        part = found[0]
        match found.lastgroup:
            case "string":
                strict.append(_string(part, repairs))
            case "word":
                strict.append(_word(part, text, at, repairs))
            case "mark":
                depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(part, 0)
                if part in {"}", "]"} and _ends_in_comma(strict):
                    _note(repairs, COMMA)
                    strict.pop()
                strict.append(part)
            case "number":
                strict.append(part)
            case _:
                pass
        if depth > DEEPEST:
            raise ToolError(TOO_DEEP)
        at = found.end()
    if depth > 0:
        raise ToolError("The arguments end in the middle of the JSON. Send them whole.")
    return strict


def _note(repairs: list[str], repair: str) -> None:
    if repair not in repairs:
        repairs.append(repair)


def _ends_in_comma(strict: list[str]) -> bool:
    """Whether a comma after a value comes last; a comma after nothing is a mistake of its own."""
    return len(strict) > 1 and strict[-1] == "," and strict[-2] not in {"[", "{", ",", ":"}


def _word(word: str, text: str, at: int, repairs: list[str]) -> str:
    if word in _PYTHON:
        _note(repairs, PYTHON)
        return _PYTHON[word]
    if word not in _WORDS:
        raise ToolError(_unreadable(text, at))
    return word


def _string(quoted: str, repairs: list[str]) -> str:
    """Return a string of either quotes as JSON writes it."""
    if quoted[0] == "'":
        _note(repairs, QUOTES)

    def mend(match: re.Match[str]) -> str:
        escaped, raw = match["escaped"], match["raw"]
        if match["hex"] is not None:
            return f"\\u00{match['hex']}"
        if raw is not None:
            if raw != '"':
                _note(repairs, CONTROL)
            return '\\"' if raw == '"' else f"\\u{ord(raw):04x}"
        if escaped is None or escaped in '"\\/bfnrt':
            return match[0]
        if escaped == "'":
            return "'"
        _note(repairs, ESCAPE)
        return "\\\\" + (f"\\u{ord(escaped):04x}" if escaped < " " else escaped)

    return f'"{_IN_STRING.sub(mend, quoted[1:-1])}"'


def _unreadable(text: str, at: int) -> str:
    if _OPEN_STRING.match(text, at):
        return (
            "The arguments end inside a string, or a quote in it is not escaped. Send them whole."
        )
    near = text[max(0, at - 20) : at + 20]
    return f"The arguments are no JSON at character {at}, near {near!r}. Send one JSON object."


def _kind(value: object) -> str:
    match value:
        case list():
            return "an array"
        case str():
            return "a string"
        case None:
            return "null"
        case bool():
            return "a boolean"
        case _:
            return "a number"
