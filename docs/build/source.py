"""What the pages read in the code: docstrings, fields with theirs, signatures.

Read from the source text, because a field's docstring is kept nowhere else, and because an
annotation says more as it is written than as it is evaluated.

Invariant: what is asked for here is public, and public things are documented or an error.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import hostler

PACKAGE = Path(hostler.__file__).parent


class Undocumented(Exception):
    """Something that users can see has no docstring, or no meaning in `docs/build`."""


class Field(NamedTuple):
    name: str
    type: ast.expr
    default: ast.expr | None
    about: str
    """Empty if it has none."""


def about(thing: object, name: str) -> str:
    """Return a docstring, its paragraphs on one line each.  Raises Undocumented."""
    # An inherited docstring is about something else, so `inspect.getdoc` will not do.
    return as_paragraphs(inspect.cleandoc(thing.__doc__ or ""), name)


def as_paragraphs(text: str | None, name: str) -> str:
    """Return `text` without the line breaks inside its paragraphs.  Raises Undocumented."""
    if not text:
        raise Undocumented(f"{name} has no docstring")
    return "\n\n".join(" ".join(one.split()) for one in text.strip().split("\n\n"))


def class_body(cls: type) -> Sequence[ast.stmt]:
    """Return the statements of a class."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    assert isinstance(tree.body[0], ast.ClassDef)
    return tree.body[0].body


def fields(cls: type) -> list[Field]:
    """Return the public fields of a class, in order, its parents' not included."""
    return list(_annotated(class_body(cls)))


def constants(module: ModuleType) -> dict[str, str]:
    """Return what the docstrings below a module's own names say, "" for names without one."""
    body = ast.parse(inspect.getsource(module)).body
    named = {one.name: one.about for one in _annotated(body)}
    for at, statement in enumerate(body):
        if isinstance(statement, ast.Assign):
            named |= {
                target.id: _below(body, at)
                for target in statement.targets
                if isinstance(target, ast.Name)
            }
    return named


def methods(cls: type) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the public methods and properties of a class."""
    return [
        one
        for one in class_body(cls)
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and not one.name.startswith("_")
    ]


def calls(path: str) -> Iterator[ast.Call]:
    """Yield every call in the modules of a file or folder of the package."""
    place = PACKAGE / path
    for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield node


def called(call: ast.Call) -> str:
    """Return the last name of what is called."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def text_of(node: ast.expr | None) -> str | None:
    """Return the text that a literal is, None for everything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def keyword(call: ast.Call, name: str) -> str | None:
    """Return the text given as `name=`, None if there is none."""
    return next((text_of(one.value) for one in call.keywords if one.arg == name), None)


def _annotated(body: Sequence[ast.stmt]) -> Iterator[Field]:
    for at, statement in enumerate(body):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name = statement.target.id
        if not name.startswith("_"):
            yield Field(name, statement.annotation, statement.value, _below(body, at))


def _below(body: Sequence[ast.stmt], at: int) -> str:
    """Return the docstring that follows a statement."""
    after = body[at + 1] if at + 1 < len(body) else None
    if isinstance(after, ast.Expr):
        return " ".join((text_of(after.value) or "").split())
    return ""
