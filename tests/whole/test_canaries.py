"""The search for canaries can fail: what leaks is found in each place where it looks."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from tests import canaries
from tests.canaries import Ears, Process, heard_lines, masked_lines, master_keys
from tests.observed import observed
from tests.people import exactly, new_key
from tests.serving import serving
from tests.viewers import by_socket

from hostler.core.ports import AgentSpec, Reply
from hostler.testing.doubles import ModelDouble, an_agent
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio
log = logging.getLogger("hostler.somewhere")


@pytest.fixture
def ears() -> Ears:
    """Return ears of this test alone: what leaks here is meant to."""
    return Ears()


def leaky(said: str, name: str = "leaky") -> AgentSpec:
    return an_agent(ModelDouble(lambda _: Reply(text=said, stop="end"), name=name), name=name)


def unmasked() -> SealedVault:
    return SealedVault(master_keys())


def found(ears: Ears) -> set[str]:
    """Return in what there was a canary."""
    return {one.where for one in ears.sightings()}


async def test_a_leak_is_found_in_answers_streams_sockets_exports_and_databases(
    ears: Ears, tmp_path: Path
) -> None:
    value = ears.canaries.new("k")
    agent, file = leaky(f"It is {value}."), tmp_path / "log.db"
    async with serving(agent, file=file, vault=unmasked(), ears=ears) as client:
        session = await client.session()
        path = f"/api/sessions/{session}"
        assert found(ears) == set()

        await client.speak(session)
        assert f"the answer to POST {path}/messages" in found(ears)
        await client.get(f"{path}/events")
        assert f"the answer to GET {path}/events" in found(ears)
        assert (await exactly(client, "GET", f"{path}/export"))[0] == 200
        assert f"the answer to GET {path}/export" in found(ears)
        async with aclosing(by_socket(client, session, "0")) as frames:
            async for frame in frames:
                if frame.event == "run_ended":
                    break

    assert f"the answer to socket {path}/socket" in found(ears)
    assert {str(file), f"{file}, dumped"} & {one.where for one in ears.sightings_in(tmp_path)}


async def test_a_leak_is_found_in_an_error_and_in_the_headers_of_an_answer(ears: Ears) -> None:
    value = ears.canaries.new("k")
    async with serving(leaky(""), file=None, vault=unmasked(), ears=ears) as client:
        await client.call("POST", "/api/sessions", {value: 1})
        assert found(ears) == {"the answer to POST /api/sessions"}
        await client.call("GET", "/healthz", headers={"X-Request-Id": value})
        assert found(ears) == {"the answer to GET /healthz"}


async def test_a_leak_is_found_in_metrics_and_spans(ears: Ears) -> None:
    value = ears.canaries.new("k")
    agent = leaky("well", name=value)
    async with observed(agent, file=None, vault=unmasked(), ears=ears) as server:
        session = await server.client.session()
        await server.client.speak(session)
        found(ears)
        await server.text()
        assert found(ears) == {"the answer to GET /metrics"}

    assert any(one.startswith("the span ") for one in found(ears))


def test_a_leak_is_found_in_lines_unless_it_is_masked_there(ears: Ears) -> None:
    value, vault = ears.canaries.new("k"), unmasked()
    vault.learn(None, "k", value)
    with heard_lines(ears):
        log.debug("it is %s", value)
        assert found(ears) == {"a line of hostler.somewhere"}
        try:
            {}[value]
        except KeyError:
            log.exception("it broke")
        assert found(ears) == {"a line of hostler.somewhere"}
        with masked_lines(vault):
            log.warning("it is %s", value)
        assert len(ears.heard) == 1
        assert found(ears) == set()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("way", ["read", "readline", "lines", "communicate"])
def test_a_leak_is_found_in_what_a_process_prints(
    ears: Ears, monkeypatch: pytest.MonkeyPatch, stream: str, way: str
) -> None:
    monkeypatch.setattr(canaries, "EARS", ears)
    command = [sys.executable, "-c", f"import sys; sys.{stream}.write({ears.canaries.new('k')!r})"]
    with Process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        told = process.stdout if stream == "stdout" else process.stderr
        assert told is not None
        match way:
            case "read":
                told.read()
            case "readline":
                told.readline()
            case "lines":
                list(told)
            case _:
                process.communicate()

    assert found(ears) == {"what a process printed"}


async def test_a_secret_that_is_set_is_a_canary_from_then_on(ears: Ears) -> None:
    value = "a-secret-of-some-tool"
    async with serving(leaky("well"), file=None, vault=unmasked(), ears=ears) as client:
        await client.session(title=value)
        await client.call("PUT", "/api/secrets/tool:some", {"value": value})
        await client.session(title=value)
        ears.hear("somewhere", value)

    assert found(ears) == {"somewhere"}


async def test_a_key_that_a_server_made_is_a_canary_in_all_but_the_answer_that_shows_it(
    ears: Ears,
) -> None:
    async with serving(leaky("well"), file=None, vault=unmasked(), ears=ears) as client:
        key = str((await new_key(client))["key"])
        session = await client.session()
        path = f"/api/sessions/{session}/shares"
        _, shared = await client.call("POST", path, {})
        assert found(ears) == set()
        for value in (key, str(shared["token"])):
            ears.learn(value)  # what was learnt is one test's, and this searches more than once
            await client.session(title=value)
            assert found(ears) == {"the answer to POST /api/sessions"}


def test_a_leak_that_is_cut_over_two_frames_is_found(ears: Ears) -> None:
    value = ears.canaries.new("k")
    frames = [f"data: {json.dumps({'text': part})}\n\n" for part in (value[:20], value[20:])]
    ears.answer("GET", "/api/x", "".join(frames).replace('": "', '":"').encode())

    assert found(ears) == {"the joined text of GET /api/x"}


def test_a_leak_that_lies_over_two_pages_of_a_database_is_found(ears: Ears, tmp_path: Path) -> None:
    value, cut = ears.canaries.new("k"), list[str]()
    for before in range(0, 500, 20):
        file = tmp_path / f"{before}.db"
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA page_size = 512")
            database.execute("CREATE TABLE facts (body BLOB)")
            body = b"x" * before + value.encode() + b"x" * 2000
            database.execute("INSERT INTO facts VALUES (?)", [body])
            database.commit()
        cut += [f"{file}, dumped"] if value.encode() not in file.read_bytes() else []

    assert cut
    assert set(cut) <= {one.where for one in ears.sightings_in(tmp_path)}
