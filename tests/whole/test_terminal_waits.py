"""Approvals and questions in `hostler chat`, `attach` and `run`."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import cast

import pytest
from tests.serving import KEY, Json
from tests.terminals import Home, Serving, Terminal, script

pytestmark = pytest.mark.timeout(120)

CTRL_A, CTRL_C, CTRL_K, CTRL_D, ENTER = "\x01", "\x03", "\x0b", "\x04", "\r"
READY, KEYS = "/help", "y allow · n deny · a always · e edit"
ASK = {"question": "Which colour?", "options": ["red", "green"]}


def python(code: str) -> Json:
    return {"name": "python", "arguments": {"code": code}}


class Careful(Home):
    """A home with an agent whose calls of `python` have to be approved."""

    def agent(self, *replies: object, more: str = "") -> tuple[str, ...]:
        """Return the flags that choose it."""
        model = script(self.folder, *replies)
        (self.folder / "agents").mkdir()
        (self.folder / "agents" / "careful.md").write_text(
            f"---\nmodel: {model}\ntools: [python, ask_user]\n"
            f"permissions: {{ask: [python]}}\n{more}---\nBe careful.\n"
        )
        self.more["HOSTLER_MODEL"] = model
        return ("--agent", "careful")


@pytest.fixture
def home(tmp_path: Path) -> Careful:
    return Careful(tmp_path)


def say(terminal: Terminal, text: str, *until: str) -> str:
    terminal.until(READY)
    terminal.type(f"{text}{ENTER}")
    return terminal.until(*until)


def post(serving: Serving, path: str, body: object) -> Json:
    """Do what another client does."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{serving.port}{path}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {KEY}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_a_call_is_shown_with_all_it_would_run_with_and_allowed_with_one_key(home: Careful) -> None:
    flags = home.agent({"calls": [python("x = 6\nprint(x * 7)")]}, {"text": "It is done."})

    with home.terminal("chat", *flags) as terminal:
        screen = say(terminal, "go", "? careful (for admin) wants to run python", KEYS)
        terminal.type("y")
        after = terminal.until("It is done.", " out\n")

    assert "  code:\n    x = 6\n    print(x * 7)\n" in screen
    assert "? waiting for an approval of python(" in screen
    assert "python was allowed by admin\n✓ python(" in after
    assert "→ 42 · " in after
    assert KEYS not in after


@pytest.mark.parametrize(
    ("typed", "told"), [("too risky", "Denied by admin: too risky"), ("", "Denied by admin.")]
)
def test_a_call_is_denied_with_a_reason_or_without_one(
    home: Careful, typed: str, told: str
) -> None:
    flags = home.agent({"calls": [python("print(1)")]}, {"text": "Not then."})

    with home.terminal("chat", *flags) as terminal:
        say(terminal, "go", KEYS)
        terminal.type("n")
        terminal.until("why?", "Enter for no reason")
        terminal.type(f"{typed}{ENTER}")
        screen = terminal.until("Not then.", " out\n")

    assert f'✗ python(code="print(1)") → denied: {told}' in screen


def test_what_is_always_allowed_is_asked_about_once(home: Careful) -> None:
    flags = home.agent(
        {"calls": [python("print(11)")]}, {"calls": [python("print(22)")]}, {"text": "Both."}
    )

    with home.terminal("chat", *flags) as terminal:
        say(terminal, "go", KEYS)
        terminal.type("a")
        screen = terminal.until("Both.", "→ 22 · ")

    assert "python was allowed by admin in this session, from now on" in screen
    assert screen.count("wants to run python") == 1


def test_arguments_are_edited_until_they_fit(home: Careful) -> None:
    flags = home.agent({"calls": [python("print(1)")]}, {"text": "It is done."})

    with home.terminal("chat", *flags) as terminal:
        say(terminal, "go", KEYS)
        terminal.type("e")
        terminal.until('arguments> {"code":"print(1)"}')
        terminal.type(f"{CTRL_A}{CTRL_K}{{oops{ENTER}")
        terminal.until("not sent: the arguments must be a JSON object", "arguments> {oops")
        terminal.type(f"{CTRL_A}{CTRL_K}{{}}{ENTER}")
        terminal.until("not sent: ", "arguments> {}")
        terminal.type(f'{CTRL_A}{CTRL_K}{{"code": "print(2 * 4)"}}{ENTER}')
        screen = terminal.until("It is done.", " out\n")

    assert 'python was allowed by admin, with code="print(2 * 4)"' in screen
    assert '✓ python(code="print(2 * 4)") → 8 · ' in screen


def test_ctrl_c_leads_back_from_denying_and_cancels_nothing(home: Careful) -> None:
    flags = home.agent({"calls": [python("print(1)")]}, {"text": "It is done."})

    with home.terminal("chat", *flags) as terminal:
        say(terminal, "go", KEYS)
        terminal.type("nbecause")
        terminal.until("why? because")
        terminal.type(CTRL_C)
        terminal.until(KEYS, "\n>")
        terminal.type("y")
        screen = terminal.until("It is done.")

    assert "cancelled" not in screen


def test_a_message_that_begins_with_a_space_is_one_though_a_call_waits(home: Careful) -> None:
    flags = home.agent({"calls": [python("print(1)")]}, {"text": "It is done."}, {"text": "Yes?"})

    with home.terminal("chat", *flags) as terminal:
        say(terminal, "go", KEYS)
        terminal.type(f" yes{ENTER}")
        terminal.until("waits > yes", KEYS)
        terminal.type("y")
        screen = terminal.until("It is done.", "> yes\n", "Yes?")

    assert screen.index("It is done.") < screen.index("> yes\n")


def test_an_answer_that_does_not_fit_is_asked_for_again(home: Careful) -> None:
    flags = home.agent({"calls": [{"name": "ask_user", "arguments": ASK}]}, {"text": "Well."})

    with home.terminal("chat", *flags) as terminal:
        screen = say(terminal, "go", "answer>")
        terminal.type(f"blue{ENTER}")
        terminal.until("not sent: the answer must be one of: red, green", "answer> blue")
        terminal.type(f"{CTRL_A}{CTRL_K}2{ENTER}")
        after = terminal.until("Well.", " out\n")

    assert "? careful (for admin) asks\n  Which colour?\n  1. red\n  2. green\n" in screen
    assert "→ green · by admin" in after


def test_a_question_can_be_answered_later(home: Careful) -> None:
    flags = home.agent(
        {"calls": [{"name": "ask_user", "arguments": {"question": "Why?"}}]},
        {"text": "I see."},
        {"text": "Bye."},
    )

    with home.terminal("chat", *flags) as terminal:
        say(terminal, "go", "answer>")
        terminal.type(f"/later{ENTER}")
        terminal.until("/answer to answer", "\n>")
        terminal.type(f"and then{ENTER}")
        terminal.until("waits > and then")
        terminal.type(f"/answer{ENTER}")
        terminal.until("\nanswer>")
        terminal.type(f"because{ENTER}")
        screen = terminal.until("I see.", "Bye.")

    assert "→ because · by admin" in screen


def test_what_somebody_else_answers_meanwhile_is_shown_and_the_own_answer_is_not_sent(
    home: Careful,
) -> None:
    flags = home.agent({"calls": [python("print(40 + 2)")]}, {"text": "It is done."})

    with (
        home.server("scripted:demo", "agents") as serving,
        home.terminal("chat", *flags) as terminal,
    ):
        say(terminal, "go", KEYS)
        terminal.type("nno")
        terminal.until("why? no")
        ((session, call),) = waiting(home)
        with home.terminal("attach", session) as looker:
            looker.until("careful (for admin) wants to run python", "print(40 + 2)")
            looker.until("to answer: hostler chat --session ", session)
            looker.type("y")
            edited = {"decision": "allow", "arguments": {"code": "print(5)"}}
            answered = post(serving, f"/api/sessions/{session}/approvals/{call}", edited)
            seen = looker.until("It is done.", "→ 5 · ")
        terminal.until("It is done.")
        terminal.type(ENTER)
        screen = terminal.until("not sent: it was answered meanwhile")

    assert answered["decision"] == "allow", "the key of whoever only looks on was no answer"
    for one in (seen, screen):
        assert 'python was allowed by admin, with code="print(5)"' in one


def waiting(home: Home) -> list[tuple[str, str]]:
    """Return the sessions that wait, each with the call it waits for."""
    done = home.run("sessions", "--status", "waiting", "--json")
    found = [cast("Json", json.loads(line)) for line in done.stdout.splitlines()]
    waits = [cast("list[dict[str, str]]", one["waits"])[0] for one in found]
    return [(str(one["id"]), wait["call"]) for one, wait in zip(found, waits, strict=True)]


def test_who_comes_back_can_answer_what_waited(home: Careful) -> None:
    flags = home.agent({"calls": [python("print(6 * 7)")]}, {"text": "It is done."})
    with home.terminal("chat", *flags) as terminal:
        say(terminal, "go", KEYS)
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    ((session, _),) = waiting(home)

    with home.terminal("chat", *flags, "--session", session) as terminal:
        terminal.until("wants to run python", KEYS)
        terminal.type("y")
        screen = terminal.until("It is done.")

    assert "→ 42 · " in screen


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("y", "→ 42 · "),
        ("what?\ny", "not sent: 'what?' is none of y, n, a and e"),
        ("n\n", "→ denied: Denied by admin."),
        ("n\nno", "→ denied: Denied by admin: no"),
        ('e\n[]\ne\n{"code": "print(8)"}', "→ 8 · "),
    ],
)
def test_lines_answer_where_there_are_no_keys(home: Careful, typed: str, told: str) -> None:
    flags = home.agent({"calls": [python("print(6 * 7)")]}, {"text": "It is done."})

    done = home.run("chat", *flags, stdin=f"go\n{typed}\n")

    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    assert done.stdout.rstrip().endswith("It is done.")


def test_a_chat_whose_input_ends_leaves_a_call_that_waits_and_it_is_taken_up(home: Careful) -> None:
    flags = home.agent({"calls": [{"name": "ask_user", "arguments": ASK}]}, {"text": "Well."})
    left = home.run("chat", *flags, stdin="go\n")
    ((session, _),) = waiting(home)

    back = home.run("chat", *flags, "--session", session, stdin="blue\ngreen\n")

    assert "the run stops here" in left.stdout
    assert "not sent: the answer must be one of: red, green" in back.stdout
    assert back.stdout.rstrip().endswith("Well.")


def test_a_dumb_terminal_asks_in_lines(home: Careful) -> None:
    flags = home.agent({"calls": [python("print(6 * 7)")]}, {"text": "It is done."})

    with home.terminal("chat", *flags, TERM="dumb") as terminal:
        terminal.until(">")
        terminal.type("go\n")
        terminal.until("? careful wants to run python", "e edit>")
        terminal.type("y\n")
        terminal.until("It is done.", "→ 42 · ")


def test_a_script_waits_for_nobody(home: Careful) -> None:
    flags = home.agent({"text": "So.", "calls": [python("print(1)")]}, {"text": "It is done."})

    done = home.run("run", "go", *flags)

    assert (done.returncode, done.stdout) == (1, "So.\n")
    assert 'it waits for an approval of python(code="print(1)"): cancelling' in done.stderr
    assert "--allow" in done.stderr
    assert waiting(home) == []


def test_a_script_may_allow_all(home: Careful) -> None:
    flags = home.agent({"calls": [python("print(1)"), python("print(2)")]}, {"text": "It is done."})

    done = home.run("run", "go", *flags, "--allow")

    assert (done.returncode, done.stdout) == (0, "It is done.\n"), done.stderr
    assert "→ 1 · " in done.stderr
    assert "→ 2 · " in done.stderr


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("ask_user", {"question": "Why?"}, "an answer to: Why?"),
        ("locate", {}, "another client to answer locate()"),
    ],
)
def test_what_a_client_has_to_answer_no_script_can_allow(
    home: Careful, name: str, arguments: object, told: str
) -> None:
    flags = home.agent(
        {"calls": [{"name": name, "arguments": arguments}]}, more="client_tools: [{name: locate}]\n"
    )

    done = home.run("run", "go", *flags, "--allow", "--json")

    assert done.returncode == 1
    assert f"it waits for {told}: cancelling" in done.stderr
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    assert frames[-1]["data"]["status"] == "cancelled"


def test_a_script_does_not_stand_in_line_behind_a_run_that_waits(home: Careful) -> None:
    flags = home.agent({"calls": [python("print(1)")]})
    home.run("chat", *flags, stdin="go\n")
    ((session, _),) = waiting(home)

    done = home.run("run", "and then", *flags, "--session", session)

    assert done.returncode == 1
    assert f"hostler chat --session {session}" in done.stderr


def test_a_tool_of_another_client_is_shown_as_waited_for(home: Careful) -> None:
    flags = home.agent(
        {"calls": [{"name": "locate", "arguments": {"what": "me"}}]},
        {"text": "There."},
        more="client_tools: [{name: locate}]\n",
    )

    with (
        home.server("scripted:demo", "agents") as serving,
        home.terminal("chat", *flags) as terminal,
    ):
        say(terminal, "go", '? waiting for another client to answer locate(what="me")')
        ((session, call),) = waiting(home)
        post(serving, f"/api/sessions/{session}/calls/{call}/result", {"output": "home"})
        screen = terminal.until("There.")

    assert '✓ locate(what="me") → home · by admin · ' in screen
