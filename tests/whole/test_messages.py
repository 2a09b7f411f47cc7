"""The Messages face: raw models, asked by the vendor's own client."""

from __future__ import annotations

from typing import cast

import pytest
from msgspec.structs import replace
from tests.direct import Says
from tests.messages import ASKED, MODEL, ask, events, vendors
from tests.serving import Json, Serve

from hostler.core.events import CallId, ToolCall, Usage
from hostler.core.ports import Delta, Reply
from hostler.core.said import ModelSaid, TextPart, ToolSaid, UserSaid
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio

USED = Usage(
    input_tokens=100,
    output_tokens=7,
    cache_read_tokens=60,
    cache_write_tokens=30,
    reasoning_tokens=2,
)
CALL = ToolCall(id=CallId("call_1"), name="look", arguments={"at": "sky"}, provider_id="their_1")
REPLAY: Json = {"model": "m", "content": [{"type": "thinking", "chars": 5, "signature": "s/+="}]}
TOOL: Json = {"name": "look", "description": "Look.", "input_schema": {"type": "object"}}
THINKS = (
    Delta("thinking", "hm"),
    Delta("thinking", "mmm"),
    Delta("text", "I look."),
    Delta("arguments", '{"at":', CALL.id, "look"),
    Delta("arguments", '"sky"}', CALL.id),
    Reply(text="I look.", thinking="hmmmm", calls=(CALL,), stop="tools", usage=USED, replay=REPLAY),
)
ENABLED: Json = {"type": "enabled", "budget_tokens": 1024}


def shape(told: list[Json]) -> list[tuple[object, object, object]]:
    """Return type, index and kind of delta or block of each event but pings."""
    return [
        (
            one["type"],
            one.get("index"),
            cast("Json", one.get("delta") or one.get("content_block") or {}).get("type"),
        )
        for one in told
        if one["type"] != "ping"
    ]


async def test_the_vendors_client_gets_a_message_with_its_usage(serve: Serve) -> None:
    model = Says((Reply(text="well then", stop="end", usage=USED),))
    async with serve(an_agent(model)) as client, vendors(client) as anthropic:
        told = await anthropic.messages.create(
            model=MODEL,
            max_tokens=99,
            system="be brief",
            messages=[{"role": "user", "content": "hi"}],
        )
        path, sent = f"{client.url}/v1/messages", {"x-api-key": client.key}
        async with client.http.post(path, json=ASKED, headers=sent) as raw:
            headers = raw.headers

    assert told.id.startswith("msg_")
    assert [one.type for one in told.content] == ["text"]
    assert told.content[0].text == "well then"  # type: ignore[union-attr]
    assert (told.model, told.stop_reason, told.role) == (MODEL, "end_turn", "assistant")
    usage = told.usage
    assert (usage.input_tokens, usage.output_tokens) == (10, 7)
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (60, 30)
    assert headers["request-id"] == headers["x-request-id"]
    assert headers["content-type"] == "application/json"
    assert (model.asked[0].system, model.asked[0].max_output_tokens) == ("be brief", 99)
    assert list(model.asked[0].transcript) == [UserSaid("hi")]


async def test_a_stream_has_the_vendors_events_in_their_order(serve: Serve) -> None:
    model = Says(
        (
            Delta("text", "well "),
            Delta("text", "then"),
            Reply(text="well then", stop="length", usage=USED),
        )
    )
    async with serve(an_agent(model)) as client:
        told = await events(client)

    assert [one["type"] for one in told] == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    start = cast("Json", told[0]["message"])
    assert start["content"] == []
    assert start["stop_reason"] is start["stop_sequence"] is None
    assert told[2]["content_block"] == {"type": "text", "text": ""}
    said = [cast("Json", one["delta"]) for one in told[3:5]]
    assert said == [{"type": "text_delta", "text": text} for text in ("well ", "then")]
    delta, usage = cast("Json", told[6]["delta"]), cast("Json", told[6]["usage"])
    assert (delta["stop_reason"], delta["stop_sequence"]) == ("max_tokens", None)
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (10, 60)


async def test_the_vendors_client_puts_a_stream_together(serve: Serve) -> None:
    async with serve(an_agent(Says(THINKS))) as client, vendors(client) as anthropic:
        whole = await ask(anthropic, {**ASKED, "thinking": ENABLED}, streams=True)

    kinds = ["thinking", "text", "redacted_thinking", "tool_use"]
    assert [one.type for one in whole.content] == kinds
    (thought, text, _, use) = whole.content
    assert getattr(thought, "thinking", "") == "hmmmm"
    assert getattr(text, "text", "") == "I look."
    assert getattr(use, "input", None) == {"at": "sky"}
    assert (whole.stop_reason, whole.usage.input_tokens) == ("tool_use", 10)


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("thinking", [ENABLED, None], ids=["shown", "hidden"])
async def test_what_a_model_wants_back_comes_back_with_the_conversation(
    serve: Serve, *, streams: bool, thinking: Json | None
) -> None:
    model, body = Says(THINKS), {**ASKED, "tools": [TOOL]}
    if thinking is not None:
        body["thinking"] = thinking
    async with serve(an_agent(model)) as client, vendors(client) as anthropic:
        first = await ask(anthropic, body, streams=streams)
        content = [one.model_dump() for one in first.content]
        (use,) = [one["id"] for one in content if one["type"] == "tool_use"]
        results: list[Json] = [
            {"type": "text", "text": "there:"},
            {"type": "tool_result", "tool_use_id": use, "content": "blue"},
        ]
        said = [
            *cast("list[Json]", ASKED["messages"]),
            {"role": "assistant", "content": content},
            {"role": "user", "content": results},
        ]
        await ask(anthropic, {**body, "messages": said}, streams=streams)

    assert (thinking is None) == all(one.type != "thinking" for one in first.content)
    assert list(model.asked[1].transcript) == [
        UserSaid("hi"),
        ModelSaid("I look.", (CALL,), "hmmmm", REPLAY),
        ToolSaid(CALL, "blue"),
        UserSaid("there:"),
    ]


async def test_a_thought_that_is_still_open_is_signed_itself(serve: Serve) -> None:
    last = replace(THINKS[-1], text="")
    async with serve(an_agent(Says((*THINKS[:2], *THINKS[3:5], last)))) as client:
        told = await events(client, {"thinking": ENABLED})

    assert shape(told) == [
        ("message_start", None, None),
        ("content_block_start", 0, "thinking"),
        ("content_block_delta", 0, "thinking_delta"),
        ("content_block_delta", 0, "thinking_delta"),
        ("content_block_delta", 0, "signature_delta"),
        ("content_block_stop", 0, None),
        ("content_block_start", 1, "tool_use"),
        ("content_block_delta", 1, "input_json_delta"),
        ("content_block_stop", 1, None),
        ("message_delta", None, None),
        ("message_stop", None, None),
    ]


async def test_calls_that_come_mixed_are_sent_one_after_the_other(serve: Serve) -> None:
    other = ToolCall(id=CallId("call_2"), name="look", arguments={"at": "sea"})
    parts = (
        Delta("arguments", '{"at":', CALL.id, "look"),
        Delta("arguments", '{"at":', other.id, "look"),
        Delta("arguments", '"sky"}', CALL.id),
        Delta("arguments", '"sea"}', other.id),
        Reply(text="", calls=(CALL, other), stop="tools"),
    )
    async with serve(an_agent(Says(parts))) as client:
        told = await events(client)
    inputs = ["", ""]
    for one in told:
        if one["type"] == "content_block_delta":
            inputs[cast("int", one["index"])] += str(cast("Json", one["delta"])["partial_json"])

    assert inputs == ['{"at":"sky"}', '{"at":"sea"}']
    indexes = [one["index"] for one in told if "index" in one]
    assert indexes == sorted(indexes)  # type: ignore[type-var]


async def test_what_clients_really_send_is_understood(serve: Serve) -> None:
    model = Says()
    body: Json = {
        "model": MODEL,
        "max_tokens": 32000,
        "system": [
            {"type": "text", "text": "one", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "two"},
        ],
        "messages": [
            {"role": "system", "content": "three"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "hi", "citations": None},
                    {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                    {"type": "yet_to_come", "more": [1]},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "m", "signature": "EqQB-of-another"},
                    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
                    {"type": "tool_use", "id": "toolu_2", "name": "look", "input": None},
                ],
            },
            {"role": "system", "content": [{"type": "text", "text": "be quick"}]},
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_2",
                        "is_error": True,
                        "content": [{"type": "text", "text": "no"}, {"type": "tool_reference"}],
                    }
                ],
            },
        ],
        "tools": [
            {**TOOL, "defer_loading": True, "cache_control": None},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "thinking": {"type": "adaptive", "display": "summarized"},
        "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {}}},
        "context_management": {"edits": [{"type": "clear_thinking_20251015"}]},
        "metadata": {"user_id": "{}"},
        "stop_sequences": ["END"],
        "temperature": None,
    }
    headers = {"anthropic-beta": "a-2026-08-01,b", "x-claude-code-session-id": "s-1"}
    async with serve(an_agent(model)) as client:
        status, told = await client.call("POST", "/v1/messages?beta=true", body, headers=headers)

    assert status == 200, told
    (asked,) = model.asked
    assert (asked.system, asked.session) == ("one\n\ntwo\n\nthree", "s-1")
    hello, called, first, second, quick = asked.transcript
    assert isinstance(hello, UserSaid)
    assert hello.content[0] == TextPart(text="hi")
    assert len(hello.content) == 2
    assert isinstance(called, ModelSaid)
    assert (called.thinking, called.replay) == ("m", None)
    assert isinstance(first, ToolSaid)
    assert first.failed
    assert isinstance(second, ToolSaid)
    assert (second.output, second.failed, second.call.id) == ("no", True, "toolu_2")
    assert quick == UserSaid("<system>\nbe quick\n</system>")
    assert [one.name for one in asked.tools] == ["look"]
    wanted = asked.wanted
    assert (wanted.calls, wanted.parallel, wanted.stop) == ("some", False, ("END",))
    assert (wanted.effort, wanted.json_schema, wanted.temperature) == ("high", {}, None)


@pytest.mark.parametrize("token", ["hostler1.", "hostler1.!!", "hostler1.e30", "hostler1.W10", 7])
async def test_a_signature_that_somebody_changed_is_as_good_as_none(
    serve: Serve, token: object
) -> None:
    model = Says()
    block = {"type": "thinking", "thinking": "m", "signature": token}
    said = [*cast("list[Json]", ASKED["messages"]), {"role": "assistant", "content": [block]}]
    async with serve(an_agent(model)) as client:
        status, _ = await client.call("POST", "/v1/messages", {**ASKED, "messages": said})

    assert status == 200
    assert model.asked[0].transcript[1] == ModelSaid("", thinking="m")


async def test_every_key_that_the_vendor_documents_is_there(serve: Serve) -> None:
    async with serve(an_agent(Says(THINKS))) as client:
        _, whole = await client.call("POST", "/v1/messages", {**ASKED, "thinking": ENABLED})

    thought, text, call = cast("list[Json]", whole.pop("content"))
    assert set(thought) == {"type", "thinking", "signature"}
    assert text == {"type": "text", "text": "I look.", "citations": []}
    assert call == {
        "type": "tool_use",
        "id": CALL.id,
        "name": "look",
        "input": {"at": "sky"},
        "caller": {"type": "direct"},
    }
    assert str(whole.pop("id")).startswith("msg_")
    assert whole == {
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 30,
            "cache_read_input_tokens": 60,
            "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 7,
            "output_tokens_details": {"thinking_tokens": 2},
            "server_tool_use": None,
            "service_tier": "standard",
            "inference_geo": None,
        },
    }


async def test_tokens_are_estimated_by_characters(serve: Serve) -> None:
    async with serve(an_agent(Says())) as client, vendors(client) as anthropic:
        few = await anthropic.messages.count_tokens(
            model=MODEL, messages=[{"role": "user", "content": "hi"}]
        )
        many = await anthropic.messages.count_tokens(
            model=MODEL, messages=[{"role": "user", "content": "hi" * 4000}], system="s" * 400
        )

    assert few.input_tokens == 5
    assert many.input_tokens == 2104
