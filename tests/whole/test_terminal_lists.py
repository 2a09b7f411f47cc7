"""`hostler sessions`, `hostler search` and `hostler doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
from tests.canaries import canary
from tests.serving import Serve
from tests.terminals import Home, script

from hostler import Client
from hostler.core.ports import AgentSpec
from hostler.harness.toolbox import Toolbox
from hostler.models.scripted import scripted

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def objects(text: str) -> list[dict[str, object]]:
    return [cast("dict[str, object]", json.loads(line)) for line in text.splitlines()]


def test_sessions_and_words_are_found_with_a_server_and_without_one(home: Home) -> None:
    with home.server("scripted:demo"):
        for said in ("the first question", "a second\nquestion", "third"):
            assert home.run("run", said).returncode == 0
        served = [home.run("sessions"), home.run("search", "QUESTION")]
        limited = home.run("sessions", "--limit", "2", "--json")
    stored = [home.run("sessions"), home.run("search", "QUESTION")]

    for listed, found in (served, stored):
        rows = listed.stdout.splitlines()
        assert rows[0].split() == ["session", "agent", "about", "status", "when"]
        assert [row.split("  ")[2].strip() for row in rows[1:]] == [
            "third",
            "a second question",
            "the first question",
        ]
        assert all("idle" in row and "just now" in row for row in rows[1:])
        hits = found.stdout.splitlines()[1:]
        assert {"a second question", "the first question"} <= {
            hit.split("  ")[-1].strip() for hit in hits
        }
        assert not [hit for hit in hits if "third" in hit]
    assert len(objects(limited.stdout)) == 2


def test_matches_are_highlighted_on_a_terminal(home: Home) -> None:
    assert home.run("run", "find the needle here", "--model", "scripted:demo").returncode == 0

    with home.terminal("search", "needle") as terminal:
        assert terminal.end() == 0

    assert "\x1b[1;7mneedle\x1b[0m" in terminal.raw
    assert "find the needle here" in terminal.screen


def test_words_that_were_not_said_are_an_exit_status_of_1(home: Home) -> None:
    assert home.run("run", "hello", "--model", "scripted:demo").returncode == 0

    done = home.run("search", "absent")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "no such words were said\n"


def test_where_nothing_is_stored_that_is_said_and_nothing_is_made(home: Home) -> None:
    done = home.run("sessions")

    assert done.returncode == 2
    assert "nothing is stored in " in done.stderr
    assert not (home.folder / "data" / "hostler.db").exists()


@pytest.mark.anyio
async def test_a_list_is_read_through_all_its_pages(serve: Serve) -> None:
    agent = AgentSpec(
        name="echo",
        instructions="",
        models=[scripted("demo")],
        tools=Toolbox([], spill_folder=None),
    )
    async with serve(agent) as server:
        made = [await server.session() for _ in range(7)]
        async with Client(server.url, server.key) as client:
            found = [
                one["id"] async for one in client.api.items("/api/sessions", limit=None, page=3)
            ]
            some = [one["id"] async for one in client.api.items("/api/sessions", limit=5, page=3)]

    assert found == made[::-1]
    assert some == made[:1:-1]


def checks(text: str) -> dict[str, dict[str, object]]:
    return {str(one["name"]): one for one in objects(text)}


def test_a_doctor_finds_a_healthy_installation_healthy(home: Home) -> None:
    with home.server("scripted:demo"):
        done = home.run("doctor", "--json")

    found = checks(done.stdout)
    assert done.returncode == 0, done.stdout
    assert {one["health"] for one in found.values()} <= {"ok", "warn"}
    assert "answers and knows the key" in str(found["server"]["found"])
    assert "fsync takes" in str(found["disk"]["found"])
    assert str(found["database"]["found"]).endswith("sound")


def test_a_doctor_finds_a_broken_database_and_a_server_that_is_not_there(home: Home) -> None:
    (home.folder / "data").mkdir()
    (home.folder / "data" / "hostler.db").write_bytes(b"no database" * 1000)

    done = home.run("doctor", "--url", "http://127.0.0.1:9", "--json")

    found = checks(done.stdout)
    assert done.returncode == 1
    assert found["database"]["health"] == "fail"
    assert "backup" in str(found["database"]["advice"])
    assert found["server"]["health"] == "fail"
    assert "Traceback" not in done.stderr


def test_a_doctor_remarks_variables_that_set_nothing_and_names_keys_but_shows_none(
    home: Home,
) -> None:
    secret = canary("OPENAI_API_KEY", "sk-secret")
    home.more |= {"HOSTLER_MODLE": "x", "OPENAI_API_KEY": secret}

    done = home.run("doctor")

    assert "HOSTLER_MODLE sets nothing; did you mean HOSTLER_MODEL?" in done.stdout
    assert "OPENAI_API_KEY" in done.stdout
    assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("reply", "health", "found", "status"),
    [
        ({"calls": [{"name": "add", "arguments": {"a": 2, "b": 3}}]}, "ok", "calls tools", 0),
        ({"text": "5"}, "warn", "did not call the tool", 0),
        ({"error": {"code": "auth", "message": "wrong key"}}, "fail", "auth: wrong key", 1),
    ],
)
def test_a_doctor_tries_a_model(
    home: Home, reply: object, health: str, found: str, status: int
) -> None:
    done = home.run("doctor", "--json", "--model", script(home.folder, reply))

    (told,) = objects(done.stdout)
    assert done.returncode == status
    assert told["health"] == health
    assert found in str(told["found"])
