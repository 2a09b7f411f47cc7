"""Responses without a session: a raw model and `store: false`, asked for with OpenAI's own client."""

from __future__ import annotations

from typing import cast

import openai
import pytest
from msgspec.structs import replace
from openai.types.responses import ResponseInputParam
from pydantic import BaseModel
from tests.chats import the_sdk
from tests.responses import (
    CALL,
    CALLING,
    SAYING,
    TOOL,
    Plays,
    answering,
    asked,
    events,
    items,
    made,
    streamed,
)
from tests.serving import Json

from hostler.core.ports import Delta, Failure, Reply
from hostler.core.said import ImagePart, ModelSaid, TextPart, ToolSaid, UserSaid
from hostler.core.shown import FilePart

pytestmark = pytest.mark.anyio
SEALED = "reasoning.encrypted_content"


async def test_the_sdk_reads_a_whole_answer() -> None:
    model = Plays()
    async with answering(model) as client, the_sdk(client) as sdk:
        told = await sdk.responses.create(
            model="m", input="hello", instructions="be brief", max_output_tokens=50, store=False
        )

    assert (told.output_text, told.status, told.model) == ("well then", "completed", "p:m")
    assert told.usage is not None
    assert (told.usage.input_tokens, told.usage.output_tokens, told.usage.total_tokens) == (
        10,
        3,
        13,
    )
    (request,) = model.asked
    assert (request.system, request.max_output_tokens) == ("be brief", 50)
    assert list(request.transcript) == [UserSaid("hello")]


async def test_the_sdk_reads_a_stream() -> None:
    async with (
        answering(Plays()) as client,
        the_sdk(client) as sdk,
        sdk.responses.stream(model="p:m", input="hello", store=False) as stream,
    ):
        got = [one async for one in stream]
        told = await stream.get_final_response()

    texts = [one.delta for one in got if one.type == "response.output_text.delta"]
    assert texts == ["well ", "then"]
    assert told.output_text == "well then"
    assert [one.sequence_number for one in got] == list(range(len(got)))


async def test_nothing_of_it_is_kept() -> None:
    async with answering(Plays()) as client:
        told = await made(client, asked(store=False))
        status, error = await client.call("GET", f"/v1/responses/{told['id']}")
        sessions = await client.get("/api/sessions")

    assert (status, sessions["items"]) == (404, [])
    assert cast("Json", error["error"])["type"] == "invalid_request_error"


async def test_events_come_in_the_order_that_clients_expect() -> None:
    async with answering(Plays((CALLING,))) as client:
        got = events(await streamed(client, asked(store=False, tools=[TOOL])))

    assert [str(one["type"]).removeprefix("response.") for one in got] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [one["sequence_number"] for one in got] == list(range(len(got)))


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
async def test_what_a_model_wants_back_comes_back_with_the_results(*, streams: bool) -> None:
    model = Plays((CALLING, SAYING))
    async with answering(model) as client, the_sdk(client) as sdk:
        if streams:
            async with sdk.responses.stream(
                model="m", input="hello", tools=[TOOL], store=False, include=[SEALED]
            ) as stream:
                told = await stream.get_final_response()
        else:
            told = await sdk.responses.create(
                model="m", input="hello", tools=[TOOL], store=False, include=[SEALED]
            )
        back = [one.to_dict() for one in told.output]
        result: Json = {"type": "function_call_output", "call_id": "call_a", "output": "water"}
        said: list[Json] = [{"role": "user", "content": "hello"}, *back, result]
        await sdk.responses.create(
            model="m", input=cast("ResponseInputParam", said), tools=[TOOL], store=False
        )

    hello, reply, found = model.asked[1].transcript
    assert hello == UserSaid("hello")
    assert isinstance(reply, ModelSaid)
    assert (reply.text, reply.thinking) == ("I look.", "Where is it?")
    assert reply.replay == {"signed": "thought"}
    assert [(one.id, one.arguments) for one in reply.calls] == [("call_a", {"at": "sea"})]
    assert isinstance(found, ToolSaid)
    assert (found.call.id, found.output) == ("call_a", "water")


async def test_a_reply_that_came_without_pieces_is_streamed_whole() -> None:
    model = Plays(((Reply(text="all of it", stop="end", thinking="hm"),),))
    async with answering(model) as client:
        got = events(await streamed(client, asked(store=False)))

    deltas = [one["delta"] for one in got if str(one["type"]).endswith(".delta")]
    assert deltas == ["hm", "all of it"]


async def test_what_was_streamed_otherwise_than_it_was_meant_is_incomplete() -> None:
    model = Plays(((Delta("text", "wrong"), Reply(text="right", stop="end")),))
    async with answering(model) as client:
        got = events(await streamed(client, asked(store=False)))

    output = cast("list[Json]", cast("Json", got[-1]["response"])["output"])
    texts = [cast("list[Json]", one["content"])[0]["text"] for one in output]
    assert texts == ["wrong", "right"]
    assert [one["status"] for one in output] == ["incomplete", "completed"]


async def test_pictures_and_files_are_shown_to_the_model() -> None:
    model = Plays()
    parts = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
        {"type": "input_file", "file_data": "data:text/plain;base64,BBBB", "filename": "a.txt"},
    ]
    async with answering(model) as client:
        await made(client, asked([{"role": "user", "content": parts}], store=False))

    assert list(model.asked[0].transcript) == [
        UserSaid(
            (
                TextPart(text="look"),
                ImagePart(url="https://x/y.png"),
                ImagePart(data="AAAA", media_type="image/png"),
                FilePart(data="BBBB", media_type="text/plain", name="a.txt"),
            )
        )
    ]


class _Found(BaseModel):
    at: str


async def test_the_sdk_parses_what_has_a_schema() -> None:
    model = Plays(((Reply(text='{"at": "sea"}', stop="end"),),))
    async with answering(model) as client, the_sdk(client) as sdk:
        told = await sdk.responses.parse(model="m", input="where?", text_format=_Found, store=False)

    assert told.output_parsed == _Found(at="sea")
    wanted = model.asked[0].wanted
    assert wanted.json
    assert wanted.json_schema is not None
    assert told.text is not None
    assert told.text.format is not None
    assert told.text.format.type == "json_schema"


async def test_a_tool_with_free_text_is_called_with_text() -> None:
    free = replace(CALL, name="patch", arguments={"input": "*** Begin"})
    parts = (
        Delta("arguments", '{"input":"*** ', free.id, "patch"),
        Delta("arguments", 'Begin"}', free.id),
        Reply(text="", stop="tools", calls=(free,)),
    )
    tool = {"type": "custom", "name": "patch", "description": "Patch."}
    async with answering(Plays((parts,))) as client:
        got = events(await streamed(client, asked(store=False, tools=[tool])))

    done = [one for one in got if one["type"] == "response.output_item.done"]
    item = cast("Json", done[0]["item"])
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "patch", "*** Begin")
    told = cast("Json", got[-1]["response"])
    assert cast("list[Json]", told["tools"])[0]["type"] == "custom"


async def test_tools_of_a_namespace_are_called_by_it() -> None:
    model = Plays(((Reply(text="", stop="tools", calls=(replace(CALL, name="sea__look"),)),),))
    space = {"type": "namespace", "name": "sea", "tools": [TOOL]}
    async with answering(model) as client:
        told = await made(client, asked(store=False, tools=[space]))

    assert [one.name for one in model.asked[0].tools] == ["sea__look"]
    (item,) = items(told)
    assert (item["namespace"], item["name"]) == ("sea", "look")


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize(
    ("reply", "status", "reason"),
    [
        (Reply(text="", stop="length"), "incomplete", "max_output_tokens"),
        (Reply(text="so", stop="length"), "incomplete", "max_output_tokens"),
        (Reply(text="no", stop="refusal"), "incomplete", "content_filter"),
        (Reply(text="yes", stop="end"), "completed", None),
    ],
)
async def test_why_a_model_stopped_is_told(
    reply: Reply, status: str, reason: str | None, *, store: bool
) -> None:
    async with answering(Plays(((reply,),))) as client:
        told = await made(client, asked(store=store))

    details = cast("Json | None", told["incomplete_details"])
    assert (told["status"], None if details is None else details["reason"]) == (status, reason)


async def test_a_model_that_fails_before_it_spoke_has_a_status() -> None:
    failure = Failure(code="rate_limit", message="slow down", again=True)
    async with answering(Plays(((failure,),))) as client, the_sdk(client) as sdk:
        with pytest.raises(openai.RateLimitError):
            await sdk.responses.create(model="m", input="hello", store=False, stream=True)


async def test_a_model_that_fails_later_ends_the_stream_as_failed() -> None:
    parts = (Delta("text", "well"), Failure(code="server", message="gone", again=True))
    async with answering(Plays((parts,))) as client:
        got = events(await streamed(client, asked(store=False)))

    assert got[-1]["type"] == "response.failed"
    told = cast("Json", got[-1]["response"])
    assert (told["status"], told["error"]) == (
        "failed",
        {"code": "server_error", "message": "gone"},
    )
    assert [one["status"] for one in cast("list[Json]", told["output"])] == ["incomplete"]
