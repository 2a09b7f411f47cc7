"""The crash lab itself: a little of each family with each change, all of it where it is asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import get_args

import anyio
import pytest
from tests.services import missing

from hostler.core.errors import SetupError
from hostler.core.events import (
    AttemptDropped,
    AttemptId,
    Event,
    Fact,
    RunClaimed,
    RunEnded,
    RunId,
    Seq,
    SessionId,
    Usage,
)
from hostler.faults import KILLED
from hostler.testing.crash import clocks, disks
from hostler.testing.crash.__main__ import main
from hostler.testing.crash.clusters import PrivateRedis, a_cluster, a_database, binaries
from hostler.testing.crash.families import COUNTS, FAMILIES, ON, Family, Lab, Store
from hostler.testing.crash.kills import Killing
from hostler.testing.crash.nodes import Node, Site
from hostler.testing.crash.outages import cuts, redis_outages, restarts
from hostler.testing.crash.play import Play
from hostler.testing.crash.points import one_death
from hostler.testing.crash.relay import relaying
from hostler.testing.crash.results import keep, kept, row_of
from hostler.testing.crash.rolling import Rolling, lost, pauses
from hostler.testing.crash.scene import Case, staged
from hostler.testing.crash.waiting import until
from hostler.testing.store_suite import spoke

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
SAMPLE = (2, 60, 102, 140)
"""Of some 200 places: in a migration, and in commits of what is said, said later and denied."""


@pytest.fixture(params=get_args(Store))
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Site]:
    """Return a place with nothing in it."""
    if request.param == "sqlite":
        yield Site(folder=tmp_path)
        return
    server = str(request.getfixturevalue("postgres_server"))
    async with a_database(server) as database:
        yield Site(folder=tmp_path, database=database.url)


def needs_a_private_postgres() -> None:
    if binaries() is None:
        missing("a PostgreSQL of its own needs initdb")


@pytest.mark.parametrize("at", SAMPLE)
async def test_a_death_at_a_write_breaks_no_promise(site: Site, at: int) -> None:
    case = await one_death(site, at)

    assert case.found == []
    assert case.exits[0] == KILLED
    assert len(case.places) == at
    assert len(case.recoveries) == 1


async def test_without_a_death_nothing_is_left_behind(site: Site) -> None:
    case = await one_death(site, 0)

    assert case.found == []
    assert KILLED not in case.exits
    writes = {place.split(" ", 1)[1] for place in case.places if place.startswith("before ")}
    ends = {place.split(" ", 1)[1] for place in case.places if place.startswith("after ")}
    assert writes - ends == set()
    assert len(case.places) > max(SAMPLE)


async def test_kills_at_random_moments_break_no_promise(site: Site) -> None:
    killing = Killing(nodes=1 if site.database is None else 2, kills=2, clients=5, seed=3)

    case = await killing.on(site)

    assert case.found == []
    assert case.count == len(case.recoveries) == 2


async def test_a_rolling_restart_fails_no_run_and_loses_no_reply(
    tmp_path: Path, postgres_server: str
) -> None:
    async with a_database(postgres_server) as database:
        rolling = Rolling(nodes=2, clients=5, rounds=1)

        case = await rolling.on(Site(folder=tmp_path, database=database.url))

    assert case.found == []
    assert (case.count, {*case.exits}) == (2, {0})
    assert case.pauses, "no run was handed over"


def test_a_rolling_restart_is_held_to_more_than_a_kill() -> None:
    run, attempt, session = RunId("run_1"), AttemptId("att_1"), SessionId("ses_1")
    facts: list[Fact] = [
        spoke(run),
        RunClaimed(run=run, claim=1, worker="one"),
        AttemptDropped(run=run, attempt=attempt, reason="worker_lost"),
        RunClaimed(run=run, claim=2, worker="two"),
        RunEnded(run=run, status="failed", reason="poisoned", usage=Usage()),
    ]
    log = [
        Event(session=session, seq=Seq(place), at=float(place**2), fact=fact, raw=b"")
        for place, fact in enumerate(facts, start=1)
    ]

    assert len(list(lost({session: log}))) == 2
    assert list(pauses(log)) == [7.0]


async def test_a_node_that_ends_by_itself_is_a_violation(tmp_path: Path) -> None:
    site = Site(folder=tmp_path)
    site.target = "lab_agents:nothing"
    node = Node(site=site)

    async def work(_: Play) -> None:
        with anyio.fail_after(60):
            await until(lambda: bool(node.trouble))

    case = await staged("a wrong target", site, [node], work)

    assert [one.promise for one in case.found] == ["I10"]
    assert "lab_agents:nothing is no Agent" in case.found[0].what


async def test_a_restart_of_postgresql_breaks_no_promise(tmp_path: Path) -> None:
    needs_a_private_postgres()
    async with a_cluster() as cluster, a_database(cluster.url) as database:
        site = Site(folder=tmp_path, database=database.url)

        case = await restarts(site, cluster, times=2)

    assert case.found == []
    assert case.exits == [0]


async def test_connections_that_are_cut_at_any_byte_break_no_promise(
    tmp_path: Path, postgres_server: str
) -> None:
    async with a_database(postgres_server) as database, relaying(database.url) as relay:
        site = Site(folder=tmp_path, database=relay.url(database.url))

        case = await cuts(site, relay, times=8, seed=5)

    assert case.found == []
    assert relay.cuts == 8
    assert case.exits == [0]


async def test_a_redis_that_goes_and_comes_breaks_no_promise(tmp_path: Path) -> None:
    redis = PrivateRedis(tmp_path / "redis")
    try:
        await redis.start()
    except SetupError as error:
        missing(error)
    try:
        case = await redis_outages(Site(folder=tmp_path, redis=redis.url), redis, times=1)
    finally:
        redis.kill()

    assert case.found == []
    assert case.exits == [0]


@pytest.mark.parametrize("name", ["an hour back", "past 2038"])
async def test_a_clock_that_jumps_breaks_no_promise(tmp_path: Path, name: str) -> None:
    try:
        clocks.library()
    except SetupError as error:
        missing(error)

    case = await clocks.jump(Site(folder=tmp_path), name)

    assert case.found == []
    assert case.exits == [0]


@pytest.mark.parametrize("what", ["full", "sync"])
async def test_a_disk_that_fails_breaks_no_promise(tmp_path: Path, what: disks.Trouble) -> None:
    site = Site(folder=tmp_path)
    try:
        disks.a_disk(site)
    except SetupError as error:
        missing(error)

    case = await disks.trouble(site, what)

    assert case.found == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("family", "store"), [(family, store) for family in FAMILIES for store in ON[family]]
)
async def test_all_of_a_family_breaks_no_promise(
    tmp_path: Path, family: Family, store: Store
) -> None:
    lab = Lab(store=store, folder=tmp_path)
    async with aclosing(lab.cases(family)) as cases:
        found = [case async for case in cases]

    assert [one for case in found for one in case.found] == []
    assert sum(case.count for case in found) >= COUNTS.get(family, len(found))


# -- what it tells -----------------------------------------------------------------------------


def test_a_row_takes_the_place_of_the_one_before_it(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    first = row_of("kills", "sqlite", 1, [Case("one", recoveries=[1.0, 3.0])])
    keep(file, first)
    keep(file, row_of("kills", "postgres", 3, [Case("two")]))
    many = [float(number) for number in range(40)]
    again = row_of("kills", "sqlite", 1, [Case("one", recoveries=many, count=40)])

    keep(file, again)

    assert [(one.family, one.store, one.nodes, one.cases) for one in kept(file)] == [
        ("kills", "postgres", 3, 1),
        ("kills", "sqlite", 1, 40),
    ]
    assert first.ready_p50_s == 2.0
    assert first.ready_p99_s is None, "two values have no 99th percentile"
    assert again.ready_p99_s is not None
    assert again.ready_p99_s > 38


def test_what_cannot_be_tried_is_told_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clocks, "PLACES", ())

    assert main(["clock", "--store", "sqlite", "--folder", str(tmp_path)]) == 1

    assert "clock on sqlite was not tried: libfaketime is not installed" in capsys.readouterr().out
