"""One question over a transport that is a list: what is waited for, what is told, what is closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from tests.canaries import canary

from hostler.core.events import NO_USAGE
from hostler.core.ports import Delta, Failure, Reply, Request
from hostler.core.said import UserSaid
from hostler.models.exchange import LARGEST_REPLY, Patience
from hostler.models.faults import Failed
from hostler.models.openai_chat import OpenAIChat
from hostler.testing.wire_chat import delta, end, event

pytestmark = pytest.mark.anyio
KEY = canary("key of an adapter", "sk-1")

Batch = Sequence[bytes] | Exception
PATIENCE = Patience(first_byte_s=60.0, idle_s=30.0, tail_s=3.0)
SAYS = delta({"content": "Hi."})
FINISH = end("stop", done=False)[0]
USAGE = event({"usage": {"prompt_tokens": 1000, "completion_tokens": 100}})
DONE = b"data: [DONE]\n\n"


@dataclass
class Listed:
    """An answer that is a list of what comes."""

    batches: list[Batch]
    status: int = 200
    headers: Mapping[str, str] = field(
        default_factory=lambda: {"content-type": "text/event-stream"}
    )
    limits: list[float] = field(default_factory=list[float])
    closed: list[bool] = field(default_factory=list[bool])
    """How kindly, each time."""

    async def events(self, limit_s: float) -> list[bytes]:
        self.limits.append(limit_s)
        batch: Batch = self.batches.pop(0) if self.batches else ()
        if isinstance(batch, Exception):
            raise batch
        return [one.removeprefix(b"data: ").rstrip(b"\n") for one in batch]

    async def body(self, limit_s: float) -> bytes:
        assert limit_s > 0
        return b""

    def close(self, *, kindly: bool) -> None:
        self.closed.append(kindly)


@dataclass
class Wire:
    """A transport that has one answer."""

    answer: Listed | Failed
    bodies: list[bytes] = field(default_factory=list[bytes])

    async def post(
        self, url: str, *, headers: Mapping[str, str], body: bytes, patience: Patience
    ) -> Listed:
        assert (url, patience) == ("https://api.openai.com/v1/chat/completions", PATIENCE)
        assert headers == {"Authorization": f"Bearer {KEY}", "X-Team": "a"}
        self.bodies.append(body)
        if isinstance(self.answer, Failed):
            raise self.answer
        return self.answer

    async def get_json(self, url: str, *, headers: Mapping[str, str], timeout_s: float) -> object:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


def model(answer: Listed | Failed) -> OpenAIChat:
    return OpenAIChat(
        name="gpt-5-mini",
        base_url="https://api.openai.com/v1",
        transport=Wire(answer),
        key=lambda _: f" {KEY}\n",
        provider="openai",
        headers={"X-Team": "a"},
        patience=PATIENCE,
    )


async def ask(answer: Listed | Failed) -> tuple[list[Delta], Reply | Failure]:
    request = Request(system="", transcript=[UserSaid("Hi.")])
    *deltas, ending = [part async for part in model(answer).stream(request)]
    assert not isinstance(ending, Delta)
    return [one for one in deltas if isinstance(one, Delta)], ending


async def told(answer: Listed | Failed) -> Failure:
    _, ending = await ask(answer)
    assert isinstance(ending, Failure), ending
    return ending


async def test_each_wait_has_its_own_patience() -> None:
    answer = Listed([[SAYS], [SAYS], [FINISH], [USAGE], [DONE]])

    await ask(answer)

    first, *rest = answer.limits
    assert 59.0 < first <= 60.0
    assert rest == [30.0, 30.0, 3.0, 3.0]


async def test_a_reply_is_priced() -> None:
    _, ending = await ask(Listed([[SAYS, FINISH, USAGE, DONE]]))

    assert isinstance(ending, Reply)
    assert ending.usage.cost == Decimal("0.00045")
    assert ending.usage.price is not None


@pytest.mark.parametrize("trouble", [TimeoutError(), Failed("truncated", "reset")], ids=str)
async def test_a_complete_message_is_a_reply_whatever_becomes_of_the_rest(
    trouble: Exception,
) -> None:
    answer = Listed([[SAYS], [FINISH], trouble])

    _, ending = await ask(answer)

    assert isinstance(ending, Reply)
    assert (ending.text, ending.stop) == ("Hi.", "end")
    assert answer.closed == [False]


async def test_a_fault_after_a_complete_message_is_a_fault() -> None:
    answer = Listed([[SAYS], [FINISH], [event({"error": {"message": "boom", "code": 500}})]])

    assert (await told(answer)).code == "server"


@pytest.mark.parametrize(
    ("batches", "code"),
    [
        ([TimeoutError()], "timeout_first_byte"),
        ([[SAYS], TimeoutError()], "timeout_idle"),
        ([[SAYS], Failed("truncated", "reset")], "truncated"),
        ([[SAYS]], "truncated"),
        ([], "truncated"),
    ],
    ids=["nothing", "silence", "reset", "end", "at once"],
)
async def test_an_incomplete_message_is_a_failure(batches: list[Batch], code: str) -> None:
    failure = await told(Listed(batches))

    assert (failure.code, failure.again) == (code, True)


async def test_what_was_counted_before_a_fault_is_priced_and_told_with_it() -> None:
    _, whole = await ask(Listed([[SAYS], [USAGE, FINISH, DONE]]))
    failure = await told(Listed([[SAYS, USAGE], Failed("truncated")]))
    nothing = await told(Listed([[SAYS], Failed("truncated")]))

    assert isinstance(whole, Reply)
    assert failure.usage == whole.usage
    assert failure.usage.cost == Decimal("0.00045")
    assert nothing.usage is NO_USAGE


async def test_what_was_said_before_a_fault_is_passed_on_first() -> None:
    broken = event({"error": {"message": "boom"}})

    deltas, ending = await ask(Listed([[SAYS, SAYS, broken, SAYS]]))

    assert [one.text for one in deltas] == ["Hi.Hi."]
    assert isinstance(ending, Failure)


async def test_an_answer_without_end_is_given_up() -> None:
    long = delta({"content": "x" * (LARGEST_REPLY // 2)})
    answer = Listed([[long], [long], [SAYS], [FINISH, DONE]])

    failure = await told(answer)

    assert (failure.code, failure.again) == ("server", False)
    assert len(answer.batches) == 1, "it read on"


async def test_only_a_stream_that_is_over_is_closed_kindly() -> None:
    whole, half = Listed([[SAYS, FINISH, DONE]]), Listed([[SAYS]])

    await ask(whole)
    await ask(half)

    assert (whole.closed, half.closed) == ([True], [False])


async def test_closing_early_closes_the_answer() -> None:
    answer = Listed([[SAYS], [SAYS]])

    request = Request(system="", transcript=[UserSaid("Hi.")])
    async with aclosing(model(answer).stream(request)) as parts:
        async for _ in parts:
            break

    assert answer.closed == [False]


async def test_a_refusal_is_read_and_closed() -> None:
    answer = Listed([], status=529, headers={"retry-after": "2"})

    failure = await told(answer)

    assert (failure.code, failure.retry_after_s) == ("overloaded", 2.0)
    assert answer.closed == [True]


async def test_what_the_transport_tells_is_told_with_the_providers_name() -> None:
    failure = await told(Failed("unavailable", f"no route to {KEY}"))

    assert failure == Failure(
        code="unavailable", message="openai cannot be reached: no route to [key]", again=True
    )
