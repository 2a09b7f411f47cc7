"""Lines: each says where it was written, none says a secret, and nobody can forge one."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import cast

import anyio
import pytest
from tests.canaries import Process, canary, provider_keys
from tests.observed import a_worker, lines, observed
from tests.serving import KEY, Json

from hostler.core.events import ToolStarted
from hostler.telemetry.logs import LONGEST_VALUE, configure, formatter
from hostler.telemetry.masking import COVER, masked, set_mask
from hostler.testing.doubles import ToolboxDouble, a_tool

pytestmark = pytest.mark.anyio

log = logging.getLogger("somebody.else")
ROOT = Path(__file__).parents[2]
OUTSIDE = {name: one for name, one in os.environ.items() if not name.startswith("HOSTLER_")}


@pytest.fixture
def masking() -> Generator[None]:
    """Cover one word, as who knows secrets would."""
    set_mask(lambda text: text.replace("swordfish", "***"))
    yield
    set_mask(None)


async def test_a_line_written_in_a_run_says_in_which_and_where_it_is(tmp_path: Path) -> None:
    async def looks(started: ToolStarted) -> str:
        log.info("looking at %s", started.arguments["at"])
        return await anyio.to_thread.run_sync(in_a_thread)

    def in_a_thread() -> str:
        log.info("in a thread")
        return "seen"

    tools = ToolboxDouble({"look": a_tool("look")}, {"look": looks})
    with lines() as told:
        async with observed(a_worker(tools=tools), file=tmp_path / "log.db") as server:
            session = await server.client.session()
            run = (await server.client.speak(session, "look"))[-1].data["run"]

    for event in ("looking at it", "in a thread"):
        [line] = told.of(event)
        assert (line["run"], line["session"], line["tenant"]) == (run, session, "default")
        assert (line["step"], line["logger"]) == (1, "somebody.else")
        assert str(os.getpid()) in str(line["worker"])


async def test_a_request_has_an_id_in_its_answer_its_problem_and_its_lines(tmp_path: Path) -> None:
    with lines() as told:
        async with observed(a_worker(), file=tmp_path / "log.db") as server:
            for given in ("mine-1", None, "x" * 129, "two words", "ü"):
                headers = {} if given is None else {"X-Request-Id": given}
                url = f"{server.client.url}/api/sessions/ses_missing00"
                async with server.client.http.get(url, headers=headers) as answer:
                    shown = answer.headers["X-Request-Id"]
                    assert (await answer.json())["request_id"] == shown
                assert (shown == given) == (given == "mine-1")
                assert re.fullmatch(r"mine-1|req_[0-9a-f]{28}", shown)
                [line] = [one for one in told.of("request") if one.get("request_id") == shown]
                assert (line["status"], line["method"]) == (401, "GET")


async def test_streams_and_files_have_request_ids_as_well(tmp_path: Path) -> None:
    async with observed(a_worker(), file=tmp_path / "log.db") as server:
        session = await server.client.session()
        await server.client.speak(session)
        key = {"Authorization": f"Bearer {KEY}", "X-Request-Id": "mine"}
        for path, accept in (("/events?until=run_end", "text/event-stream"), ("/export", "*/*")):
            url = f"{server.client.url}/api/sessions/{session}{path}"
            async with server.client.http.get(url, headers={**key, "Accept": accept}) as answer:
                assert (answer.status, answer.headers["X-Request-Id"]) == (200, "mine")


async def test_no_secret_of_a_request_is_in_any_line(tmp_path: Path) -> None:
    word = "canary0123456789abcdef"
    with lines() as told:
        async with observed(a_worker(), file=tmp_path / "log.db") as server:
            session = await server.client.session()
            where = f"{server.client.url}/api/sessions/{session}"
            ways: list[tuple[str, dict[str, str]]] = [
                (where, {"Authorization": f"Bearer hk_{word}"}),
                (
                    where,
                    {"Authorization": f"Basic {word}", "Cookie": word, "X-Api-Key": word},
                ),
                (f"{where}?share=hs_{word}", {}),
                (f"{where}/events?ticket=ht_{word}&token={word}", {}),
                (f"{where}/socket?ticket=ht_{word}", {}),
                (where, {"X-Request-Id": f"{word}\N{NO-BREAK SPACE}"}),
            ]
            for url, headers in ways:
                async with server.client.http.get(url, headers=headers) as answer:
                    assert answer.status >= 400
            async with server.client.http.ws_connect(f"{where}/socket?ticket=ht_{word}") as socket:
                assert (await socket.receive()).data == 4401
            await server.client.speak(session, "look")
            log.error("Bearer hk_%s to /x?ticket=%s", word, word)

    assert told.of("request")
    assert word not in told.text
    assert KEY not in told.text


@pytest.mark.usefixtures("masking")
def test_what_a_mask_covers_is_in_no_line_and_in_no_traceback() -> None:
    with lines() as told:
        log.info("the word is %s", "swordfish")
        try:
            int("swordfish")
        except ValueError:
            log.exception("failed")
        log.info("%s", {"deep": ["swordfish"]})

    assert "swordfish" not in told.text
    assert all("***" in json.dumps(line) for line in told.all)
    assert "Traceback" in str(told.of("failed")[0]["exception"])


@pytest.mark.parametrize(
    "secret",
    [
        "hk_0123456789abcdef0123",
        "sk-proj-0123456789abcdef0123",
        "Bearer anything.at/all+here",
        "/socket?ticket=short",
    ],
)
def test_what_looks_like_a_secret_is_covered_without_anybody_s_help(secret: str) -> None:
    told = masked(f"before {secret} after")
    assert COVER in told
    assert re.split(r"[= ]", secret)[-1] not in told
    assert told.startswith("before ")
    assert told.endswith(" after")


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(
    "said",
    ["1\n2", '{"event":"a"}\n{"event":"b"}', "\x1b[31mred\r", "\ud800", "\x00", "a\u2028b"],
    ids=ascii,
)
def test_one_record_is_one_line_whatever_it_says(said: str, *, as_text: bool) -> None:
    record = logging.LogRecord("somebody", logging.WARNING, "x.py", 1, "%s", (said,), None)
    record.path = said
    line = formatter(as_text=as_text).format(record)

    assert "\n" not in line
    assert "\x1b" not in line
    assert line.encode()
    if not as_text and said != "\ud800":
        assert json.loads(line)["event"] == json.loads(line)["path"] == said


def test_a_line_has_an_end_and_a_wrong_one_says_nothing_of_its_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with lines() as told:
        log.info("x" * 10 * LONGEST_VALUE)
    assert len(told.text) < LONGEST_VALUE + 400

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure("json", "info", stream=sys.stderr)
        log.info("%d is no number", "swordfish")
        log.info("fine")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(capture=False)
    told_anyway = capsys.readouterr().err
    assert "swordfish" not in told_anyway
    assert "somebody.else" in told_anyway
    assert json.loads(told_anyway.splitlines()[-1])["event"] == "fine"


def test_a_server_whose_lines_nobody_looks_at_writes_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hostler", "serve", "--port", "0", "--data", str(tmp_path)]
    environ = {
        **OUTSIDE,
        **provider_keys(),
        "HOSTLER_MODEL": "scripted:demo",
        "HOSTLER_ADMIN_KEY": KEY,
    }
    with Process(command, stderr=subprocess.PIPE, env=environ) as process:
        assert process.stderr is not None
        lines = (cast("Json", json.loads(line)) for line in process.stderr)
        ready = next(line for line in lines if "serving" in str(line["event"]))
        url = re.findall(r"http://\S+", str(ready["event"]))[0]
        with urllib.request.urlopen(f"{url}/healthz") as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        rest = [*lines]

    assert process.returncode == 0
    assert str(ready["event"]).startswith("serving assistant on http://")
    assert (ready["level"], ready["logger"]) == ("info", "hostler")
    assert all("event" in line for line in rest)


def test_no_value_of_a_line_of_a_server_has_a_key_that_the_server_has(tmp_path: Path) -> None:
    key = canary("OPENAI_API_KEY", "a-key-that-looks-like-none")
    command = [sys.executable, "-m", "hostler", "serve", "--port", "0", "--data", str(tmp_path)]
    environ = {
        **OUTSIDE,
        "HOSTLER_MODEL": "scripted:demo",
        "HOSTLER_ADMIN_KEY": KEY,
        "OPENAI_API_KEY": key,
    }
    said = list[str]()
    with Process(
        [*command, "--log-level", "debug"], stderr=subprocess.PIPE, env=environ
    ) as process:
        assert process.stderr is not None
        url = ""
        while not url:
            said.append(process.stderr.readline())
            url = "".join(re.findall(r"serving assistant on (http://[\w.:]+)", said[-1]))
        ask = urllib.request.Request(
            f"{url}/api/runs/{key}", headers={"Authorization": f"Bearer {KEY}"}
        )
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(ask)
        process.send_signal(signal.SIGTERM)
        said += process.stderr

    (line,) = [line for line in said if '"event":"request"' in line]
    assert json.loads(line)["path"] == "/api/runs/[secret:OPENAI_API_KEY]"
    assert key not in "".join(said)
