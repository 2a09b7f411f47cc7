"""The dashboard and the alerts ask for nothing that a loaded server does not have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest
import yaml
from tests.observed import Series, a_worker, observed

pytestmark = pytest.mark.anyio

DEPLOY = Path(__file__).parents[2] / "deploy"
KEYWORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless"}
OF_PROMETHEUS = {"instance", "job"}
"""Labels that Prometheus adds to what it scrapes."""
_SELECTOR = re.compile(r"\b([a-z_][a-z0-9_]*)\s*(?:\{([^}]*)\})?(?=\s*[\[)/*+\-<>=]|\s*$|\s*\))")
_GROUPED = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
_MATCHER = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')


def panels() -> Iterator[tuple[str, str]]:
    board = json.loads((DEPLOY / "grafana/hostler.json").read_text(encoding="utf-8"))
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def alerts() -> Iterator[tuple[str, str]]:
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


QUERIES = [*panels(), *alerts()]


def selectors(query: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each metric that a query names, with the labels that it selects by."""
    grouped = _GROUPED.sub("", query)
    for name, inside in _SELECTOR.findall(grouped):
        if name in KEYWORDS or re.fullmatch(r"[smhd]|__rate_interval", name):
            continue
        yield name, dict(_MATCHER.findall(inside))


def missing(query: str, seen: Mapping[str, set[str]], values: Series) -> list[str]:
    """Return what a query asks for that is not there."""
    asked = list(selectors(query))
    if not asked:
        return ["it names no metric"]
    gone = [name for name, _ in asked if name not in seen]
    has = set[str]().union(*(seen.get(name, set()) for name, _ in asked)) | OF_PROMETHEUS
    for name, labels in asked:
        gone += [f"{name}{{{label}}}" for label in labels if label not in seen.get(name, set())]
        exact = re.findall(r'([a-z_]+)="([^"]*)"', query)
        gone += [
            f"{name}{{{label}={value}}}"
            for label, value in exact
            if labels.get(label) == value
            and not any(one == name and (label, value) in of for one, of in values)
        ]
    for group in _GROUPED.findall(query):
        gone += [label for label in re.findall(r"[a-z_]+", group) if label not in has]
    return gone


async def loaded(tmp_path: Path) -> Series:
    """Return the scrape of a server that has seen a little of everything."""
    async with observed(a_worker(), file=tmp_path / "log.db") as server:
        server.measuring.metrics.readings.breakers = lambda: [("openai", "open")]  # type: ignore[union-attr]
        session = await server.client.session()
        for said in ("look", "hello", "fail"):
            await server.client.speak(session, said)
        return await server.series()


async def test_every_query_finds_series_on_a_loaded_server(tmp_path: Path) -> None:
    values = await loaded(tmp_path)
    seen: dict[str, set[str]] = {}
    for name, labels in values:
        seen.setdefault(name, set()).update(label for label, _ in labels)

    wrong = {what: gone for what, query in QUERIES if (gone := missing(query, seen, values))}
    assert wrong == {}
    assert missing("sum by (agent) (rate(hostler_nothing_total[5m]))", seen, values)
    assert missing("sum by (nobody) (rate(hostler_runs_total[5m]))", seen, values) == ["nobody"]
    assert missing('hostler_runs_total{status="odd"}', seen, values)


async def test_every_metric_is_on_the_dashboard_or_in_an_alert(tmp_path: Path) -> None:
    ours = {
        re.sub(r"_(bucket|sum|count|created)$", "", name)
        for name, _ in await loaded(tmp_path)
        if name.startswith("hostler_") and not name.endswith("_created")
    }
    asked = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for _, query in QUERIES
        for name, _ in selectors(query)
    }
    assert ours - asked == {"hostler_build_info", "hostler_spans_exported_total"}


def test_panels_have_places_of_their_own() -> None:
    board = json.loads((DEPLOY / "grafana/hostler.json").read_text(encoding="utf-8"))
    places = set[tuple[int, int]]()
    for panel in cast("list[dict[str, dict[str, int]]]", board["panels"]):
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & places
        places |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
