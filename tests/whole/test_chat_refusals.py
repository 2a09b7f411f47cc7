"""Chat Completions that go wrong: told as OpenAI tells it, before a stream and in the middle of one."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast, get_args

import aiohttp
import anyio
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from tests.chats import PATH, asked, chatting, events, the_sdk
from tests.direct import Says, rows
from tests.people import somebody
from tests.serving import KEY, Client, Json, serving

from hostler.core.errors import Unavailable
from hostler.core.ledger import DirectCall
from hostler.core.ports import Delta, Failure, FaultCode, Reply, Request
from hostler.faces.http.open_streams import OpenStreams
from hostler.service.rates import Limits, Rate, Rates
from hostler.service.service import Service
from hostler.stores.sqlite_ledger import SqliteLedger
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
DEEP = "[" * 100_000 + "]" * 100_000


def failing(code: FaultCode, *, again: bool = True, wait_s: float | None = None) -> Says:
    return Says((Failure(code=code, message=f"p {code}", again=again, retry_after_s=wait_s),))


async def refused(client: Client, body: object, **more: object) -> tuple[int, Json]:
    status, told = await client.call("POST", PATH, body, **more)  # type: ignore[arg-type]
    assert list(told) == ["error"], told
    error = cast("Json", told["error"])
    assert list(error) == ["message", "type", "param", "code"]
    return status, error


# -- who asks, and for what --------------------------------------------------------------------


async def test_the_sdk_knows_each_refusal_by_its_class(tmp_path: Path) -> None:
    async with chatting(Says(), file=tmp_path / "log.db") as client:
        viewer = await somebody(client, "eve", role="viewer")
        reader = await somebody(client, "ann", scopes=["sessions:read"])
        await client.call("POST", "/api/tenants", {"id": "acme"})
        for who, model, kind, code in (
            (
                Client(client.http, client.url, "hk_no"),
                "m",
                openai.AuthenticationError,
                "invalid_api_key",
            ),
            (viewer, "m", openai.PermissionDeniedError, "insufficient_permissions"),
            (reader, "nothing", openai.PermissionDeniedError, "insufficient_permissions"),
            (client, "nothing", openai.NotFoundError, "model_not_found"),
        ):
            async with the_sdk(who) as sdk:
                with pytest.raises(kind) as told:
                    await sdk.chat.completions.create(model=model, messages=HELLO)
            assert told.value.code == code
            assert told.value.request_id

    assert rows(tmp_path / "log.db") == []


async def test_a_key_may_come_as_anthropic_s_clients_send_it() -> None:
    async with chatting(Says()) as client:
        nobody = Client(client.http, client.url, "")
        status, _ = await nobody.call("POST", PATH, asked(), headers={"X-Api-Key": KEY})

    assert status == 200


async def test_a_path_that_is_none_is_told_in_the_words_of_those_whose_it_looks_like() -> None:
    async with chatting(Says()) as client:
        for path, members in (
            ("/v1/nothing", {"error"}),
            ("/v1/models/a%0Ab", {"error"}),
            ("/v1/messages/nothing", {"type", "error"}),
            ("/api/nothing", {"type", "title", "status", "detail", "code"}),
        ):
            status, told = await client.call("GET", path)
            assert (status, set(told)) == (404, members), path


async def test_too_many_calls_are_told_when_to_come_back() -> None:
    rates = Rates(lambda _: Limits(None, Rate.of(0.01, 1)))
    async with chatting(Says(), rates=rates) as client, the_sdk(client) as sdk:
        await sdk.chat.completions.create(model="m", messages=HELLO)
        with pytest.raises(openai.RateLimitError) as told:
            await sdk.chat.completions.create(model="m", messages=HELLO, stream=True)

    assert told.value.code == "rate_limit_exceeded"
    assert int(told.value.response.headers["retry-after"]) >= 1


async def test_a_server_that_has_too_much_to_do_says_so_before_it_reads() -> None:
    houses = list[Service]()
    async with chatting(Says(), entered=houses.append) as client:
        houses[0].sessions.inbox.admission.most = 0
        status, error = await refused(client, asked())

    assert (status, error["type"], error["code"]) == (503, "server_error", "overloaded")


# -- what is sent ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ([], None),
        ("x", None),
        ({"model": "p:m", "messages": []}, "messages"),
        ({"model": 7, "messages": [{"role": "user"}]}, "model"),
        (asked(messages="hello"), "messages"),
        (asked(messages=[{"role": "user", "content": 7}]), "messages[0].content"),
        (asked(messages=[{"content": "x"}]), "messages[0]"),
        (
            asked(messages=[{"role": "user", "content": [{"type": "video"}]}]),
            "messages[0].content[0]",
        ),
        (asked(messages=[{"role": "tool", "tool_call_id": "x", "content": ""}]), "messages[0]"),
        (
            asked(
                messages=[
                    {
                        "role": "assistant",
                        "tool_calls": [{"id": "x", "function": {"name": "a", "arguments": ""}}],
                    },
                    {"role": "user", "content": "so?"},
                ]
            ),
            "messages[0]",
        ),
        (asked(max_tokens=0), "max_tokens"),
        (asked(max_tokens=10**30), "max_tokens"),
        (asked(n=2), "n"),
        (asked(logprobs=True), "logprobs"),
        (asked(logprobs=True, top_logprobs=2, stream=True), "logprobs"),
        (asked(temperature="warm"), "temperature"),
        (asked(tools=[{"type": "custom"}]), "tools[0]"),
        (asked(tool_choice="sometimes"), "tool_choice"),
        (asked(reasoning_effort="heroic"), "reasoning_effort"),
        (asked(response_format={"type": "xml"}), "response_format.type"),
        (asked(response_format={"type": "json_schema"}), "response_format.json_schema.schema"),
        (asked(stream="yes"), "stream"),
    ],
)
async def test_what_has_another_form_is_400_and_names_the_field(
    body: object, param: str | None
) -> None:
    async with chatting(model := Says()) as client:
        status, error = await refused(client, body)

    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert not model.asked


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b'{"model": "p:m", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "p:m", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"model": "p:m", "messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
        b'{"model": "p:m", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "p:m", "messages": %b}' % DEEP.encode(),
        b'{"model": "p:m", "unknown": %b}' % DEEP.encode(),
        b'{"model": "p:m", "messages": [{"role": "user"}], "tools": [{"function": {"name": "a", "parameters": {"a": %b}}}]}'
        % DEEP.encode(),
    ],
    ids=["cut", "surrogate", "NaN", "huge", "bytes", "deep", "deep and unknown", "deep schema"],
)
async def test_what_cannot_be_read_is_400(raw: bytes) -> None:
    async with chatting(model := Says()) as client:
        status, error = await refused(client, None, raw=raw)

    assert (status, error["type"]) == (400, "invalid_request_error")
    assert not model.asked


async def test_a_body_that_is_too_large_is_413() -> None:
    async with chatting(Says()) as client:
        status, error = await refused(client, None, raw=b" " * (9 * 1024 * 1024))

    assert (status, error["code"]) == (413, "request_too_large")


# -- what a provider does wrong ----------------------------------------------------------------


@pytest.mark.parametrize("code", get_args(FaultCode))
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_provider_s_fault_has_a_status_as_long_as_nothing_was_said(
    *, code: FaultCode, streamed: bool
) -> None:
    async with chatting(failing(code)) as client, the_sdk(client) as sdk:
        with pytest.raises(openai.APIStatusError, match=f"p {code}") as told:
            await sdk.chat.completions.create(model="m", messages=HELLO, stream=streamed)

    assert told.value.status_code != 401, "it would be taken for the client's own key"
    assert told.value.response.headers["x-should-retry"] == "true"
    assert told.value.type in ("server_error", "rate_limit_error", "invalid_request_error")


async def test_the_sdk_waits_as_the_provider_asked_and_gives_up_when_that_is_no_use() -> None:
    model = failing("rate_limit", wait_s=0.4)
    spent = failing("rate_limit", again=False)
    async with chatting(model) as client, the_sdk(client) as sdk:
        with pytest.raises(openai.RateLimitError) as told:
            await sdk.chat.completions.create(model="m", messages=HELLO)
    async with chatting(spent) as client, the_sdk(client, retries=3) as sdk:
        with pytest.raises(openai.RateLimitError) as final:
            await sdk.chat.completions.create(model="m", messages=HELLO)

    assert told.value.response.headers["retry-after"] == "1"
    assert final.value.code == "insufficient_quota"
    assert len(spent.asked) == 1


async def test_a_fault_in_the_middle_ends_the_stream_with_an_error() -> None:
    fault = Failure(code="timeout_idle", message="p stopped", again=True)
    model = Says((Delta("text", "we"), Delta("text", "ll"), fault))
    async with chatting(model) as client, the_sdk(client) as sdk:
        said = list[str]()
        with pytest.raises(openai.APIError, match="p stopped"):
            await heard(sdk, said)
        _, told = await events(client, asked(stream=True))

    assert "".join(said) == "well"
    assert json.loads(told[-1]) == {
        "error": {"message": "p stopped", "type": "server_error", "param": None, "code": "timeout"}
    }


async def heard(sdk: openai.AsyncOpenAI, said: list[str]) -> None:
    stream = await sdk.chat.completions.create(model="m", messages=HELLO, stream=True)
    async for one in stream:
        said.append(one.choices[0].delta.content or "")  # noqa: PERF401  what came before an error counts


async def test_an_end_that_cannot_be_kept_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = SqliteLedger.keep_direct

    async def begins_only(ledger: SqliteLedger, call: DirectCall) -> None:
        if call.status != "open":
            raise Unavailable("the disk is full")
        await keep(ledger, call)

    monkeypatch.setattr(SqliteLedger, "keep_direct", begins_only)
    async with chatting(Says(), file=tmp_path / "log.db") as client:
        _, told = await events(client, asked(stream=True))
        status, error = await refused(client, asked())

    assert json.loads(told[-1])["error"]["code"] == "unavailable"
    assert "stop" not in "".join(told)
    assert (status, error["code"]) == (503, "unavailable")


async def test_a_bug_of_ours_says_nothing_of_us() -> None:
    def fails() -> None:
        raise ValueError("inner workings")

    async with chatting(Says(first=fails)) as client:
        status, error = await refused(client, asked())

    assert (status, error["type"]) == (500, "server_error")
    assert "inner" not in str(error)


# -- who goes away -----------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_goes_away_ends_the_question(*, streamed: bool, tmp_path: Path) -> None:
    begun, gone = anyio.Event(), anyio.Event()

    class Waits(Says):
        async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
            self.asked.append(request)
            try:
                yield Delta("text", "well")
                begun.set()
                await anyio.sleep_forever()
            finally:
                gone.set()

    async with chatting(Waits(), file=tmp_path / "log.db") as client:
        headers = {"Authorization": f"Bearer {KEY}"}
        with anyio.fail_after(10):
            async with aiohttp.ClientSession() as http, anyio.create_task_group() as tasks:

                async def ask() -> None:
                    body = asked(stream=streamed)
                    async with http.post(f"{client.url}{PATH}", json=body, headers=headers) as got:
                        await got.read()

                tasks.start_soon(ask)
                await begun.wait()
                tasks.cancel_scope.cancel()
            await gone.wait()
            while rows(tmp_path / "log.db") != [("dropped", None, 1)]:
                await anyio.lowlevel.checkpoint()


async def test_a_client_that_does_not_read_is_cut_and_its_question_ends(tmp_path: Path) -> None:
    gone = anyio.Event()

    class Pours(Says):
        async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
            self.asked.append(request)
            try:
                while True:
                    await anyio.lowlevel.checkpoint()
                    yield Delta("text", "x" * 50_000)
            finally:
                gone.set()

    streams = OpenStreams(slow_s=0.3)
    file = tmp_path / "log.db"
    async with serving(an_agent(Pours()), file=file, streams=streams) as client:
        with socket.socket() as stuck, anyio.fail_after(10):
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect(("127.0.0.1", int(client.url.rpartition(":")[2])))
            body = json.dumps(asked(stream=True)).encode()
            head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
            stuck.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await gone.wait()
            while rows(file) != [("dropped", None, 1)]:
                await anyio.lowlevel.checkpoint()

    assert len(streams) == 0


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_key_that_is_revoked_ends_what_was_asked_with_it(
    *, streamed: bool, tmp_path: Path
) -> None:
    begun = anyio.Event()
    model = Says((Reply(text="never", stop="end"),), wait=anyio.Event(), first=begun.set)
    async with chatting(model, file=tmp_path / "log.db") as client:
        made = (await client.call("POST", "/api/keys", {"user": "ann"}))[1]
        ann = Client(client.http, client.url, str(made["key"]))
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:

                async def ask() -> None:
                    status, error = await refused(ann, asked(stream=streamed))
                    assert (status, error["code"]) == (401, "invalid_api_key")

                tasks.start_soon(ask)
                await begun.wait()
                await client.call("DELETE", f"/api/keys/{made['id']}")

    assert rows(tmp_path / "log.db") == [("dropped", None, 1)]
