"""Our requests are, field for field, what OpenAI's own SDK sends for the same input."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from tests.canaries import canary

from hostler.core.events import (
    CallId,
    JsonObject,
    ToolCall,
)
from hostler.core.ports import Reply, Request, ToolSpec
from hostler.core.said import ImagePart, ModelSaid, Said, TextPart, ToolSaid, UserSaid
from hostler.core.shown import FilePart
from hostler.models.capabilities import Capabilities, capabilities
from hostler.models.chat_request import body
from hostler.models.openai_chat import OpenAIChat
from hostler.models.transport import Aiohttp
from hostler.testing.model_script import End, Text
from hostler.testing.provider_server import Asked, Play, Send, chunk, head, provider_server
from hostler.testing.wire_chat import CHAT

pytestmark = pytest.mark.anyio
KEY = canary("key of an adapter", "sk-test")

OPENAI = capabilities("openai", "https://api.openai.com/v1", "gpt-4o")
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
THEIR_TOOLS: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "Say the weather.", "parameters": SCHEMA},
    },
    {
        "type": "function",
        "function": {
            "name": "clock",
            "description": "Say the time.",
            "parameters": {"type": "object"},
        },
    },
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """One input, as we are given it and as a user of the SDK writes it."""

    ours: Request
    messages: Sequence[ChatCompletionMessageParam]
    more: Mapping[str, object] = field(default_factory=dict[str, object])


def asking(*said: Said, system: str = "") -> Request:
    return Request(system=system, transcript=said)


GOLDEN: dict[str, Golden] = {
    "text": Golden(
        ours=asking(UserSaid("Hi, «you»."), system="Be brief."),
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi, «you»."},
        ],
    ),
    "several turns": Golden(
        ours=asking(UserSaid("Hi."), ModelSaid("Hello."), UserSaid("Bye.")),
        messages=[
            {"role": "user", "content": "Hi."},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Bye."},
        ],
    ),
    "images": Golden(
        ours=asking(
            UserSaid(
                (
                    TextPart(text="What is this?"),
                    ImagePart(url="https://example.com/a.jpg"),
                    ImagePart(data=PNG, media_type="image/png"),
                    ImagePart(data=PNG),
                )
            )
        ),
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                ],
            }
        ],
    ),
    "files": Golden(
        ours=asking(
            UserSaid((FilePart(data=PDF, media_type="application/pdf", name="report.pdf"),))
        ),
        messages=[
            {
                "role": "user",
                "content": [
                    {
                        "type": "file",
                        "file": {
                            "filename": "report.pdf",
                            "file_data": f"data:application/pdf;base64,{PDF}",
                        },
                    }
                ],
            }
        ],
    ),
    "tools": Golden(
        ours=Request(system="", transcript=[UserSaid("Weather?")], tools=[WEATHER, CLOCK]),
        messages=[{"role": "user", "content": "Weather?"}],
        more={"tools": THEIR_TOOLS},
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
        messages=[
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        ],
        more={"tools": THEIR_TOOLS},
    ),
    "parallel calls without text": Golden(
        ours=asking(
            UserSaid("Weather?"),
            ModelSaid("", calls=(PARIS, ROME)),
            ToolSaid(PARIS, "sunny"),
            ToolSaid(ROME, "rain", failed=True),
            UserSaid("So?"),
        ),
        messages=[
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
                    },
                    {
                        "id": "fc_77",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Rome €"}'},
                    },
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "fc_77", "content": "rain"},
            {"role": "user", "content": "So?"},
        ],
    ),
    "limits and options": Golden(
        ours=Request(
            system="",
            transcript=[UserSaid("Hi.")],
            max_output_tokens=99,
            session="ses_1",
            options={"temperature": 0.5, "reasoning_effort": "low", "stop": ["x"]},
        ),
        messages=[{"role": "user", "content": "Hi."}],
        more={
            "max_completion_tokens": 99,
            "prompt_cache_key": "ses_1",
            "temperature": 0.5,
            "reasoning_effort": "low",
            "stop": ["x"],
        },
    ),
}


def answered(_: Asked) -> Play:
    stream = b"".join(CHAT.events([Text("Hi."), End()]))
    return [Send(head()), Send(chunk(stream) + chunk(b""))]


async def sent_by_the_sdk(golden: Golden) -> Asked:
    async with provider_server(answered) as server:
        client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
        stream = await client.chat.completions.create(  # pyright: ignore[reportCallIssue, reportUnknownVariableType]
            model="gpt-4o",
            messages=golden.messages,
            stream=True,
            stream_options={"include_usage": True},
            **golden.more,  # pyright: ignore[reportArgumentType]
        )
        async for _ in stream:  # pyright: ignore[reportUnknownVariableType]
            pass
        await client.close()
        return server.asked[0]


async def sent_by_us(golden: Golden) -> Asked:
    async with provider_server(answered) as server:
        transport = Aiohttp()
        model = OpenAIChat(
            name="gpt-4o",
            base_url=f"{server.url}/v1",
            transport=transport,
            key=lambda _: KEY,
            provider="openai",
            able=msgspec.to_builtins(OPENAI),
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
    assert ours.headers["authorization"] == theirs.headers["authorization"]
    assert ours.headers["content-type"] == theirs.headers["content-type"]


def written(request: Request, able: JsonObject | None = None, model: str = "m") -> JsonObject:
    raw = body(request, model=model, able=msgspec.convert(able or {}, Capabilities))
    return msgspec.json.decode(raw, type=dict[str, object])


def messages(
    request: Request, able: JsonObject | None = None, model: str = "m"
) -> list[JsonObject]:
    return msgspec.convert(written(request, able, model)["messages"], list[dict[str, object]])


def test_options_may_not_change_what_is_ours() -> None:
    options: JsonObject = {"model": "evil", "messages": [], "stream": False, "n": 3, "seed": 1}

    sent = written(Request(system="", transcript=[UserSaid("Hi.")], options=options))

    assert (sent["model"], sent["stream"], sent["seed"]) == ("m", True, 1)
    assert sent["messages"] == [{"role": "user", "content": "Hi."}]
    assert "n" not in sent


def test_a_limit_among_the_options_is_the_only_one() -> None:
    request = Request(
        system="", transcript=[], max_output_tokens=9, options={"max_completion_tokens": 7}
    )

    assert {k: v for k, v in written(request).items() if "max" in k} == {"max_completion_tokens": 7}


def test_what_users_say_in_a_row_becomes_one_message() -> None:
    picture = ImagePart(url="https://x/a.png")
    request = asking(UserSaid("a"), UserSaid("b"), UserSaid((picture,)), UserSaid("c"))

    (message,) = messages(request)

    assert message["content"] == [
        {"type": "text", "text": "a\n\nb"},
        {"type": "image_url", "image_url": {"url": "https://x/a.png"}},
        {"type": "text", "text": "c"},
    ]


def test_a_longer_conversation_begins_with_the_bytes_of_the_shorter() -> None:
    said: list[Said] = [UserSaid("Weather?"), ModelSaid("", calls=(PARIS,)), ToolSaid(PARIS, "sun")]
    short = Request(system="s", transcript=said[:2], tools=[WEATHER])
    long = Request(system="s", transcript=said, tools=[WEATHER])

    a = body(short, model="m", able=Capabilities())
    b = body(long, model="m", able=Capabilities())

    assert b.startswith(a.partition(b'],"stream"')[0])


def test_what_a_model_cannot_be_shown_is_told_in_words() -> None:
    text = base64.b64encode("a,b\n1,€".encode()).decode()
    parts = (
        ImagePart(url="https://x/a.png"),
        FilePart(data=text, media_type="text/csv; charset=utf-8", name="t.csv"),
        FilePart(data="AAAA", media_type="application/zip", name="z.zip"),
        FilePart(data="%%%", media_type="text/plain", name="bad.txt"),
        FilePart(url="https://x/doc.pdf", name="doc.pdf"),
    )

    (message,) = messages(asking(UserSaid(parts)), {"images": False})

    assert [part["text"] for part in msgspec.convert(message["content"], list[dict[str, str]])] == [
        "[An image at https://x/a.png, which you cannot be shown.]",
        "[File t.csv]\na,b\n1,€\n[End of file t.csv]",
        "[File z.zip (application/zip), which you cannot be shown.]",
        "[File bad.txt (text/plain), which you cannot be shown.]",
        "[File doc.pdf (application/octet-stream) at https://x/doc.pdf, which you cannot be shown.]",
    ]


def test_thinking_goes_back_to_the_model_that_thought_it_and_to_no_other() -> None:
    replay: JsonObject = {"model": "m", "thinking_field": "reasoning_content"}
    said = asking(UserSaid("a"), ModelSaid("b", thinking="Hm.", replay=replay))

    (_, same) = messages(said, {"thinking_field": "reasoning_content"})
    (_, other) = messages(said, {"thinking_field": "reasoning_content"}, "n")
    (_, none) = messages(said)

    assert (same["reasoning_content"], other["reasoning_content"]) == ("Hm.", "")
    assert "reasoning_content" not in none


def test_what_hangs_on_reasoning_and_calls_goes_back_as_it_came() -> None:
    details = [{"type": "reasoning.encrypted", "data": "x"}]
    extra: JsonObject = {"call_1": {"google": {"thought_signature": "y"}}}
    replay: JsonObject = {"model": "m", "reasoning_details": details, "extra_content": extra}
    said = asking(UserSaid("a"), ModelSaid("", calls=(PARIS, ROME), replay=replay))

    (_, message) = messages(said, {"replay_details": True})
    (_, plain) = messages(said)

    assert message["reasoning_details"] == details
    first, second = msgspec.convert(message["tool_calls"], list[dict[str, object]])
    assert first["extra_content"] == {"google": {"thought_signature": "y"}}
    assert "extra_content" not in second
    assert "reasoning_details" not in plain


def test_the_odd_wishes_of_servers_are_granted() -> None:
    said = (
        UserSaid("a"),
        ModelSaid("", calls=(ROME,)),
        ToolSaid(ROME, "rain"),
        UserSaid("b"),
    )
    request = Request(system="s", transcript=said, tools=[WEATHER], max_output_tokens=5)
    able: JsonObject = {
        "call_id_length": 9,
        "null_content": False,
        "bridge": "Read.",
        "parallel_tools": False,
        "strict_schema": True,
        "usage_in_stream": False,
        "system_role": "developer",
        "max_tokens_field": "max_new",
    }

    sent, made = written(request, able), messages(request, able)

    assert [message["role"] for message in made] == [
        "developer",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    (call,) = msgspec.convert(made[2]["tool_calls"], list[dict[str, object]])
    assert made[2]["content"] == ""
    assert made[3]["tool_call_id"] == call["id"]
    assert len(str(call["id"])) == 9
    assert made[4]["content"] == "Read."
    assert (sent["max_new"], sent["parallel_tool_calls"]) == (5, False)
    assert "stream_options" not in sent
    assert '"strict":true' in msgspec.json.encode(sent["tools"]).decode()


def test_a_message_that_says_nothing_is_left_out() -> None:
    request = asking(UserSaid("a"), ModelSaid("", thinking="Hm."), UserSaid("b"))

    assert messages(request) == [{"role": "user", "content": "a\n\nb"}]
