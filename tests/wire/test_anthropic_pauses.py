"""An answer that the provider pauses is asked for the rest, and is one reply."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal

import msgspec
import pytest

from hostler.core.events import JsonObject, Usage
from hostler.core.ports import Delta, Failure, Reply, Request
from hostler.core.said import UserSaid
from hostler.models.anthropic import Anthropic
from hostler.models.transport import Aiohttp
from hostler.testing.anthropic_quirks import FOUND, SEARCH, call, piece, text
from hostler.testing.provider_server import Asked, Play, Send, chunk, head, provider_server
from hostler.testing.wire_anthropic import ANTHROPIC, delta, end, event, message_start, start, stop

pytestmark = pytest.mark.anyio

SEARCHED = [
    start(0, SEARCH),
    piece(0, '{"query":'),
    piece(0, '"Paris"}'),
    stop(0),
    start(1, FOUND),
    stop(1),
]
PAUSED = [
    message_start(Usage(input_tokens=100)),
    *SEARCHED,
    *text("I found", 2),
    *end("pause_turn", Usage(output_tokens=7)),
]
WENT_ON = [
    message_start(Usage(input_tokens=150, cache_read_tokens=100)),
    *text(" it.", 0),
    call(1, "weather", "toolu_1"),
    piece(1, '{"city":"Paris"}'),
    stop(1),
    *end("tool_use", Usage(output_tokens=3)),
]


@asynccontextmanager
async def model(url: str) -> AsyncGenerator[Anthropic]:
    transport = Aiohttp()
    yield Anthropic(
        name="claude-sonnet-5-5",
        base_url=url,
        transport=transport,
        key=lambda _: None,
        provider="somebody",
        able={"prices": "anthropic", "context_window": 200, "cache_markers": False},
    )
    await transport.aclose()


async def ask(
    plays: Sequence[Sequence[bytes]],
) -> tuple[list[Delta | Reply | Failure], list[Asked]]:
    """Return what a model says when its provider answers one question after the other so."""
    answers = iter(plays)

    def play(_: Asked) -> Play:
        return [Send(head()), Send(chunk(b"".join(next(answers))) + chunk(b""))]

    async with provider_server(play) as server, model(server.url) as asked:
        transcript = [UserSaid("Where is Paris?")]
        parts: list[Delta | Reply | Failure] = []
        async for part in asked.stream(Request(system="", transcript=transcript)):
            transcript.clear()  # was only lent
            parts.append(part)
        return parts, server.asked


def blocks(asked: Asked) -> list[tuple[object, object]]:
    listed = msgspec.convert(asked.json["messages"], list[JsonObject])
    return [(one["role"], one["content"]) for one in listed]


async def test_a_paused_answer_is_asked_to_go_on_and_is_one_reply() -> None:
    parts, asked = await ask([PAUSED, WENT_ON])

    *deltas, reply = parts
    assert isinstance(reply, Reply), reply
    assert (reply.text, reply.stop) == ("I found it.", "tools")
    assert [one.arguments for one in reply.calls] == [{"city": "Paris"}]
    assert "".join(one.text for one in deltas if isinstance(one, Delta) and one.part == "text") == (
        "I found it."
    )
    first, second = (blocks(one) for one in asked)
    assert second[:-1] == first
    assert second[-1] == (
        "assistant",
        [
            SEARCH | {"input": {"query": "Paris"}},
            FOUND,
            {"type": "text", "text": "I found"},
        ],
    )
    assert reply.replay is not None
    assert [
        one["type"] for one in msgspec.convert(reply.replay["content"], list[dict[str, object]])
    ] == ["server_tool_use", "web_search_tool_result", "text", "text", "tool_use"]


async def test_what_follows_a_pause_counts_its_blocks_from_the_start() -> None:
    unannounced = delta(0, type="text_delta", text=" it.")

    parts, _ = await ask([PAUSED, [unannounced, *end("end_turn")]])

    reply = parts[-1]
    assert isinstance(reply, Reply), reply
    assert reply.replay is not None
    kept = msgspec.convert(reply.replay["content"], list[dict[str, object]])
    assert kept[2:] == [{"type": "text", "chars": 7}, {"type": "text", "chars": 4}]


async def test_the_usage_of_a_paused_answer_is_that_of_all_its_parts() -> None:
    parts, _ = await ask([PAUSED, WENT_ON])

    reply = parts[-1]
    assert isinstance(reply, Reply), reply
    usage = reply.usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (250, 100, 10)
    assert usage.cost == (150 * Decimal(2) + 100 * Decimal("0.1") + 10 * Decimal(10)) / 1_000_000
    assert reply.raw_usage is not None
    raw = msgspec.convert(reply.raw_usage["parts"], list[dict[str, object]])
    assert [one["output_tokens"] for one in raw] == [7, 3]


async def test_a_pause_that_is_followed_by_a_fault_is_a_failure() -> None:
    overloaded = event(msgspec.json.decode(ANTHROPIC.refusal("overloaded", "busy")))

    parts, _ = await ask([PAUSED, [message_start(Usage()), overloaded]])

    *_, failure = parts
    assert isinstance(failure, Failure)
    assert failure.code == "overloaded"


async def test_pauses_without_end_are_a_failure() -> None:
    parts, asked = await ask([PAUSED] * 20)

    *_, failure = parts
    assert isinstance(failure, Failure)
    assert (failure.code, failure.again, len(asked)) == ("truncated", False, 10)
