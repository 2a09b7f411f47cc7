"""Three nodes behind a balancer that sends each request to any of them, one of which always goes or
comes: killed, or asked to stop as in a rolling upgrade.

All scenes are played at once, and again, until each node was gone; each test judges one promise.
"""

from __future__ import annotations

from collections import Counter
from typing import cast

import pytest
from tests.fleet.nodes import NODES, How
from tests.fleet.played import Played, ends, play, told_of
from tests.fleet.scenes import SCENES
from tests.services import Database, apart, emptied
from tests.serving import Json

pytestmark = pytest.mark.timeout(600)
KILLED = [
    pytest.param(("killed", True), id="killed-redis"),
    pytest.param(("killed", False), id="killed-notify", marks=pytest.mark.slow),
]
ROLLED = [
    pytest.param(("rolled", False), id="rolled-notify"),
    pytest.param(("rolled", True), id="rolled-redis", marks=pytest.mark.slow),
]
SEED = 7


@pytest.fixture(scope="module", params=[*KILLED, *ROLLED])
def played(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_database: Database,
) -> Played:
    """Return what came of a play; it is played once for all tests that a worker has of it."""
    how, has_redis = cast("tuple[How, bool]", request.param)
    database, found = emptied(postgres_database), list[Played]()

    async def work() -> None:
        folder = tmp_path_factory.mktemp("fleet")
        found.append(await play(folder, database.url, how, has_redis=has_redis, seed=SEED))

    apart(work)
    return found[0]


@pytest.mark.parametrize("scene", [one.__name__ for one in SCENES])
def test_on_any_node_at_any_time(played: Played, scene: str) -> None:
    for error in played.wrong[scene]:
        raise error
    assert played.rounds[scene] > 0


def test_each_node_was_gone_and_each_was_asked(played: Played) -> None:
    assert len({*played.hits}) == NODES
    assert len(played.sent) == NODES
    expected = {-9, 0} if played.how == "killed" else {0}
    assert {*played.exits} <= expected, "ended by itself"


def test_positions_have_no_gaps_and_all_that_was_accepted_has_one_end(played: Played) -> None:
    for session, log in played.logs.items():
        assert [fact["seq"] for fact in log] == list(range(1, len(log) + 1)), session
        spoken = {fact["run"] for fact in log if fact["kind"] == "user_spoke"}
        over = Counter(fact["run"] for fact in log if fact["kind"] == "run_ended")
        assert over == dict.fromkeys(spoken, 1), session
        inputs = [fact["input"] for fact in log if fact["kind"] == "user_spoke"]
        settled = ("input_processed", "input_dropped")
        assert sorted(map(str, inputs)) == sorted(
            str(fact["input"]) for fact in log if fact["kind"] in settled
        ), session


def test_no_run_fails(played: Played) -> None:
    failed = [end for end in ends(played).values() if end["status"] == "failed"]
    assert not failed


@pytest.mark.parametrize("played", ROLLED, indirect=True)
def test_no_reply_is_lost_where_nodes_are_asked_to_stop(played: Played) -> None:
    for log in played.logs.values():
        cancelled = {fact["run"] for fact in log if fact["kind"] == "cancel_requested"}
        lost = [fact for fact in log if fact["kind"] == "attempt_dropped"]
        assert [fact for fact in lost if fact["run"] not in cancelled] == []


def test_no_effect_happens_twice(played: Played) -> None:
    assert played.effects
    assert max(Counter(played.effects).values()) == 1


def test_a_webhook_is_told_of_each_end_under_one_name(played: Played) -> None:
    assert set(ends(played)) <= told_of(played.deliveries)
    names = dict[tuple[object, object], set[str]]()
    for one in played.deliveries:
        told = one.verified(played.secret)
        about = cast("Json", told["data"])
        names.setdefault((told["type"], about.get("run", about.get("id"))), set()).add(one.id)
    assert [several for several in names.values() if len(several) > 1] == []
