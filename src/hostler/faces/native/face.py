"""The native face as routes, to be mounted by `app`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import TypeAlias

from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp

from hostler.faces.http.endpoint import Endpoint, Operation
from hostler.faces.http.entry import Entrance, Gate, Tickets, Ways
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.native.operations import Operations
from hostler.faces.native.socket import Socket
from hostler.faces.native.table import table
from hostler.service.service import Service

MakesSocket: TypeAlias = Callable[[Entrance, Endpoint], ASGIApp]
"""Makes a socket of who lets clients in, and the endpoint of the same path."""


def native_routes(
    service: Service,
    gate: Gate,
    streams: OpenStreams,
    *,
    ways: Ways | None = None,
    others: Sequence[Operation] = (),
    sockets: Mapping[str, MakesSocket] | None = None,
) -> list[BaseRoute]:
    """Return one route per path; the paths that are called most come first.

    `ways`: to say who one is, beside keys and share links.  `others`: operations of other faces;
    `sockets`, by path: what makes sockets of theirs.
    """
    tickets, ways = Tickets(shared=service.shared), ways or Ways()
    entry = Entrance(gate, service.shares, service.keys, service.tenants, tickets, ways)
    streams.join(service.nodes)
    service.keys.revoked.append(streams.revoke)
    service.keys.open_with.append(streams.keys)
    service.members.removed.append(streams.unshare)
    do = Operations(service, streams, entry.tickets, service.scraping)
    operations = sorted(table(do, others), key=lambda one: (_rank(one.path), one.path))
    endpoints = {
        path: Endpoint(
            list(same),
            entry,
            service.answered,
            service.admit,
            rates=service.rates,
            auditing=service.auditing,
            hide=service.hide,
        )
        for path, same in groupby(operations, key=lambda one: one.path)
    }
    socket = Socket(
        operations=do, endpoints=endpoints, entry=entry, streams=streams, rates=service.rates
    )
    routes: list[BaseRoute] = [Route(_wide(path), one) for path, one in endpoints.items()]
    for path, make in (sockets or {}).items():
        routes.append(WebSocketRoute(path, make(entry, endpoints[path])))
    return [*routes, WebSocketRoute("/api/sessions/{session}/socket", socket)]


def _rank(path: str) -> int:
    # Starlette tries routes in order, one regular expression each.
    return 0 if path.startswith(("/api/sessions", "/v1/")) else 1


def _wide(path: str) -> str:
    # Names of models have slashes, and servers decode those that clients encoded.
    return path.replace("{model}", "{model:path}")
