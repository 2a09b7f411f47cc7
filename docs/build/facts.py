"""The page on what a log holds: every kind of fact, with its fields."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import get_args

from docs.build.markdown import code, link, page, table
from docs.build.source import Field, Undocumented, about, constants, fields
from msgspec import Struct
from msgspec.structs import fields as struct_fields

from hostler.core import events, said, shown, terms
from hostler.service import inbox

INTRO = """
A session is a log of facts, numbered without holes. This page lists every kind. A client must
pass over kinds and fields that it does not know: later versions add some, and change none.

Every fact is sent as the `data` of a frame `{id, event, data}`, whose `event` is its kind. Fields
marked *optional* are left out when they have their usual value.
"""
EVERY = """
| field | type | meaning |
|---|---|---|
| `seq` | integer | its position in the session: 1, 2, 3, … |
| `at` | string | when it was written, RFC 3339 with `Z` |
| `session` | string | the session's id, `ses_…` |
| `kind` | string | one of those below |
| `run` | string or null | the run it belongs to, `run_…`; null outside of a run |
"""
DELTAS = """
Text as it is generated comes in frames whose `event` is `delta`. Deltas are not facts: they have
no `seq`, they can be had again only while their attempt lives, and the attempt's `model_replied`
replaces them. `data` is `{attempt, part, text, call?, name?}`; `part` is `text`, `thinking` or
`arguments`.
"""
VALUES = (
    events.ToolCall,
    events.ClientTool,
    terms.Terms,
    terms.Wanted,
    said.UserSaid,
    said.ModelSaid,
    said.ToolSaid,
    events.Stretch,
    events.Usage,
    events.Fault,
    said.TextPart,
    said.ImagePart,
    shown.FilePart,
    shown.DataPart,
    shown.SourcePart,
    shown.DocumentPart,
)
CHOICES = ("Policy", "Priority", "Stop", "Outcome", "RunStatus", "Verdict")
PLAIN = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "Decimal": "decimal string",
    "datetime": "string, RFC 3339",
    "JsonObject": "object",
    "_Object": "object",
    "Said": "[said](#usersaid) by a user, a model or a tool",
    "Shown": "[data](#datapart), a [source](#sourcepart), a [document](#documentpart) or a [file](#filepart)",
    "object": "any",
    "Content": "string, or a list of [parts](#textpart)",
}
USUAL = {
    "arguments": "As the model gave them.",
    "attempt": "Names one question to a model, `att_…`.",
    "cache_read_tokens": "Of the input, what the provider had in its cache.",
    "cache_write_tokens": "Of the input, what the provider put into its cache.",
    "call": "Names one call of a tool, `call_…`; the idempotency key that the tool gets.",
    "calls": "What the model wants run, in this order.",
    "code": "One of the [faults](errors.md#faults-why-a-model-gave-no-reply).",
    "content": "What was said.",
    "error": "What went wrong.",
    "id": "Names the call, `call_…`.",
    "input": "Names what was said, `inp_…`.",
    "input_tokens": "Cached ones included.",
    "message": "In words, for people.",
    "metadata": "As the client gave it.",
    "model": "The provider's name for it.",
    "name": "Of the tool; of a file.",
    "outcome": "How it ended.",
    "policy": "What it did with the run that was going.",
    "principal": "Who did it.",
    "provider": "As in `provider:model`.",
    "replay": "What the same provider wants back verbatim; opaque.",
    "reasoning_tokens": "Of the output, what was thought and not said.",
    "part": "What it is.",
    "failed": "Whether the call failed.",
    "output": "What the model reads.",
    "reason": "Why; see [errors](errors.md).",
    "status": "How it ended.",
    "stop": "Why the model stopped.",
    "text": "What it said.",
    "thinking": "What it thought, where the provider tells that.",
    "usage": "Tokens and cost.",
    "worker": "Host and process.",
}
"""What fields mean that have the same name in many places, or one that says nearly all."""
SAID = {
    "UserSaid": "What a user said, in a history.",
    "ModelSaid": "What a model said, in a history.",
    "Stretch": "A part of a reply as it streamed, up to where another part came: a list of these, in this order, without the last ones that are null.",
    "Fault": "What went wrong with a model call.",
    "TextPart": "Words.",
}
TAGS = {kind.__name__: str(kind.__struct_config__.tag) for kind in get_args(events.Fact)}
"""Kinds of facts that stand in others: their headings are what they are called in a log."""


def facts() -> str:
    """Return the page."""
    kinds = [
        part
        for member, kind in events.KIND_OF.items()
        for part in (f"### `{kind}`", _null(about(member, kind)), _fields(member))
    ]
    values = [
        part
        for value in VALUES
        for part in (f"### `{value.__name__}`", _said(value), _tagged(value))
    ]
    return page(
        "Facts",
        INTRO,
        "## What every fact has",
        EVERY,
        "## Kinds",
        *kinds,
        "## Deltas",
        DELTAS,
        "## Values inside facts",
        *values,
        *_choices(),
    )


def json_type(node: ast.expr) -> str:
    """Return what a Python annotation is in JSON, in words."""
    match node:
        case ast.BinOp(left=left, right=right):
            return f"{json_type(left)} or {json_type(right)}"
        case ast.Constant(value=None):
            return "null"
        case ast.Subscript(value=ast.Name(id="tuple" | "list"), slice=ast.Tuple(elts=[inner, _])):
            return f"list of {json_type(inner)}"
        case ast.Subscript(value=ast.Name(id="tuple" | "list"), slice=inner):
            return f"list of {json_type(inner)}"
        case ast.Name(id=name):
            made_of: object = getattr(getattr(events, name, None), "__supertype__", None)
            if isinstance(made_of, type):
                return PLAIN[made_of.__name__]
            return PLAIN.get(name) or link(TAGS.get(name, name))
        case _:
            return code(ast.unparse(node))


def _fields(cls: type[Struct]) -> str:
    in_json = {one.name: one.encode_name for one in struct_fields(cls)}
    return table(
        ["field", "type", "meaning"],
        ([code(in_json[f.name]), json_type(f.type), _meaning(cls, f)] for f in fields(cls)),
    )


def _meaning(cls: type[Struct], one: Field) -> str:
    said = _null(one.about) or USUAL.get(one.name, "")
    if not said and code(one.name) not in (cls.__doc__ or ""):
        raise Undocumented(f"{cls.__name__}.{one.name} has no docstring")
    has_default = not next(f.required for f in struct_fields(cls) if f.name == one.name)
    may_be_absent = cls.__struct_config__.omit_defaults and has_default
    return "*optional.* " + said if may_be_absent else said


def _said(value: type[Struct]) -> str:
    return SAID.get(value.__name__) or _null(about(value, value.__name__))


def _null(text: str) -> str:
    """Return what is said about Python, said about JSON."""
    return re.sub(r"\bNone\b", "null", text)


def _tagged(value: type[Struct]) -> str:
    tag, field = value.__struct_config__.tag, value.__struct_config__.tag_field
    return "\n".join([f"`{field}` is `{tag}`.\n" if tag else "", _fields(value)])


def _choices() -> list[str]:
    said = constants(events)
    policies = _policies(inbox)
    parts: list[str] = []
    for name in CHOICES:
        members = [str(one) for one in get_args(getattr(events, name))]
        parts += [
            f"### `{name}`",
            said[name].partition("; see")[0].rstrip(".") + "." * bool(said[name]),
        ]
        if name == "Policy":
            parts.append(table(["value", "meaning"], ([code(m), policies(m)] for m in members)))
        else:
            parts.append(f"One of {', '.join(map(code, members))}.")
    return parts


def _policies(module: object) -> Callable[[str], str]:
    lines = [line.split(maxsplit=1) for line in about_lines(module)]
    known = {words[0]: " ".join(words[1].split()) for words in lines if len(words) == 2}
    return lambda name: known[name]


def about_lines(module: object) -> list[str]:
    """Return the lines of a docstring that are indented: its tables."""
    text = inspect.getdoc(module) or ""
    return [line for line in text.splitlines() if line.startswith("    ")]
