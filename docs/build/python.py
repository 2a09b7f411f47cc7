"""The page on `import hostler`: every public name with its signature and its docstring."""

from __future__ import annotations

import ast
import inspect
import re
from types import FunctionType
from typing import cast

from docs.build.markdown import code, fence, page, table
from docs.build.source import Undocumented, about, as_paragraphs, fields, methods
from msgspec import Struct

import hostler
from hostler.app import agent
from hostler.tools.function import ToolOptions

INTRO = """
These names are public; everything else in the package may change from version to version. They are
typed, and `import hostler` loads no adapter, no server and no model.
"""

FUNCTIONS = """
The function's type hints become the schema of the arguments, its docstring their descriptions. It
stays the function for whoever calls it as one. Functions that are not `async` run in threads. A
parameter of the type `CallContext` is filled in, and hidden from the model.
"""


def python() -> str:
    """Return the page.  Raises Undocumented: a public name or field has no docstring."""
    parts: list[str] = []
    for name in sorted(hostler.__all__, key=str.lower):
        thing: object = getattr(hostler, name)
        cls = cast("type[object]", thing) if isinstance(thing, type) else None
        parts += [f"## `{name}`", *(_class(cls) if cls is not None else _function(thing))]
    return page("Python", INTRO, *parts)


def _class(cls: type[object]) -> list[str]:
    if issubclass(cls, Exception):
        return [about(cls, cls.__name__)]
    return [
        about(cls, cls.__name__),
        _fields(cls),
        *(part for one in methods(cls) for part in _method(cls, one)),
    ]


def _fields(cls: type) -> str:
    rows: list[list[str]] = []
    for one in fields(cls):
        if not one.about and code(one.name) not in (inspect.getdoc(cls) or ""):
            raise Undocumented(f"{cls.__name__}.{one.name} has no docstring")
        default = "" if one.default is None else _default(one.default)
        rows.append([code(one.name), code(ast.unparse(one.type)), default, one.about])
    return table(["field", "type", "default", "meaning"], rows)


def _default(node: ast.expr) -> str:
    """Return a default as a caller sees it: a factory is what it makes when it is called bare."""
    if isinstance(node, ast.Call) and node.keywords and node.keywords[0].arg == "default":
        node = node.keywords[0].value
    if isinstance(node, ast.Call) and node.keywords and node.keywords[0].arg == "default_factory":
        made = ast.unparse(node.keywords[0].value)
        return code("{}" if made.startswith("dict") else "()")
    value = getattr(agent, node.id, None) if isinstance(node, ast.Name) else None
    if isinstance(value, Struct):
        return "none"
    return code(ast.unparse(node) if value is None else f"{value:g}")


def _method(cls: type, node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    name = f"{cls.__name__}.{node.name}"
    if node.name in _INTERNAL:
        return []
    said = as_paragraphs(ast.get_docstring(node), name)
    if node.decorator_list:
        return [f"### `{name}`", said]
    return [f"### `{name}`", fence(_signature(node), "text"), said]


def _function(thing: object) -> list[str]:
    if thing is hostler.tool:
        return _tool()
    (node,) = ast.parse(inspect.getsource(cast("FunctionType", thing))).body
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return [fence(_signature(node), "text"), as_paragraphs(ast.get_docstring(node), node.name)]


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return how it is called; an async function that yields is a generator, which nobody awaits."""
    yields = any(isinstance(one, ast.Yield) for one in ast.walk(node))
    lead = "await " if isinstance(node, ast.AsyncFunctionDef) and not yields else ""
    taken = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    taken = re.sub(r"(?<=\S)=(?=\S)", " = ", taken)
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{lead}{node.name}({taken}){result}"


_INTERNAL = frozenset({"limits", "models", "of"})
"""Called by us, on what users made."""


def _tool() -> list[str]:
    rows: list[list[str]] = []
    for one in fields(ToolOptions):
        if not one.about:
            raise Undocumented(f"ToolOptions.{one.name} has no docstring")
        rows.append([code(one.name), code(ast.unparse(one.type)), one.about])
    said = (inspect.getdoc(hostler.tool) or "").split("\n\n")[0]
    return [
        as_paragraphs(said, "tool"),
        FUNCTIONS,
        table(["option", "type", "meaning; default"], rows),
    ]
