"""What a browser says of where it is: the name it was given for us, and whose page is asking.

    Host    a name that is not ours: a page has bound its own name to our address (DNS rebinding)
    Origin  a page of another site: it may not change anything here, nor open a socket

Both are asked before anything else, of every face: a local server that forgot to was a shell for
every web page (CVE-2026-22812).  Without `origins` no answer has a CORS header, so pages of other
sites read nothing either; with it, exactly those do.

Invariant: cookies are never allowed across sites, and no answer says `*`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from itertools import islice

from starlette.types import ASGIApp, Receive, Scope, Send

from hostler.core.errors import CallerError, Forbidden
from hostler.faces.http.answers import Answer, problem
from hostler.faces.http.headers import Headers, adding

ANY = "*"
LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
MOST_KNOWN = 256
"""`Host` values that were found to be ours: names with ports, in small and large letters."""
PREFLIGHT_S = 600
"""How long a browser may remember what it may ask; Chromium takes up to two hours."""

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")
_WANTS = b"access-control-request-headers"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_VARY = (b"vary", b"origin")
_ASKED = (
    b"authorization, content-type, hostler-agent, hostler-tenant, idempotency-key, last-event-id, "
    b"prefer, traceparent, tracestate, user-agent, x-api-key, x-client-request-id"
)
_VENDORS = re.compile(rb"(?:anthropic|openai|x-stainless)-[a-z0-9-]{1,60}")
"""What vendors' own clients send from a page, too: their lists grow, and nothing here obeys them."""
MOST_ASKED = 32
"""Headers of vendors that one page may ask for: theirs send some ten."""
_PREFLIGHT: Headers = (
    (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
    (b"access-control-max-age", b"%d" % PREFLIGHT_S),
)
_EXPOSED = (
    b"access-control-expose-headers",
    (
        b"idempotent-replayed, location, preference-applied, ratelimit, ratelimit-policy, "
        b"request-id, retry-after, x-request-id, x-should-retry"
    ),
)


class Guard:
    """An ASGI application around all faces."""

    def __init__(
        self, app: ASGIApp, *, hosts: Sequence[str] = (ANY,), origins: Sequence[str] = ()
    ) -> None:
        """`hosts`: names of this server, `*.example.org` for all below one, `*` for any.

        Names of this machine (`localhost`) and addresses are always good: no page of somebody
        else's can have them for its own.
        """
        self._app = app
        self._any = ANY in hosts
        names = {one.lower().rstrip(".") for one in hosts}
        self._names = LOCAL | {one for one in names if not one.startswith("*")}
        self._below = tuple(one[1:] for one in names if one.startswith("*."))
        self._known = set[bytes]()
        self._origins = frozenset(one.encode() for one in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        host = origin = None
        for name, value in scope["headers"]:
            if name == b"host":
                if value not in self._known and not self._is_ours(value):
                    await _refuse(_NOT_OURS, scope, receive, send)
                    return
                host = value
            elif name == b"origin":
                origin = value if origin is None else b"null"
        if origin is None and not self._origins:
            await self._app(scope, receive, send)
            return
        await self._of_page(origin, host, scope, receive, send)

    async def _of_page(
        self, origin: bytes | None, host: bytes | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Pass on what a page asks, if it may."""
        if origin is not None and origin in self._origins and scope["type"] == "http":
            cors = ((b"access-control-allow-origin", origin), _VARY)
            if scope["method"] == "OPTIONS" and _is_preflight(scope["headers"]):
                allowed = (b"access-control-allow-headers", _allowed(scope["headers"]))
                await Answer(204, headers=(*cors, *_PREFLIGHT, allowed))(scope, receive, send)
                return
            await self._app(scope, receive, adding(send, (*cors, _EXPOSED)))
            return
        is_known = origin is None or origin in self._origins or _is_same(origin, host)
        if not is_known and scope.get("method", "GET") + scope["type"] not in _SAFE_HTTP:
            await _refuse(_OTHER_SITE, scope, receive, send)
            return
        vary = self._origins and scope["type"] == "http"
        await self._app(scope, receive, adding(send, (_VARY,)) if vary else send)

    def _is_ours(self, value: bytes) -> bool:
        """Say whether a `Host` is ours, and remember it if so."""
        found = _HOST.fullmatch(value)
        name = "" if found is None else found[1].decode("ascii").lower().rstrip(".")
        is_ours = (
            self._any
            or name in self._names
            or (bool(name) and name.endswith(self._below))
            or _is_address(name)
        )
        if is_ours and len(self._known) < MOST_KNOWN:
            self._known.add(value)
        return is_ours


_SAFE_HTTP = frozenset(f"{method}http" for method in _SAFE)
# RFC 9110 section 15.5.20: asked for under a name that is not this server's.
_NOT_OURS = problem(
    CallerError("this server is not known by that name; see the setting hosts", code="host"),
    status=421,
)
_OTHER_SITE = problem(Forbidden("pages of other sites may not do this here", code="origin"))


def hosts_of(named: Iterable[str], *, bound_to: str, is_loopback: bool) -> Sequence[str]:
    """Return the names of a server.

    Bound to loopback it has those of this machine alone, unless more are named.  Bound to what
    others reach and without a list it has any: it cannot know how they call it, and no key of
    theirs is sent by a browser on its own.
    """
    listed = tuple(named)
    if listed or is_loopback:
        return (*listed, bound_to)
    return (ANY,)


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _is_same(origin: bytes, host: bytes | None) -> bool:
    # Without the scheme: behind a proxy that has the certificate, ours is another.
    return host is not None and origin.partition(b"://")[2].lower() == host.lower()


def _is_preflight(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"access-control-request-method" for name, _ in headers)


def _allowed(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return which headers a page may send: never those by which a proxy says who somebody is."""
    wanted = b",".join(value for name, value in headers if name == _WANTS)
    asked = (one.strip().lower() for one in wanted.split(b","))
    theirs = dict.fromkeys(one for one in asked if _VENDORS.fullmatch(one))
    return b", ".join((_ASKED, *islice(theirs, MOST_ASKED)))


async def _refuse(answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
    await answer(scope, receive, send)
