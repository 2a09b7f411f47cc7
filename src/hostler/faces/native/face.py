"""The native face as routes, to be mounted by `app`."""

from __future__ import annotations

from itertools import groupby

from starlette.routing import Route

from hostler.faces.native.http import Endpoint, Gate
from hostler.faces.native.operations import Operations
from hostler.faces.native.stream import OpenStreams
from hostler.faces.native.table import table
from hostler.service.service import Service


def native_routes(service: Service, gate: Gate, streams: OpenStreams) -> list[Route]:
    """Return one route per path; the paths that are called most come first."""
    operations = sorted(
        table(Operations(service, streams)), key=lambda one: (_rank(one.path), one.path)
    )
    return [
        Route(path, Endpoint(list(same), gate))
        for path, same in groupby(operations, key=lambda one: one.path)
    ]


def _rank(path: str) -> int:
    # Starlette tries routes in order, one regular expression each.
    return 0 if path.startswith("/api/sessions") else 1
