"""Which model is taken when nobody names one: each rule of the order, on real servers of loopback."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from urllib.parse import urlsplit

import msgspec
import pytest
from tests.canaries import canary

from hostler.app.providers import providers
from hostler.core.errors import SetupError
from hostler.models.discover import (
    LAST_RESORT,
    OPENAI,
    PROVIDERS,
    SERVERS,
    Chosen,
    Server,
    discover,
)
from hostler.models.exchange import Bounds
from hostler.models.transport import Aiohttp
from hostler.testing.provider_server import (
    Asked,
    Close,
    Flood,
    Hang,
    Play,
    ProviderServer,
    Send,
    chunk,
    hanging_up,
    head,
    provider_server,
    refused,
)

pytestmark = pytest.mark.anyio
KEY = canary("OPENAI_API_KEY", "sk-not-for-strangers")


def says(body: bytes, status: int = 200) -> Play:
    return [Send(head(status, content_type="application/json")), Send(chunk(body) + chunk(b""))]


def lists(*names: object) -> Play:
    return says(msgspec.json.encode({"object": "list", "data": [{"id": name} for name in names]}))


def always(play: Play) -> Callable[[Asked], Play]:
    return lambda _: play


async def found(servers: Sequence[Server] = (), /, **environ: str) -> Chosen:
    async with aclosing(Aiohttp()) as transport:
        return await discover(environ, transport, servers=servers)


@asynccontextmanager
async def running(*plays: Play | None) -> AsyncGenerator[tuple[list[Server], list[ProviderServer]]]:
    """Run servers where the first ones of `SERVERS` would be; None: nothing runs there."""
    async with AsyncExitStack() as stack:
        probes: list[Server] = []
        running: list[ProviderServer] = []
        for known, play in zip(SERVERS, plays, strict=False):
            if play is None:
                url = await stack.enter_async_context(refused())
            else:
                running.append(await stack.enter_async_context(provider_server(always(play))))
                url = running[-1].url
            probes.append(known._replace(port=int(url.rpartition(":")[2])))
        yield probes, running


# -- a base URL that somebody set ----------------------------------------------------------------


async def test_the_first_chat_model_of_the_base_url_is_taken_with_the_key() -> None:
    names = ("text-embedding-3-small", "whisper-1", "qwen3:8b", "other")
    async with provider_server(always(lists(*names))) as server:
        url = f"{server.url}/v1"

        chosen = await found(OPENAI_BASE_URL=url, OPENAI_API_KEY=KEY, ANTHROPIC_API_KEY="sk-ant")

        assert chosen == Chosen(
            model="openai:qwen3:8b",
            why="OPENAI_BASE_URL is set, and this is the first of 2 models there",
            base_url=url,
        )
        assert [one.path for one in server.asked] == ["/v1/models"]
        assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_base_url_without_its_last_part_is_understood() -> None:
    def play(asked: Asked) -> Play:
        return lists("m") if asked.path == "/v1/models" else says(b"not found", 404)

    async with provider_server(play) as server:
        chosen = await found(OPENAI_BASE_URL=f"{server.url}/")

        assert (chosen.model, chosen.base_url) == ("openai:m", f"{server.url}/v1")
        assert "authorization" not in server.asked[0].headers


async def test_a_server_whose_own_variable_is_set_is_asked_there_and_not_at_its_usual_port() -> (
    None
):
    async with (
        provider_server(always(lists("elsewhere"))) as server,
        running(lists("here")) as (probes, others),
    ):
        chosen = await found(probes, OLLAMA_BASE_URL=f"{server.url}/v1")

        assert (chosen.model, chosen.base_url) == ("ollama:elsewhere", f"{server.url}/v1")
        assert others[0].asked == []


async def test_openai_s_own_base_url_is_not_asked_for_its_list() -> None:
    chosen = await found(OPENAI_BASE_URL="https://api.openai.com/v1", OPENAI_API_KEY=KEY)

    assert chosen.model.startswith("openai:")
    assert chosen.base_url is None


async def test_a_base_url_that_does_not_answer_is_told_and_not_passed_over() -> None:
    async with refused() as url, running(lists("here")) as (probes, _):
        host = url.removeprefix("http://")
        with pytest.raises(SetupError, match="cannot be reached") as told:
            await found(
                probes,
                OPENAI_BASE_URL=f"http://me:{KEY}@{host}/v1",
                ANTHROPIC_API_KEY="x",
            )

    assert f"OPENAI_BASE_URL is set to http://{host}/v1" in str(told.value)
    assert KEY not in str(told.value)


@pytest.mark.parametrize(
    ("play", "told"),
    [
        (lists(), "it lists none"),
        (lists("text-embedding-3-small"), "it lists none"),
        (says(b'{"error": {"message": "bad key %s"}}' % KEY.encode(), 401), "refused the key"),
        (says(b"<html>"), "answered with no JSON"),
        (says(b'{"models": []}'), "its list of models cannot be read"),
    ],
    ids=["none", "none for chat", "401", "html", "another list"],
)
async def test_a_base_url_without_a_model_is_told_with_what_it_said(play: Play, told: str) -> None:
    async with provider_server(always(play)) as server:
        with pytest.raises(SetupError, match=told) as error:
            await found(OPENAI_BASE_URL=f"{server.url}/v1", OPENAI_API_KEY=KEY)

    assert KEY not in str(error.value)
    assert "HOSTLER_MODEL" in str(error.value)


@pytest.mark.parametrize("url", ["localhost", "http://", "http://[half", "/v1"])
async def test_a_base_url_that_is_none_is_told(url: str) -> None:
    with pytest.raises(SetupError, match="OPENAI_BASE_URL is no URL"):
        await found(OPENAI_BASE_URL=url)


async def test_the_long_list_of_a_gateway_is_read() -> None:
    names = [f"vendor/model-{number:05}" for number in range(20_000)]
    async with provider_server(always(lists(*names))) as server:
        chosen = await found(OPENAI_BASE_URL=f"{server.url}/v1")

    assert chosen.model == "openai:vendor/model-00000"
    assert len(msgspec.json.encode(names)) > Bounds().error_bytes


# -- a key ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "variable"), [(one.name, variable) for one in PROVIDERS for variable in one.keys]
)
async def test_a_key_in_the_environment_chooses_its_provider(name: str, variable: str) -> None:
    async with running(lists("here")) as (probes, servers):
        chosen = await found(probes, **{variable: KEY})

        assert chosen.model.startswith(f"{name}:")
        assert chosen.why == f"{variable} is set, and no model is named"
        assert (chosen.base_url, chosen.keyless) == (None, False)
        assert servers[0].asked == [], "nobody is asked who need not be"


async def test_of_several_keys_the_first_in_our_order_counts() -> None:
    everything = {variable: KEY for one in reversed(PROVIDERS) for variable in one.keys}

    assert (await found(**everything)).model.startswith(f"{PROVIDERS[0].name}:")


async def test_an_empty_variable_is_not_set() -> None:
    environ = {variable: "  " for one in PROVIDERS for variable in one.keys}

    assert (await found(OPENAI_BASE_URL="", OLLAMA_BASE_URL=" ", **environ)).model == LAST_RESORT


# -- a server that runs here ---------------------------------------------------------------------


async def test_the_first_server_of_our_order_that_has_a_chat_model_is_taken() -> None:
    async with running(None, lists("bge-m3"), lists("a", "b"), lists("c")) as (probes, _):
        chosen = await found(probes)

        assert chosen.model == "llamacpp:a"
        assert chosen.base_url == f"http://127.0.0.1:{probes[2].port}/v1"
        assert chosen.why.startswith("no key is set, and llama.cpp seems to run at port ")


async def test_no_key_is_sent_to_a_server_that_was_only_found() -> None:
    async with running(None, None, lists("a"), lists("b")) as (probes, servers):
        chosen = await found(probes, VLLM_API_KEY=KEY, LLAMACPP_API_KEY=KEY)

        assert chosen.keyless
        for server in servers:
            (asked,) = server.asked
            assert KEY not in str(asked)
            assert "authorization" not in asked.headers


@pytest.mark.parametrize(
    "play",
    [
        says(b"<html>It works!</html>"),
        says(b"[1, 2"),
        says(b"[" * 100_000),
        says(b"\xff\xfe"),
        says(b'{"data": [{"id": 5}]}'),
        says(b'{"data": [{"id": "ignore all; rm -rf /"}, {"id": "a\\u001b[2Jb"}, {"id": ""}]}'),
        says(msgspec.json.encode({"data": [{"id": "x" * 100_000}]})),
        says(b'{"data": [{"id": "m"}]}', 401),
        says(b'{"data": [{"id": "m"}]}', 500),
        [Send(head(302, headers=["Location: http://127.0.0.1:1/v1/models"])), Send(chunk(b""))],
        [Send(b"SSH-2.0-OpenSSH_9.9\r\n"), Close()],
        [Close()],
        [Hang()],
        [Send(head(content_type="application/json")), Hang()],
        [Send(head(content_type="application/json")), Flood(chunk(b"[1," * 3000), 1 << 27)],
    ],
    ids=lambda play: str(play)[:60],
)
async def test_a_port_that_answers_anything_else_is_passed_over(play: Play) -> None:
    async with running(play, None, lists("good")) as (probes, _):
        assert (await found(probes)).model == "llamacpp:good"


async def test_a_server_that_hangs_up_at_once_is_passed_over() -> None:
    async with hanging_up() as url, running(None, None, lists("good")) as (probes, _):
        probes[0] = probes[0]._replace(port=int(url.rpartition(":")[2]))
        assert (await found(probes)).model == "llamacpp:good"


# -- nothing at all ------------------------------------------------------------------------------


async def test_without_anything_there_is_the_small_local_model() -> None:
    async with running(None, None, None, None) as (probes, _):
        chosen = await found(probes)

    assert chosen.model == LAST_RESORT == "local:smollm2"
    assert "no key is set and no model server runs" in chosen.why


def test_each_provider_and_server_that_may_be_found_can_be_asked() -> None:
    table = providers()
    for one in PROVIDERS:
        assert set(one.keys) <= set(table[one.name].key_env)
    for server in (OPENAI, *SERVERS):
        about = table[server.name]
        assert server.variable == about.base_url_env
        assert (server.key,) == (about.key_env or ("",))
        assert server is OPENAI or urlsplit(about.base_url).port == server.port
