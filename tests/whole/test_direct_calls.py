"""Direct calls: what is kept of them, who may make them, and how they end."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace as changed
from decimal import Decimal
from pathlib import Path
from typing import cast

import anyio
import pytest
from msgspec.structs import replace
from tests.canaries import master_keys
from tests.direct import (
    REQUEST,
    USED,
    Says,
    answer,
    columns,
    direct_house,
    rows,
    somebody,
)
from tests.people import somebody as with_key
from tests.serving import Client, Json, serving

from hostler.app.house import open_house
from hostler.core.errors import Forbidden, Invalid, NotFound, TooMany, Unavailable
from hostler.core.events import SessionId, TenantId
from hostler.core.ledger import DirectCall
from hostler.core.ports import Delta, Failure, Reply, World
from hostler.service.rates import Limits, Rate, Rates
from hostler.service.retention import DAY_S, Keep
from hostler.service.service import Service
from hostler.testing.doubles import an_agent
from hostler.testing.store_suite_direct import a_direct_call, replied, sums
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio
SECRET = "sk-0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


# -- what is kept -----------------------------------------------------------------------------


async def test_an_answer_comes_as_the_model_gives_it_and_its_row_says_what_it_took(
    file: Path,
) -> None:
    priced = replace(USED, cost=Decimal("0.25"), price="2026-01-01")
    model = Says((Delta("text", "well"), Reply(text="well", stop="end", usage=priced)))
    async with direct_house(model, file=file) as service:
        parts = await answer(service, model, purpose="nightly")

    assert parts == list(model.parts)
    assert model.asked[0].tenant == "default"
    assert (model.asked[0].system, model.closed) == ("be brief", 1)
    (row,) = columns(
        file, "tenant", "principal", "purpose", "provider", "model", "status", "cost", "unpriced"
    )
    assert row == ("default", "ann", "nightly", "p", "m", "replied", "0.25", 0)
    ((called, asked_at, ended_at, first_us),) = columns(
        file, "id", "asked_at", "ended_at", "first_token_us"
    )
    assert str(called).startswith("dir_")
    assert cast("int", asked_at) + cast("int", first_us) <= cast("int", ended_at)


async def test_the_row_is_there_before_the_model_is_asked_and_ends_before_the_answer_does(
    file: Path,
) -> None:
    seen = list[object]()
    model = Says(first=lambda: seen.append(rows(file)[0].status))
    async with (
        direct_house(model, file=file) as service,
        aclosing(service.direct.ask(somebody(), model, REQUEST)) as parts,
    ):
        async for _ in parts:
            seen.append(rows(file)[0].status)

    assert seen == ["open", "open", "open", "replied"]


async def test_usage_counts_a_direct_call_for_its_user_its_model_and_its_day(file: Path) -> None:
    model, houses = Says(), list[Service]()
    async with serving(an_agent(model), file=file, entered=houses.append) as client:
        (service,) = houses
        await client.call("POST", "/api/tenants", {"id": "acme"})
        await client.speak(await client.session())
        ann, bob = [await with_key(client, name) for name in ("ann", "bob")]
        await answer(service, model, somebody("ann", role="member"))
        await answer(service, model, somebody("eve", tenant="acme"))

        whole = await usage(client, "?by=user,agent,model")
        (day,) = await usage(client, "?by=day")
        own, others = await usage(ann), await usage(bob)
        foreign = await usage(client, headers={"Hostler-Tenant": "acme"})

    assert [(one["by"], one["runs"], one["calls"]) for one in whole] == [
        ({"user": "admin", "agent": "double", "model": "p:m"}, 1, 1),
        ({"user": "ann", "agent": "", "model": "p:m"}, 0, 1),
    ]
    assert (day["runs"], day["calls"], day["input_tokens"]) == (1, 2, 20)
    assert [one["calls"] for one in own] == [1]
    assert others == []
    assert [one["calls"] for one in foreign] == [1]


async def usage(
    client: Client, query: str = "", headers: dict[str, str] | None = None
) -> list[Json]:
    status, page = await client.call("GET", f"/api/usage{query}", headers=headers)
    assert status == 200, page
    return cast("list[Json]", page["items"])


# -- how it ends ------------------------------------------------------------------------------


async def test_who_goes_away_ends_the_question(file: Path) -> None:
    model = Says(wait=anyio.Event())
    async with direct_house(model, file=file) as service:
        parts = service.direct.ask(somebody(), model, REQUEST)
        assert await anext(parts) == Delta("text", "well ")
        await parts.aclose()

        assert rows(file) == [("dropped", None, 1)]
        assert model.closed == 1


async def test_who_is_cancelled_in_the_middle_ends_the_question(file: Path) -> None:
    model = Says(wait=anyio.Event())
    async with direct_house(model, file=file) as service:
        with anyio.fail_after(5), anyio.CancelScope() as scope:
            async with aclosing(service.direct.ask(somebody(), model, REQUEST)) as parts:
                async for part in parts:
                    if part == Delta("text", "then"):
                        scope.cancel()

        assert rows(file) == [("dropped", None, 1)]
        assert model.closed == 1


async def test_a_model_that_was_not_asked_any_more_cost_nothing(file: Path) -> None:
    model = Says()
    async with direct_house(model, file=file) as service:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await answer(service, model)

        assert rows(file) == [("dropped", None, 0)]
        assert not model.asked


@pytest.mark.parametrize(("tokens", "unpriced"), [(0, 0), (7, 1)])
async def test_a_failure_is_told_and_kept_and_not_tried_again(
    file: Path, tokens: int, unpriced: int
) -> None:
    used = replace(USED, input_tokens=tokens, output_tokens=0)
    failed = Failure(code="server", message="oh", again=True, retry_after_s=0, usage=used)
    model = Says((Delta("text", "we"), failed))
    async with direct_house(model, file=file) as service:
        assert (await answer(service, model))[-1] == failed

    assert rows(file) == [("failed", "server", unpriced)]
    assert columns(file, "error_message", "input_tokens") == [("oh", tokens)]
    assert len(model.asked) == 1


async def test_an_answer_that_just_ends_is_a_failure(file: Path) -> None:
    model = Says((Delta("text", "we"),))
    async with direct_house(model, file=file) as service:
        last = (await answer(service, model))[-1]

    assert isinstance(last, Failure)
    assert last.code == "truncated"
    assert rows(file) == [("failed", "truncated", 0)]


async def test_a_model_with_a_bug_has_a_row_that_ends(file: Path) -> None:
    def fails() -> None:
        raise ValueError("a bug of theirs")

    model = Says(first=fails)
    async with direct_house(model, file=file) as service:
        with pytest.raises(ValueError, match="a bug of theirs"):
            await answer(service, model)

        assert rows(file) == [("dropped", None, 1)]


class Broken:
    """A ledger that cannot write, from its n-th write on."""

    def __init__(self, service: Service, fails_at: int) -> None:
        self._keep, self._left = service.store.ledger.keep_direct, fails_at
        self.ledger = self

    async def keep_direct(self, call: DirectCall) -> None:
        self._left -= 1
        if self._left <= 0:
            raise Unavailable("the disk is full")
        await self._keep(call)


def on(service: Service, store: object) -> Service:
    direct = service.direct
    return changed(service, direct=changed(direct, store=store))  # type: ignore[arg-type]


@pytest.mark.parametrize(("fails_at", "asked"), [(1, 0), (2, 1)])
async def test_no_end_is_told_that_cannot_be_kept(file: Path, fails_at: int, asked: int) -> None:
    model = Says()
    async with direct_house(model, file=file) as service:
        told = list[object]()
        with pytest.raises(Unavailable, match="the disk is full"):
            await heard(on(service, Broken(service, fails_at)), model, told)

    assert len(model.asked) == asked
    assert not any(isinstance(one, Reply) for one in told)


async def heard(service: Service, model: Says, told: list[object]) -> None:
    async for part in service.direct.ask(somebody(), model, REQUEST):
        told.append(part)  # noqa: PERF401  what came before an error counts


# -- who may ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "who",
    [
        somebody(role="viewer"),
        somebody(scopes=frozenset({"sessions:read", "runs:read"})),
        somebody(role="viewer", only=SessionId("ses_1")),
        somebody(role="admin", only=SessionId("ses_1")),
    ],
    ids=["viewer", "scope", "link", "confined"],
)
async def test_who_may_not_write_asks_nothing(file: Path, who: object) -> None:
    model = Says()
    async with direct_house(model, file=file) as service:
        with pytest.raises(Forbidden):
            await answer(service, model, who)  # type: ignore[arg-type]

    assert not model.asked
    assert rows(file) == []


async def test_what_is_no_label_is_no_purpose(file: Path) -> None:
    model = Says()
    async with direct_house(model, file=file) as service:
        with pytest.raises(Invalid):
            await answer(service, model, purpose="what for\n")

    assert not model.asked


async def test_direct_calls_count_as_runs_of_which_so_many_may_begin(file: Path) -> None:
    model = Says()
    rates = Rates(lambda _: Limits(None, Rate.of(0.001, 2)))
    agent = an_agent(model)
    async with open_house(
        {"double": agent}, default_agent="double", file=file, rates=rates
    ) as service:
        for _ in range(2):
            await answer(service, model)
        with pytest.raises(TooMany):
            await answer(service, model)
        await answer(service, model, somebody("bob"))

    assert len(model.asked) == len(rows(file)) == 3


async def test_a_model_that_is_not_there_is_not_found_and_those_that_are_are_told(
    file: Path,
) -> None:
    model = Says()
    async with direct_house(model, file=file) as service:
        who = somebody(role="viewer")
        assert service.direct.names(who) == ["p:m"]
        assert service.direct.find(who, "p:m") is model
        assert service.direct.find(who, "m") is model
        with pytest.raises(NotFound, match="there is no model p:x; there is p:m") as refused:
            service.direct.find(who, "p:x")

    assert refused.value.code == "model_not_found"


# -- secrets ----------------------------------------------------------------------------------


async def test_a_secret_is_in_no_answer_and_in_no_row(file: Path) -> None:
    def says(last: Reply | Failure) -> Says:
        return Says((*(Delta("text", one) for one in SECRET), last), name=f"m-{SECRET}")

    vault = SealedVault(master_keys())
    house = open_house({"double": an_agent(Says())}, default_agent="double", file=file, vault=vault)
    async with house as service:
        await vault.put(TenantId("default"), "key", "tool", SECRET)
        replying = await answer(service, says(Reply(text=SECRET, stop="end")), purpose=SECRET)
        failed = Failure(code="server", message=f"no {SECRET}", again=False)
        failing = await answer(service, says(failed))
        foreign = await answer(service, says(failed), somebody(tenant="acme"))

    assert SECRET not in str(replying)
    assert SECRET not in str(failing)
    assert replying[-1] == Reply(text="[secret:key]", stop="end")
    assert "".join(one.text for one in replying if isinstance(one, Delta)) == "[secret:key]"
    assert SECRET in str(foreign), "it is nobody's but the tenant's"
    own = columns(file, "tenant", "model", "purpose", "error_message")
    assert [one[1:] for one in own if one[0] == "default"] == [
        ("m-[secret:key]", "[secret:key]", None),
        ("m-[secret:key]", None, "no [secret:key]"),
    ]


# -- how long it is kept ----------------------------------------------------------------------


async def test_old_direct_calls_go_with_old_sessions_by_the_rules_of_their_tenant(
    file: Path,
) -> None:
    model, houses = Says(), list[Service]()
    async with serving(an_agent(model), file=file, entered=houses.append) as client:
        (service,) = houses
        for tenant, days in (("acme", 2), ("ever", 0)):
            settings = {"retention_days": days}
            await client.call("POST", "/api/tenants", {"id": tenant, "settings": settings})
        world = World("w", clock=lambda: 100 * DAY_S)
        for tenant in ("default", "acme", "ever"):
            for age in (1, 5, 50):
                made = a_direct_call(f"dir_{age}", tenant=TenantId(tenant), at=(100 - age) * DAY_S)
                await service.store.ledger.keep_direct(replied(made))

        await Keep(days=10).once(service.sessions.forgetting, world)

        left = {
            tenant: (await sums(service.store, tenant=TenantId(tenant)))[0].calls
            for tenant in ("default", "acme", "ever")
        }

    assert left == {"default": 2, "acme": 1, "ever": 3}
