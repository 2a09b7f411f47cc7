"""The native face as routes, to be mounted by `app`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from starlette.routing import BaseRoute, Route, WebSocketRoute

from hostler.faces.http.endpoint import Endpoint, Operation
from hostler.faces.http.entry import Entrance, Gate, Ways
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.native.operations import Operations
from hostler.faces.native.socket import Socket
from hostler.faces.native.table import table
from hostler.service.service import Service


def native_routes(
    service: Service,
    gate: Gate,
    streams: OpenStreams,
    *,
    ways: Ways | None = None,
    others: Sequence[Operation] = (),
) -> list[BaseRoute]:
    """Return one route per path; the paths that are called most come first.

    `ways`: to say who one is, beside keys and share links.  `others`: operations of other faces.
    """
    entry = Entrance(gate, service.shares, service.keys, service.tenants, ways=ways or Ways())
    service.keys.revoked.append(streams.revoke)
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
    routes: list[BaseRoute] = [Route(path, endpoint) for path, endpoint in endpoints.items()]
    return [*routes, WebSocketRoute("/api/sessions/{session}/socket", socket)]


def _rank(path: str) -> int:
    # Starlette tries routes in order, one regular expression each.
    return 0 if path.startswith("/api/sessions") else 1
