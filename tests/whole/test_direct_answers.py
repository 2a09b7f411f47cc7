"""What the faces for raw models share: signs of life, keepsakes, and streams that are cut."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import cast

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from tests.canaries import master_keys
from tests.direct import Says
from tests.serving import Client, Json, serving

from hostler.app.settings import load_settings
from hostler.app.vaults import MasterKeys, kept_by_clients
from hostler.core.errors import SetupError
from hostler.core.events import CallId, ToolCall
from hostler.core.ports import Delta, Failure, Reply, Request
from hostler.core.said import ModelSaid
from hostler.faces.http.keepsakes import KeepsakesOf
from hostler.faces.http.open_streams import OpenStreams
from hostler.testing.doubles import an_agent
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio
FACES = pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
HELLO: Json = {"role": "user", "content": "hi"}
CALL = ToolCall(id=CallId("call_1"), name="look", arguments={}, provider_id="their_1")
REPLAY: Json = {"model": "m", "content": [{"signature": "c2ln"}]}
THOUGHT = Reply(text="yes", stop="tools", thinking="hm", calls=(CALL,), replay=REPLAY)
SAID = ModelSaid("yes", (CALL,), "hm", REPLAY)
FAULT = Failure(code="server", message="oh", again=True)
ALIVE = {"/v1/chat/completions": b": still here\n\n", "/v1/messages": b"event: ping\n"}
BEGIN = {"/v1/chat/completions": b'data: {"id":', "/v1/messages": b"event: message_start\n"}


def asked(*messages: Json, **more: object) -> Json:
    return {"model": "p:m", "max_tokens": 9, "messages": list(messages) or [HELLO], **more}


# -- signs of life -------------------------------------------------------------------------------


@FACES
@pytest.mark.parametrize("began", [(), (Delta("text", "we"),)], ids=["first", "middle"])
async def test_a_model_that_is_silent_for_long_has_signs_of_life_and_then_a_fault(
    tmp_path: Path, path: str, began: tuple[Delta, ...]
) -> None:
    model, streams = Says((*began, FAULT), wait=anyio.Event()), OpenStreams(slow_s=0.3)
    assert model.wait is not None
    seen = b""
    async with serving(an_agent(model), file=tmp_path / "log.db", streams=streams) as client:
        with anyio.fail_after(10):
            async with post(client, path, asked(stream=True)) as answer:
                while seen.count(ALIVE[path]) < 4:
                    seen += await answer.content.readany()
                model.wait.set()
                seen += await answer.content.read()

    assert answer.status == 200
    assert seen.startswith(BEGIN[path])
    assert seen.count(BEGIN["/v1/messages"]) == (path == "/v1/messages")
    assert b'"message":"oh"' in seen[seen.rindex(b"\ndata: ") :]


def post(client: Client, path: str, body: Json) -> aiohttp.client._RequestContextManager:  # pyright: ignore[reportPrivateUsage]
    headers = {"Authorization": f"Bearer {client.key}"}
    return client.http.post(f"{client.url}{path}", json=body, headers=headers)


async def test_thoughts_that_are_not_shown_are_a_silence(tmp_path: Path) -> None:
    seen = anyio.Event()

    class Broods(Says):
        async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
            self.asked.append(request)
            while not seen.is_set():
                await anyio.lowlevel.checkpoint()
                yield Delta("thinking", "hm")
            yield Reply(text="x", stop="end", thinking="hm")

    file, streams = tmp_path / "log.db", OpenStreams(slow_s=0.3)
    async with serving(an_agent(Broods()), file=file, streams=streams) as client:
        told = b""
        with anyio.fail_after(10):
            async with post(client, "/v1/messages", asked(stream=True)) as answer:
                while told.count(b"event: ping\n") < 3:
                    told += await answer.content.readany()
                seen.set()
                told += await answer.content.read()

    assert told.endswith(b'{"type":"message_stop"}\n\n')
    assert b"hm" not in told


@FACES
async def test_a_stream_that_is_cut_by_a_shutdown_has_no_end(tmp_path: Path, path: str) -> None:
    model, streams = Says(wait=anyio.Event()), OpenStreams()
    async with serving(an_agent(model), file=tmp_path / "log.db", streams=streams) as client:
        with anyio.fail_after(10):
            async with post(client, path, asked(stream=True)) as answer:
                assert b"well" in await answer.content.readany()
                streams.close()
                with pytest.raises(aiohttp.ClientPayloadError):
                    await answer.content.read()
            assert model.closed == 1


@FACES
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_more_answers_at_once_than_one_may_have_are_refused(
    tmp_path: Path, path: str, *, streamed: bool
) -> None:
    streams = OpenStreams(most=0)
    async with serving(an_agent(Says()), file=tmp_path / "log.db", streams=streams) as client:
        status, _ = await client.call("POST", path, asked(stream=streamed))

    assert status == 429


# -- what a model wants back ---------------------------------------------------------------------


def chat_said(answer: Json) -> Json:
    return cast("list[dict[str, Json]]", answer["choices"])[0]["message"]


def message_said(answer: Json) -> Json:
    return {"role": "assistant", "content": answer["content"]}


RESULTS: dict[str, Json] = {
    "/v1/chat/completions": {"role": "tool", "tool_call_id": "call_1", "content": "blue"},
    "/v1/messages": {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "blue"}],
    },
}
SAYS: dict[str, Callable[[Json], Json]] = {
    "/v1/chat/completions": chat_said,
    "/v1/messages": message_said,
}


async def first(client: Client, path: str) -> Json:
    """Ask once, and return what the client is to send back of the answer."""
    status, told = await client.call("POST", path, asked(thinking={"type": "enabled"}))
    assert status == 200, told
    return SAYS[path](told)


async def second(client: Client, path: str, said: Json, **headers: str) -> None:
    """Go on with what was said."""
    body = asked(HELLO, said, RESULTS[path])
    status, told = await client.call("POST", path, body, headers=headers)
    assert status == 200, told


@FACES
async def test_what_a_model_wants_back_outlives_a_restart(tmp_path: Path, path: str) -> None:
    model = Says((THOUGHT,))

    async def of_now() -> KeepsakesOf:
        keys = MasterKeys(load_settings({"data": tmp_path}))
        return await kept_by_clients(SealedVault(keys))

    async with serving(an_agent(model), file=None, keepsakes=await of_now()) as client:
        kept = await first(client, path)
    async with serving(an_agent(model), file=None, keepsakes=await of_now()) as client:
        await second(client, path, kept)
        await second(client, path, kept)

    assert [one.transcript[1] for one in model.asked[1:]] == [SAID, SAID]


@FACES
async def test_another_tenant_s_keepsake_reaches_no_provider(tmp_path: Path, path: str) -> None:
    model = Says((THOUGHT,))
    async with serving(an_agent(model), file=tmp_path / "log.db") as client:
        await client.call("POST", "/api/tenants", {"id": "acme"})
        kept = await first(client, path)
        await second(client, path, kept, **{"Hostler-Tenant": "acme"})

    said = model.asked[1].transcript[1]
    assert isinstance(said, ModelSaid)
    assert (said.text, said.thinking, said.replay) == ("yes", "hm", None)
    assert [one.provider_id for one in said.calls] == [None if "messages" in path else "call_1"]


@FACES
async def test_a_client_sees_nothing_of_what_its_model_wants_back(
    tmp_path: Path, path: str
) -> None:
    async with serving(an_agent(Says((THOUGHT,))), file=tmp_path / "log.db") as client:
        told = json.dumps((await client.call("POST", path, asked()))[1])

    assert "hostler2." in told
    assert "c2ln" not in told
    assert "their_1" not in told


async def test_keepsakes_are_good_wherever_the_master_key_is_the_same() -> None:
    old, new = b"o" * 32, b"n" * 32

    async def secrets(*keys: bytes) -> list[bytes]:
        return list((await kept_by_clients(SealedVault(master_keys(*keys)))).secrets)

    (one,) = await secrets(old)
    assert await secrets(old) == [one]
    assert await secrets(new, old) == [(await secrets(new))[0], one]
    assert one != old


async def test_a_master_key_that_cannot_be_had_is_told_at_the_start(tmp_path: Path) -> None:
    settings = load_settings({"data": tmp_path, "master_key_command": "false"})

    with pytest.raises(SetupError, match="master_key_command"):
        await kept_by_clients(SealedVault(MasterKeys(settings)))


# -- stop sequences ------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_stop_sequence_is_named_where_it_is_known(
    tmp_path: Path, *, streamed: bool
) -> None:
    model = Says((Reply(text="x", stop="end", stop_sequence="END"),))
    async with serving(an_agent(model), file=tmp_path / "log.db") as client:
        async with post(client, "/v1/messages", asked(stream=streamed)) as answer:
            told = await answer.text()
        (_, chat) = await client.call("POST", "/v1/chat/completions", asked())

    assert '"stop_reason":"stop_sequence","stop_sequence":"END"' in told
    assert cast("list[Json]", chat["choices"])[0]["finish_reason"] == "stop"
