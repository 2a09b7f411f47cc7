"""The Messages face: what goes wrong, who may ask, and what it shares with all faces."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import cast

import anyio
import anyio.lowlevel
import pytest
from anthropic import APIStatusError
from tests.direct import Says, direct_house, rows
from tests.messages import ASKED, MODEL, ask, events, refused, vendors
from tests.people import somebody as with_key
from tests.serving import KEY, Json, Serve, serving

from hostler.core.errors import Unavailable
from hostler.core.events import Usage
from hostler.core.ports import Delta, Failure, Reply
from hostler.faces.http.endpoint import LARGEST_BODY
from hostler.faces.http.keepsakes import KeepsakesOf
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.messages.face import messages_operations
from hostler.service.rates import Limits, Rate, Rates
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio

USED = Usage(input_tokens=100, output_tokens=7)


# -- what goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("rate_limit", 429, "rate_limit_error"),
        ("overloaded", 529, "overloaded_error"),
        ("server", 500, "api_error"),
        ("auth", 500, "api_error"),
        ("timeout_idle", 504, "timeout_error"),
        ("context_overflow", 400, "invalid_request_error"),
        ("invalid_request", 400, "invalid_request_error"),
    ],
)
@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
async def test_a_model_that_fails_before_its_first_word_is_an_error_as_the_vendors(
    serve: Serve, code: str, status: int, kind: str, *, streams: bool
) -> None:
    failure = Failure(code=code, message="no", again=code == "server", retry_after_s=2.2)  # type: ignore[arg-type]
    async with serve(an_agent(Says((failure,)))) as client, vendors(client) as anthropic:
        with pytest.raises(APIStatusError) as told:
            await ask(anthropic, ASKED, streams=streams)

    error = told.value
    assert (error.status_code, error.type) == (status, kind)
    assert error.response.headers["retry-after"] == "3"
    assert error.response.headers["x-should-retry"] == ("true" if code == "server" else "false")
    assert error.request_id == error.response.headers["x-request-id"]


async def test_a_model_that_fails_in_the_middle_ends_the_stream_with_an_error(
    serve: Serve,
) -> None:
    failure = Failure(code="overloaded", message="too much", again=True)
    async with serve(an_agent(Says((Delta("text", "we"), failure)))) as client:
        told = await events(client)

    assert told[-1]["type"] == "error"
    assert told[-1]["error"] == {"type": "overloaded_error", "message": "too much"}
    assert told[-2]["delta"] == {"type": "text_delta", "text": "we"}


async def test_refusals_have_the_vendors_form(serve: Serve) -> None:
    async with serve(an_agent(Says())) as client:
        viewer = await with_key(client, "ann", role="viewer")
        status, error = await refused(viewer)
        assert (status, error["type"]) == (403, "permission_error")
        status, error = await refused(client, {**ASKED, "model": "p:x"})
        assert (status, error["type"]) == (404, "not_found_error")
        assert "there is p:m" in str(error["message"])
        status, error = await refused(client, Authorization="Bearer hk_wrong")
        assert (status, error["type"]) == (401, "authentication_error")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'{"model": "p:m"}',
        b'{"model": "p:m", "messages": []}',
        b'{"model": "p:m", "messages": [{"role": "user", "content": 5}]}',
        b'{"model": "p:m", "messages": [{"role": "user", "content": [{"type": "text"}]}]}',
        b'{"model": "p:m", "messages": [{"role": "user", "content": [{"type": "image"}]}]}',
        b'{"model": "p:m", "messages": [{"role": "user"}], "temperature": NaN}',
        b'{"model": "p:m", "messages": [{"role": "user"}], "max_tokens": 0}',
        b'{"model": "p:m", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "p:m", "messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]}',
        b'{"model": "p:m", "messages": [{"role": "user", "content": [' + b'{"type": [' * 5000,
    ],
)
async def test_a_hostile_body_is_an_invalid_request(serve: Serve, raw: bytes) -> None:
    async with serve(an_agent(Says())) as client:
        status, told = await client.call("POST", "/v1/messages", raw=raw)
        assert (status, cast("Json", told["error"])["type"]) == (400, "invalid_request_error"), told
        status, told = await client.call("POST", "/v1/messages/count_tokens", raw=raw)
        assert status == (200 if b"max_tokens" in raw else 400), told


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
async def test_a_client_that_goes_away_ends_the_question(serve: Serve, *, streams: bool) -> None:
    asked = anyio.Event()
    model = Says(wait=anyio.Event(), first=asked.set)

    async with serve(an_agent(model)) as client:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call, "POST", "/v1/messages", {**ASKED, "stream": streams})
                await asked.wait()
                tasks.cancel_scope.cancel()
            while not model.closed:
                await anyio.lowlevel.checkpoint()
    assert model.closed == 1


# -- what it shares with all faces --------------------------------------------------------------


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
async def test_a_question_is_counted_for_whoever_asked(serve: Serve, *, streams: bool) -> None:
    async with serve(an_agent(Says((Reply(text="x", stop="end", usage=USED),)))) as client:
        ann = await with_key(client, "ann")
        async with vendors(ann) as anthropic:
            await ask(anthropic, ASKED, streams=streams)
        page = await client.get("/api/usage?by=user,model")

    (row,) = cast("list[Json]", page["items"])
    assert row["by"] == {"user": "ann", "model": MODEL}
    assert (row["calls"], row["input_tokens"], row["output_tokens"]) == (1, 100, 7)


async def test_what_is_too_large_is_refused_as_the_vendor_does(serve: Serve) -> None:
    async with serve(an_agent(Says())) as client:
        status, told = await client.call("POST", "/v1/messages", raw=b" " * (LARGEST_BODY + 1))

    assert (status, cast("Json", told["error"])["type"]) == (413, "request_too_large")


async def test_a_server_with_too_much_to_do_says_that_it_is_overloaded() -> None:
    async with direct_house(Says(), file=None) as service:
        asks, _ = messages_operations(service, OpenStreams(), KeepsakesOf())
        told = asks.tell(Unavailable("too much to do", retry_after_s=7))

    assert asks.begins == "run", "so the server is asked whether one may"
    assert (told.status, dict(told.headers)[b"retry-after"]) == (529, b"7")


async def test_more_questions_than_one_may_ask_are_a_rate_limit(tmp_path: Path) -> None:
    rates = Rates(lambda _: Limits(None, Rate.of(0.001, 1)))
    async with serving(an_agent(Says()), file=tmp_path / "log.db", rates=rates) as client:
        ann = await with_key(client, "ann")
        assert (await ann.call("POST", "/v1/messages", ASKED))[0] == 200
        for streams in (True, False):
            path, body = f"{ann.url}/v1/messages", {**ASKED, "stream": streams}
            async with ann.http.post(path, json=body, headers={"x-api-key": ann.key}) as answer:
                told, headers = await answer.json(), answer.headers
            assert (answer.status, told["error"]["type"]) == (429, "rate_limit_error")
            assert int(headers["retry-after"]) > 0


async def test_a_stream_that_nobody_reads_is_cut_and_its_question_ended(tmp_path: Path) -> None:
    streams, much = OpenStreams(slow_s=0.6), "x" * 100_000
    model = Says((*(Delta("text", much) for _ in range(400)), Reply(text=much * 400, stop="end")))
    async with serving(an_agent(model), file=tmp_path / "log.db", streams=streams) as client:
        with socket.socket() as stuck, anyio.fail_after(15):
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect(("127.0.0.1", int(client.url.rpartition(":")[2])))
            stuck.settimeout(0)
            body = json.dumps({**ASKED, "stream": True})
            head = f"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {KEY}\r\n"
            stuck.send(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            while not model.closed:
                await anyio.lowlevel.checkpoint()
            while len(streams):
                await anyio.lowlevel.checkpoint()
    assert rows(tmp_path / "log.db") == [("dropped", None, 1)]
