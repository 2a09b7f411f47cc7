"""What a request says of itself besides what it asks: its id, and the trace it belongs to.

Invariant: an id or a trace that is not well formed is as good as none; it is never an error.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

from starlette.types import Scope

from hostler.core.ports import mint
from hostler.core.trail import Trail, here, read_context

REQUEST_ID = b"x-request-id"
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_KEPT = "hostler.request"


def request_of(scope: Scope) -> str:
    """Return the request's id: the client's, if it has a sane one, else one that is made now."""
    kept = scope.get(_KEPT)
    if isinstance(kept, str):
        return kept
    given = next((value for name, value in scope["headers"] if name == REQUEST_ID), b"")
    text = bytes(given).decode("latin-1")
    made = scope[_KEPT] = text if _SANE.fullmatch(text) else mint("req")
    return made


@contextmanager
def trailed(scope: Scope) -> Generator[None]:
    """Let lines that are written here name the request, and what it begins go on in its trace."""
    trail = Trail(request=request_of(scope))
    parent = state = None
    for name, value in scope["headers"]:
        if name == b"traceparent":
            parent = value.decode("latin-1")
        elif name == b"tracestate":
            state = value.decode("latin-1")
    if parent is not None:
        trail.traceparent, trail.tracestate = read_context(parent, state)
    token = here.set(trail)
    try:
        yield
    finally:
        here.reset(token)
