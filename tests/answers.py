"""Answers as they are compared: without the one thing of which no two are the same."""

from __future__ import annotations

import json
from typing import TypeAlias, cast

Answer: TypeAlias = tuple[int, dict[str, str], bytes]
"""Status, headers in small letters, body."""


def nameless(answer: Answer) -> Answer:
    """Return an answer without its request's id, which each has, and each problem twice."""
    status, headers, body = answer
    name = headers["x-request-id"]
    rest = {header: value for header, value in headers.items() if header != "x-request-id"}
    if status < 400:
        return status, rest, body
    assert cast("dict[str, object]", json.loads(body))["request_id"] == name
    mark = b',"request_id":"%b"' % name.encode()
    assert body.count(mark) == 1
    return status, rest, body.replace(mark, b"")
