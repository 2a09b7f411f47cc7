"""A session goes on when its provider cannot read the thoughts that another key had sealed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from hostler.core.events import JsonObject
from hostler.core.ports import Failure, Reply, Request
from hostler.core.said import ModelSaid, Said, UserSaid
from hostler.models.openai_responses import OpenAIResponses
from hostler.models.transport import Aiohttp
from hostler.testing.model_script import End, Text
from hostler.testing.provider_server import Asked, Play, Send, chunk, head, provider_server
from hostler.testing.wire_responses import RESPONSES

pytestmark = pytest.mark.anyio
SAYS = {"message": "The encrypted content could not be verified.", "type": "invalid_request_error"}
REFUSAL: JsonObject = {"error": SAYS | {"code": "invalid_encrypted_content"}}


def thought(sealed: str) -> ModelSaid:
    item: JsonObject = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": sealed}
    by = {"provider": "openai", "model": "gpt-5.6"}
    message = {"item": {"type": "message", "role": "assistant"}, "start": 0, "end": 3}
    return ModelSaid("Hi.", replay={"by": by, "items": [{"item": item}, message]})


def asking(*said: Said) -> Request:
    return Request(system="", transcript=[UserSaid("Hello."), *said, UserSaid("And?")])


def unless(*readable: str, stream: bool = False) -> Callable[[Asked], Play]:
    def play(asked: Asked) -> Play:
        thoughts = [one for one in ("old", "older", "new") if f'"{one}"'.encode() in asked.body]
        if set(thoughts) <= set(readable):
            return [Send(head()), Send(chunk(b"".join(RESPONSES.events([Text("Yes."), End()]))))]
        if stream:
            event = msgspec.json.encode({"type": "error", **REFUSAL})
            return [Send(head()), Send(chunk(b"data: " + event + b"\n\n") + chunk(b""))]
        start = head(400, content_type="application/json")
        return [Send(start), Send(chunk(msgspec.json.encode(REFUSAL)) + chunk(b""))]

    return play


async def asked(model: OpenAIResponses, *said: Said) -> Reply | Failure:
    last = [part async for part in model.stream(asking(*said))][-1]
    assert isinstance(last, Reply | Failure)
    return last


def a_model(url: str, transport: Aiohttp) -> OpenAIResponses:
    return OpenAIResponses(
        name="gpt-5.6", base_url=url, transport=transport, key=lambda _: "sk", provider="openai"
    )


def sealed(bodies: Sequence[Asked]) -> list[list[str]]:
    names = ("old", "older", "new")
    return [[one for one in names if f'"{one}"'.encode() in asked.body] for asked in bodies]


@pytest.mark.parametrize("told", ["as a status", "as an event"])
async def test_thoughts_that_were_refused_are_not_sent_again(told: str) -> None:
    async with provider_server(unless("new", stream=told == "as an event")) as server:
        transport = Aiohttp()
        model = a_model(server.url, transport)

        refused = await asked(model, thought("older"), thought("old"))
        answered = await asked(model, thought("older"), thought("old"))
        later = await asked(model, thought("older"), thought("old"), thought("new"))
        await transport.aclose()

    assert isinstance(refused, Failure)
    assert (refused.again, refused.retry_after_s) == (True, 0.0)
    assert isinstance(answered, Reply), answered
    assert isinstance(later, Reply), later
    assert sealed(server.asked) == [["old", "older"], [], ["new"]]


async def test_a_refusal_of_what_had_no_thoughts_is_one_for_good() -> None:
    start = head(400, content_type="application/json")
    play = [Send(start), Send(chunk(msgspec.json.encode(REFUSAL)) + chunk(b""))]
    async with provider_server(lambda _: play) as server:
        transport = Aiohttp()
        model = a_model(server.url, transport)

        first = await asked(model, thought("old"))
        second = await asked(model, thought("old"))
        await transport.aclose()

    assert isinstance(first, Failure)
    assert isinstance(second, Failure)
    assert (first.again, second.again) == (True, False)


async def test_any_other_refusal_leaves_thoughts_as_they_are() -> None:
    other = msgspec.json.encode({"error": SAYS | {"code": "invalid_value"}})
    start = head(400, content_type="application/json")
    async with provider_server(lambda _: [Send(start), Send(chunk(other) + chunk(b""))]) as server:
        transport = Aiohttp()
        model = a_model(server.url, transport)

        failures = [await asked(model, thought("old")) for _ in range(2)]
        await transport.aclose()

    assert [isinstance(one, Failure) and one.again for one in failures] == [False, False]
    assert sealed(server.asked) == [["old"], ["old"]]
