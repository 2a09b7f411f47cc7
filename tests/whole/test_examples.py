"""The examples, run as their first lines say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest
from tests.canaries import canary, printed, provider_keys
from tests.pages import ROOT
from tests.serving import Client, Json

EXAMPLES = ROOT / "examples"
SCRIPTS = Path(sys.executable).parent
KEY = canary("key of examples", "hk_examples_0123456789abcdef0123456789ab")

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    return {
        "HOME": str(tmp_path),
        "HOSTLER_ADMIN_KEY": KEY,
        **provider_keys(),
        "HOSTLER_MODEL": "scripted:demo",
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(EXAMPLES),
    }


@asynccontextmanager
async def started(
    *command: str, cwd: Path, env: Mapping[str, str], prefix: str = ""
) -> AsyncGenerator[Client]:
    """Start a server, wait until it says where it listens, and end it as a service manager would."""
    async with await anyio.open_process(
        command, cwd=cwd, env=env, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        said = ""
        try:
            with anyio.fail_after(30):
                while not (match := re.search(r"on (http://127\.0\.0\.1:\d+)", said)):
                    said += (await process.stdout.receive()).decode()
            async with aiohttp.ClientSession() as http:
                yield Client(http, match[1] + prefix, KEY)
        finally:
            process.terminate()
        with anyio.fail_after(20):
            async for more in process.stdout:
                said += more.decode()
            printed(said)
            ended = await process.wait()
    assert ended in (0, -15)  # uvicorn's own command raises the signal again


async def asked(client: Client, content: str, **session: str) -> tuple[str, list[Json]]:
    """Say something in a new session; return the last text and what tools did."""
    made = await client.session(**session)
    frames = await client.speak(made, content)
    assert frames[-1].data["status"] == "done"
    texts = [str(frame.data["text"]) for frame in frames if frame.event == "model_replied"]
    return texts[-1], [frame.data for frame in frames if frame.event == "tool_finished"]


async def test_a_folder_of_agent_files_is_served(
    tmp_path: Path, environment: Mapping[str, str]
) -> None:
    command = ("hostler", "serve", str(EXAMPLES / "agents"), "--port", "0")
    async with started(*command, cwd=tmp_path, env=environment) as client:
        _, done = await asked(client, "6 * 7", agent="calculator")
        shortened, none = await asked(client, "as it is", agent="editor")

    assert [one["output"] for one in done] == ["42"]
    assert (shortened, none) == ("as it is", [])


async def test_a_python_agent_with_tools_is_served(
    tmp_path: Path, environment: Mapping[str, str]
) -> None:
    script = f"scripted:{EXAMPLES / 'forecast.json'}"
    command = ("hostler", "serve", "forecast:agent", "--port", "0", "--model", script)
    async with started(*command, cwd=tmp_path, env=environment) as client:
        text, done = await asked(client, "What is the weather in Paris?")

    assert text == "It is sunny in Paris, 21 degrees."
    assert [one["output"] for one in done] == ["sunny, 21 degrees"]


async def test_the_same_agent_runs_by_itself(
    tmp_path: Path, environment: Mapping[str, str]
) -> None:
    told = await anyio.run_process(
        [sys.executable, str(EXAMPLES / "forecast.py")], cwd=tmp_path, env=environment
    )

    printed(told.stdout, told.stderr)
    lines = told.stdout.decode().splitlines()
    assert lines[0].startswith("[book {'city': 'What is the weather in Paris?'")
    number = json.loads(lines[1].removeprefix("[ok: ").removesuffix("]"))["number"]
    assert number.startswith("call_")
    assert lines[2:] == ["What is the weather in Paris?", "[done]"]


async def test_the_same_agent_is_mounted_in_a_web_application(
    tmp_path: Path, environment: Mapping[str, str]
) -> None:
    command = ("uvicorn", "mounted:app", "--port", "0")
    async with started(*command, cwd=tmp_path, env=environment, prefix="/agents") as client:
        async with client.http.get(client.url.removesuffix("/agents")) as answer:
            assert await answer.text() == f"Agents are at {client.url}/api\n"
        text, done = await asked(client, "Oslo")

    assert text == "Oslo"
    assert [one["outcome"] for one in done] == ["ok"]
    assert (tmp_path / "data" / "hostler.db").exists()
