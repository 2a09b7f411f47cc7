"""A key that bears less than is asked of it: a hundred sessions, and how often they are refused."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from tests.fleets import Hub, a_node, acquainted, until
from tests.limited import KEY, Clock, Limiting, limited

from hostler.core import loop
from hostler.core.ports import Failure, Request
from hostler.core.said import UserSaid
from hostler.harness.key_limits import KeyLimits
from hostler.harness.limit_news import LIMITED, MOST_EARLY, SKEW_S, LimitNews
from hostler.signals.fleet import FleetSignals

pytestmark = pytest.mark.anyio
MANY, BEARS = 100, 5
IDEAL = MANY // BEARS
SECRET = b"k" * 32
NAME = "p place mark m"


@pytest.fixture(autouse=True)
def _every_wait_leaves_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests' clock decides how long it takes, and no test waits."""
    monkeypatch.setattr(loop, "PATIENCE_S", -1.0)


@pytest.mark.parametrize("headers", [(), ("Retry-After: 1",)], ids=["silent", "told"])
@pytest.mark.parametrize("kind", ["at_once", "each_round"])
async def test_a_hundred_sessions_find_out_what_a_key_bears_and_all_of_them_end(
    kind: str, headers: tuple[str, ...]
) -> None:
    """Breakers alone had 543 to 680 refused, and 24 to 41 runs failed after twenty tries."""
    provider = Limiting(headers=headers, **{kind: BEARS})  # pyright: ignore[reportArgumentType]
    async with limited(provider) as scene:
        (node,) = scene.nodes
        await node.begin(MANY)
        await scene.to_the_end()

        assert await node.ends() == [("done", None)] * MANY
        assert provider.answered == MANY
        # All that nobody could know better at first, then one in fifty.
        assert provider.refused <= (MANY - BEARS) + MANY // 50 + 1
        assert scene.rounds <= IDEAL / 0.8


async def test_what_the_operator_knows_nobody_has_to_find_out() -> None:
    provider = Limiting(at_once=BEARS)
    async with limited(provider, at_once=BEARS) as scene:
        (node,) = scene.nodes
        await node.begin(MANY)
        await scene.to_the_end()

        assert await node.ends() == [("done", None)] * MANY
        assert (provider.refused, scene.rounds) == (0, IDEAL)


async def test_a_tenant_with_few_sessions_does_not_wait_for_one_with_many() -> None:
    provider = Limiting(at_once=BEARS)
    async with limited(provider, at_once=BEARS) as scene:
        (node,) = scene.nodes
        await node.begin(MANY, "large")
        async with anyio.create_task_group() as tasks:
            node.start_due(tasks)
            await scene.settled()
            await node.begin(BEARS, "small")
            node.start_due(tasks)
            await scene.settled()
            for _ in range(3):
                scene.end_round(tasks)
                await scene.settled()
            ended = [key.tenant for key in node.ended]
            while not scene.is_over:
                scene.end_round(tasks)
                await scene.settled()

        assert ended.count("small") == BEARS, "in three rounds, though many came before"  # type: ignore[comparison-overlap]
        assert len(node.ended) == MANY + BEARS


async def test_sessions_end_about_in_the_order_in_which_they_came() -> None:
    provider = Limiting(at_once=BEARS)
    async with limited(provider, at_once=BEARS) as scene:
        (node,) = scene.nodes
        await node.begin(MANY)
        came = list(node.due)
        await scene.to_the_end()

        late = [node.ended.index(key) - came.index(key) for key in came]
        assert max(late) <= 4 * BEARS


async def test_a_cancel_in_line_ends_the_run_at_once() -> None:
    provider = Limiting(at_once=1)
    async with limited(provider, at_once=1) as scene:
        (node,) = scene.nodes
        await node.begin(2)
        async with anyio.create_task_group() as tasks:
            node.start_due(tasks)
            await scene.settled()
            (in_line,) = [key for key in node.driving if key not in node.heard]
            await node.cancel(in_line)
            await until(lambda: in_line in node.ended)
            assert node.waiting == 0
            scene.end_round(tasks)
            await until(lambda: not node.driving)

        assert provider.answered == 1
        assert sorted(await node.ends()) == [("cancelled", None), ("done", None)]


async def test_a_client_that_asks_itself_is_told_when_to_come_back() -> None:
    async with limited(Limiting(at_once=1), at_once=1) as scene:
        (node,) = scene.nodes
        await node.begin(1)
        async with anyio.create_task_group() as tasks:
            node.start_due(tasks)
            await scene.settled()
            scene.clock.now += 10.0
            asked = Request(system="", transcript=[UserSaid("Hi.")], tenant="default", waits_s=1.0)
            parts = [part async for part in node.model.stream(asked)]
            scene.end_round(tasks)
            (refused,) = parts
            assert isinstance(refused, Failure)
            assert (refused.code, refused.again) == ("rate_limit", True)
            assert refused.retry_after_s is not None
            assert refused.retry_after_s >= 10.0


# -- a fleet ---------------------------------------------------------------------------------------


@asynccontextmanager
async def two_nodes() -> AsyncGenerator[tuple[FleetSignals, FleetSignals]]:
    hub = Hub()
    async with AsyncExitStack() as stack:
        a, b = [await stack.enter_async_context(a_node(hub.wire(), "f")) for _ in range(2)]
        await acquainted(hub)
        yield a, b


def joined(signals: FleetSignals, clock: Clock, key: bytes = SECRET) -> LimitNews:
    news = LimitNews(key, clock=clock, now=clock)
    news.join(signals, lambda: signals.peers)
    return news


async def test_what_one_node_is_told_the_other_one_need_not_ask() -> None:
    provider = Limiting(each_round=0, headers=("Retry-After: 30",))
    async with two_nodes() as fleet:

        def news(number: int, clock: Clock) -> LimitNews:
            return joined(fleet[number], clock)

        async with limited(provider, news=news, nodes=2) as scene:
            one, other = scene.nodes
            async with anyio.create_task_group() as tasks:
                await one.begin(1)
                one.start_due(tasks)
                await until(lambda: not one.driving)
                assert provider.refused == 1
                await other.begin(MANY)
                heard = other.limits.of(limit_name(one.limits))
                await until(lambda: not heard.breaker.is_closed)
                other.start_due(tasks)
                await until(lambda: not other.driving)
            assert provider.refused == 1
            assert min(other.due.values()) >= scene.clock.now + 29.0


def limit_name(limits: KeyLimits) -> str:
    (limit,) = limits
    return limit.name


async def test_what_may_be_in_flight_is_divided_by_the_nodes_and_at_least_one() -> None:
    async with two_nodes() as (a, _):
        clock = Clock()
        limits = KeyLimits(news=joined(a, clock), clock=clock)
        assert limits.of(NAME, 7).most == 3
        assert limits.of(NAME, 1).most == 1
        assert limits.of(NAME).most is None


class Said:
    """`Nodes` that keep what is told."""

    def __init__(self) -> None:
        self.told = list[tuple[str, ...]]()

    def tell(self, kind: str, *words: str) -> None:
        assert kind == LIMITED
        self.told.append(words)

    def on(self, kind: str, hear: Callable[[Sequence[str]], None]) -> None:
        del kind, hear


def told(clock: Clock, name: str = NAME, wait_s: float = 30.0) -> tuple[str, ...]:
    """Return what a node tells of a limit."""
    nodes, news = Said(), LimitNews(SECRET, now=clock)
    news.join(nodes, lambda: 1)
    news.tell(name, wait_s)
    return nodes.told[0]


def hearing(clock: Clock) -> tuple[KeyLimits, LimitNews]:
    news = LimitNews(SECRET, clock=clock, now=clock)
    return KeyLimits(news=news, clock=clock), news


async def test_what_was_heard_before_a_key_was_used_counts_when_it_is() -> None:
    clock = Clock()
    limits, news = hearing(clock)
    news.hear(told(clock))
    clock.now += 10.0
    assert limits.of(NAME).breaker.left_s == pytest.approx(20.0)  # pyright: ignore[reportUnknownMemberType]


def tampered(words: tuple[str, ...], at: int, word: str) -> tuple[str, ...]:
    return (*words[:at], word, *words[at + 1 :])


GOOD = told(Clock())
NOISE = {
    "nothing": (),
    "too few": GOOD[:3],
    "too many": (*GOOD, "more"),
    "a longer wait": tampered(GOOD, 1, "3000.000"),
    "another time": tampered(GOOD, 2, "1001.000"),
    "another mark": tampered(GOOD, 0, told(Clock(), "p place mark other")[0]),
    "no seal": tampered(GOOD, 3, ""),
    "a seal of no ASCII": tampered(GOOD, 3, "é\udcff"),
    "words for numbers": ("x" * 32, "nan", "inf", "y" * 32),
    "huge": tuple("9" * 100_000 for _ in range(4)),
}


@pytest.mark.parametrize("words", NOISE.values(), ids=NOISE.keys())
async def test_what_no_node_of_the_fleet_said_shuts_nothing(words: tuple[str, ...]) -> None:
    clock = Clock()
    limits, news = hearing(clock)
    limit = limits.of(NAME)
    news.hear(words)
    assert limit.breaker.is_closed
    news.hear(GOOD)
    assert not limit.breaker.is_closed


async def test_what_is_said_again_later_is_not_heard() -> None:
    clock = Clock()
    limits, news = hearing(clock)
    words = told(clock)
    clock.now += SKEW_S + 1.0
    news.hear(words)
    assert limits.of(NAME).breaker.is_closed


async def test_another_fleet_s_words_mean_nothing_here_and_hold_no_key() -> None:
    clock = Clock()
    words = told(clock, f"p place mark {KEY}")
    other = LimitNews(b"o" * 32, clock=clock, now=clock)
    limits = KeyLimits(news=other, clock=clock)
    limit = limits.of(f"p place mark {KEY}")
    other.hear(words)
    assert limit.breaker.is_closed
    assert KEY not in str(words)
    assert other.mark(KEY) != LimitNews(SECRET).mark(KEY)


async def test_what_is_kept_of_what_nobody_asked_for_has_an_end() -> None:
    clock = Clock()
    limits, news = hearing(clock)
    for i in range(MOST_EARLY + 1):
        news.hear(told(clock, f"p place mark m{i}"))
    assert limits.of("p place mark m0").breaker.is_closed
    assert not limits.of("p place mark m1").breaker.is_closed
