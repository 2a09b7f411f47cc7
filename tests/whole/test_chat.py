"""Chat Completions, asked for with OpenAI's own client: answers, tools, pictures, forms, usage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import openai
import pytest
from openai.types.chat import (
    ChatCompletionMessageParam,
    ChatCompletionToolUnionParam,
)
from pydantic import BaseModel
from tests.chats import asked, chatting, chunks, the_sdk
from tests.direct import USED, Says
from tests.serving import Json

from hostler.core.events import (
    CallId,
    JsonObject,
    ToolCall,
    Usage,
)
from hostler.core.ports import Delta, Reply
from hostler.core.said import ImagePart, ModelSaid, TextPart, ToolSaid, UserSaid
from hostler.core.sealed import Part
from hostler.core.shown import FilePart
from hostler.core.terms import Wanted

pytestmark = pytest.mark.anyio
Messages = list[ChatCompletionMessageParam]
HELLO: Messages = [{"role": "user", "content": "hello"}]
TOOLS: list[ChatCompletionToolUnionParam] = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Look at a place.",
            "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
        },
    }
]
CALLS = (
    ToolCall(id=CallId("call_a"), name="look", arguments={"at": "sea"}),
    ToolCall(id=CallId("call_b"), name="look", arguments={}),
)
CALLING: Sequence[Part] = (
    Delta("text", "I look."),
    Delta("arguments", '{"at":', CallId("call_a"), "look"),
    Delta("arguments", '"sea"}', CallId("call_a")),
    Delta("arguments", "{}", CallId("call_b"), "look"),
    Reply(text="I look.", stop="tools", calls=CALLS, usage=USED),
)


async def test_the_sdk_reads_a_whole_answer() -> None:
    model = Says()
    async with chatting(model) as client, the_sdk(client) as sdk:
        told = await sdk.chat.completions.create(
            model="p:m",
            messages=[{"role": "developer", "content": "be brief"}, *HELLO],
            max_completion_tokens=50,
        )

    assert told.choices[0].message.content == "well then"
    assert (told.object, told.model, told.choices[0].finish_reason) == (
        "chat.completion",
        "p:m",
        "stop",
    )
    assert told.id.startswith("chatcmpl-")
    assert told.created > 1_700_000_000
    assert told.usage is not None
    assert (told.usage.prompt_tokens, told.usage.completion_tokens) == (10, 3)
    assert told.usage.total_tokens == 13
    (request,) = model.asked
    assert (request.system, request.max_output_tokens) == ("be brief", 50)
    assert list(request.transcript) == [UserSaid("hello")]
    assert (request.tools, request.wanted) == ((), Wanted())


async def test_the_sdk_reads_a_stream() -> None:
    async with chatting(Says()) as client, the_sdk(client) as sdk:
        stream = await sdk.chat.completions.create(
            model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        got = [one async for one in stream]

    assert "".join(one.choices[0].delta.content or "" for one in got if one.choices) == "well then"
    assert got[0].choices[0].delta.role == "assistant"
    assert [one.choices[0].finish_reason for one in got if one.choices] == [None] * 3 + ["stop"]
    assert {(one.id, one.model, one.created) for one in got} == {(got[0].id, "p:m", got[0].created)}
    assert got[-1].choices == []
    assert got[-1].usage is not None
    assert got[-1].usage.total_tokens == 13
    assert [one.usage for one in got[:-1]] == [None] * 4


async def test_a_stream_that_did_not_ask_for_usage_has_none() -> None:
    async with chatting(Says()) as client:
        got = await chunks(client, asked())

    assert not any("usage" in one for one in got)
    assert len(got) == 4


async def test_a_reply_that_came_without_deltas_is_streamed_whole() -> None:
    calls = CALLS[:1]
    model = Says((Reply(text="", stop="tools", calls=calls),))
    async with (
        chatting(model) as client,
        the_sdk(client) as sdk,
        sdk.chat.completions.stream(model="m", messages=HELLO, tools=TOOLS) as stream,
    ):
        told = await stream.get_final_completion()

    (call,) = told.choices[0].message.tool_calls or []
    assert (call.id, call.function.name, call.function.arguments) == (
        "call_a",
        "look",
        '{"at":"sea"}',
    )


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_tools_are_called_and_their_results_come_back(*, streamed: bool) -> None:
    model = Says(CALLING)
    async with chatting(model) as client, the_sdk(client) as sdk:
        if streamed:
            async with sdk.chat.completions.stream(model="m", messages=HELLO, tools=TOOLS) as got:
                choice = (await got.get_final_completion()).choices[0]
        else:
            told = await sdk.chat.completions.create(model="m", messages=HELLO, tools=TOOLS)
            choice = told.choices[0]
        said = cast("ChatCompletionMessageParam", choice.message.to_dict())
        results: Messages = [
            {"role": "tool", "tool_call_id": "call_b", "content": "nothing"},
            {
                "role": "tool",
                "tool_call_id": "call_a",
                "content": [{"type": "text", "text": "water"}, {"type": "text", "text": "and"}],
            },
        ]
        await sdk.chat.completions.create(
            model="m", messages=[*HELLO, said, *results], tools=TOOLS, tool_choice="required"
        )

    assert choice.finish_reason == "tool_calls"
    called = [one.to_dict() for one in choice.message.tool_calls or ()]
    assert [(one["id"], one["type"]) for one in called] == [
        ("call_a", "function"),
        ("call_b", "function"),
    ]
    functions = [cast("Json", one["function"]) for one in called]
    assert [(one["name"], one["arguments"]) for one in functions] == [
        ("look", '{"at":"sea"}'),
        ("look", "{}"),
    ]
    first, second = model.asked
    assert [(one.name, one.description) for one in first.tools] == [("look", "Look at a place.")]
    assert second.wanted.calls == "some"
    hello, reply, *found = second.transcript
    assert hello == UserSaid("hello")
    assert isinstance(reply, ModelSaid)
    assert (reply.text, [(one.id, one.arguments) for one in reply.calls]) == (
        "I look.",
        [("call_a", {"at": "sea"}), ("call_b", {})],
    )
    assert [(one.call.id, one.output) for one in found if isinstance(one, ToolSaid)] == [
        ("call_a", "water\nand"),
        ("call_b", "nothing"),
    ]


async def test_arguments_that_were_no_object_come_and_go_as_they_were() -> None:
    odd = ToolCall(id=CallId("call_a"), name="look", arguments={}, unparsed='{"at": ')
    model = Says((Reply(text="", stop="length", calls=(odd,)),))
    async with chatting(model) as client:
        told = (await client.call("POST", "/v1/chat/completions", asked()))[1]
        choice = cast("list[dict[str, Json]]", told["choices"])[0]
        said = choice["message"]
        result: Json = {"role": "tool", "tool_call_id": "call_a", "content": "what?"}
        messages = [*cast("list[object]", asked()["messages"]), said, result]
        status, _ = await client.call("POST", "/v1/chat/completions", asked(messages=messages))

    assert choice["finish_reason"] == "length"
    assert status == 200
    reply = model.asked[1].transcript[1]
    assert isinstance(reply, ModelSaid)
    assert reply.calls[0].unparsed == '{"at": '


async def test_pictures_and_files_are_shown_to_the_model() -> None:
    model = Says()
    async with chatting(model) as client, the_sdk(client) as sdk:
        await sdk.chat.completions.create(
            model="m",
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "see"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                        {
                            "type": "file",
                            "file": {
                                "file_data": "data:application/pdf;base64,BBBB",
                                "filename": "a.pdf",
                            },
                        },
                        {"type": "input_audio", "input_audio": {"data": "CCCC", "format": "wav"}},
                    ],
                }
            ],
        )

    assert list(model.asked[0].transcript) == [
        UserSaid(
            (
                TextPart(text="see"),
                ImagePart(data="AAAA", media_type="image/png"),
                ImagePart(url="https://example.org/a.png"),
                FilePart(data="BBBB", media_type="application/pdf", name="a.pdf"),
                FilePart(data="CCCC", media_type="audio/wav"),
            )
        )
    ]


class Place(BaseModel):
    name: str


async def test_the_sdk_parses_an_answer_that_has_to_fit_a_schema() -> None:
    model = Says((Reply(text='{"name":"sea"}', stop="end"),))
    async with chatting(model) as client, the_sdk(client) as sdk:
        told = await sdk.chat.completions.parse(model="m", messages=HELLO, response_format=Place)

    assert told.choices[0].message.parsed == Place(name="sea")
    wanted = model.asked[0].wanted
    assert wanted.json
    assert wanted.json_schema is not None
    assert wanted.json_schema["required"] == ["name"]


async def test_what_is_wanted_of_the_answer_is_passed_on() -> None:
    model = Says()
    async with chatting(model) as client, the_sdk(client) as sdk:
        await sdk.chat.completions.create(
            model="m",
            messages=HELLO,
            temperature=0.5,
            top_p=0.9,
            stop=["\n", "END"],
            reasoning_effort="low",
            parallel_tool_calls=False,
            tools=TOOLS,
            tool_choice={"type": "function", "function": {"name": "look"}},
            response_format={"type": "json_object"},
            extra_body={"seed": 7, "store": False, "logit_bias": None, "unheard_of": [1]},
        )

    assert model.asked[0].wanted == Wanted(
        temperature=0.5,
        top_p=0.9,
        stop=("\n", "END"),
        effort="low",
        parallel=False,
        tool="look",
        json=True,
    )


async def test_tools_that_are_not_allowed_are_not_shown() -> None:
    model = Says()
    mode: JsonObject = {
        "mode": "required",
        "tools": [{"type": "function", "function": {"name": "b"}}],
    }
    tools = [{"type": "function", "function": {"name": one}} for one in "ab"]
    choice = {"type": "allowed_tools", "allowed_tools": mode}
    async with chatting(model) as client:
        await client.call("POST", "/v1/chat/completions", asked(tools=tools, tool_choice=choice))

    assert [one.name for one in model.asked[0].tools] == ["b"]
    assert model.asked[0].wanted.calls == "some"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_what_the_model_thought_and_wants_back_makes_the_round_trip(
    *, streamed: bool
) -> None:
    replay: JsonObject = {"model": "m", "content": [{"signature": "c2ln", "Ω": 1}]}
    last = Reply(text="yes", stop="end", thinking="hm, ok", replay=replay)
    model = Says((Delta("thinking", "hm, "), Delta("thinking", "ok"), Delta("text", "yes"), last))
    async with chatting(model) as client:
        if streamed:
            said: Json = {"role": "assistant"}
            for one in await chunks(client, asked()):
                delta = cast("list[dict[str, Json]]", one["choices"])[0]["delta"]
                for name in ("content", "reasoning_content", "reasoning_details"):
                    if name in delta:
                        before = said.get(name, [] if isinstance(delta[name], list) else "")
                        said[name] = before + delta[name]  # type: ignore[operator]
        else:
            told = (await client.call("POST", "/v1/chat/completions", asked()))[1]
            said = cast("list[dict[str, Json]]", told["choices"])[0]["message"]
        messages = [
            *cast("list[object]", asked()["messages"]),
            said,
            {"role": "user", "content": "?"},
        ]
        await client.call("POST", "/v1/chat/completions", asked(messages=messages))

    assert model.asked[1].transcript[1] == ModelSaid(text="yes", thinking="hm, ok", replay=replay)


@pytest.mark.parametrize("data", ["", "%%%", "AAAA", "W10=", None, 7, "eyJhIjo=", "é"])
async def test_what_somebody_made_up_to_be_sent_back_is_as_good_as_nothing(data: object) -> None:
    model = Says()
    detail = {"type": "reasoning.encrypted", "format": "hostler-v1", "data": data}
    said = {"role": "assistant", "content": "yes", "reasoning_details": [detail]}
    messages = [said, {"role": "user", "content": "?"}]
    async with chatting(model) as client:
        status, _ = await client.call("POST", "/v1/chat/completions", asked(messages=messages))

    assert status == 200
    assert model.asked[0].transcript[0] == ModelSaid(text="yes")


async def test_null_is_as_good_as_absent_and_unknown_roles_are_somebody_speaking() -> None:
    model = Says()
    nulls = dict.fromkeys(
        (
            "stream",
            "stream_options",
            "tools",
            "tool_choice",
            "stop",
            "n",
            "temperature",
            "response_format",
            "max_tokens",
            "parallel_tool_calls",
            "reasoning_effort",
            "user",
        ),
    )
    messages = [
        {"role": "critic", "content": "so?", "name": "eve", "tool_calls": None},
        {"role": "assistant", "content": None, "refusal": "no", "audio": None},
        {"role": "system", "content": [{"type": "text", "text": "late"}]},
        {"role": "user", "content": None},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "function": {"name": "look", "arguments": None}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": None},
    ]
    async with chatting(model) as client:
        status, told = await client.call(
            "POST", "/v1/chat/completions", asked(messages=messages, **nulls)
        )

    assert status == 200, told
    assert model.asked[0].system == "late"
    assert list(model.asked[0].transcript) == [
        UserSaid("so?"),
        ModelSaid(text="no"),
        UserSaid(""),
        ModelSaid(
            text="",
            calls=(call := ToolCall(id=CallId("c"), name="look", arguments={}, provider_id="c"),),
        ),
        ToolSaid(call, ""),
    ]


async def test_a_system_message_alone_is_what_is_said() -> None:
    model = Says()
    messages = [{"role": "system", "content": one} for one in ("be brief", "hello")]
    async with chatting(model) as client:
        await client.call("POST", "/v1/chat/completions", asked(messages=messages))

    assert (model.asked[0].system, list(model.asked[0].transcript)) == (
        "be brief",
        [UserSaid("hello")],
    )


async def test_a_key_for_the_prompt_cache_is_good_for_whoever_sends_it() -> None:
    model = Says()
    async with chatting(model) as client:
        for key in ("a", "a", "b"):
            await client.call("POST", "/v1/chat/completions", asked(prompt_cache_key=key))

    first, again, other = [one.session for one in model.asked]
    assert first == again != other
    assert len(first) == 32


async def test_usage_has_all_that_openai_tells() -> None:
    used = Usage(input_tokens=9, output_tokens=5, cache_read_tokens=4, reasoning_tokens=2)
    async with chatting(Says((Reply(text="a", stop="refusal", usage=used),))) as client:
        async with the_sdk(client) as sdk:
            told = await sdk.chat.completions.create(model="m", messages=HELLO)
        sums = await client.get("/api/usage?by=model")

    assert told.choices[0].finish_reason == "content_filter"
    usage = told.usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 4
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 2
    (row,) = cast("list[Json]", sums["items"])
    assert (row["by"], row["calls"], row["input_tokens"]) == ({"model": "p:m"}, 1, 9)


# -- models -----------------------------------------------------------------------------------


async def test_the_sdk_lists_the_models_and_finds_one() -> None:
    slashed = Says(provider="q", name="meta/llama 3:free")
    async with chatting(Says(), slashed) as client, the_sdk(client) as sdk:
        listed = [one async for one in sdk.models.list()]
        found = await sdk.models.retrieve("q:meta/llama 3:free")
        bare = await sdk.models.retrieve("m")
        with pytest.raises(openai.NotFoundError) as refused:
            await sdk.models.retrieve("x/y")

    assert [(one.id, one.object, one.owned_by) for one in listed] == [
        ("agent:double", "model", "agent"),
        ("p:m", "model", "p"),
        ("q:meta/llama 3:free", "model", "q"),
    ]
    assert found.id == "q:meta/llama 3:free"
    assert bare.id == "p:m"
    assert refused.value.code == "model_not_found"


async def test_clients_of_anthropic_get_the_models_as_anthropic_lists_them() -> None:
    models = [Says(name=f"m{one}") for one in range(5)]
    version = {"Anthropic-Version": "2023-06-01"}
    async with chatting(*models) as client:
        _, page = await client.call("GET", "/v1/models?limit=2", headers=version)
        _, then = await client.call("GET", "/v1/models?after_id=p:m1", headers=version)
        _, back = await client.call("GET", "/v1/models?before_id=p:m3&limit=2", headers=version)
        _, one = await client.call("GET", "/v1/models/m4", headers=version)
        wrong, _ = await client.call("GET", "/v1/models?after_id=x", headers=version)

    known = {"type": "model", "created_at": "1970-01-01T00:00:00Z"}
    assert page == {
        "data": [
            {**known, "id": "agent:double", "display_name": "double"},
            {**known, "id": "p:m0", "display_name": "m0"},
        ],
        "first_id": "agent:double",
        "last_id": "p:m0",
        "has_more": True,
    }
    assert (then["first_id"], then["last_id"], then["has_more"]) == ("p:m2", "p:m4", False)
    assert (back["first_id"], back["last_id"], back["has_more"]) == ("p:m1", "p:m2", True)
    assert one == {**known, "id": "p:m4", "display_name": "m4"}
    assert wrong == 400
