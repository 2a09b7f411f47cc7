"""Our requests are, field for field, what OpenAI's own SDK sends for the same input."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest
from openai import AsyncOpenAI
from openai.types.responses import ResponseInputItemParam
from tests.canaries import canary

from hostler.core.events import (
    CallId,
    JsonObject,
    ToolCall,
)
from hostler.core.ports import Reply, Request, ToolSpec
from hostler.core.said import ImagePart, ModelSaid, Said, TextPart, ToolSaid, UserSaid
from hostler.core.shown import FilePart
from hostler.models.capabilities import capabilities
from hostler.models.openai_responses import OpenAIResponses
from hostler.models.transport import Aiohttp
from hostler.testing.model_script import Args, Begin, End, Text, Think
from hostler.testing.provider_server import (
    Asked,
    Play,
    ProviderServer,
    Send,
    chunk,
    head,
    provider_server,
)
from hostler.testing.wire_responses import RESPONSES, Stream

pytestmark = pytest.mark.anyio
KEY = canary("key of an adapter", "sk-test")

OPENAI = capabilities("openai", "https://api.openai.com/v1", "gpt-5.6")
PNG = "iVBORw0KGgo="
PDF = base64.b64encode(b"%PDF-1.7").decode()
SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
WEATHER = ToolSpec(name="weather", description="Say the weather.", parameters=SCHEMA)
CLOCK = ToolSpec(name="clock", description="Say the time.", parameters={"type": "object"})
PARIS = ToolCall(id=CallId("call_1"), name="weather", arguments={"city": "Paris"})
ROME = ToolCall(
    id=CallId("call_2"), name="weather", arguments={"city": "Rome €"}, provider_id="fc_77"
)
THEIR_TOOLS: Sequence[JsonObject] = [
    {
        "type": "function",
        "name": "weather",
        "description": "Say the weather.",
        "parameters": SCHEMA,
        "strict": False,
    },
    {
        "type": "function",
        "name": "clock",
        "description": "Say the time.",
        "parameters": {"type": "object", "properties": {}},
        "strict": False,
    },
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """One input, as we are given it and as a user of the SDK writes it."""

    ours: Request
    input: Sequence[ResponseInputItemParam]
    more: Mapping[str, object] = field(default_factory=dict[str, object])


def asking(*said: Said, system: str = "") -> Request:
    return Request(system=system, transcript=said)


GOLDEN: dict[str, Golden] = {
    "text": Golden(
        ours=asking(UserSaid("Hi, «you»."), system="Be brief."),
        input=[{"type": "message", "role": "user", "content": "Hi, «you»."}],
        more={"instructions": "Be brief."},
    ),
    "several turns": Golden(
        ours=asking(UserSaid("Hi."), ModelSaid("Hello."), UserSaid("Bye.")),
        input=[
            {"type": "message", "role": "user", "content": "Hi."},
            {"type": "message", "role": "assistant", "content": "Hello."},
            {"type": "message", "role": "user", "content": "Bye."},
        ],
    ),
    "images": Golden(
        ours=asking(
            UserSaid(
                (
                    TextPart(text="What is this?"),
                    ImagePart(url="https://example.com/a.jpg"),
                    ImagePart(data=PNG),
                )
            )
        ),
        input=[
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {
                        "type": "input_image",
                        "image_url": "https://example.com/a.jpg",
                        "detail": "auto",
                    },
                    {
                        "type": "input_image",
                        "image_url": f"data:image/png;base64,{PNG}",
                        "detail": "auto",
                    },
                ],
            }
        ],
    ),
    "files": Golden(
        ours=asking(
            UserSaid(
                (
                    FilePart(data=PDF, media_type="application/pdf", name="report.pdf"),
                    FilePart(url="https://example.com/b.pdf", name="b.pdf"),
                )
            )
        ),
        input=[
            {
                "type": "message",
                "role": "user",
                "content": [
                    {
                        "type": "input_file",
                        "filename": "report.pdf",
                        "file_data": f"data:application/pdf;base64,{PDF}",
                    },
                    {"type": "input_file", "file_url": "https://example.com/b.pdf"},
                ],
            }
        ],
    ),
    "calls and their results": Golden(
        ours=Request(
            system="",
            transcript=[
                UserSaid("Weather?"),
                ModelSaid("Let me see.", calls=(PARIS, ROME)),
                ToolSaid(PARIS, "sunny"),
                ToolSaid(ROME, "rain", failed=True),
                UserSaid("So?"),
            ],
            tools=[WEATHER, CLOCK],
        ),
        input=[
            {"type": "message", "role": "user", "content": "Weather?"},
            {"type": "message", "role": "assistant", "content": "Let me see."},
            {
                "type": "function_call",
                "call_id": "call_1",
                "name": "weather",
                "arguments": '{"city":"Paris"}',
            },
            {
                "type": "function_call",
                "call_id": "fc_77",
                "name": "weather",
                "arguments": '{"city":"Rome €"}',
            },
            {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
            {"type": "function_call_output", "call_id": "fc_77", "output": "rain"},
            {"type": "message", "role": "user", "content": "So?"},
        ],
        more={"tools": THEIR_TOOLS},
    ),
    "limits and options": Golden(
        ours=Request(
            system="",
            transcript=[UserSaid("Hi.")],
            max_output_tokens=99,
            session="ses_1",
            options={"reasoning": {"effort": "low", "summary": "auto"}, "service_tier": "flex"},
        ),
        input=[{"type": "message", "role": "user", "content": "Hi."}],
        more={
            "max_output_tokens": 99,
            "prompt_cache_key": "ses_1",
            "reasoning": {"effort": "low", "summary": "auto"},
            "service_tier": "flex",
        },
    ),
}


def answered(_: Asked) -> Play:
    stream = b"".join(RESPONSES.events([Text("Hi."), End()]))
    return [Send(head()), Send(chunk(stream) + chunk(b""))]


def stateless(**more: object) -> dict[str, object]:
    return {"store": False, "include": ["reasoning.encrypted_content"], **more}


async def sent_by_the_sdk(golden: Golden) -> Asked:
    async with (
        provider_server(answered) as server,
        AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        stream = await client.responses.create(  # pyright: ignore[reportCallIssue, reportUnknownVariableType]
            model="gpt-5.6",
            input=golden.input,  # pyright: ignore[reportArgumentType]
            stream=True,
            **stateless(**golden.more),  # pyright: ignore[reportArgumentType]
        )
        async for _ in stream:  # pyright: ignore[reportUnknownVariableType]
            pass
        return server.asked[0]


@asynccontextmanager
async def asked_through(
    server: ProviderServer,
) -> AsyncGenerator[Callable[[Request], Awaitable[Reply]]]:
    transport = Aiohttp()
    model = OpenAIResponses(
        name="gpt-5.6",
        base_url=f"{server.url}/v1",
        transport=transport,
        key=lambda _: KEY,
        provider="openai",
        able=msgspec.to_builtins(OPENAI),
    )

    async def ask(request: Request) -> Reply:
        last = [part async for part in model.stream(request)][-1]
        assert isinstance(last, Reply), last
        return last

    yield ask
    await transport.aclose()


async def sent_by_us(request: Request) -> Asked:
    async with provider_server(answered) as server, asked_through(server) as ask:
        await ask(request)
        return server.asked[0]


@pytest.mark.parametrize("golden", GOLDEN.values(), ids=GOLDEN.keys())
async def test_our_request_is_the_sdks(golden: Golden) -> None:
    theirs = await sent_by_the_sdk(golden)
    ours = await sent_by_us(golden.ours)

    assert ours.json == theirs.json
    assert (ours.method, ours.path) == (theirs.method, theirs.path)
    assert ours.headers["authorization"] == theirs.headers["authorization"]
    assert ours.headers["content-type"] == theirs.headers["content-type"]


def thoughtful(asked: Asked) -> Play:
    """Think, speak and call; then, asked with the result, answer."""
    stream = Stream(phase="commentary")
    stream.begin()
    steps = [Think("Hm."), Text("Let me"), Text(" see."), Begin("a", "weather", "id-a")]
    again = b"function_call_output" in asked.body
    for step in [Text("Sunny."), End()] if again else [*steps, Args("a", "{}"), End("tools")]:
        stream.take(step)
    return [Send(head()), Send(chunk(b"".join(stream.made)) + chunk(b""))]


async def test_what_we_send_back_of_a_reply_is_what_the_sdk_sends_back() -> None:
    hi: ResponseInputItemParam = {"type": "message", "role": "user", "content": "Hi."}
    async with (
        provider_server(thoughtful) as server,
        asked_through(server) as ask,
        AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        async with client.responses.stream(
            model="gpt-5.6", input=[hi], store=False, include=["reasoning.encrypted_content"]
        ) as stream:
            response = await stream.get_final_response()
        output: ResponseInputItemParam = {
            "type": "function_call_output",
            "call_id": "id-a",
            "output": "sunny",
        }
        async with client.responses.stream(
            model="gpt-5.6",
            # As OpenAI's guide to conversation state has it, for those that store nothing.
            input=[hi, *response.output, output],  # pyright: ignore[reportArgumentType]
            store=False,
            include=["reasoning.encrypted_content"],
        ) as stream:
            await stream.until_done()

        first = await ask(asking(UserSaid("Hi.")))
        said = ModelSaid(first.text, first.calls, first.thinking, first.replay)
        await ask(asking(UserSaid("Hi."), said, ToolSaid(first.calls[0], "sunny")))

    theirs, ours = server.asked[1].json, server.asked[3].json
    assert sent_items(ours) == sent_items(theirs)
    assert [one["type"] for one in sent_items(ours)] == [
        "message",
        "reasoning",
        "message",
        "function_call",
        "function_call_output",
    ]


def sent_items(sent: JsonObject) -> list[JsonObject]:
    """Return the items, without what the SDK alone has: fields that no provider reads."""
    made = msgspec.convert(sent["input"], list[dict[str, object]])
    for one in made:
        if isinstance(one.get("content"), list):
            parts = msgspec.convert(one["content"], list[dict[str, object]])
            kept = {"type", "text", "annotations"}
            one["content"] = [{k: v for k, v in part.items() if k in kept} for part in parts]
    return [{k: v for k, v in one.items() if k != "parsed_arguments"} for one in made]
