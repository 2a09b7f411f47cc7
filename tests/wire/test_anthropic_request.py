"""Our requests are, field for field, what Anthropic's own SDK sends for the same input."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import MessageParam, TextBlockParam, ToolParam
from tests.canaries import canary

from hostler.core.events import (
    CallId,
    JsonObject,
    ToolCall,
)
from hostler.core.ports import Reply, Request, ToolSpec
from hostler.core.said import ImagePart, ModelSaid, Said, TextPart, ToolSaid, UserSaid
from hostler.core.shown import FilePart
from hostler.models.anthropic import Anthropic
from hostler.models.capabilities import capabilities
from hostler.models.transport import Aiohttp
from hostler.testing.model_script import End, Text
from hostler.testing.provider_server import Asked, Play, Send, chunk, head, provider_server
from hostler.testing.wire_anthropic import ANTHROPIC

pytestmark = pytest.mark.anyio
KEY = canary("key of an adapter", "sk-test")

MODEL = "claude-sonnet-5-5"
ABLE = capabilities("anthropic", "https://api.anthropic.com", MODEL)
PNG = "iVBORw0KGgo="
PDF = base64.b64encode(b"%PDF-1.7").decode()
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
WEATHER = ToolSpec(name="weather", description="Say the weather.", parameters=SCHEMA)
CLOCK = ToolSpec(name="clock", description="Say the time.", parameters={"type": "object"})
PARIS = ToolCall(
    id=CallId("call_1"), name="weather", arguments={"city": "Paris"}, provider_id="toolu_01"
)
ROME = ToolCall(id=CallId("call_2"), name="weather", arguments={"city": "Rome €"})
MARK: JsonObject = {"cache_control": {"type": "ephemeral"}}
THEIR_SYSTEM: list[TextBlockParam] = [
    {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
]
THEIR_TOOLS: list[ToolParam] = [
    {
        "name": "weather",
        "description": "Say the weather.",
        "input_schema": SCHEMA,
        "eager_input_streaming": True,
    },
    {
        "name": "clock",
        "description": "Say the time.",
        "input_schema": {"type": "object"},
        "eager_input_streaming": True,
        "cache_control": {"type": "ephemeral"},
    },
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """One input, as we are given it and as a user of the SDK writes it."""

    ours: Request
    messages: Sequence[MessageParam]
    more: Mapping[str, object] = field(default_factory=dict[str, object])


def asking(*said: Said, system: str = "") -> Request:
    return Request(system=system, transcript=said)


GOLDEN: dict[str, Golden] = {
    "text": Golden(
        ours=asking(UserSaid("Hi, «you»."), system="Be brief."),
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hi, «you».", "cache_control": {"type": "ephemeral"}}
                ],
            }
        ],
        more={"system": THEIR_SYSTEM},
    ),
    "images": Golden(
        ours=asking(
            UserSaid(
                (
                    TextPart(text="What is this?"),
                    ImagePart(url="https://example.com/a.jpg"),
                    ImagePart(data=PNG),
                    ImagePart(url=f"data:image/png;base64,{PNG}"),
                )
            )
        ),
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {
                        "type": "image",
                        "source": {"type": "url", "url": "https://example.com/a.jpg"},
                    },
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                    },
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                        "cache_control": {"type": "ephemeral"},
                    },
                ],
            }
        ],
    ),
    "files": Golden(
        ours=asking(
            UserSaid(
                (
                    FilePart(url="https://example.com/b.pdf?x=1"),
                    FilePart(data=PDF, media_type="application/pdf", name="report.pdf"),
                )
            )
        ),
        messages=[
            {
                "role": "user",
                "content": [
                    {
                        "type": "document",
                        "source": {"type": "url", "url": "https://example.com/b.pdf?x=1"},
                    },
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                        "title": "report.pdf",
                        "cache_control": {"type": "ephemeral"},
                    },
                ],
            }
        ],
    ),
    "parallel calls with results, then a word of the user": Golden(
        ours=Request(
            system="",
            transcript=[
                UserSaid("Weather?"),
                ModelSaid("Let me see.", calls=(PARIS, ROME)),
                ToolSaid(PARIS, "sunny"),
                ToolSaid(ROME, "no such place", failed=True),
                UserSaid("So?"),
            ],
            tools=[WEATHER, CLOCK],
        ),
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Weather?", "cache_control": {"type": "ephemeral"}}
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me see."},
                    {
                        "type": "tool_use",
                        "id": "toolu_01",
                        "name": "weather",
                        "input": {"city": "Paris"},
                    },
                    {
                        "type": "tool_use",
                        "id": "call_2",
                        "name": "weather",
                        "input": {"city": "Rome €"},
                        "cache_control": {"type": "ephemeral"},
                    },
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_01", "content": "sunny"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_2",
                        "content": "no such place",
                        "is_error": True,
                    },
                    {"type": "text", "text": "So?", "cache_control": {"type": "ephemeral"}},
                ],
            },
        ],
        more={"tools": THEIR_TOOLS},
    ),
    "thinking": Golden(
        ours=asking(
            UserSaid("Hi."),
            ModelSaid(
                "Hello.",
                thinking="Hm.",
                replay={
                    "model": MODEL,
                    "content": [
                        {"type": "redacted_thinking", "data": "EmwKAhgB"},
                        {"type": "thinking", "chars": 3, "signature": "s="},
                        {"type": "text", "chars": 6},
                    ],
                },
            ),
            UserSaid("Bye."),
        ),
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hi.", "cache_control": {"type": "ephemeral"}}
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "redacted_thinking", "data": "EmwKAhgB"},
                    {"type": "thinking", "thinking": "Hm.", "signature": "s="},
                    {"type": "text", "text": "Hello.", "cache_control": {"type": "ephemeral"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Bye.", "cache_control": {"type": "ephemeral"}}
                ],
            },
        ],
    ),
    "limits and options": Golden(
        ours=Request(
            system="Be brief.",
            transcript=[UserSaid("Hi.")],
            max_output_tokens=9000,
            session="ses_1",
            options={
                "thinking": {"type": "adaptive"},
                "stop_sequences": ["x"],
                "metadata": {"user_id": "u"},
            },
        ),
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hi.", "cache_control": {"type": "ephemeral"}}
                ],
            }
        ],
        more={
            "system": THEIR_SYSTEM,
            "max_tokens": 9000,
            "thinking": {"type": "adaptive"},
            "stop_sequences": ["x"],
            "metadata": {"user_id": "u"},
        },
    ),
}


def answered(_: Asked) -> Play:
    stream = b"".join(ANTHROPIC.events([Text("Hi."), End()]))
    return [Send(head()), Send(chunk(stream) + chunk(b""))]


async def sent_by_the_sdk(golden: Golden) -> Asked:
    async with (
        provider_server(answered) as server,
        AsyncAnthropic(base_url=server.url, api_key=KEY, max_retries=0) as client,
    ):
        stream = await client.messages.create(  # pyright: ignore[reportCallIssue, reportUnknownVariableType]
            model=MODEL,
            messages=golden.messages,
            stream=True,
            **{"max_tokens": 32000, **golden.more},  # pyright: ignore[reportArgumentType]
        )
        async for _ in stream:  # pyright: ignore[reportUnknownVariableType]
            pass
        return server.asked[0]


async def sent_by_us(
    golden: Golden, headers: Mapping[str, str] | None = None, **able: object
) -> Asked:
    async with provider_server(answered) as server:
        transport = Aiohttp()
        model = Anthropic(
            name=MODEL,
            base_url=server.url,
            transport=transport,
            key=lambda _: KEY,
            provider="anthropic",
            headers=headers,
            able=msgspec.to_builtins(ABLE) | able,
        )
        last = [part async for part in model.stream(golden.ours)][-1]
        assert isinstance(last, Reply), last
        await transport.aclose()
        return server.asked[0]


@pytest.mark.parametrize("golden", GOLDEN.values(), ids=GOLDEN.keys())
async def test_our_request_is_the_sdks(golden: Golden) -> None:
    theirs, ours = await sent_by_the_sdk(golden), await sent_by_us(golden)

    assert ours.json == theirs.json
    assert (ours.method, ours.path) == (theirs.method, theirs.path)
    assert ours.headers["content-type"] == theirs.headers["content-type"]


async def test_the_version_is_the_one_that_imitations_know_unless_another_is_asked_for() -> None:
    usual = await sent_by_us(GOLDEN["text"])
    theirs = await sent_by_the_sdk(GOLDEN["text"])
    latest = {"anthropic-version": theirs.headers["anthropic-version"]}
    newer = await sent_by_us(GOLDEN["text"], headers=latest)

    assert usual.headers["anthropic-version"] == "2023-06-01"
    assert newer.headers["anthropic-version"] == theirs.headers["anthropic-version"]


async def test_the_key_goes_where_the_api_s_reference_has_it_or_where_the_sdk_puts_it() -> None:
    usual = await sent_by_us(GOLDEN["text"])
    bearer = await sent_by_us(GOLDEN["text"], bearer_key=True)
    theirs = await sent_by_the_sdk(GOLDEN["text"])

    assert (usual.headers["x-api-key"], usual.headers.get("authorization")) == (KEY, None)
    assert bearer.headers["authorization"] == theirs.headers["authorization"]
    assert "x-api-key" not in bearer.headers
