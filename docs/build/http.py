"""The pages on HTTP: our OpenAPI document, as it is served and as it can be read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Literal, cast

import msgspec
from docs.build.facts import VALUES
from docs.build.markdown import code, link, page, slug, table
from docs.build.socket import socket
from docs.build.source import Undocumented
from msgspec import Struct, field

from hostler.app.server import other_operations
from hostler.core.events import KIND_OF
from hostler.faces.http.endpoint import VERSION
from hostler.faces.http.entry import Tickets
from hostler.faces.http.keepsakes import KeepsakesOf
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.native import bodies
from hostler.faces.native.openapi import openapi
from hostler.faces.native.operations import Operations
from hostler.faces.native.table import table as operations
from hostler.service.service import Service

INTRO = """
Everything is JSON in UTF-8. Times are RFC 3339 with `Z`, durations are seconds, money is a decimal
string. Send the key as `Authorization: Bearer KEY`; only routes marked *public* need none. Lists
are `{items, cursor, more}`: pass `cursor` as `after` to get the next page. Refusals are
[problems](errors.md); any route can answer 401, 500 and 503.

The admin key has all rights everywhere, and acts in another tenant with `Hostler-Tenant: TENANT`;
what [other keys](../howto/let-people-in.md) open, their role and scopes say. The token of a [share link](../howto/share-a-session.md)
is sent in a key's place, or as `?share=`; it may read one session and do nothing else. With an
`Idempotency-Key` a request can be [sent again](../howto/retry-safely.md) without harm.

The same as a machine reads it: [openapi.json](openapi.json), served at `/openapi.json`.
"""
EVERYWHERE = ("401", "503")
MEDIA = {
    "application/jsonl": "lines of JSON (`application/jsonl`)",
    "text/event-stream": "a stream of frames",
}
"""Bodies that are no JSON."""


class _Schema(Struct, frozen=True, kw_only=True):
    ref: str | None = field(default=None, name="$ref")
    type: str | None = None
    any_of: tuple[_Schema, ...] = field(default=(), name="anyOf")
    enum: tuple[object, ...] = ()
    items: _Schema | Literal[False] | None = None
    properties: dict[str, _Schema] = {}
    required: tuple[str, ...] = ()
    description: str = ""


class _Media(Struct, frozen=True, kw_only=True):
    schema: _Schema


class _Answer(Struct, frozen=True, kw_only=True):
    description: str = ""
    content: dict[str, _Media] = {}


class _Parameter(Struct, frozen=True, kw_only=True):
    place: str = field(name="in")
    name: str
    description: str


class _Operation(Struct, frozen=True, kw_only=True):
    summary: str
    parameters: tuple[_Parameter, ...]
    responses: dict[str, _Answer]
    body: _Answer = field(default=_Answer(), name="requestBody")
    security: tuple[object, ...] | None = None


class _Components(Struct, frozen=True, kw_only=True):
    schemas: dict[str, _Schema]


class _Document(Struct, frozen=True, kw_only=True):
    paths: dict[str, dict[str, _Operation]]
    components: _Components


@cache
def document() -> Mapping[str, object]:
    """Return the document that a server of this build gives."""
    # The handlers are only named here, never called, so they need nothing to work on.
    service, streams = cast("Service", None), OpenStreams()
    others = other_operations(service, streams, KeepsakesOf())
    return openapi(operations(Operations(service, streams, Tickets()), others))


def openapi_json() -> str:
    """Return the document as a file."""
    ordinary: object = msgspec.to_builtins(document())
    return json.dumps(ordinary, indent=1, ensure_ascii=False) + "\n"


def http() -> str:
    """Return the page.  Raises Undocumented: an operation has no summary."""
    read = msgspec.convert(_described(msgspec.to_builtins(document())), _Document)
    parts: list[str] = []
    for path, methods in read.paths.items():
        for method, operation in methods.items():
            if not operation.summary:
                raise Undocumented(f"{method.upper()} {path} has no summary")
            parts += _operation(method.upper(), path, operation)
    bodies: list[str] = []
    for name, schema in sorted(read.components.schemas.items()):
        if schema.properties and not _is_elsewhere(name):
            bodies += [f"### `{name}`", _about(schema), _properties(schema)]
    version = f"This is the native API of version {VERSION}."
    return page("HTTP", version, INTRO, "## Routes", *parts, *socket(), "## Bodies", *bodies)


def _operation(method: str, path: str, operation: _Operation) -> list[str]:
    public = "*Public.* " if operation.security == () else ""
    rows = [[code(one.name), one.place, one.description] for one in operation.parameters]
    sent = [_media(kind, media) for kind, media in operation.body.content.items()]
    return [
        f"### `{method} {path}`",
        f"{public}{operation.summary}.",
        table(["parameter", "in", "meaning"], rows),
        f"Body: {sent[0]}." if sent else "",
        table(["answer", "what", "body"], _answers(operation.responses)),
    ]


def _answers(answers: Mapping[str, _Answer]) -> Iterable[list[str]]:
    for status, answer in sorted(answers.items()):
        if status in EVERYWHERE:
            continue
        bodies = [_media(kind, media) for kind, media in answer.content.items()]
        yield [status, answer.description, ", or ".join(bodies)]


def _media(kind: str, media: _Media) -> str:
    return MEDIA.get(kind) or link_of(media.schema)


def _about(schema: _Schema) -> str:
    return " ".join(schema.description.split())


def _properties(schema: _Schema) -> str:
    return table(
        ["field", "type", ""],
        (
            [code(name), link_of(one), "" if name in schema.required else "optional"]
            for name, one in schema.properties.items()
        ),
    )


def link_of(schema: _Schema) -> str:
    """Return what a schema allows, in words."""
    if schema.ref is not None:
        return _linked(schema.ref.rpartition("/")[2])
    if schema.any_of:
        return " or ".join(dict.fromkeys(map(link_of, schema.any_of)))
    if schema.enum:
        return ", ".join(code(str(one)) for one in schema.enum)
    if schema.type == "array":
        return f"list of {link_of(schema.items)}" if schema.items else "list"
    return schema.type or "any JSON"


def _linked(name: str) -> str:
    if name in _EMPTY:
        return "an empty object, or nothing"
    return f"[{name}](facts.md#{slug(name)})" if _is_elsewhere(name) else link(name)


def _is_elsewhere(name: str) -> bool:
    return name in _ELSEWHERE


_EMPTY = {
    name
    for name, one in vars(bodies).items()
    if isinstance(one, type) and issubclass(one, Struct) and not one.__struct_fields__
}
_ELSEWHERE = {one.__name__ for one in (*KIND_OF, *VALUES)}


def _described(node: object) -> object:
    """Return a document without what `_Schema` cannot hold: schemas that are `true` or `false`."""
    if isinstance(node, dict):
        inner = cast("dict[str, object]", node)
        return {name: _described(one) for name, one in inner.items() if not isinstance(one, bool)}
    if isinstance(node, list):
        return [_described(one) for one in cast("list[object]", node)]
    return node
