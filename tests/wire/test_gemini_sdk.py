"""We send what Google's own SDK sends for the same input, and read what it reads."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
import msgspec
import pytest
from google.genai import Client, types
from tests.canaries import canary

from hostler.core.events import (
    CallId,
    JsonObject,
    ToolCall,
)
from hostler.core.ports import Delta, Failure, Reply, Request, ToolSpec
from hostler.core.said import ImagePart, ModelSaid, Said, TextPart, ToolSaid, UserSaid
from hostler.core.shown import FilePart
from hostler.models.gemini import Gemini
from hostler.models.transport import Aiohttp
from hostler.testing.model_script import USAGE, Args, Begin, End, Text, Think
from hostler.testing.provider_server import Play, Send, chunk, head, provider_server
from hostler.testing.wire_gemini import GEMINI, end, said

pytestmark = pytest.mark.anyio
KEY = canary("key of an adapter", "sk-test")

MODEL = "gemini-2.5-flash"
HELLO = b"".join(GEMINI.events([Text("Hi."), End()]))
PNG = "iVBORw0KGgo="
PDF = base64.b64encode(b"%PDF-1.7").decode()
SIGNATURE = b"sealed"
SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
WEATHER = ToolSpec(name="weather", description="Say the weather.", parameters=SCHEMA)
CLOCK = ToolSpec(name="clock", description="Say the time.", parameters={"type": "object"})
PARIS = ToolCall(id=CallId("call_1"), name="weather", arguments={"city": "Paris"})
ROME = ToolCall(
    id=CallId("call_2"), name="weather", arguments={"city": "Rome €"}, provider_id="fc-77"
)
THEIR_TOOLS = [
    types.Tool(
        function_declarations=[
            types.FunctionDeclaration(
                name=tool.name,
                description=tool.description,
                parameters_json_schema=tool.parameters,
            )
            for tool in (WEATHER, CLOCK)
        ]
    )
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """One input, as we are given it and as a user of the SDK writes it."""

    ours: Request
    contents: Sequence[types.Content]
    config: types.GenerateContentConfig = field(default_factory=types.GenerateContentConfig)


def asking(*transcript: Said, system: str = "") -> Request:
    return Request(system=system, transcript=transcript)


def user(*parts: types.Part) -> types.Content:
    return types.Content(role="user", parts=list(parts))


def model(*parts: types.Part) -> types.Content:
    return types.Content(role="model", parts=list(parts))


def text(words: str) -> types.Part:
    return types.Part(text=words)


def call(args: JsonObject, id_: str | None = None, signature: bytes | None = None) -> types.Part:
    made = types.FunctionCall(name="weather", args=args, id=id_)
    return types.Part(function_call=made, thought_signature=signature)


def result(response: JsonObject, id_: str | None = None) -> types.Part:
    made = types.FunctionResponse(name="weather", response=response, id=id_)
    return types.Part(function_response=made)


GOLDEN: Mapping[str, Golden] = {
    "text": Golden(
        ours=asking(UserSaid("Hi, «you»."), system="Be brief."),
        contents=[user(text("Hi, «you»."))],
        config=types.GenerateContentConfig(system_instruction="Be brief."),
    ),
    "several turns": Golden(
        ours=asking(UserSaid("Hi."), ModelSaid("Hello."), UserSaid("Bye.")),
        contents=[user(text("Hi.")), model(text("Hello.")), user(text("Bye."))],
    ),
    "images and files": Golden(
        ours=asking(
            UserSaid(
                (
                    TextPart(text="What is this?"),
                    ImagePart(url="https://example.com/a.jpg"),
                    ImagePart(data=PNG),
                    FilePart(data=PDF, media_type="application/pdf", name="report.pdf"),
                    FilePart(url="https://example.com/b", media_type="application/pdf"),
                )
            )
        ),
        contents=[
            user(
                text("What is this?"),
                types.Part.from_uri(file_uri="https://example.com/a.jpg"),
                types.Part.from_bytes(data=base64.b64decode(PNG), mime_type="image/png"),
                types.Part.from_bytes(data=b"%PDF-1.7", mime_type="application/pdf"),
                types.Part.from_uri(file_uri="https://example.com/b", mime_type="application/pdf"),
            )
        ],
    ),
    "tools": Golden(
        ours=Request(system="", transcript=[UserSaid("Weather?")], tools=[WEATHER, CLOCK]),
        contents=[user(text("Weather?"))],
        config=types.GenerateContentConfig(tools=[*THEIR_TOOLS]),
    ),
    "a call and its result": Golden(
        ours=Request(
            system="",
            transcript=[
                UserSaid("Weather?"),
                ModelSaid("Let me see.", calls=(PARIS,)),
                ToolSaid(PARIS, "sunny"),
            ],
            tools=[WEATHER, CLOCK],
        ),
        contents=[
            user(text("Weather?")),
            model(text("Let me see."), call({"city": "Paris"})),
            user(result({"output": "sunny"})),
        ],
        config=types.GenerateContentConfig(tools=[*THEIR_TOOLS]),
    ),
    "parallel calls with ids": Golden(
        ours=asking(
            UserSaid("Weather?"),
            ModelSaid("", calls=(ROME, PARIS)),
            ToolSaid(ROME, "no such city", failed=True),
            ToolSaid(PARIS, "sunny"),
            UserSaid("So?"),
        ),
        contents=[
            user(text("Weather?")),
            model(call({"city": "Rome €"}, "fc-77"), call({"city": "Paris"})),
            user(result({"error": "no such city"}, "fc-77"), result({"output": "sunny"})),
            user(text("So?")),
        ],
    ),
    "signatures": Golden(
        ours=asking(
            UserSaid("Weather?"),
            ModelSaid(
                "Let me see.",
                calls=(ROME, PARIS),
                thinking="Hm",
                replay={
                    "model": MODEL,
                    "parts": [
                        {
                            "at": 11,
                            "call": "call_2",
                            "signature": base64.b64encode(SIGNATURE).decode(),
                        },
                        {"at": 11, "call": "call_1"},
                    ],
                },
            ),
            ToolSaid(ROME, "rain"),
            ToolSaid(PARIS, "sunny"),
        ),
        contents=[
            user(text("Weather?")),
            model(
                text("Let me see."),
                call({"city": "Rome €"}, "fc-77", SIGNATURE),
                call({"city": "Paris"}),
            ),
            user(result({"output": "rain"}, "fc-77"), result({"output": "sunny"})),
        ],
    ),
    "limits and options": Golden(
        ours=Request(
            system="",
            transcript=[UserSaid("Hi.")],
            max_output_tokens=99,
            options={
                "generationConfig": {
                    "temperature": 0.5,
                    "stopSequences": ["x"],
                    "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 7},
                },
                "safetySettings": [
                    {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}
                ],
            },
        ),
        contents=[user(text("Hi."))],
        config=types.GenerateContentConfig(
            max_output_tokens=99,
            temperature=0.5,
            stop_sequences=["x"],
            thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=7),
            safety_settings=[
                types.SafetySetting(
                    category=types.HarmCategory.HARM_CATEGORY_HARASSMENT,
                    threshold=types.HarmBlockThreshold.BLOCK_NONE,
                )
            ],
        ),
    ),
}


def answering(stream: bytes) -> Play:
    return [Send(head()), Send(chunk(stream) + chunk(b""))]


def in_one_spelling(value: object) -> object:
    """Return what the SDK sent with camelCase throughout, as Google reads either; {} is nothing."""
    if isinstance(value, list):
        return [in_one_spelling(one) for one in msgspec.convert(value, list[object])]
    if not isinstance(value, dict):
        return value
    fields = msgspec.convert(value, dict[str, object])
    return {
        re.sub(r"_(\w)", lambda found: found[1].upper(), name): in_one_spelling(one)
        for name, one in fields.items()
        if name != "generationConfig" or one != {}
    }


async def ask_the_sdk(
    url: str, contents: Sequence[types.Content], config: types.GenerateContentConfig
) -> list[types.GenerateContentResponse]:
    async with aiohttp.ClientSession() as session:  # its own would warn on this aiohttp
        options = types.HttpOptions(base_url=url, api_version="v1beta", aiohttp_client=session)
        with Client(api_key=KEY, enterprise=False, http_options=options) as client:
            async with client.aio as sdk:
                stream = await sdk.models.generate_content_stream(  # pyright: ignore[reportUnknownMemberType]
                    model=MODEL, contents=[*contents], config=config
                )
                return [response async for response in stream]


async def ask_us(url: str, request: Request) -> Reply:
    transport = Aiohttp()
    model = Gemini(
        name=MODEL, base_url=url, transport=transport, key=lambda _: KEY, provider="gemini"
    )
    last: Delta | Failure | Reply | None = None
    async for part in model.stream(request):
        last = part
    await transport.aclose()
    assert isinstance(last, Reply), last
    return last


@pytest.mark.parametrize("golden", GOLDEN.values(), ids=GOLDEN.keys())
async def test_our_gemini_request_is_the_sdks(golden: Golden) -> None:
    async with provider_server(lambda _: answering(HELLO)) as server:
        await ask_the_sdk(server.url, golden.contents, golden.config)
        await ask_us(server.url, golden.ours)
        theirs, ours = server.asked

    assert ours.json == in_one_spelling(theirs.json)
    assert (ours.method, ours.path) == (theirs.method, theirs.path)
    assert ours.headers["x-goog-api-key"] == theirs.headers["x-goog-api-key"]
    assert ours.headers["content-type"] == theirs.headers["content-type"]


ANSWERS: Mapping[str, Sequence[bytes]] = {
    "text": GEMINI.events([Text("Größe"), Text(": 5 €"), Text(" 🦄"), End()]),
    "nothing": GEMINI.events([End()]),
    "thoughts, text and calls": GEMINI.events(
        [
            Think("Hm"),
            Think(", yes."),
            Text("Let me see."),
            Begin("a", "weather", "id-a"),
            Args("a", '{"city":'),
            Begin("b", "clock", "id-b"),
            Args("a", '"Paris"}'),
            End("tools"),
        ]
    ),
    "the output limit": GEMINI.events([Text("Onc"), End("length")]),
    "calls in one event, signed, without ids": [
        said(
            {"functionCall": {"name": "weather", "args": {}}, "thoughtSignature": "c2VhbGVk"},
            {"functionCall": {"name": "clock", "args": {"at": {"zone": ["CET"]}}}},
        ),
        end("STOP", USAGE),
    ],
}


@pytest.mark.parametrize("events", ANSWERS.values(), ids=ANSWERS.keys())
async def test_the_sdk_reads_what_we_read(events: Sequence[bytes]) -> None:
    async with provider_server(lambda _: answering(b"".join(events))) as server:
        question = [user(text("Hi."))]
        theirs = await ask_the_sdk(server.url, question, types.GenerateContentConfig())
        ours = await ask_us(server.url, asking(UserSaid("Hi.")))

    parts = [part for response in theirs for part in response.parts or ()]
    calls = [part.function_call for part in parts if part.function_call is not None]
    usage, finish = theirs[-1].usage_metadata, (theirs[-1].candidates or [])[0].finish_reason
    assert ours.text == "".join(part.text or "" for part in parts if not part.thought)
    assert (ours.thinking or "") == "".join(part.text or "" for part in parts if part.thought)
    assert [(call.name, call.arguments, call.provider_id) for call in ours.calls] == [
        (call.name, call.args or {}, call.id) for call in calls
    ]
    assert (ours.stop == "length") == (finish == types.FinishReason.MAX_TOKENS)
    assert usage is not None
    assert usage.prompt_token_count == ours.usage.input_tokens
    assert usage.total_token_count == ours.usage.input_tokens + ours.usage.output_tokens
    assert (usage.cached_content_token_count or 0) == ours.usage.cache_read_tokens
    assert (usage.thoughts_token_count or 0) == ours.usage.reasoning_tokens


async def test_the_sdk_sends_back_the_signed_calls_that_we_send_back() -> None:
    events = ANSWERS["calls in one event, signed, without ids"]
    async with provider_server(lambda _: answering(b"".join(events))) as server:
        plain = types.GenerateContentConfig()
        first = await ask_the_sdk(server.url, [user(text("Hi."))], plain)
        content = (first[0].candidates or [])[0].content
        assert content is not None
        await ask_the_sdk(server.url, [user(text("Hi.")), content], plain)
        reply = await ask_us(server.url, asking(UserSaid("Hi.")))
        again = ModelSaid(reply.text, reply.calls, reply.thinking, reply.replay)
        await ask_us(server.url, asking(UserSaid("Hi."), again))

    assert server.asked[3].json["contents"] == server.asked[1].json["contents"]
