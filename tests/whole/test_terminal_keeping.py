"""`hostler sessions fork | rename | delete | export | import`, and `hostler doctor stream`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
from tests.serving import Json
from tests.terminals import Home

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def listed(home: Home) -> dict[str, Json]:
    lines = home.run("sessions", "--json").stdout.splitlines()
    return {str(one["id"]): one for one in (cast("Json", json.loads(line)) for line in lines)}


def said(home: Home, text: str) -> str:
    """Say something in a new session; return its id."""
    done = home.run("run", text, "--model", "scripted:demo", "--json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout.splitlines()[0])["data"]["session"])


def test_a_session_is_forked_renamed_and_deleted_without_a_server(home: Home) -> None:
    session = said(home, "first")

    fork = home.run("sessions", "fork", session).stdout.strip()
    early = home.run("sessions", "fork", session, "--at", "0").stdout.strip()
    open_step = home.run("sessions", "fork", session, "--at", "4")
    named = home.run("sessions", "rename", fork, "Another way")
    gone = home.run("sessions", "delete", session)
    there = listed(home)
    again = home.run("run", "second", "--session", fork, "--model", "scripted:demo")

    assert set(there) == {fork, early}
    assert there[fork]["title"] == "Another way"
    assert cast("Json", there[fork]["forked"])["session"] == session
    assert there[early]["seq"] == 1
    assert open_step.returncode == 2
    assert open_step.stderr.startswith("hostler: a step is open at 4; the last closed one is ")
    assert (named.returncode, gone.returncode) == (0, 0)
    assert (again.returncode, again.stdout) == (0, "second\n")


def test_an_exported_session_is_imported_elsewhere_as_it_was(home: Home, tmp_path: Path) -> None:
    session, other = said(home, "first"), Home(tmp_path / "other")
    other.folder.mkdir()
    assert said(other, "theirs")

    file = home.run("sessions", "export", session).stdout
    made = other.run("sessions", "import", "-", stdin=file)
    twice = other.run("sessions", "import", "-", stdin=file)
    back = other.run("sessions", "export", session).stdout

    assert (made.returncode, made.stdout.strip()) == (0, session), made.stderr
    assert back.splitlines()[1:] == file.splitlines()[1:]
    assert twice.returncode == 2
    assert f"{session} is here already" in twice.stderr


def test_a_damaged_file_is_refused_with_the_line(home: Home) -> None:
    session = said(home, "first")
    lines = home.run("sessions", "export", session).stdout.splitlines()
    file = home.folder / "cut.jsonl"
    file.write_text("\n".join([*lines[:2], "{}", *lines[3:]]) + "\n")

    done = home.run("sessions", "import", str(file), "--id", "ses_another_one")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hostler: line 3: ")
    assert set(listed(home)) == {session}


def test_a_server_that_runs_does_it_wherever_its_address_stands(home: Home) -> None:
    with home.server("scripted:demo") as serving:
        session = said(home, "first")
        url = f"http://127.0.0.1:{serving.port}"
        home.more["HOSTLER_PORT"] = "9"
        before = home.run("sessions", "--url", url, "fork", session)
        after = home.run("sessions", "fork", session, "--url", url)
        file = home.run("sessions", "export", session, "--url", url).stdout
        path = home.folder / "one.jsonl"
        path.write_text(file)
        made = home.run("sessions", "import", str(path), "--id", "ses_0123456789", "--url", url)

    assert before.stdout.startswith("ses_"), before.stderr
    assert after.stdout.startswith("ses_"), after.stderr
    assert made.returncode == 2
    assert "is here already, in another session" in made.stderr


def test_on_a_terminal_it_is_asked_whether_a_delete_is_meant(home: Home) -> None:
    session = said(home, "first")

    with home.terminal("sessions", "delete", session) as terminal:
        terminal.until("Delete ses_", "[y/N]")
        terminal.type("n\r")
        kept = terminal.end()
    after_no = set(listed(home))
    with home.terminal("sessions", "delete", session, "--yes") as terminal:
        assert terminal.end() == 0

    assert kept == 1
    assert "Traceback" not in terminal.raw
    assert after_no == {session}
    assert listed(home) == {}


@pytest.mark.parametrize("verb", [["fork"], ["export"], ["delete"], ["rename", "x"]])
def test_what_is_not_there_is_said_so(home: Home, verb: list[str]) -> None:
    assert said(home, "first")

    done = home.run("sessions", verb[0], "ses_missing00", *verb[1:])

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hostler: no session ses_missing00")


def test_what_is_for_the_list_is_refused_beside_a_command(home: Home) -> None:
    done = home.run("sessions", "--limit", "3", "fork", "ses_missing00")

    assert done.returncode == 2
    assert "--limit is for the list" in done.stderr


def test_the_doctor_tells_whether_a_stream_is_held_back(home: Home) -> None:
    with home.server("scripted:demo") as serving:
        url = f"http://127.0.0.1:{serving.port}"
        well = home.run("doctor", "stream", url)
        own = home.run("doctor", "stream", "--json")
        home.more["HOSTLER_ADMIN_KEY"] = "hk_another_key_of_enough_characters"
        refused = home.run("doctor", "stream", url)
    gone = home.run("doctor", "stream", url, "--json")

    assert (well.returncode, well.stdout.split()[0]) == (0, "ok")
    assert f"{url} streams" in well.stdout
    assert json.loads(own.stdout)["health"] == "ok"
    assert refused.returncode == 1
    assert "does not know this key" in refused.stdout
    assert gone.returncode == 1
    assert "cannot be reached" in json.loads(gone.stdout)["found"]
