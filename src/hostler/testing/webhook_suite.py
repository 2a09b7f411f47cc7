"""What every store promises of webhooks, one check per promise: run them on yours.

    @pytest.mark.parametrize("check", WEBHOOK_SUITE, ids=lambda check: check.__name__)
    async def test_webhooks(check, tmp_path):
        await check(lambda clock: open_my_store_and_webhooks(tmp_path, clock))

Invariant: a check knows the ports alone.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias, cast

from msgspec.structs import replace

from hostler.beside.webhooks import (
    Delivery,
    DeliveryStatus,
    EventType,
    Outcome,
    Webhook,
    WebhookChange,
    Webhooks,
)
from hostler.core.errors import Fenced, Invalid, NotFound
from hostler.core.events import (
    Fact,
    JsonObject,
    Key,
    RunEnded,
    RunId,
    RunStatus,
    Seq,
    TenantId,
    Usage,
)
from hostler.core.store import Store
from hostler.testing.doubles import a_session
from hostler.testing.store_kit import (
    Clock,
    a_run,
    a_step,
    asked,
    ended,
    finished,
    given,
    refused,
    spoke,
    started,
)

Open: TypeAlias = Callable[[Clock], AbstractAsyncContextManager[tuple[Store, Webhooks]]]
"""Opens an empty store on a clock, with its webhooks, and closes both in the end."""
Check: TypeAlias = Callable[[Open], Awaitable[None]]
DEFAULT, OTHER = TenantId("default"), TenantId("other")
MANY = 100


def a_webhook(
    name: str = "1", *, tenant: TenantId = DEFAULT, events: Sequence[EventType] | None = None
) -> Webhook:
    """Return a webhook; `name` is in its id."""
    return Webhook(
        tenant=tenant,
        id=f"whk_{name}",
        url=f"https://{name}.example/hook?to=\u00fc",
        secret=f"webhook:whk_{name}:1",
        created_at=1.5,
        updated_at=2.5,
        events=None if events is None else tuple(events),
        description='a "hook" \u2028',
    )


def a_delivery(name: str, at: float | None, *, webhook: str = "whk_1") -> Delivery:
    created_at = 1.0 if at is None else at
    return Delivery(
        tenant=DEFAULT,
        webhook=webhook,
        id=f"evt_{name}",
        type="webhook.test",
        body='{"said":"ü"}',
        created_at=created_at,
        next_at=at,
    )


def over(status: DeliveryStatus) -> Outcome:
    """Return what a delivery becomes that is over."""

    def ended(hook: Webhook, row: Delivery) -> tuple[Webhook, Delivery]:
        return hook, replace(row, status=status, next_at=None)

    return ended


def switched(at: float | None) -> WebhookChange:
    """Return what disables a webhook, or with None, enables it."""

    def change(there: Webhook) -> Webhook:
        return replace(there, disabled_at=at)

    return change


async def of(hooks: Webhooks, webhook: str = "whk_1") -> list[Delivery]:
    """Return the deliveries of a webhook, oldest first."""
    found = await hooks.deliveries(DEFAULT, webhook, status=None, after="", limit=MANY)
    return list(reversed(found))


def bodies(found: Sequence[Delivery]) -> list[JsonObject]:
    return [json.loads(one.body) for one in found]


async def what_was_kept_is_found_and_listed_newest_first_in_its_tenant(make: Open) -> None:
    async with make(Clock()) as (_, hooks):
        one, two = a_webhook("1"), a_webhook("2", events=["run.failed"])
        theirs = a_webhook("1", tenant=OTHER)
        assert [await hooks.add(each, most=2) for each in (one, two, theirs)] == [True] * 3

        assert not await hooks.add(a_webhook("3"), most=2)

        assert await hooks.webhook(DEFAULT, "whk_2") == two
        assert await hooks.webhooks(DEFAULT, after="", limit=MANY) == [two, one]
        assert await hooks.webhooks(DEFAULT, after="whk_2", limit=MANY) == [one]
        assert await hooks.webhooks(DEFAULT, after="", limit=1) == [two]
        assert await hooks.webhooks(OTHER, after="", limit=MANY) == [theirs]
        await refused(NotFound, hooks.webhook(OTHER, "whk_2"))
        await refused(NotFound, hooks.deliveries(OTHER, "whk_2", status=None, after="", limit=1))


async def a_change_is_made_of_what_is_there_and_a_refused_one_changes_nothing(make: Open) -> None:
    def wrong(there: Webhook) -> Webhook:
        there.url = "https://changed.example"
        raise Invalid("not like this")

    async with make(Clock()) as (_, hooks):
        await hooks.add(a_webhook(), most=1)

        made = await hooks.change(
            DEFAULT, "whk_1", lambda there: replace(there, failures=there.failures + 1), at=5.0
        )
        await refused(Invalid, hooks.change(DEFAULT, "whk_1", wrong, at=5.0))

        assert made == replace(a_webhook(), failures=1) == await hooks.webhook(DEFAULT, "whk_1")
        await refused(NotFound, hooks.change(OTHER, "whk_1", wrong, at=5.0))


async def a_removed_webhook_takes_its_deliveries_along(make: Open) -> None:
    async with make(Clock()) as (_, hooks):
        await hooks.add(a_webhook(), most=1)
        await hooks.put(a_delivery("1", 5.0))

        await refused(NotFound, hooks.remove(OTHER, "whk_1"))
        assert await hooks.remove(DEFAULT, "whk_1") == a_webhook()

        await refused(NotFound, hooks.webhook(DEFAULT, "whk_1"))
        await refused(NotFound, hooks.remove(DEFAULT, "whk_1"))
        await refused(NotFound, hooks.put(a_delivery("2", 5.0)))
        assert await hooks.due(9.0, each=9) == ([], None)
        await hooks.add(a_webhook(), most=1)
        assert await of(hooks) == []


async def ends_of_runs_and_requests_for_approval_are_told_with_their_facts(make: Open) -> None:
    clock, rung = Clock(1000.0), list[int]()
    async with make(clock) as (store, hooks):
        await hooks.add(a_webhook(), most=1)
        hooks.listen(lambda: rung.append(1))
        key = await a_session(store)
        await store.append(key, [replace(spoke("run_1"), purpose="nightly")])
        await store.append(key, a_run("run_1", "well", claim=1))
        assert rung, "nobody was told that something is due"
        clock.now = 1001.0
        await store.append(key, [spoke("run_2"), *a_step("run_2", "call_1", claim=2)])
        await store.append(key, [asked("run_2", "call_1", expires_at=2000.0)])

        found = await of(hooks)

        assert [one.type for one in found] == ["run.completed", "approval.requested"]
        first = found[0]
        assert (first.status, first.tries, first.created_at, first.next_at) == (
            *("pending", 0, 1000.0, 1000.0),
        )
        run, approval = bodies(found)
        assert run["timestamp"] == "1970-01-01T00:16:40.000000Z"
        told = {"session": key.session, "run": "run_1", "agent": "double", "purpose": "nightly"}
        assert isinstance(run["data"], dict)
        assert told.items() <= run["data"].items()
        assert approval["data"] == {
            "session": key.session,
            "run": "run_2",
            "call": "call_1",
            "tool": "tool",
            "expires_at": "1970-01-01T00:33:20.000000Z",
        }
        await refused(Fenced, store.append(key, [ended("run_2")], fence=1))
        assert len(await of(hooks)) == 2, "a refused append was told"


async def one_append_can_begin_and_end_a_run(make: Open) -> None:
    async with make(Clock()) as (store, hooks):
        await hooks.add(a_webhook(), most=1)
        key = await a_session(store)
        said = replace(spoke("run_1"), purpose="p", metadata={"openai": {"background": True}})

        await store.append(key, [said, *a_run("run_1", "well", claim=1)])

        assert sorted(one.type for one in await of(hooks)) == [
            "response.completed",
            "run.completed",
        ]


async def a_response_in_the_background_is_told_where_it_stops_and_by_its_own_name(
    make: Open,
) -> None:
    mark: JsonObject = {"openai": {"background": True}}
    more: JsonObject = {"openai": {"background": True, "answers": 1}}
    async with make(Clock()) as (store, hooks):
        await hooks.add(a_webhook(events=["response.completed"]), most=1)
        key = await a_session(store)
        await store.append(key, [replace(spoke("run_1"), metadata=mark), spoke("run_2")])
        await store.append(key, a_step("run_1", "call_1", claim=1))
        await store.append(key, [started("run_1", "call_1", expires_at=2e6)])
        again = replace(spoke("run_1"), policy="steer", metadata=more)
        _, end = await _written(store, key, [again, finished("run_1", "call_1")])
        await store.append(key, a_step("run_1", "call_2", claim=2, after=end)[2:])
        await store.append(key, [asked("run_1", "call_2")])
        _, given_at = await _written(store, key, [given("run_1", "call_2", "allow")])
        await store.append(key, [finished("run_1", "call_2"), ended("run_1")])
        await store.append(key, a_run("run_2", "well", claim=3))

        names = [str(cast("JsonObject", one["data"])["id"]) for one in bodies(await of(hooks))]

        assert sorted(names) == sorted(["resp_1", f"resp_1_{end - 1}", f"resp_1_{given_at}"])


async def _written(store: Store, key: Key, facts: Sequence[Fact]) -> tuple[Seq, Seq]:
    """Append; return where the first and the last of it are."""
    done = await store.append(key, facts)
    return done.events[0].seq, done.events[-1].seq


async def a_tenant_is_told_of_its_own_runs_and_of_what_each_webhook_wants(make: Open) -> None:
    clock = Clock()
    async with make(clock) as (store, hooks):
        await hooks.add(a_webhook("1"), most=9)
        await hooks.add(a_webhook("2", events=["run.failed"]), most=9)
        await hooks.add(a_webhook("3", tenant=OTHER), most=9)
        await hooks.add(a_webhook("4"), most=9)
        await hooks.change(DEFAULT, "whk_4", switched(1.0), at=1.0)
        key = await a_session(store)
        ends: Sequence[RunStatus] = ("done", "failed")
        for number, end in enumerate(ends, start=1):
            run = f"run_{number}"
            last = RunEnded(run=RunId(run), status=end, usage=Usage())
            facts: list[Fact] = [spoke(run), *a_run(run, "well", claim=number)[:-1], last]
            await store.append(key, facts)
            clock.now += 1

        assert [one.type for one in await of(hooks)] == ["run.completed", "run.failed"]
        assert [one.type for one in await of(hooks, "whk_2")] == ["run.failed"]
        assert await of(hooks, "whk_4") == []
        assert (await of(hooks))[1].id == (await of(hooks, "whk_2"))[0].id
        there = await hooks.deliveries(OTHER, "whk_3", status=None, after="", limit=MANY)
        assert there == []

        await hooks.change(DEFAULT, "whk_2", lambda one: replace(one, events=None), at=2.0)
        await hooks.remove(DEFAULT, "whk_1")
        await store.append(key, [spoke("run_3"), *a_run("run_3", "well", claim=3)])
        told = [one.type for one in await of(hooks, "whk_2")]
        assert told == ["run.failed", "run.completed"]


async def what_was_said_elsewhere_and_came_in_a_file_is_not_told(make: Open) -> None:
    async with make(Clock()) as (store, hooks):
        await hooks.add(a_webhook(), most=1)
        key = await a_session(store)
        await store.append(key, [spoke("run_1"), *a_run("run_1", "well", claim=1)])
        events = await store.read(key, after=Seq(0), limit=MANY)
        session = await store.session(key)
        await store.delete(key)

        assert await store.restore(session, events)

        assert len(await of(hooks)) == 1


async def due_are_the_longest_due_of_each_webhook(make: Open) -> None:
    async with make(Clock()) as (_, hooks):
        for name in ("1", "2"):
            await hooks.add(a_webhook(name), most=9)
        for name, at in (("a", 5.0), ("b", 4.0), ("c", 3.0), ("d", 9.0), ("e", None)):
            await hooks.put(a_delivery(name, at))
        await hooks.put(a_delivery("f", 4.5, webhook="whk_2"))

        due = await hooks.due(5.0, each=2)

        found = [(hook.id, row.id) for hook, row in due.deliveries]
        assert found == [("whk_1", "evt_c"), ("whk_1", "evt_b"), ("whk_2", "evt_f")]
        assert due.soonest == 9.0
        assert due.deliveries[0] == (a_webhook("1"), a_delivery("c", 3.0))
        assert (await hooks.due(9.0, each=9)).soonest is None


async def deliveries_are_listed_newest_first_by_status(make: Open) -> None:
    async with make(Clock()) as (_, hooks):
        await hooks.add(a_webhook(), most=1)
        for name in ("1", "2", "3"):
            await hooks.put(a_delivery(name, 5.0))
        await hooks.alter(
            DEFAULT,
            "whk_1",
            "evt_2",
            over("delivered"),
            at=6.0,
        )

        async def listed(
            status: DeliveryStatus | None = None, *, after: str = "", limit: int = MANY
        ) -> list[str]:
            found = await hooks.deliveries(
                DEFAULT, "whk_1", status=status, after=after, limit=limit
            )
            return [one.id for one in found]

        assert await listed() == ["evt_3", "evt_2", "evt_1"]
        assert await listed(after="evt_3", limit=1) == ["evt_2"]
        assert await listed("pending") == ["evt_3", "evt_1"]
        assert await listed("delivered") == ["evt_2"]


async def a_try_changes_a_webhook_and_its_delivery_together(make: Open) -> None:
    def failed(hook: Webhook, row: Delivery) -> tuple[Webhook, Delivery]:
        tried = replace(
            row, tries=row.tries + 1, step=1, tried_at=6.25, code=500, error="é", next_at=7.5
        )
        return replace(hook, failures=hook.failures + 1, failing_since=6.25), tried

    async with make(Clock()) as (_, hooks):
        await hooks.add(a_webhook(), most=1)
        await hooks.put(a_delivery("1", 5.0))

        made = await hooks.alter(DEFAULT, "whk_1", "evt_1", failed, at=6.25)

        assert made == (await hooks.webhook(DEFAULT, "whk_1"), (await of(hooks))[0])
        assert (made[0].failures, made[0].failing_since) == (1, 6.25)
        assert (made[1].tries, made[1].code, made[1].error, made[1].next_at) == (1, 500, "é", 7.5)
        for gone in ((OTHER, "whk_1", "evt_1"), (DEFAULT, "whk_2", "evt_1")):
            await refused(NotFound, hooks.alter(*gone, failed, at=7.0))
        await refused(NotFound, hooks.alter(DEFAULT, "whk_1", "evt_2", failed, at=7.0))
        assert (await hooks.webhook(DEFAULT, "whk_1")).failures == 1


async def what_is_pending_of_a_disabled_webhook_is_held_until_it_is_enabled(make: Open) -> None:
    async with make(Clock()) as (_, hooks):
        await hooks.add(a_webhook(), most=1)
        await hooks.put(a_delivery("1", 5.0))
        await hooks.put(a_delivery("2", 5.0))
        await hooks.alter(DEFAULT, "whk_1", "evt_2", over("given_up"), at=5.0)

        await hooks.change(DEFAULT, "whk_1", switched(6.0), at=6.0)
        assert await hooks.due(9.0, each=9) == ([], None)
        rung = list[int]()
        hooks.listen(lambda: rung.append(1))
        await hooks.change(DEFAULT, "whk_1", switched(None), at=8.0)

        assert rung
        assert [row.id for _, row in (await hooks.due(9.0, each=9)).deliveries] == ["evt_1"]
        assert [one.next_at for one in await of(hooks)] == [8.0, None]


async def a_try_that_disables_holds_what_is_pending(make: Open) -> None:
    async with make(Clock()) as (_, hooks):
        await hooks.add(a_webhook(), most=1)
        await hooks.put(a_delivery("1", 5.0))
        await hooks.put(a_delivery("2", 5.0))

        _, row = await hooks.alter(
            DEFAULT,
            "whk_1",
            "evt_1",
            lambda hook, row: (replace(hook, disabled_at=6.0), replace(row, next_at=7.0)),
            at=6.0,
        )

        assert row.next_at is None
        assert await hooks.due(9.0, each=9) == ([], None)


async def what_is_over_goes_when_it_is_old_and_nothing_else(make: Open) -> None:
    async with make(Clock()) as (_, hooks):
        await hooks.add(a_webhook(), most=1)
        states = {"delivered": 1.0, "given_up": 1.0, "pending": 1.0, "fresh": 50.0}
        for name, at in states.items():
            await hooks.put(a_delivery(name, at))
        for name in ("delivered", "given_up", "fresh"):
            status: DeliveryStatus = "given_up" if name == "given_up" else "delivered"
            await hooks.alter(DEFAULT, "whk_1", f"evt_{name}", over(status), at=2.0)

        assert await hooks.tidy(delivered=10.0, others=0.5, limit=9) == 1
        assert {one.id for one in await of(hooks)} == {"evt_given_up", "evt_pending", "evt_fresh"}
        assert await hooks.tidy(delivered=60.0, others=2.0, limit=1) == 1
        assert await hooks.tidy(delivered=60.0, others=2.0, limit=9) == 1
        assert [one.id for one in await of(hooks)] == ["evt_pending"]


async def old_secrets_that_sign_no_more_are_found(make: Open) -> None:
    async with make(Clock()) as (_, hooks):
        for name, until in (("1", 5.0), ("2", 7.0), ("3", None)):
            old = None if until is None else "old"
            made = replace(a_webhook(name), old_secret=old, old_until=until)
            await hooks.add(made, most=9)

        assert [one.id for one in await hooks.rotated(5.0)] == ["whk_1"]


WEBHOOK_SUITE: Sequence[Check] = (
    what_was_kept_is_found_and_listed_newest_first_in_its_tenant,
    a_change_is_made_of_what_is_there_and_a_refused_one_changes_nothing,
    a_removed_webhook_takes_its_deliveries_along,
    ends_of_runs_and_requests_for_approval_are_told_with_their_facts,
    one_append_can_begin_and_end_a_run,
    a_response_in_the_background_is_told_where_it_stops_and_by_its_own_name,
    a_tenant_is_told_of_its_own_runs_and_of_what_each_webhook_wants,
    what_was_said_elsewhere_and_came_in_a_file_is_not_told,
    due_are_the_longest_due_of_each_webhook,
    deliveries_are_listed_newest_first_by_status,
    a_try_changes_a_webhook_and_its_delivery_together,
    what_is_pending_of_a_disabled_webhook_is_held_until_it_is_enabled,
    a_try_that_disables_holds_what_is_pending,
    what_is_over_goes_when_it_is_old_and_nothing_else,
    old_secrets_that_sign_no_more_are_found,
)
