"""A server that was told of no model finds one, says which and why, and answers with it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import anyio
import anyio.to_thread
import pytest
from tests.canaries import Process, canary
from tests.local_weights import NAME, folder_with_weights
from tests.serving import KEY, Client

from hostler.app.agent import Agent
from hostler.app.building import Parts, build_agents
from hostler.app.endpoints import Placed
from hostler.app.first_model import first_model, needs_model
from hostler.app.providers import place
from hostler.app.settings import OwnProvider, Settings
from hostler.core.errors import SetupError
from hostler.core.ports import Reply, Request
from hostler.core.said import UserSaid
from hostler.models.discover import Chosen
from hostler.models.prompted import Prompted
from hostler.testing.model_script import End, Text
from hostler.testing.provider_server import (
    Asked,
    Play,
    Send,
    chunk,
    head,
    provider_server,
    refused,
)
from hostler.testing.wire_chat import CHAT

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
HEADER = canary("own header", "proxy-key")
OPENAI_KEY, MINE_KEY = canary("OPENAI_API_KEY", "sk-kit"), canary("MINE_KEY", "sk-mine")


@pytest.fixture(scope="session")
def folder() -> Path:
    return folder_with_weights()


@pytest.fixture
def data(folder: Path, tmp_path: Path) -> Path:
    """Return a data folder of this test's own, with weights."""
    (tmp_path / "models").symlink_to(folder / "models")
    return tmp_path


def provider(asked: Asked) -> Play:
    if asked.method == "GET" and asked.path != "/v1/models":
        return [Send(head(404)), Send(chunk(b""))]
    if asked.method == "GET":
        listed = json.dumps({"data": [{"id": "text-embedding-1"}, {"id": "kit-model"}]}).encode()
        return [Send(head(content_type="application/json")), Send(chunk(listed) + chunk(b""))]
    return [Send(head()), Send(chunk(b"".join(CHAT.events([Text("Hello."), End()]))) + chunk(b""))]


ALONE = """
from hostler.app.cli import main
from hostler.models import discover
discover.SERVERS = ()
main()
"""
"""Hostler, finding no model server whatever else runs on this machine."""


@dataclass
class Server:
    """`hostler serve`, as a user starts it, with no variables but these."""

    environ: Mapping[str, str]
    said: list[str] = field(default_factory=list[str])

    def started(self) -> subprocess.Popen[str]:
        return Process(
            [sys.executable, "-c", ALONE, "serve", "--port", "0"],
            env={"PATH": "", "HOME": "/nonexistent", **self.environ},
            stderr=subprocess.PIPE,
        )

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[tuple[Client, subprocess.Popen[str]]]:
        """Run it until it serves; leaving stops it, and looks that nothing is left of it."""
        process = self.started()
        try:
            url = await anyio.to_thread.run_sync(self._url, process)
            async with aiohttp.ClientSession() as http:
                yield Client(http, url), process
            left = descendants(process.pid)
            process.send_signal(signal.SIGTERM)
            _, rest = await anyio.to_thread.run_sync(process.communicate)
            assert process.returncode == 0, rest
            assert "Traceback" not in rest
            assert [one for one in left if command(one)] == []
        finally:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()

    def _url(self, process: subprocess.Popen[str]) -> str:
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append(line)
            if found := re.search(r"serving .* on (http://[\w.:]+)", line):
                return found[1]
        raise AssertionError("".join(self.said))

    @property
    def model(self) -> str:
        """What it said of its model."""
        told = [json.loads(one)["event"] for one in self.said if one.startswith("{")]
        (line,) = [one for one in told if one.startswith("model: ")]
        return str(line).removeprefix("model: ")


def descendants(process: int) -> list[int]:
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):  # what has ended meanwhile has none
        for thread in Path(f"/proc/{process}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, (thread / "children").read_text(encoding="ascii").split())
    return found + [below for one in found for below in descendants(one)]


def command(process: int) -> str:
    """Return what a process runs; nothing when there is none."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def workers(process: int) -> list[int]:
    """Return the processes below this one that hold a local model."""
    return [one for one in descendants(process) if "local_worker" in command(one)]


async def answered(client: Client, question: str) -> tuple[str, str]:
    """Return text and status of an answer, asked for as curl would."""
    session = await client.session()
    status, said = await client.call(
        "POST",
        f"/api/sessions/{session}/messages",
        {"content": question},
        headers={"Prefer": "wait=200"},
    )
    assert status == 200, said
    return str(said["text"]), str(said["status"])


async def test_with_no_key_and_no_server_a_small_local_model_answers(data: Path) -> None:
    server = Server({"HOSTLER_DATA": str(data), "HOSTLER_ADMIN_KEY": KEY})
    with anyio.fail_after(250):
        async with server.serving() as (client, process):
            assert descendants(process.pid) == [], "no weights in memory before they are needed"

            text, status = await answered(client, "What is the capital of France?")

            assert (status, "Paris" in text) == ("done", True), text
            assert len(workers(process.pid)) == 1

    assert server.model.startswith("local:smollm2, as no key is set and no model server runs")


async def test_a_base_url_is_used_and_said(tmp_path: Path) -> None:
    async with provider_server(provider) as there:
        environ = {
            "OPENAI_BASE_URL": there.url,
            "OPENAI_API_KEY": OPENAI_KEY,
            "HOSTLER_DATA": str(tmp_path),
            "HOSTLER_ADMIN_KEY": KEY,
        }
        server = Server(environ)
        with anyio.fail_after(100):
            async with server.serving() as (client, _):
                assert await answered(client, "Hi") == ("Hello.", "done")

        assert server.model.startswith("openai:kit-model, as OPENAI_BASE_URL is set")
        assert [one.path for one in there.asked][-1] == "/v1/chat/completions"
        assert there.asked[-1].json["model"] == "kit-model"
        assert there.asked[-1].headers["authorization"] == f"Bearer {OPENAI_KEY}"


async def test_a_base_url_without_a_server_ends_it_with_what_to_do(tmp_path: Path) -> None:
    async with refused() as url:
        server = Server({"OPENAI_BASE_URL": f"{url}/v1", "HOSTLER_DATA": str(tmp_path)})
        process = server.started()
        with anyio.fail_after(60):
            _, told = await anyio.to_thread.run_sync(process.communicate)

    assert process.returncode == 2
    assert told.startswith(f"hostler: OPENAI_BASE_URL is set to {url}/v1, and ")
    assert "Traceback" not in told


@pytest.mark.parametrize("folder", ["file", "file/below"])
async def test_a_data_folder_that_cannot_be_written_ends_it_with_words(
    tmp_path: Path, folder: str
) -> None:
    (tmp_path / "file").touch()
    environ = {"HOSTLER_MODEL": "scripted:demo", "HOSTLER_DATA": str(tmp_path / folder)}
    process = Server(environ).started()
    with anyio.fail_after(60):
        _, told = await anyio.to_thread.run_sync(process.communicate)

    assert process.returncode == 2
    assert told.startswith(f"hostler: the data folder {tmp_path / folder} ")
    assert "Traceback" not in told


async def test_a_new_server_says_where_its_key_is_and_what_to_type(tmp_path: Path) -> None:
    server = Server({"HOSTLER_DATA": str(tmp_path), "HOSTLER_MODEL": "scripted:demo"})
    with anyio.fail_after(100):
        async with server.serving() as (client, process):
            assert process.stderr is not None
            lines = list[str]()
            while not (lines and lines[-1].strip().startswith(f"{client.url}/api/sessions/")):
                lines.append(await anyio.to_thread.run_sync(process.stderr.readline))
            typed = "".join(lines).partition("another:")[2] or "".join(lines)
            commands = typed[typed.index("KEY=") :]

            told = await anyio.run_process(
                ["/bin/bash", "-c", commands], env=os.environ, check=False
            )

    assert f"admin key: {tmp_path / 'admin-key'} (new)" in "".join(server.said)
    assert told.returncode == 0, told.stderr
    assert b"event: run_ended" in told.stdout
    assert b'"status":"done"' in told.stdout


# -- the function --------------------------------------------------------------------------------


def test_a_model_is_looked_for_only_if_an_agent_needs_one(tmp_path: Path) -> None:
    named, unnamed = Agent("a", model="scripted:demo"), Agent("b")
    settings = Settings(data=tmp_path)

    assert not needs_model([named], settings)
    assert needs_model([named, unnamed], settings)
    assert not needs_model([unnamed], Settings(data=tmp_path, model="scripted:demo"))


async def test_a_model_in_the_settings_is_taken_without_looking(tmp_path: Path) -> None:
    environ = {"OPENAI_BASE_URL": "no url at all"}

    chosen = await first_model(Settings(data=tmp_path, model="scripted:demo"), environ)

    assert chosen.model == "scripted:demo"


async def test_without_llama_cpp_it_is_told_what_can_be_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hostler.models.discover.SERVERS", ())
    monkeypatch.setitem(sys.modules, "xllamacpp", None)

    with pytest.raises(SetupError, match=r"pip install 'hostler\[local\]'") as told:
        await first_model(Settings(data=tmp_path), {})

    for one in ("HOSTLER_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "Ollama"):
        assert one in str(told.value)


# -- models by name ------------------------------------------------------------------------------


async def test_a_server_that_was_found_is_asked_there_and_gets_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", canary("VLLM_API_KEY", "sk-not-for-strangers"))
    settings, agent = Settings(data=tmp_path), Agent("a")
    async with provider_server(provider) as there:
        chosen = Chosen(model="vllm:m", why="", base_url=f"{there.url}/v1", keyless=True)
        async with build_agents([agent], settings, chosen=chosen) as specs:
            (model,) = specs["a"].models
            request = Request(system="", transcript=[UserSaid("Hi")])
            last = [part async for part in model.stream(request)][-1]

        assert isinstance(last, Reply)
        assert last.text == "Hello."
        assert "authorization" not in there.asked[0].headers


async def test_a_provider_of_the_operator_s_own_is_asked_as_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE_KEY", MINE_KEY)
    async with provider_server(provider) as there:
        mine = OwnProvider(
            wire="openai_chat",
            base_url=f"{there.url}/v1",
            key_env=("MINE_KEY",),
            headers={"x-team": "blue", "x-proxy-key": HEADER},
            capabilities={"max_tokens_field": "max_length"},
        )
        settings = Settings(data=tmp_path, model="mine:m", providers={"mine": mine})
        async with build_agents([Agent("a", max_output_tokens=7)], settings) as specs:
            (model,) = specs["a"].models
            request = Request(system="", transcript=[UserSaid("Hi")], max_output_tokens=7)
            last = [part async for part in model.stream(request)][-1]

    assert isinstance(last, Reply)
    (asked,) = there.asked
    assert asked.headers["authorization"] == f"Bearer {MINE_KEY}"
    assert (asked.headers["x-team"], asked.headers["x-proxy-key"]) == ("blue", HEADER)
    assert asked.json["max_length"] == 7


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"mine": OwnProvider(wire="anthropic")}, "mine in the settings needs wire and base_url"),
        ({"mine": OwnProvider(wire="anthropic", base_url="nowhere")}, "mine is no URL"),
        ({"mine": OwnProvider(wire="anthropic", base_url="http://[")}, "mine is no URL"),
        ({"mine": OwnProvider(wire="anthropic", base_url=f"me:{HEADER}@h/v1")}, "mine is no URL"),
        (
            {"mine": OwnProvider(wire="gemini", base_url="http://h", capabilities={"imagse": 1})},
            "imagse",
        ),
        ({"mnie": OwnProvider(wire="gemini", base_url="http://h")}, "did you mean mnie"),
    ],
)
async def test_a_mistake_in_a_provider_of_the_operator_s_own_is_named(
    tmp_path: Path, own: dict[str, OwnProvider], told: str
) -> None:
    settings = Settings(data=tmp_path, model="mine:m", providers=own)
    with pytest.raises(SetupError, match=told) as error:
        async with build_agents([Agent("a")], settings):
            pass

    assert HEADER not in str(error.value)


def test_what_is_set_for_hostler_goes_before_what_all_programs_read() -> None:
    environ = {"OPENAI_BASE_URL": "http://others/v1"}
    own = {"openai": OwnProvider(base_url="http://ours/v1")}

    assert place("openai:m", environ, own=own).base_url == "http://ours/v1"
    assert place("openai:m", environ).base_url == "http://others/v1"


async def test_an_agent_in_a_program_finds_a_model_as_a_server_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOSTLER_MODEL", raising=False)
    async with provider_server(provider) as there:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{there.url}/v1")

        ended = await Agent("a").run("Hi", data=tmp_path)

    assert (ended.status, ended.text) == ("done", "Hello.")


async def test_a_model_without_tools_of_its_own_gets_them_in_words(tmp_path: Path) -> None:
    async with aclosing(Parts(Settings(data=tmp_path), {})) as parts:
        small, large = parts.model("ollama:gemma3:4b"), parts.model("ollama:qwen3:8b")
        assert isinstance(small, Placed)
        assert isinstance(large, Placed)
        assert isinstance(small.own, Prompted)
        assert not isinstance(large.own, Prompted)
        assert parts.model("ollama:gemma3:4b") is small


async def test_a_local_model_is_one_process_for_all_agents_and_ends_with_them(data: Path) -> None:
    agents = [Agent("a", model=f"local:{NAME}"), Agent("b", model=f"local:{NAME}")]
    async with build_agents(agents, Settings(data=data)) as specs:
        (model,), (same,) = specs["a"].models, specs["b"].models
        request = Request(system="", transcript=[UserSaid("Say hello.")], max_output_tokens=5)
        last = [part async for part in model.stream(request)][-1]
        (worker,) = workers(os.getpid())

    assert model is same
    assert isinstance(last, Reply)
    assert command(worker) == ""


async def test_a_local_model_that_is_not_here_is_an_error_that_names_the_agent(
    tmp_path: Path,
) -> None:
    with pytest.raises(SetupError, match=r"agent a: .* run `hostler models get smollm2`"):
        async with build_agents([Agent("a", model="local:smollm2")], Settings(data=tmp_path)):
            pass
