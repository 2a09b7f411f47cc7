"""A function's signature as a JSON Schema, and a model's arguments as what the function wants.

Type hints become the schema, the docstring the descriptions of the parameters.  The function gets
what its hints say (dataclasses, enums, dates, models of pydantic), not JSON.  A parameter of type
`CallContext` is filled in by us and hidden from the model.

Invariant: what the schema lets through, `bind` can bind, but for rules that only the type knows.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Protocol, TypeAlias, cast, runtime_checkable

import msgspec

from hostler.core.errors import SetupError, ToolError
from hostler.core.events import JsonObject
from hostler.core.ports import CallContext

_REF = "#/$defs/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a model may send, and how it reaches the function."""

    schema: JsonObject
    struct: type[msgspec.Struct]
    is_async: bool
    positional: Mapping[str, object]
    """Those that can only be given by position, in order, with their defaults."""
    context: str | None

    def bind(
        self, function: Callable[..., object], arguments: JsonObject, context: CallContext
    ) -> Callable[[], object]:
        """Return the call, its arguments turned into what the hints say.

        Raises:
            ToolError: one does not fit; names its path.
        """
        given = self._converted(arguments)
        named = {key: getattr(given, key) for key in arguments}
        if self.context is not None:
            named[self.context] = context
        first = [named.pop(key, default) for key, default in self.positional.items()]
        return partial(function, *first, **named)

    def _converted(self, arguments: JsonObject) -> msgspec.Struct:
        try:
            return msgspec.convert(arguments, self.struct, dec_hook=_decoded)
        except msgspec.ValidationError:
            pass  # "3" is no int where a string would do as well; now it may be read as one
        try:
            return msgspec.convert(arguments, self.struct, strict=False, dec_hook=_decoded)
        except msgspec.ValidationError as error:
            raise ToolError(f"The arguments do not fit: {error}") from error


# -- the signature as a schema -----------------------------------------------------------------


def signature(
    function: Callable[..., object], name: str, documented: Mapping[str, str]
) -> Signature:
    """Read a function's parameters; `documented` describes them by name.

    Raises:
        SetupError: one has no type, or one that no JSON can be turned into.
    """
    hints, parameters = _parameters(function, name)
    context = [key for key in parameters if hints[key] is CallContext]
    if len(context) > 1:
        raise SetupError(f"tool {name}: {' and '.join(context)} are both the CallContext")
    fields = [
        _field(one, hints[one.name], documented.get(one.name))
        for one in parameters.values()
        if one.name not in context
    ]
    schema, struct = _schema(name, fields)
    for key, shown in cast("dict[str, JsonObject]", schema["properties"]).items():
        _show_default(shown, parameters[key].default)
    return Signature(
        schema=schema,
        struct=struct,
        is_async=inspect.iscoroutinefunction(function),
        positional={
            key: one.default for key, one in parameters.items() if one.kind is one.POSITIONAL_ONLY
        },
        context=next(iter(context), None),
    )


def _parameters(
    function: Callable[..., object], name: str
) -> tuple[Mapping[str, object], Mapping[str, inspect.Parameter]]:
    try:
        hints = cast("dict[str, object]", typing.get_type_hints(function, include_extras=True))
        parameters = inspect.signature(function).parameters
    except (NameError, TypeError, ValueError) as error:
        told = f"tool {name}: its type hints cannot be read, as {error}"
        raise SetupError(f"{told}; use types from the top of a module") from error
    for key, one in parameters.items():
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            raise SetupError(f"tool {name}: a model cannot send *{key}; name each parameter")
        if key not in hints:
            raise SetupError(f"tool {name}: parameter {key} has no type hint")
    return hints, parameters


_Field: TypeAlias = tuple[str, type] | tuple[str, type, object]


def _field(parameter: inspect.Parameter, hint: object, documented: str | None) -> _Field:
    if documented and not _is_described(hint):
        hint = Annotated[hint, msgspec.Meta(description=documented)]
    kind = cast("type", hint)  # msgspec takes all hints; its stubs say classes
    if parameter.default is inspect.Parameter.empty:
        return (parameter.name, kind)
    # Only that it has a default: what is not sent is not passed, and the function's own applies.
    return (parameter.name, kind, msgspec.field(default_factory=lambda: None))


def _is_described(hint: object) -> bool:
    extras = getattr(hint, "__metadata__", ())
    return any(isinstance(one, msgspec.Meta) and one.description for one in extras)


def _schema(name: str, fields: list[_Field]) -> tuple[JsonObject, type[msgspec.Struct]]:
    models: JsonObject = {}
    struct = msgspec.defstruct(
        f"{name} arguments", fields, kw_only=True, forbid_unknown_fields=True
    )
    try:
        (root,), types = msgspec.json.schema_components(
            [struct], schema_hook=partial(_custom, models), ref_template=_REF + "{name}"
        )
        schema = cast("JsonObject", types.pop(str(root["$ref"]).removeprefix(_REF)))
        _add(models, types)
    except (TypeError, NameError, AttributeError) as error:
        raise SetupError(f"tool {name}: its parameters make no JSON Schema: {error}") from error
    schema.pop("title", None)
    if models:
        schema["$defs"] = models
    return schema, struct


def _show_default(shown: JsonObject, default: object) -> None:
    if default is not inspect.Parameter.empty and default is not None:
        with suppress(TypeError, ValueError):  # what is no JSON stays the function's own affair
            shown["default"] = msgspec.to_builtins(default, enc_hook=encoded)


# -- types that msgspec does not know ----------------------------------------------------------


@runtime_checkable
class _ModelType(Protocol):
    """A pydantic model; whether there is pydantic is the user's business."""

    def model_json_schema(self, *, ref_template: str) -> JsonObject: ...
    def model_validate(self, obj: object) -> object: ...


@runtime_checkable
class _ModelValue(Protocol):
    def model_dump(self, *, mode: str) -> object: ...


def _custom(models: JsonObject, kind: type) -> JsonObject:
    """Return the schema of `kind`; the types it refers to go to `models`."""
    if kind is object:
        return {"title": "anything"}  # msgspec takes an empty schema for none
    if not isinstance(kind, _ModelType):
        raise NotImplementedError
    schema = kind.model_json_schema(ref_template=_REF + "{model}")
    _add(models, cast("JsonObject", schema.pop("$defs", {})))
    return schema


def _add(models: JsonObject, more: JsonObject) -> None:
    for key, schema in more.items():
        if models.setdefault(key, schema) != schema:
            raise TypeError(f"two types are called {key}")


def _decoded(kind: type, value: object) -> object:
    return kind.model_validate(value) if isinstance(kind, _ModelType) else value


def encoded(value: object) -> object:
    if isinstance(value, _ModelValue):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is no JSON")
