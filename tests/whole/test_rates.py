"""How often one may ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests import people
from tests.serving import KEY, quick, serving
from tests.whole.test_socket import asked, opened

from hostler.app.keys import ADMIN
from hostler.app.settings import Rated
from hostler.core.directory import TenantSettings
from hostler.core.errors import TooMany
from hostler.core.events import Principal, PrincipalId, TenantId
from hostler.service.rates import Limits, Rate, Rates
from hostler.testing.doubles import an_agent

SECOND = 1_000_000_000


def somebody(name: str = "alice", tenant: str = "acme") -> Principal:
    return Principal(id=PrincipalId(name), tenant=TenantId(tenant))


class Clock:
    now = 10**18

    def __call__(self) -> int:
        return self.now


def rates_of(rate: Rate, clock: Clock, *, most: int = 100) -> Rates:
    return Rates(lambda _: Limits(rate, rate), clock_ns=clock, most=most)


def is_let_in(rates: Rates, who: Principal) -> bool:
    try:
        rates.take(who, "requests")
    except TooMany:
        return False
    return True


@given(
    per_s=st.floats(0.01, 5000),
    burst=st.integers(1, 50),
    steps=st.lists(st.integers(0, 3 * SECOND) | st.integers(0, SECOND // 1000), max_size=120),
)
def test_nobody_gets_more_than_the_burst_and_the_rate_in_any_time(
    per_s: float, burst: int, steps: Sequence[int]
) -> None:
    clock, let_in = Clock(), list[int]()
    rates, who = rates_of(Rate.of(per_s, burst), clock), somebody()
    for step in steps:
        clock.now += step
        if is_let_in(rates, who):
            let_in.append(clock.now)

    for first in range(len(let_in)):
        for last in range(first, len(let_in)):
            passed_s = (let_in[last] - let_in[first]) / SECOND
            assert last - first + 1 <= burst + per_s * passed_s + 1e-6


@given(per_s=st.floats(0.01, 5000), burst=st.integers(1, 50), asks=st.integers(1, 100))
def test_who_waits_as_long_as_told_is_let_in_and_not_a_moment_earlier(
    per_s: float, burst: int, asks: int
) -> None:
    clock, who = Clock(), somebody()
    rates = rates_of(Rate.of(per_s, burst), clock)
    for _ in range(asks):
        try:
            rates.take(who, "requests")
        except TooMany as error:
            wait = round(error.retry_after_s * SECOND)
            clock.now += max(0, wait - 1000)
            assert wait <= 1000 or not is_let_in(rates, who)
            clock.now += 2000
            assert is_let_in(rates, who)


def test_who_rests_has_the_whole_burst_again() -> None:
    clock, who = Clock(), somebody()
    rates = rates_of(Rate.of(2, 10), clock)
    assert [is_let_in(rates, who) for _ in range(11)] == [True] * 10 + [False]

    clock.now += 5 * SECOND

    left = rates.standing(who)[0]
    assert (left.left, left.full_in_s) == (10, 0)
    assert [is_let_in(rates, who) for _ in range(11)] == [True] * 10 + [False]


def test_the_same_name_in_another_tenant_is_somebody_else() -> None:
    rates = rates_of(Rate.of(1, 1), Clock())

    assert is_let_in(rates, somebody())
    assert is_let_in(rates, somebody(tenant="globex"))
    assert not is_let_in(rates, somebody())


def test_so_many_are_remembered_and_those_who_asked_last_are() -> None:
    rates = rates_of(Rate.of(1, 1), Clock(), most=3)
    for number in range(5):
        is_let_in(rates, somebody(str(number)))

    assert len(rates._ones["requests"].paid_at) == 3
    assert not is_let_in(rates, somebody("4"))


def test_limits_may_change_while_somebody_asks() -> None:
    clock, rate = Clock(), Rate.of(1, 5)
    rates = Rates(lambda _: Limits(rate), clock_ns=clock)
    assert all(is_let_in(rates, somebody()) for _ in range(5))

    rate = Rate.of(1, 2)

    assert not is_let_in(rates, somebody())
    assert rates.standing(somebody())[0].left == 0


def test_the_operator_has_no_limit_and_others_have_that_of_the_settings() -> None:
    limits_of = Rated(requests_per_s=7, requests_burst=9, runs_per_s=0).limits()

    assert limits_of(ADMIN) == Limits()
    assert limits_of(somebody()) == Limits(Rate.of(7, 9), None)


@pytest.mark.parametrize("per_s", [1e-300, 9e-7, 1.1e6])
def test_a_rate_that_no_clock_can_keep_is_refused(per_s: float) -> None:
    for name in ("requests_per_s", "runs_per_s"):
        with pytest.raises(ValidationError):
            Rated.model_validate({name: per_s})


@pytest.mark.parametrize(
    ("own", "let_in"),
    [
        pytest.param(TenantSettings(requests_per_s=1), 5, id="as long a burst, at another rate"),
        pytest.param(TenantSettings(requests_per_s=0), 50, id="no limit"),
        pytest.param(TenantSettings(runs_per_s=1), 10, id="of runs, which is not of requests"),
        pytest.param(None, 10, id="nothing of its own"),
    ],
)
def test_a_tenant_has_limits_of_its_own(own: TenantSettings | None, let_in: int) -> None:
    rates = rates_of(Rate.of(2, 10), Clock())
    rates.settings_of = {"globex": own}.get  # type: ignore[assignment]
    theirs, usual = somebody(tenant="globex"), somebody()

    assert sum(is_let_in(rates, theirs) for _ in range(50)) == let_in
    assert sum(is_let_in(rates, usual) for _ in range(50)) == 10


@pytest.mark.anyio
async def test_the_operator_says_how_often_a_tenant_s_people_may_ask(tmp_path: Path) -> None:
    async with serving(an_agent(quick()), file=tmp_path / "log.db") as admin:
        slow = {"settings": {"requests_per_s": 0.1}}  # a burst of one
        await admin.call("PATCH", "/api/tenants/default", slow)
        alice = await people.somebody(admin, "alice")

        answers = [(await alice.call("GET", "/api/me"))[0] for _ in range(2)]
        assert answers == [200, 429]
        assert (await admin.call("GET", "/api/me"))[0] == 200


@pytest.mark.anyio
async def test_a_request_too_many_is_429_and_says_when_to_come_again(tmp_path: Path) -> None:
    rates = Rates(lambda _: Limits(Rate.of(0.5, 2)))
    async with serving(an_agent(quick()), file=tmp_path / "log.db", rates=rates) as client:
        key = {"Authorization": f"Bearer {KEY}"}
        for left in (1, 0):
            async with client.http.get(f"{client.url}/api/me", headers=key) as answer:
                assert answer.status == 200
                assert answer.headers["ratelimit-policy"] == '"requests";q=2;w=4'
                assert answer.headers["ratelimit"].startswith(f'"requests";r={left};t=')
        async with client.http.get(f"{client.url}/api/me", headers=key) as answer:
            assert (answer.status, (await answer.json())["code"]) == (429, "rate")
            assert answer.headers["retry-after"] in ("1", "2")
            assert answer.headers["ratelimit"].startswith('"requests";r=0;t=')
        async with client.http.get(f"{client.url}/healthz") as answer:
            assert answer.status == 200


@pytest.mark.anyio
async def test_runs_are_counted_beside_requests_and_what_they_stream_is_not(
    tmp_path: Path,
) -> None:
    rates = Rates(lambda _: Limits(Rate.of(0.001, 100), Rate.of(0.001, 2)))
    async with serving(an_agent(quick()), file=tmp_path / "log.db", rates=rates) as client:
        session = await client.session()
        path = f"/api/sessions/{session}/messages"
        assert len(await client.speak(session)) > 4
        once = {"Idempotency-Key": "one"}
        told, receipt = await client.call("POST", path, {"content": "hi"}, headers=once)
        assert told == 202

        refused, problem = await client.call("POST", path, {"content": "one more"})
        again = await client.call("POST", path, {"content": "hi"}, headers=once)

        assert (refused, problem["code"]) == (429, "rate")
        assert again == (202, receipt)  # the first answer; no run is begun
        spoken = [one for one in await client.facts(session) if one["kind"] == "user_spoke"]
        assert len(spoken) == 2
        assert rates.standing(ADMIN)[0].left == 100 - 6


@pytest.mark.anyio
async def test_verbs_on_a_socket_are_counted_as_requests(tmp_path: Path) -> None:
    rates = Rates(lambda _: Limits(Rate.of(0.001, 3)))
    async with serving(an_agent(quick()), file=tmp_path / "log.db", rates=rates) as client:
        session = await client.session()
        async with opened(client, session) as socket:
            assert (await asked(socket, "cancel"))["status"] == 202
            told = await asked(socket, "cancel")

        assert told["status"] == 429
        assert cast("dict[str, object]", told["body"])["code"] == "rate"
