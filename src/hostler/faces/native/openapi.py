"""The OpenAPI document, made from the table of operations and the types of their bodies.

Invariant: what is not in the table is not served, and what is in it is documented.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from hostler.core.events import Fact, JsonObject
from hostler.faces.native.bodies import Problem
from hostler.faces.native.http import VERSION, Operation

REFERENCE = "#/components/schemas/{name}"
STATUS = {
    200: "OK",
    201: "Made",
    202: "Accepted",
    204: "Nothing to say",
    400: "Not readable",
    401: "No key, or one that is not known",
    404: "Absent, or not yours",
    409: "Not in a state that allows this",
    413: "Over a limit",
    422: "Readable, but wrong",
    503: "The store cannot serve now",
}


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
        for one in (operation.body, *operation.returns.values()):
            if one is not None and one not in found:
                found.append(one)
    return found


def _operation(operation: Operation, schemas: Mapping[str, JsonObject]) -> JsonObject:
    names = re.findall(r"{(\w+)}", operation.path)
    parameters = [_parameter("path", name, f"the {name}'s id", needed=True) for name in names]
    parameters += [_parameter("query", name, what) for name, what in operation.query.items()]
    parameters += [_parameter("header", name, what) for name, what in operation.headers.items()]
    errors = [*operation.errors, 503] if operation.public else [401, *operation.errors, 503]
    if operation.body is not None:
        errors += [400, 413, 422]
    described: JsonObject = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            **{
                str(status): _answer(status, one, schemas, streams=operation.streams)
                for status, one in operation.returns.items()
            },
            **{str(status): _problem(status) for status in sorted(set(errors))},
        },
    }
    if operation.body is not None:
        content = {"application/json": {"schema": schemas[repr(operation.body)]}}
        described["requestBody"] = {"content": content, "required": True}
    if operation.public:
        described["security"] = []
    return described


def _parameter(place: str, name: str, what: str, *, needed: bool = False) -> JsonObject:
    return {
        "in": place,
        "name": name,
        "description": what,
        "required": needed,
        "schema": {"type": "string"},
    }


def _answer(
    status: int, one: object, schemas: Mapping[str, JsonObject], *, streams: bool
) -> JsonObject:
    answer: JsonObject = {"description": STATUS[status]}
    if one is not None:
        content: JsonObject = {"application/json": {"schema": schemas[repr(one)]}}
        if streams and status == 200:
            content["text/event-stream"] = {"schema": {"type": "string"}}
        answer["content"] = content
    return answer


def _problem(status: int) -> JsonObject:
    schema = {"$ref": REFERENCE.format(name="Problem")}
    return {
        "description": STATUS[status],
        "content": {"application/problem+json": {"schema": schema}},
    }
