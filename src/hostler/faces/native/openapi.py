"""The OpenAPI document, made from the table of operations and the types of their bodies.

Invariant: what is not in the table is not served, and what is in it is documented.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from hostler.core.events import Fact, JsonObject
from hostler.faces.http.endpoint import VERSION, Operation
from hostler.faces.native.bodies import Problem
from hostler.service.secrets import NAME

REFERENCE = "#/components/schemas/{name}"
STATUS = {
    101: "Goes on as a WebSocket",
    200: "OK",
    201: "Made",
    202: "Accepted",
    204: "Nothing to say",
    400: "Not readable",
    401: "No key, or one that is not known",
    403: "Known, and without this right",
    404: "Absent, or not yours",
    409: "Not in a state that allows this",
    413: "Over a limit",
    421: "Asked for under a name that is not this server's",
    422: "Readable, but wrong",
    426: "A WebSocket, asked for without an upgrade",
    429: "As many as one caller may have at once, or may ask for in this time",
    500: "A bug of the server",
    502: "A model did not answer as it should",
    503: "The store, or the server with all it has to do, cannot serve now",
    504: "A model did not answer in time",
    529: "The server, or a model, has too much to do",
}

WHOLE = re.compile(r"(\d+) to (\d+)(?:, default (\d+))?")
ONCE = {"Idempotency-Key": "the same key and body have the same answer, for 24 hours"}

ONE_OF = re.compile(r"one of: (\w+(?:, \w+)*)")
FORMS: Mapping[str, re.Pattern[str]] = {"secret": NAME}
"""Of those parts of a path that their callers choose."""


def openapi(operations: Sequence[Operation]) -> JsonObject:
    """Return the document, in OpenAPI 3.1."""
    types = _types(operations)
    schemas, components = msgspec.json.schema_components(
        types, schema_hook=_any, ref_template=REFERENCE
    )
    by_type = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, object]] = {}
    for operation in operations:
        described = _operation(operation, by_type)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "Hostler", "version": VERSION},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _any(one: type) -> JsonObject:
    """Return the schema of `object`, which stands for any JSON."""
    if one is object:
        return {"description": "any JSON"}
    raise NotImplementedError


def _types(operations: Sequence[Operation]) -> list[object]:
    found: list[object] = [Problem, Fact]
    for operation in operations:
        for one in (operation.body, operation.tells, *operation.returns.values()):
            if one is not None and one not in found:
                found.append(one)
    return found


def _operation(operation: Operation, schemas: Mapping[str, JsonObject]) -> JsonObject:
    names = re.findall(r"{(\w+)}", operation.path)
    parameters = [_parameter("path", name, f"the {name}'s id", needed=True) for name in names]
    parameters += [
        _parameter("query", name, what, needed=name in operation.needs)
        for name, what in operation.query.items()
    ]
    headers = {**operation.headers, **(ONCE if operation.keeps_answers else {})}
    parameters += [_parameter("header", name, what) for name, what in headers.items()]
    errors = [*operation.errors, 421, 503]
    if not operation.public:
        errors += [401, 403, 429]
    if operation.body is not None:
        errors += [400, 413, 422]
    described: JsonObject = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            **{
                str(status): _answer(operation, status, one, schemas)
                for status, one in operation.returns.items()
            },
            **{str(status): _told(operation, status, schemas) for status in sorted(set(errors))},
        },
    }
    if operation.body is not None:
        content = {"application/json": {"schema": schemas[repr(operation.body)]}}
        described["requestBody"] = {"content": content, "required": True}
    if operation.takes is not None:
        content = {operation.takes[0]: {"schema": {"type": "string"}}}
        described["requestBody"] = {"content": content, "required": True}
    if operation.public:
        described["security"] = []
    return described


def _parameter(place: str, name: str, what: str, *, needed: bool = False) -> JsonObject:
    text: JsonObject = {"type": "string"}
    if place == "query" and needed:
        text["pattern"] = r"\S"
    if place == "path" and name in FORMS:
        text["pattern"] = f"^{FORMS[name].pattern}$"
    return {
        "in": place,
        "name": name,
        "description": what,
        "required": needed,
        "schema": _whole_number(what) or _one_of(what) or text,
    }


def _one_of(what: str) -> JsonObject | None:
    """Return the schema of a parameter that is described as `one of: a, b`."""
    found = ONE_OF.search(what)
    # Empty counts as left out, or for all: see `http.one_of`.
    return None if found is None else {"type": "string", "enum": [*found[1].split(", "), ""]}


def _whole_number(what: str) -> JsonObject | None:
    """Return the schema of a parameter that is described as `1 to 1000, default 100`."""
    found = WHOLE.search(what)
    if found is None:
        return None
    least, most, default = found.groups()
    schema: JsonObject = {"type": "integer", "minimum": int(least), "maximum": int(most)}
    return schema if default is None else {**schema, "default": int(default)}


def _answer(
    operation: Operation, status: int, one: object, schemas: Mapping[str, JsonObject]
) -> JsonObject:
    answer: JsonObject = {"description": STATUS[status]}
    if one is not None:
        content: JsonObject = {operation.gives: {"schema": schemas[repr(one)]}}
        if operation.streams and status == 200:
            content.setdefault("text/event-stream", {"schema": {"type": "string"}})
        answer["content"] = content
    return answer


def _told(operation: Operation, status: int, schemas: Mapping[str, JsonObject]) -> JsonObject:
    # A name that is not this server's is refused before it is known what was asked.
    if operation.tells is not None and status != 421:
        content = {"application/json": {"schema": schemas[repr(operation.tells)]}}
        return {"description": STATUS[status], "content": content}
    schema = {"$ref": REFERENCE.format(name="Problem")}
    return {
        "description": STATUS[status],
        "content": {"application/problem+json": {"schema": schema}},
    }
