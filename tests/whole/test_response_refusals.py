"""Requests for a response that are refused, in OpenAI's words."""

from __future__ import annotations

from typing import cast

import pytest
from tests.responses import PATH, TOOL, Plays, answering, asked, post
from tests.serving import Json

from hostler.service.limits import MOST_CLIENT_TOOLS

pytestmark = pytest.mark.anyio
CALL = {"type": "function_call", "call_id": "call_x", "name": "look", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_x", "output": "water"}


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"input": "hello"}, 400, "missing_required_parameter", "model"),
        ({"model": "p:m"}, 400, "missing_required_parameter", "input"),
        (asked([]), 400, "missing_required_parameter", "input"),
        (asked(model="p:none"), 404, "model_not_found", "model"),
        (asked(model="agent:none"), 404, "model_not_found", "model"),
        (asked(model="agent:p:m"), 404, "model_not_found", "model"),
        (asked([CALL]), 400, "invalid_value", "input[0]"),
        (asked([OUTPUT]), 400, "invalid_value", "input"),
        (asked([{"type": "item_reference", "id": "msg_1"}]), 400, "invalid_value", "input[0].id"),
        (asked(tool_choice="perhaps"), 400, "invalid_value", "tool_choice"),
        (asked(temperature="warm"), 400, "invalid_value", "temperature"),
        (asked(metadata={"a": "b" * 513}), 400, "invalid_value", "metadata"),
        (asked(tools=[{"type": "function", "name": "a b"}]), 400, "invalid_value", "tools[0].name"),
        (
            asked([{"role": "user", "content": [{"type": "input_audio"}]}]),
            400,
            "invalid_value",
            None,
        ),
    ],
)
async def test_what_cannot_be_asked_names_the_field(
    body: Json, status: int, code: str, param: str | None, *, store: bool
) -> None:
    async with answering(Plays()) as client:
        got, told = await post(client, {**body, "store": store})
        sessions = await client.get("/api/sessions")

    error = cast("Json", told["error"])
    assert (got, error["code"]) == (status, code), told
    assert param in (None, error["param"])
    assert sessions["items"] == []


async def test_too_many_tools_are_named_as_the_client_calls_them() -> None:
    tools = [{**TOOL, "name": f"t{number}"} for number in range(MOST_CLIENT_TOOLS + 1)]
    async with answering(Plays()) as client:
        status, told = await post(client, asked(tools=tools))

    assert status == 400
    assert cast("Json", told["error"])["param"] == "tools"


async def test_a_call_without_a_result_is_told_in_the_words_that_clients_look_for() -> None:
    async with answering(Plays()) as client:
        _, told = await post(client, asked([CALL], store=False))
        _, other = await post(client, asked([OUTPUT], store=False))

    assert "No tool output found for function call call_x" in str(told)
    assert "No tool call found for function call output with call_id call_x" in str(other)


@pytest.mark.parametrize("id_", ["resp_none", "resp_1_2", "x", "resp_" + "a" * 200, "resp_ä"])
async def test_what_follows_nothing_is_told_so(id_: str) -> None:
    async with answering(Plays()) as client:
        status, told = await post(client, asked(previous_response_id=id_))
        got, _ = await client.call("GET", f"{PATH}/{id_}")

    error = cast("Json", told["error"])
    assert (status, error["code"]) == (400, "previous_response_not_found")
    assert error["param"] == "previous_response_id"
    assert got == 404


async def test_without_a_key_nothing_is_told() -> None:
    async with answering(Plays()) as client:
        client.key = "hk_wrong"
        status, told = await post(client, asked())

    assert (status, cast("Json", told["error"])["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'"x"', b'{"input": {"a": 1}}', b"\xff"])
async def test_a_body_that_is_none_is_a_refusal(raw: bytes) -> None:
    async with answering(Plays()) as client:
        status, told = await client.call("POST", PATH, raw=raw)

    assert status == 400
    assert set(cast("Json", told["error"])) == {"message", "type", "param", "code"}
