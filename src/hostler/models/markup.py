"""Tool calls that a model writes into its text, found while the text streams.

The forms in use: `<tool_call>{…}</tool_call>` (Hermes, Qwen), `[TOOL_CALLS]` (Mistral),
`<|python_tag|>` and `<function=…>` (Llama), a fenced block of JSON, and bare JSON where a message
begins.  A tag says that a call follows.  A fence or a brace is one only when its JSON names a tool
that was offered: people ask models for JSON about other things.

What cannot be the start of a call is passed on at once; only what can be is held back.  What is
written after a call is not passed on: it was made up without the call's result.

Invariant: the same text gives the same result however it is split, and text without a call comes
out byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from msgspec import UNSET, Struct

from hostler.core.events import CallId, JsonObject, ToolCall
from hostler.core.ports import mint

DEEPEST = 64
"""Levels of nesting in a call's JSON; no tool's schema is deeper."""
LONGEST_LOOSE = 4096
"""Characters after a tag in which its end is looked for when no JSON follows it."""
MOST_UNFINISHED = 16
"""Places that look like a call without an end, looked at when a message ends."""
LONGEST_CLOSER = 16

_TAGS = {
    "<tool_call>": "</tool_call>",
    "<|tool_call|>": "<|/tool_call|>",
    "<function=": "</function>",
    "[TOOL_CALLS]": "",
    "<|python_tag|>": "",
}
"""What begins a call, and what ends it; nothing: the end of the message."""
_FENCE, _BARE = "```", ""
_OPENER = re.compile("|".join([*map(re.escape, _TAGS), "^```"]), re.MULTILINE)
_BRACE = re.compile(r"[\[{]")
_TAIL = re.compile(r"(?:[<\[][^<\[\s]{0,15}|^`{1,2})\Z", re.MULTILINE)
"""The end of a text that may be the start of an opener."""
_STARTS = frozenset(tag[:n] for tag in _TAGS for n in range(1, len(tag))) | {"`", "``"}
_HEADER = {
    "<function=": (re.compile(r"([\w.:-]{1,128})>\s*"), re.compile(r"[\w.:-]{0,128}(?:>\s*)?\Z")),
    "[TOOL_CALLS]": (
        re.compile(r"\s*([\w.:-]{1,128})\s*(?:\[CALL_ID\]\w{0,64})?(?:\[ARGS\])?\s*(?={)"),
        re.compile(r"\s*[\w.:-]{0,128}\s*(?:\[[A-Z_]{0,8}(?:\]\w{0,64})?){0,2}\s*\Z"),
    ),
    _FENCE: (re.compile(r"()[a-zA-Z_]{0,20}\s*"), re.compile(r"[a-zA-Z_]{0,20}\s*\Z")),
}
"""What stands between an opener and its JSON (the group: the tool's name), and the start of that."""
_SPACE = re.compile(r"\s*")
_CLOSERS = tuple(closer for closer in _TAGS.values() if closer)
_TOKEN = re.compile("|".join([r'["\\{}\[\]]', *map(re.escape, _CLOSERS)]))
_KEYS = ("name", "tool", "function", "type", "id", "arguments", "parameters")
_NAME = re.compile(r"""["'](?:name|tool|function)["']\s*:\s*["']([^"'\\]{1,128})["']""")
_ARGUMENTS = re.compile(r"""["'](?:arguments|parameters)["']\s*:\s*""")


class _Function(Struct):
    name: str = ""
    arguments: object = UNSET
    parameters: object = UNSET


class _Written(_Function):
    """A call's JSON, in any of the shapes that models use."""

    tool: str = ""
    function: str | _Function = ""


_written: msgspec.json.Decoder[_Written | list[_Written]] = msgspec.json.Decoder(
    _Written | list[_Written]
)
_object = msgspec.json.Decoder(JsonObject)


class _Verdict(NamedTuple):
    end: int
    """Where the call ends; `_TEXT`: it is none; `_WAIT`: more has to be read to tell."""
    calls: Sequence[ToolCall] = ()


_TEXT, _WAIT = _Verdict(0), _Verdict(-1)


class Finder:
    """Takes a message as it is written; `calls` are those that are complete."""

    def __init__(self, offered: Iterable[str]) -> None:
        self.calls: list[ToolCall] = []
        self._offered = frozenset(map(_plain, offered))
        self._text: str = "\n"
        """What is undecided, from `_at` on; what is before that says whether a line begins."""
        self._at: int = 1
        self._fresh: bool = True
        """Nothing but space was passed on: bare JSON would begin the message."""
        self._place: _Place | None = None

    def feed(self, text: str) -> str:
        """Take what comes next; return what can be shown of the message by now."""
        plain = self._place is None and not self._fresh and self._at == len(self._text)
        if plain and not (self.calls or "<" in text or "[" in text or "`" in text):
            self._text = text[-1:] or self._text
            return text
        self._text += text
        return self._move(final=False, cut=False)

    def end(self, *, cut: bool) -> str:
        """Return the rest to be shown; `cut`: the message ended at a limit, maybe inside a call."""
        return self._move(final=True, cut=cut)

    def _move(self, *, final: bool, cut: bool) -> str:
        shown: list[str] = []
        left = MOST_UNFINISHED
        while self._place is not None or self._seek(shown, final=final):
            assert self._place is not None
            verdict = self._place.look(self._text, self._offered)
            if verdict is _WAIT:
                if not final:
                    break
                verdict = self._place.last(self._text, self._offered, cut=cut)
                left -= 1
            self._place = None
            if verdict is _TEXT:
                self._pass(self._at + 1 if left else len(self._text), shown)
            else:
                self.calls += verdict.calls
                self._at = verdict.end
        return self._trimmed("".join(shown))

    def _seek(self, shown: list[str], *, final: bool) -> bool:
        """Pass on what stands before the next place where a call may begin; whether there is one."""
        text = self._text
        found = _OPENER.search(text, self._at)
        opener, start = (found.group(), found.start()) if found else (_BARE, len(text))
        brace = self._brace()
        if brace < start:
            opener, start = _BARE, brace
        if start < len(text) and (final or opener or text[start:] not in _STARTS):
            self._pass(start, shown)
            self._place = _Place(opener, start)
            return True
        if not final:
            tail = _TAIL.search(text, self._at)
            if tail is not None and tail.group() in _STARTS:
                start = min(start, tail.start())
            if self._fresh and not text[self._at : start].strip():
                start = self._at
        self._pass(start, shown)
        return False

    def _brace(self) -> int:
        """Return where bare JSON may begin."""
        if self.calls:
            found = _BRACE.search(self._text, self._at)
            return found.start() if found else len(self._text)
        lead = _end_of_space(self._text, self._at)
        begins = self._fresh and self._text[lead : lead + 1] in {"{", "["}
        return lead if begins else len(self._text)

    def _pass(self, end: int, shown: list[str]) -> None:
        part = self._text[self._at : end]
        self._at = end
        if part and not self.calls:
            shown.append(part)
            self._fresh = self._fresh and part.isspace()

    def _trimmed(self, shown: str) -> str:
        if self._place is None and self._at > 1:
            self._text = self._text[self._at - 1 :]
            self._at = 1
        return shown


class _Place:
    """A place where a call may begin: first what stands before its JSON, then that."""

    __slots__ = ("_balance", "_body", "_name", "_opener")

    def __init__(self, opener: str, at: int) -> None:
        self._opener = opener
        self._body = at + len(opener)
        self._name = ""
        self._balance: _Balance | None = None

    def look(self, text: str, offered: frozenset[str]) -> _Verdict:
        """Say what `text`, which may go on, makes of this place."""
        if self._balance is None:
            verdict = self._begin(text)
            if verdict is not None:
                return verdict
        assert self._balance is not None
        end = self._balance.end(text)
        if end is None:
            return _WAIT
        written = text[self._body : end]
        calls = None if self._balance.broken else self._read(written)
        if self._opener not in _TAGS:
            named = calls and all(_plain(one.name) in offered for one in calls)
            return _Verdict(end, calls) if calls and named else _TEXT
        return _Verdict(end, [self._unread(written)] if calls is None else calls)

    def last(self, text: str, offered: frozenset[str], *, cut: bool) -> _Verdict:
        """Say what becomes of this place if nothing comes any more."""
        rest = text[self._body :]
        if closer := _TAGS.get(self._opener):
            rest = rest.partition(closer)[0]
        call = self._unread(rest, cut=cut)
        if self._opener not in _TAGS:
            begun = self._balance is not None and _plain(call.name) in offered
            return _Verdict(len(text), [call]) if begun else _TEXT
        mentioned = self._balance is None and closer and rest.strip() and not cut
        return _TEXT if mentioned else _Verdict(len(text), [call])

    def _begin(self, text: str) -> _Verdict | None:
        """Read up to the JSON; None: there it is."""
        start = _end_of_space(text, self._body)
        if self._opener in _HEADER and text[start : start + 1] not in {"{", "["}:
            header, begun = _HEADER[self._opener]
            found = header.match(text, self._body)
            if found is None or found.end() == len(text):
                return _WAIT if begun.match(text, self._body) else self._loose(text)
            self._name, start = found[1], found.end()
        if start == len(text):
            return _WAIT
        if text[start] not in "{[":
            return self._loose(text)
        if self._opener not in _TAGS and (verdict := _call_like(text, start)) is not None:
            return verdict
        self._body, self._balance = start, _Balance(start)
        return None

    def _loose(self, text: str) -> _Verdict:
        """Look for the end of a call that is no JSON."""
        closer = _TAGS.get(self._opener)
        if closer is None or self._opener == "<function=":
            return _TEXT
        end = text.find(closer, self._body, self._body + LONGEST_LOOSE) if closer else -1
        if end >= 0:
            return _Verdict(end, [self._unread(text[self._body : end])])
        return _TEXT if closer and len(text) >= self._body + LONGEST_LOOSE else _WAIT

    def _read(self, written: str) -> list[ToolCall] | None:
        """Return the calls that JSON is; None if it is none."""
        assert self._balance is not None
        if self._balance.deep:
            return None
        try:
            if self._name:
                return [_made(self._name, _object.decode(written))]
            decoded = _written.decode(written)
        except (ValueError, RecursionError):
            return None
        many = decoded if isinstance(decoded, list) else [decoded]
        calls = [_call(one, needs_arguments=self._opener not in _TAGS) for one in many]
        return None if None in calls else [one for one in calls if one is not None]

    def _unread(self, written: str, *, cut: bool = False) -> ToolCall:
        """Return a call whose JSON is broken, its arguments as they were written."""
        name, arguments = self._name, written.strip()
        if not name:
            found, given = _NAME.search(written), _ARGUMENTS.search(written)
            name = found[1] if found else ""
            if given is not None:
                arguments = written[given.end() :].strip()
                if not cut and self._balance is not None and not self._balance.broken:
                    arguments = arguments.removesuffix("}").rstrip()
        return _made(name, {}, unparsed=arguments or None, cut=cut)


class _Balance:
    """Finds where a JSON value ends, reading it once however it comes."""

    __slots__ = ("_at", "_depth", "_quoted", "broken", "deep")

    def __init__(self, start: int) -> None:
        self._at: int = start
        self._depth = 0
        self._quoted = self.deep = self.broken = False

    def end(self, text: str) -> int | None:
        """Return where the value ended, or was broken off by a closing tag; None: not yet."""
        while (token := _TOKEN.search(text, self._at)) is not None:
            match token.group():
                case "\\":
                    if token.end() == len(text):  # what it escapes is still to come
                        self._at = token.start()
                        return None
                    self._at = token.end() + 1
                    continue
                case '"':
                    self._quoted = not self._quoted
                case "{" | "[" if not self._quoted:
                    self._depth += 1
                    self.deep = self.deep or self._depth > DEEPEST
                case "}" | "]" if not self._quoted:
                    self._depth -= 1
                    if self._depth == 0:
                        return token.end()
                case closer if closer in _CLOSERS and not self._quoted:
                    self.broken = True
                    return token.start()
                case _:
                    pass
            self._at = token.end()
        self._at = max(self._at, len(text))
        tag = text.rfind("<", max(0, len(text) - LONGEST_CLOSER))
        if tag >= 0 and any(closer.startswith(text[tag:]) for closer in _CLOSERS):
            self._at = tag
        return None


def _end_of_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _plain(name: str) -> str:
    """Return a tool's name without what models change about names."""
    return name.lower().removeprefix("functions.").replace("-", "_").replace(" ", "_")


def _call_like(text: str, start: int) -> _Verdict | None:
    """Say whether JSON begins with a key that the JSON of a call has; None: it does."""
    if text[start] == "[":
        start = _end_of_space(text, start + 1)
    key = _end_of_space(text, start + 1)
    if text[start : start + 1] not in {"", "{"} or text[key : key + 1] not in {"", '"'}:
        return _TEXT
    end = text.find('"', key + 1)
    if end < 0:
        begun = text[key + 1 :]
        return _WAIT if any(one.startswith(begun) for one in _KEYS) else _TEXT
    return None if text[key + 1 : end] in _KEYS else _TEXT


def _call(written: _Written, *, needs_arguments: bool) -> ToolCall | None:
    inner = written.function if isinstance(written.function, _Function) else written
    name = inner.name or written.tool
    if not name and isinstance(written.function, str):
        name = written.function
    arguments = inner.parameters if inner.arguments is UNSET else inner.arguments
    if not name or (needs_arguments and arguments is UNSET):
        return None
    if isinstance(arguments, str):  # encoded twice
        text = arguments
        try:
            arguments = _object.decode(text)
        except (ValueError, RecursionError):
            return _made(name, {}, unparsed=text)
    if arguments is UNSET or arguments is None:
        return _made(name, {})
    try:
        return _made(name, msgspec.convert(arguments, JsonObject))
    except msgspec.ValidationError:
        return _made(name, {}, unparsed=msgspec.json.encode(arguments).decode())


def _made(
    name: str, arguments: JsonObject, *, unparsed: str | None = None, cut: bool = False
) -> ToolCall:
    return ToolCall(
        id=CallId(mint("call")), name=name, arguments=arguments, unparsed=unparsed, cut=cut
    )
