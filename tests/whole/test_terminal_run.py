"""`hostler run`: for scripts and pipes, with a server or without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import cast

import pytest
from tests.terminals import COMMAND, PATIENCE_S, Home, script

pytestmark = pytest.mark.timeout(90)

LONG = {"text": " ".join(f"w{i}" for i in range(1000)), "delay_s": 60}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def frames(text: str) -> list[dict[str, object]]:
    return [cast("dict[str, object]", json.loads(line)) for line in text.splitlines()]


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    seen = ""
    while text not in seen:
        more = os.read(process.stdout.fileno(), 4096)
        assert more, seen
        seen += more.decode()
    return seen


def test_the_answer_is_all_that_goes_to_the_output(home: Home) -> None:
    call = {"name": "python", "arguments": {"code": "print(6 * 7)"}}
    model = script(home.folder, {"text": "Let me see.", "calls": [call]}, {"text": "It is 42."})

    done = home.run("run", "6 * 7?", "--model", model)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "Let me see.\nIt is 42.\n"
    assert done.stderr.startswith('✓ python(code="print(6 * 7)") → 42 · ')
    assert len(done.stderr.splitlines()) == 1


def test_a_run_that_fails_says_why_and_exits_with_1(home: Home) -> None:
    model = script(home.folder, {"error": {"code": "auth", "message": "the key is wrong"}})

    done = home.run("run", "hello", "--model", model)

    assert done.returncode == 1
    assert done.stdout == ""
    assert "the key is wrong" in done.stderr
    assert "Traceback" not in done.stderr


def test_frames_are_one_json_object_a_line_and_nothing_else(home: Home) -> None:
    model = script(home.folder, {"text": "one two"})

    done = home.run("run", "hello", "--model", model, "--json")

    found = frames(done.stdout)
    assert done.returncode == 0
    assert all(set(one) == {"id", "event", "data"} for one in found)
    assert found[0]["event"] == "receipt"
    assert found[-1]["event"] == "run_ended"
    assert "model_replied" in [one["event"] for one in found]


@pytest.mark.parametrize(
    ("prompt", "piped", "said"),
    [
        (["Sum up:"], "a\nb\n", "Sum up:\n\na\nb"),
        ([], "only this\n", "only this"),
        (["only that"], "", "only that"),
    ],
)
def test_what_is_piped_in_stands_below_the_prompt(
    home: Home, prompt: list[str], piped: str, said: str
) -> None:
    done = home.run("run", *prompt, "--model", "scripted:demo", stdin=piped)

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{said}\n", "this model says what was said to it"


def test_nothing_to_say_is_a_mistake(home: Home) -> None:
    done = home.run("run", "--model", "scripted:demo", stdin="")

    assert done.returncode == 2
    assert "nothing to say" in done.stderr


def test_ctrl_c_cancels_the_run_and_the_session_goes_on(home: Home) -> None:
    model = script(home.folder, LONG, {"text": "still here"})
    process = home.start("run", "hello", "--model", model, "--json")
    seen = read_until(process, '"delta"')
    session = cast("dict[str, str]", frames(seen.splitlines()[0])[0]["data"])["session"]

    process.send_signal(signal.SIGINT)
    rest, told = process.communicate(timeout=PATIENCE_S)
    (home.folder / "script.json").write_text(json.dumps([{"text": "still here"}]))
    again = home.run("run", "again", "--model", model, "--session", session)

    assert process.returncode == 130, told
    assert "Traceback" not in told
    end = frames(rest.splitlines()[-1])[0]
    assert end["event"] == "run_ended"
    assert cast("dict[str, str]", end["data"])["status"] == "cancelled"
    assert (again.returncode, again.stdout) == (0, "still here\n")


def test_a_run_that_takes_too_long_is_cancelled_and_exits_with_1(home: Home) -> None:
    done = home.run("run", "hi", "--model", script(home.folder, LONG), "--timeout-s", "0.2")

    assert done.returncode == 1
    assert "not done after 0.2 s" in done.stderr
    assert "cancelled" in done.stderr


def test_a_reader_that_goes_away_is_no_reason_for_words(home: Home) -> None:
    process = home.start("run", "hello", "--model", script(home.folder, LONG))
    read_until(process, "w1")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    told = process.stderr.read()
    process.stderr.close()

    assert process.wait(PATIENCE_S) == 141
    assert told == ""


def test_a_server_that_runs_is_used_and_keeps_the_run(home: Home) -> None:
    with home.server("scripted:demo"):
        done = home.run("run", "hello", "--json")
        wrong_model = home.run("run", "hello", "--model", "scripted:other")
        wrong_agent = home.run("run", "hello", "--agent", "nobody")
        wrong_session = home.run("run", "hello", "--session", "ses_missing00")

    assert done.returncode == 0, done.stderr
    assert wrong_model.returncode == 2
    assert "assistant uses scripted:demo" in wrong_model.stderr
    assert wrong_agent.returncode == 2
    assert "there is no agent named 'nobody'" in wrong_agent.stderr
    assert wrong_session.returncode == 2
    assert "no session ses_missing00" in wrong_session.stderr


def test_a_key_that_is_not_the_server_s_is_told_as_such(home: Home) -> None:
    with home.server("scripted:demo") as serving:
        home.more["HOSTLER_ADMIN_KEY"] = "hk_another_key_of_enough_characters"
        url = f"http://127.0.0.1:{serving.port}"
        named = home.run("run", "hello", "--url", url)
        listed = home.run("sessions")
        own = home.run("run", "hello", "--model", "scripted:demo")

    assert named.returncode == 2
    assert "does not know this key" in named.stderr
    assert listed.returncode == 2
    assert "open" in listed.stderr
    assert own.returncode == 2
    assert f"process {serving_pid(own.stderr)} has " in own.stderr
    assert "--url" in own.stderr
    for one in (named, listed, own):
        assert "Traceback" not in one.stderr


def serving_pid(told: str) -> int:
    return int(told.partition("process ")[2].split()[0])


def test_a_server_that_is_named_and_not_there_is_told_as_such(home: Home) -> None:
    done = home.run("run", "hello", "--url", "http://127.0.0.1:9")

    assert done.returncode == 2
    assert "no server answers at http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_agent_s_file_can_be_run_without_a_server(home: Home) -> None:
    model = script(home.folder, {"text": "from a file"})
    (home.folder / "mine.md").write_text(f"---\nmodel: {model}\n---\nBe brief.\n")

    done = home.run("run", "hello", "--agent", "mine.md")

    assert (done.returncode, done.stdout) == (0, "from a file\n")


def test_help_is_shown_without_what_the_command_needs() -> None:
    heavy = ("aiohttp", "rich", "pydantic", "prompt_toolkit", "sqlite3", "uvicorn")
    code = (
        "import sys; sys.argv[1:] = ['sessions', '--help']\n"
        "from hostler.app.cli import hostler\n"
        "hostler(standalone_mode=False)\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    told = subprocess.run([COMMAND[0], "-c", code], capture_output=True, check=True, text=True)
    assert told.stdout.splitlines()[-1] == "[]"
