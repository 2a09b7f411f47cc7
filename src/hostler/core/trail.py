"""On whose behalf something happens now: what log lines say, and what outgoing requests carry.

A request to a face lays a trail, a worker that drives a run another one.  Whoever writes a line or
sends a request reads `here`; nobody has to hand it down.  Names of traces and spans are made from
ids, so that whoever goes on with a run after a crash makes the same ones.

Invariant: nothing is decided from it; without a trail all goes on as well, and is told less well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from hostler.core.events import CallId, RunKey

LONGEST_STATE = 512
"""Characters of a `tracestate`; W3C Trace Context §3.3.1.5 asks for at least so many."""
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(r"[\x20-\x7e]+")


@dataclass(slots=True, kw_only=True)
class Trail:
    """What is known here of who asked for what happens."""

    request: str | None = None
    """The id of an HTTP request."""
    traceparent: str | None = None
    tracestate: str | None = None
    """W3C Trace Context, as a client sent it."""
    run: RunKey | None = None
    worker: str | None = None
    step: int = 0
    """Of the run: which reply it is at, from 1."""
    span: str | None = None
    """The attempt or call that goes on, if spans are made: what is sent out is its child."""

    def outgoing(self) -> dict[str, str]:
        """Return the headers that make what another server does a part of the same trace."""
        parent = self.traceparent
        if self.run is not None and self.span is not None:
            trace, _, sampled = origin(self.run, parent)
            parent = f"00-{trace}-{span_id(self.run, self.span)}-{sampled:02x}"
        if parent is None:
            return {}
        state = self.tracestate
        return {"traceparent": parent, **({} if state is None else {"tracestate": state})}


here: ContextVar[Trail | None] = ContextVar("hostler_trail", default=None)


@contextmanager
def of_call(call: CallId) -> Generator[None]:
    """Let what is sent from here be a child of the call's span, if spans are made."""
    trail = here.get()
    if trail is None or trail.span is None:
        yield
        return
    token = here.set(replace(trail, span=call))
    try:
        yield
    finally:
        here.reset(token)


def trace_headers() -> dict[str, str]:
    """Return the headers that outgoing requests carry here; none without a trace."""
    trail = here.get()
    return {} if trail is None else trail.outgoing()


def read_context(parent: str, state: str | None) -> tuple[str | None, str | None]:
    """Return `traceparent` and `tracestate` as they are kept; None for what is not to be trusted.

    W3C Trace Context §3.2.2: a later version is read as this one, zeroes name nothing.
    """
    found = _PARENT.fullmatch(parent.strip())
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return None, None
    if found[4] and parent.startswith("00"):
        return None, None
    if state is not None and (len(state) > LONGEST_STATE or not _STATE.fullmatch(state)):
        state = None
    return f"00-{found[1]}-{found[2]}-{int(found[3], 16) & 1:02x}", state or None


def origin(run: RunKey, parent: str | None) -> tuple[str, str | None, int]:
    """Return the trace of a run, the span that asked for it, if any, and 1 if it is sampled."""
    if parent is None:
        return _named(run, "", 32), None, 1
    _, trace, span, flags = parent.split("-")
    return trace, span, int(flags, 16)


def span_id(run: RunKey, part: str = "run") -> str:
    """Return the span of a run, or of an attempt or call in it: 16 hex digits."""
    return _named(run, part, 16)


def _named(run: RunKey, part: str, digits: int) -> str:
    told = f"{run.tenant}/{run.session}/{run.run}/{part}".encode()
    return hashlib.blake2b(told, digest_size=digits // 2).hexdigest()
