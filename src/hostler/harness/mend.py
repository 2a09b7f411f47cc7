"""Mends values along a JSON Schema: proposes what each may have been meant as.

    "3" ▸ 3      "true" ▸ true      3.0 ▸ 3      5 ▸ "5"      x ▸ [x]      "[1]" ▸ [1]
    null for an optional key ▸ no key      an unknown key, where none is allowed ▸ dropped

A value of a type that the schema asks for is not touched.  Where there are alternatives, the first
that takes the value, mended or not, is it.

Invariant: pure; what was passed in is never changed, and the steps are counted.  Whether the
outcome fits is for a validator to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast
from urllib.parse import unquote

import jsonschema_rs
import msgspec

from hostler.core.events import JsonObject

PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)
VISITS = 10_000
"""Steps of one mending: alternatives within alternatives multiply."""
NESTED = 200
"""Steps within steps, well inside Python's own limit."""
EXACT = 2.0**53
"""Past it, not every whole number is a float, and a float is not the number that was meant."""
DROPPED = "dropped "
"""How a repair begins that took away something the model had said."""
LONGEST_TEXT = 300
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][+-]?\d{1,3})?", re.ASCII)
_NOTHING = object()


class Parts:
    """The places of a schema, by pointer (`#/properties/x`), each with a validator of its own."""

    def __init__(self, root: JsonObject) -> None:
        self._root = root
        self._validators = jsonschema_rs.validator_map_for(
            root, offline=True, pattern_options=PATTERNS
        )

    def takes(self, where: str, value: object) -> bool:
        """Whether `value` fits there; what has no validator takes everything."""
        part = self._validators.get(where)
        return part is None or accepts(part, value)

    def at(self, where: str) -> JsonObject:
        """Return the schema there; an empty one if there is none, or it is a mere yes or no."""
        here: object = self._root
        for step in where.split("/")[1:]:
            if listed := items(here):
                here = listed[int(step)] if step.isdecimal() and int(step) < len(listed) else None
            else:
                here = members(here).get(step.replace("~1", "/").replace("~0", "~"))
        return cast("JsonObject", here) if isinstance(here, dict) else {}

    def inside(self, where: str, value: object) -> Iterator[tuple[str | int, object, str]]:
        """Yield the members or items of `value`: key, value and place."""
        schema = self.at(where)
        if isinstance(value, dict):
            known = members(schema.get("properties"))
            for key, one in members(cast("object", value)).items():
                escaped = str(key).replace("~", "~0").replace("/", "~1")
                inner = f"properties/{escaped}" if key in known else "additionalProperties"
                yield key, one, f"{where}/{inner}"
            return
        # Draft 2020-12 has `prefixItems`, then `items`; older drafts have a list of `items`.
        first = "prefixItems" if "prefixItems" in schema else "items"
        fixed = len(items(schema.get(first)))
        for i, one in enumerate(items(value)):
            yield i, one, f"{where}/{first}/{i}" if i < fixed else f"{where}/items"

    def also(self, where: str) -> Iterator[str]:
        """Yield the other places that must take the same value."""
        schema = self.at(where)
        ref = schema.get("$ref")
        if isinstance(ref, str) and ref.startswith("#"):
            yield unquote(ref)
        for i, _ in enumerate(items(schema.get("allOf"))):
            yield f"{where}/allOf/{i}"

    def alternatives(self, where: str) -> Iterator[list[str]]:
        """Yield groups of places of which one must take the same value."""
        schema = self.at(where)
        for union in ("anyOf", "oneOf"):
            if branches := items(schema.get(union)):
                yield [f"{where}/{union}/{i}" for i, _ in enumerate(branches)]


class Mender:
    """One pass over one call's arguments.

    `where` is a place in the schema, `path` one in the arguments, as a model reads it.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._visits = self._nested = 0
        self.repairs: list[str] = []

    def mend(self, value: object, where: str = "#", path: str = "$") -> object:
        """Return `value` as the schema at `where` might want it."""
        self._visits += 1
        schema = self._parts.at(where)
        if not schema or self._visits > VISITS or self._nested > NESTED:
            return value
        self._nested += 1
        value = self._retyped(value, schema, path)
        for also in self._parts.also(where):
            value = self.mend(value, also, path)
        for branches in self._parts.alternatives(where):
            value = self._chosen(value, branches, path)
        if isinstance(value, dict):
            value = self._object(cast("object", value), where, path)
        elif isinstance(value, list):
            inside = self._parts.inside(where, cast("object", value))
            value = [self.mend(one, inner, f"{path}[{i}]") for i, one, inner in inside]
        self._nested -= 1
        return value

    def _retyped(self, value: object, schema: JsonObject, path: str) -> object:
        wanted = types(schema)
        if is_of(value, wanted):
            meant = value
            if isinstance(value, float) and "number" not in wanted and abs(value) <= EXACT:
                meant = int(value)
        elif wanted:
            # A list of one is the last thing that could be meant.
            found = (_as_type(value, one) for one in sorted(wanted, key="array".__eq__))
            meant = next((one for one in found if one is not _NOTHING), value)
        else:
            meant = _as_member(value, schema)
        if meant is not value:
            self.repairs.append(f"read {as_json(value)} as {as_json(meant)} at {path}")
        return meant

    def _chosen(self, value: object, branches: Sequence[str], path: str) -> object:
        """Return `value` as the first alternative that takes it, mended if it must be."""
        for where in branches:
            if self._parts.takes(where, value):
                return self.mend(value, where, path)
        for where in branches:
            before = len(self.repairs)
            mended = self.mend(value, where, path)
            if self._parts.takes(where, mended):
                return mended
            del self.repairs[before:]
        return value

    def _object(self, value: object, where: str, path: str) -> JsonObject:
        schema, mended = self._parts.at(where), dict[str, object]()
        known, required = members(schema.get("properties")), items(schema.get("required"))
        closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
        for key, one, inner in self._parts.inside(where, value):
            at, optional = f"{path}.{key}", key in known and key not in required
            if closed and key not in known:
                self.repairs.append(f"{DROPPED}{cut(at)}, which is not known here")
            elif one is None and optional and not self._parts.takes(inner, one):
                self.repairs.append(f"left out {cut(at)}, which was null")
            else:
                mended[str(key)] = self.mend(one, inner, at)
        return mended


# -- what a value may be read as ---------------------------------------------------------------


def _as_type(value: object, wanted: str) -> object:
    """Return what `value` is when read as the type `wanted`, or `_NOTHING`."""
    match wanted:
        case "array" if value is not None:
            inside = _inside(value)
            return inside if is_of(inside, ["array"]) else [value]
        case "object":
            inside = _inside(value)
            return inside if is_of(inside, ["object"]) else _NOTHING
        case "string" if isinstance(value, int) and not isinstance(value, bool):
            return str(value)  # but no float: 1.10 has become 1.1 already
        case _:
            return _as_scalar(value.strip(), wanted) if isinstance(value, str) else _NOTHING


def _as_scalar(text: str, wanted: str) -> object:
    match wanted:
        case "integer" | "number" if _WHOLE.fullmatch(text):
            return int(text)
        case "integer" if _NUMBER.fullmatch(text) and float(text).is_integer():
            return int(float(text)) if abs(float(text)) <= EXACT else _NOTHING
        case "number" if _NUMBER.fullmatch(text) and abs(float(text)) != float("inf"):
            return float(text)
        case "boolean" if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        case "null" if text.lower() in {"null", "none"}:
            return None
        case _:
            return _NOTHING


def _as_member(value: object, schema: JsonObject) -> object:
    """Return the member of an untyped enumeration that a string spells."""
    options = items(schema.get("enum", [schema["const"]] if "const" in schema else None))
    if not isinstance(value, str) or value in options:
        return value
    return next((one for one in options if as_json(one) == value), value)


def _inside(value: object) -> object:
    """Return what JSON a string holds."""
    if not isinstance(value, str):
        return _NOTHING
    try:
        return cast("object", msgspec.json.decode(value))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return _NOTHING


# -- reading schemas and values, which may hold anything ----------------------------------------


def accepts(validator: jsonschema_rs.Validator, value: object) -> bool:
    """Whether `value` fits; what is no JSON does not."""
    try:
        return validator.is_valid(value)
    except ValueError:
        return False


def types(schema: JsonObject) -> list[str]:
    """Return the types that a schema names itself."""
    named = schema.get("type")
    return [named] if isinstance(named, str) else [str(one) for one in items(named)]


def is_of(value: object, wanted: Iterable[str]) -> bool:
    """Whether `value` is of one of these types, as JSON Schema has them."""
    return any(_is_type(value, one) for one in wanted)


def _is_type(value: object, wanted: str) -> bool:
    if isinstance(value, bool) or value is None:
        return wanted == ("null" if value is None else "boolean")
    match value:
        case int():
            return wanted in {"integer", "number"}
        case float():
            return wanted == "number" or (wanted == "integer" and value.is_integer())
        case str():
            return wanted == "string"
        case list():
            return wanted == "array"
        case _:
            return wanted == "object" and isinstance(value, dict)


def members(value: object) -> Mapping[str, object]:
    """Return an object's members; none of what is no object."""
    return cast("JsonObject", value) if isinstance(value, dict) else {}


def items(value: object) -> Sequence[object]:
    """Return a list's items; none of what is no list."""
    return cast("list[object]", value) if isinstance(value, list) else ()


def as_json(value: object, limit: int = 60) -> str:
    """Return the start of a value's JSON."""
    try:
        return cut(msgspec.json.encode(value).decode(), limit)
    except (TypeError, ValueError, RecursionError):
        return f"a {type(value).__name__}"


def cut(text: object, limit: int = LONGEST_TEXT) -> str:
    """Return the start of a text."""
    told = str(text)
    return told if len(told) <= limit else f"{told[:limit]}…"
