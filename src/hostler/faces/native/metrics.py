"""`GET /metrics`: the server's figures, as Prometheus reads them.

Invariant: needs a key, unless the operator opened it.
"""

from __future__ import annotations

from starlette.types import ASGIApp

from hostler.faces.http.answers import Answer
from hostler.faces.http.endpoint import Call, Operation
from hostler.service.scraping import Scraping

TEXT = "text/plain"


def metrics_table(scraping: Scraping) -> list[Operation]:
    """Return the operation."""

    async def metrics(call: Call) -> ASGIApp:
        body, media = await scraping.metrics(call.who, call.headers.get("accept", ""))
        return Answer(200, body, media=media.encode())

    return [
        Operation(
            method="GET",
            path="/metrics",
            name="metrics",
            summary="Figures for Prometheus; with `--metrics-open`, without a key",
            run=metrics,
            headers={"Accept": "application/openmetrics-text: as OpenMetrics"},
            returns={200: str},
            gives=TEXT,
            errors=() if scraping.is_open else (403, 404),
            public=scraping.is_open,
        )
    ]
