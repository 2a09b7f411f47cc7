"""What every store does with numbers and ids that no honest run writes: it goes on."""

from __future__ import annotations

from decimal import Decimal

from hostler.core.errors import Conflict, NotFound
from hostler.core.events import (
    AttemptId,
    Fact,
    Key,
    ModelAsked,
    ModelReplied,
    RunClaimed,
    RunEnded,
    RunId,
    RunStarted,
    Seq,
    Usage,
)
from hostler.core.head import LONGEST_QUEUE
from hostler.core.ledger import MOST_COST, MOST_TOKENS
from hostler.testing.doubles import a_session
from hostler.testing.store_kit import Check, Open, a_new_session, refused, spoke

ABSURD = Usage(
    input_tokens=2**63,
    output_tokens=-(2**70),
    cache_read_tokens=2**62,
    cost=Decimal("1E+400000"),
)


async def an_absurd_number_is_kept_in_the_log_and_counted_as_the_most_there_is(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        facts = [spoke("run_1"), *_replies("run_1", ABSURD, ABSURD)]

        events = (await store.append(key, facts)).events

        assert [event.fact for event in events] == facts
        row = await store.run(key.tenant, RunId("run_1"))
        assert row.usage is not None
        assert row.usage.input_tokens == row.usage.cache_read_tokens == 2 * MOST_TOKENS
        assert (row.usage.output_tokens, row.usage.cost) == (0, MOST_COST)
        calls = await store.ledger.calls(key.tenant, row.id)
        told = [(call.usage and call.usage.input_tokens) for call in calls.models]
        assert told == [MOST_TOKENS] * 2
        assert all((call.first_token_s or 0) < 10**12 for call in calls.models)


async def a_cost_that_is_no_number_is_a_cost_that_is_not_known(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        usage = Usage(input_tokens=1, cost=Decimal("NaN"))

        await store.append(key, [spoke("run_1"), *_replies("run_1", usage)])

        row = await store.run(key.tenant, RunId("run_1"))
        assert row.usage is not None
        assert (row.usage.cost, row.unpriced_calls) == (None, 1)


async def a_session_whose_first_facts_are_refused_is_not_there(make: Open) -> None:
    async with make() as store:
        session = a_new_session()
        too_many = [spoke(f"run_{i}") for i in range(LONGEST_QUEUE + 2)]

        await refused(Conflict, store.create(session, too_many))

        await refused(NotFound, store.session(Key(session.tenant, session.id)))
        assert await store.create(session)


ABSURDITIES: tuple[Check, ...] = (
    an_absurd_number_is_kept_in_the_log_and_counted_as_the_most_there_is,
    a_cost_that_is_no_number_is_a_cost_that_is_not_known,
    a_session_whose_first_facts_are_refused_is_not_there,
)


def _replies(run: str, *usages: Usage) -> list[Fact]:
    """Return the facts of a run with a reply for each usage."""
    of = RunId(run)
    facts: list[Fact] = [RunClaimed(run=of, claim=1, worker="w"), RunStarted(run=of)]
    for number, usage in enumerate(usages):
        attempt = AttemptId(f"att_{number}")
        facts += [
            ModelAsked(run=of, attempt=attempt, provider="p", model="m"),
            ModelReplied(
                run=of,
                attempt=attempt,
                seen=Seq(0),
                text="",
                calls=(),
                stop="end",
                usage=usage,
                first_token_s=1e300,
            ),
        ]
    return [*facts, RunEnded(run=of, status="done", usage=usages[-1])]
