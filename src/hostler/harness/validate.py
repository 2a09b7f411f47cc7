"""Fits a call's arguments to its tool's JSON Schema, or says what does not fit, and where.

The schema decides: only what it refuses is mended (`harness/mend.py`), and what comes out of that
is validated again.

jsonschema-rs decides in microseconds, but is not asked for its errors, nor shown what is nested
deep: it collects all errors of all alternatives, so that a recursive schema of three alternatives
takes 20 s to explain a mistake ten levels down; and it recurses until the stack ends.

Invariant: pure; what fits is returned as it is (but 3.0 for an integer, as 3), what was passed in
is never changed, and the work is bounded whatever it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, cast

import jsonschema_rs

from hostler.core.errors import SetupError, ToolError
from hostler.core.events import JsonObject
from hostler.harness.mend import (
    DROPPED,
    LONGEST_TEXT,
    PATTERNS,
    Mender,
    Parts,
    accepts,
    as_json,
    cut,
    is_of,
    items,
    members,
    types,
)
from hostler.harness.repair import DEEPEST, TOO_DEEP, Mended

LARGEST_MENDED = 2_000
"""Values in arguments that are mended; larger ones must fit as they are."""
ERRORS = 3
LISTED = 20
"""Keys and mends that are named."""
_PLAIN = frozenset({str, int, bool, type(None)})
"""Of these, neither depth nor floats need to be looked for."""
_OWN = (
    *("type", "enum", "const", "required", "dependentRequired", "minLength", "maxLength"),
    *("pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("multipleOf", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
)
"""What a schema says about a value itself, not about its parts."""


def is_loss(repair: str) -> bool:
    """Whether the model must be told, as the call did not do all that it said."""
    return repair.startswith(DROPPED)


class Schema:
    """A tool's parameters, compiled once."""

    def __init__(self, tool: str, parameters: JsonObject) -> None:
        """Compile.

        Raises:
            SetupError: this is no JSON Schema of an object, or it refers to something outside.
        """
        if parameters.get("type", "object") != "object":
            raise SetupError(f'tool {tool}: its parameters must be a schema of type "object"')
        try:
            self._whole = jsonschema_rs.validator_for(
                parameters, offline=True, pattern_options=PATTERNS
            )
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise SetupError(f"tool {tool}: its JSON Schema is wrong: {cut(error)}") from error
        self._tool, self._root = tool, parameters
        self._parts: Parts | None = None

    def fit(self, arguments: JsonObject) -> Mended[JsonObject]:
        """Return the arguments as the schema wants them.

        Raises:
            ToolError: they do not fit; the text says where, and what was expected.
        """
        plain = all(type(one) in _PLAIN for one in arguments.values())
        survey = _FLAT if plain else _survey(arguments)
        fits = accepts(self._whole, arguments)
        if fits and (survey.values > LARGEST_MENDED or not survey.whole_floats):
            return Mended(arguments)
        if self._parts is None:  # most tools never see a call that does not fit
            self._parts = Parts(self._root)
        mended, repairs = arguments, list[str]()
        if survey.values <= LARGEST_MENDED:
            mender = Mender(self._parts)
            mended, repairs = cast("JsonObject", mender.mend(arguments)), mender.repairs
        if accepts(self._whole, mended):
            return Mended(mended, tuple(_few(repairs)))
        if fits:
            return Mended(arguments)
        raise ToolError(self._told(mended, repairs, self._parts))

    def _told(self, arguments: JsonObject, repairs: Sequence[str], parts: Parts) -> str:
        lines = [f"The arguments do not fit {self._tool}; it was not run."]
        lines += islice(_errors(parts, arguments, "#", "$", DEEPEST), ERRORS)
        lines += (one for one in _few(repairs) if is_loss(one))
        if keys := _keys(self._root):
            lines.append(cut(f"It takes: {', '.join(_few(keys))}."))
        return "\n".join(lines)


# -- what is wrong, and where ------------------------------------------------------------------


def _errors(parts: Parts, value: object, where: str, path: str, left: int) -> Iterator[str]:
    """Yield why `where` does not take `value`: as deep in it as it can be said."""
    if left == 0 or parts.takes(where, value):
        return
    deeper = False
    for inner, one, at in _below(parts, value, where, path):
        for error in _errors(parts, one, inner, at, left - 1):
            deeper = True
            yield error
    if not deeper:
        yield from _own_errors(parts, value, where, path)


def _below(parts: Parts, value: object, where: str, path: str) -> Iterator[tuple[str, object, str]]:
    """Yield the places that have a say in what `where` takes, each with what it has a say in."""
    for also in parts.also(where):
        yield also, value, path
    for branches in parts.alternatives(where):
        if not any(parts.takes(one, value) for one in branches):
            meant = [one for one in branches if _is_meant(parts, value, one)]
            if len(meant) == 1:
                yield meant[0], value, path
    for key, one, inner in parts.inside(where, value):
        yield inner, one, f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"


def _is_meant(parts: Parts, value: object, where: str) -> bool:
    """Whether the alternative is at least about values of this type."""
    wanted = types(parts.at(next(parts.also(where), where))) or types(parts.at(where))
    return not wanted or is_of(value, wanted)


def _own_errors(parts: Parts, value: object, where: str, path: str) -> Iterator[str]:
    """Yield what `where` itself says about `value`."""
    schema, at = parts.at(where), cut(path)
    own = {key: schema[key] for key in _OWN if key in schema}
    if schema.get("additionalProperties") is False:
        own["additionalProperties"] = False
        own["properties"] = dict.fromkeys(members(schema.get("properties")), True)
        own["patternProperties"] = dict.fromkeys(members(schema.get("patternProperties")), True)
    errors = list[jsonschema_rs.ValidationError]()
    try:
        shallow = jsonschema_rs.validator_for(own, offline=True, pattern_options=PATTERNS)
        errors += shallow.iter_errors(value)
    except ValueError as error:
        yield f"{at}: {cut(error)} (schema: {cut(where[1:])})"
        return
    for error in errors:
        keyword = "/".join(map(str, error.schema_path))
        yield f"{at}: {cut(error.message)} (schema: {cut(where[1:])}/{keyword})"
    if not errors:
        wanted = as_json(schema, LONGEST_TEXT)
        yield f"{at}: {as_json(value)} does not fit {wanted} (schema: {cut(where[1:])})"


def _keys(schema: JsonObject) -> list[str]:
    required = items(schema.get("required"))
    return [
        f"{key} ({', '.join([*types(dict(members(one))), *(['required'] * (key in required))])})"
        for key, one in members(schema.get("properties")).items()
    ]


def _few(texts: Sequence[str]) -> list[str]:
    more = len(texts) - LISTED
    return [*texts[:LISTED], f"and {more} more"] if more > 0 else list(texts)


# -- looking at arguments before anything recurses into them --------------------------------------


class _Survey(NamedTuple):
    values: int
    whole_floats: bool


_FLAT = _Survey(values=0, whole_floats=False)
"""Of almost every call."""


def _survey(arguments: JsonObject) -> _Survey:
    """Count, without recursing.

    Raises:
        ToolError: they are nested too deep.
    """
    values, whole_floats, depth = 0, False, 0
    level: list[Collection[object]] = [arguments.values()]
    while level:
        if depth >= DEEPEST:
            raise ToolError(TOO_DEEP)
        inner = list[Collection[object]]()
        for some in level:
            values += len(some)
            for one in some:
                if isinstance(one, dict):
                    inner.append(cast("JsonObject", one).values())
                elif isinstance(one, list):
                    inner.append(cast("list[object]", one))
                elif isinstance(one, float) and one.is_integer():
                    whole_floats = True
        level, depth = inner, depth + 1
    return _Survey(values, whole_floats)
