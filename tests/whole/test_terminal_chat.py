"""`hostler chat` and `hostler attach`, on terminals and on pipes."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
from tests.terminals import PATIENCE_S, Home, script

pytestmark = pytest.mark.timeout(120)

CTRL_C, CTRL_D, ENTER, ALT_ENTER = "\x03", "\x04", "\r", "\x1b\r"
WORDS = " ".join(f"w{i}" for i in range(60))
LONG = {"text": " ".join(f"w{i}" for i in range(1000)), "delay_s": 60}
READY = "/help"
SESSION = re.compile(r"--session (ses_\w+)")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def session_in(screen: str) -> str:
    match = SESSION.search(screen.replace("\n", ""))
    assert match is not None, screen
    return match[1]


def test_an_answer_is_drawn_as_it_comes_and_the_way_back_is_said(home: Home) -> None:
    call = {"name": "python", "arguments": {"code": "print(6 * 7)"}}
    model = script(
        home.folder,
        {"thinking": "Sums are hard.", "text": "# Sum\n\nLet me *see*.", "calls": [call]},
        {"text": "| a |\n|---|\n| 42 |\n\nDone, `yes`."},
    )

    with home.terminal("chat", "--model", model) as terminal:
        terminal.until(READY)
        terminal.type(f"6 * 7?{ENTER}")
        screen = terminal.until("Done, yes.", " out\n")
        terminal.type(CTRL_D)
        assert terminal.end() == 0
        last = terminal.screen

    at = screen.index("> 6 * 7?")
    shown = [line.strip() for line in screen[at:].splitlines() if line.strip()]
    assert shown[:4] == ["> 6 * 7?", "Sums are hard.", "Sum", "Let me see."]
    assert shown[4].startswith('✓ python(code="print(6 * 7)") → 42 · ')
    assert shown[5:9] == ["a", "──", "42", "Done, yes."]
    assert "to come back: hostler chat --session ses_" in last
    assert "Ctrl-C cancels" not in last, "nothing that moved is left"
    assert "\x1b[1m" in terminal.raw


def test_who_comes_back_sees_what_was_said_last(home: Home) -> None:
    model = script(home.folder, *({"text": f"answer {i}"} for i in range(6)))
    first = home.run("chat", "--model", model, stdin="".join(f"question {i}\n" for i in range(5)))
    session = session_in(first.stderr)

    with home.terminal("chat", "--model", model, "--session", session) as terminal:
        terminal.until(READY, "answer 4")
        terminal.type(f"question 5{ENTER}")
        screen = terminal.until("answer 5")

    assert first.stdout.splitlines() == [f"answer {i}" for i in range(5)]
    assert "answer 1" not in screen
    for i in range(2, 6):
        assert screen.count(f"> question {i}\n") == 1
        assert screen.count(f"answer {i}\n") == 1


def test_ctrl_c_cancels_the_run_and_the_session_goes_on(home: Home) -> None:
    model = script(home.folder, LONG)

    with home.terminal("chat", "--model", model) as terminal:
        terminal.until(READY)
        terminal.type(f"one{ENTER}")
        terminal.until("w0", "Ctrl-C cancels")
        terminal.type(CTRL_C)
        terminal.until("cancelled · ")
        terminal.type(f"two{ENTER}")
        terminal.until("> two", "Ctrl-C cancels")
        terminal.type(CTRL_C)
        terminal.type(CTRL_C)
        assert terminal.end() == 0
        screen = terminal.screen

    assert screen.index("> one") < screen.index("cancelled · ") < screen.index("> two")
    assert "to come back: hostler chat" in screen


def test_what_is_said_while_a_run_goes_waits_and_is_answered(home: Home) -> None:
    model = script(home.folder, {"text": WORDS, "delay_s": 2}, {"text": "second answer"})

    with home.terminal("chat", "--model", model) as terminal:
        terminal.until(READY)
        terminal.type(f"one{ENTER}")
        terminal.until("w0")
        terminal.type(f"two{ENTER}")
        terminal.until("waits > two")
        screen = terminal.until("second answer")

    assert screen.index("w59") < screen.index("> two") < screen.index("second answer")


def test_alt_enter_begins_a_new_line(home: Home) -> None:
    with home.terminal("chat", "--model", script(home.folder, {"text": "hello"})) as terminal:
        terminal.until(READY, "\n>")  # before its prompt, the terminal's driver reads the keys
        terminal.type(f"two{ALT_ENTER}lines{ENTER}")

        terminal.until("> two\n  lines", "hello")


def test_a_new_session_can_be_begun_and_unknown_commands_are_not_sent(home: Home) -> None:
    with home.terminal("chat", "--model", script(home.folder, {"text": "hello"})) as terminal:
        terminal.until(READY)
        terminal.type(f"/nonsense{ENTER}")
        terminal.until("begin a new session")
        terminal.type(f"one{ENTER}")
        terminal.until("hello\n")
        terminal.type(f"/new{ENTER}")
        terminal.until("a new session begins")
        terminal.type(f"two{ENTER}")
        terminal.until("> two", " out\n", after=terminal.screen.index("a new session begins"))
        terminal.type(f"/quit{ENTER}")
        assert terminal.end() == 0

    assert len(home.run("sessions", "--json").stdout.splitlines()) == 2


def test_a_dumb_terminal_gets_lines_and_ctrl_c_cancels_there_too(home: Home) -> None:
    model = script(home.folder, LONG)

    with home.terminal("chat", "--model", model, TERM="dumb") as terminal:
        terminal.until(">")
        terminal.type("one\n")
        terminal.until("w0")
        terminal.type(CTRL_C)
        terminal.until("cancelled · ")
        terminal.type("/quit\n")
        assert terminal.end() == 0

    assert "\x1b" not in terminal.raw
    assert "to come back: hostler chat" in terminal.screen


def test_without_colours_there_are_none(home: Home) -> None:
    model = script(home.folder, {"text": "`code`\n\n```py\nx = 1\n```\n"}, {"error": "auth"})

    with home.terminal("chat", "--model", model, NO_COLOR="1") as terminal:
        terminal.until(READY)
        terminal.type(f"one{ENTER}")
        terminal.until("x = 1", " out\n")
        terminal.type(f"two{ENTER}")
        terminal.until("failed: ")

    colours = {
        code
        for codes in re.findall(r"\x1b\[([\d;]+)m", terminal.raw)
        for code in codes.split(";")
        if re.fullmatch(r"[349]\d|10\d", code) and code not in ("39", "49")
    }
    assert colours == set()


def test_a_second_chat_on_one_folder_is_told_who_has_it(home: Home) -> None:
    with home.terminal("chat", "--model", "scripted:demo") as terminal:
        terminal.until(READY)
        second = home.run("chat", "--model", "scripted:demo", stdin="hello\n")

    assert second.returncode == 2
    assert re.search(r"process \d+ has \S+ open, and no server", second.stderr)


def test_an_attached_terminal_survives_the_server_and_shows_all_once(home: Home) -> None:
    with home.server(script(home.folder, {"text": WORDS, "delay_s": 3})) as serving:
        run = home.start("run", "go", "--json")
        assert run.stdout is not None
        session = json.loads(run.stdout.readline())["data"]["session"]
        with home.terminal("attach", session) as terminal:
            terminal.until("> go", "w5")
            serving.kill()
            terminal.until("trying to get back")
            serving.start()
            terminal.until("w59", " out\n")
            terminal.type(CTRL_C)
            assert terminal.end() == 0
            screen = terminal.screen
        out, told = run.communicate(timeout=PATIENCE_S)

    assert " ".join(screen[screen.index("w0") :].split())[: len(WORDS)] == WORDS
    assert screen.count("> go") == 1
    assert "begins anew" not in screen
    assert run.returncode == 0, told
    frames = [json.loads(line) for line in out.splitlines()]
    facts = [one["data"]["seq"] for one in frames if one["event"] != "delta"]
    assert facts == list(range(2, len(facts) + 2)), "each fact came once, in order"
    assert "the server is back" in told


def test_leaving_an_attached_session_cancels_nothing(home: Home) -> None:
    with home.server(script(home.folder, LONG)):
        run = home.start("run", "go", "--json")
        assert run.stdout is not None
        session = json.loads(run.stdout.readline())["data"]["session"]
        looker = home.start("attach", session)
        assert looker.stdout is not None
        assert looker.stdout.readline() == "> go\n"
        looker.send_signal(signal.SIGINT)
        _, told = looker.communicate(timeout=PATIENCE_S)
        listed = home.run("sessions", "--status", "running", "--json")
        run.kill()
        run.communicate()

    assert looker.returncode == 0, told
    assert json.loads(listed.stdout)["id"] == session


def test_a_session_that_is_not_there_cannot_be_attached_to(home: Home) -> None:
    with home.server("scripted:demo"):
        done = home.run("attach", "ses_missing00")

    assert done.returncode == 2
    assert done.stderr.startswith("hostler: no session ses_missing00")
