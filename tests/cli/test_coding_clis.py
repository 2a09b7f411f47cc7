"""Coding CLIs, set up as their pages say, answer, use their tools and go on where they were."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from tests.carried import sessions
from tests.coding import THOUGHT, USED, Desk, desk
from tests.direct import columns
from tests.observed import total

from hostler.core.said import ModelSaid, ToolSaid
from hostler.testing.doubles import ToolboxDouble, a_tool

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]


class Program(NamedTuple):
    page: str
    ask: str
    """Before what is asked."""
    again: str
    """Likewise, in the conversation before."""
    after: str = ""
    read: str = "Please read `{}`"
    thinks: bool = True
    """What was thought comes back in words."""
    seals: bool = True
    """What the model wants to see again comes back."""


PI = "pi --provider {} --model openai:gpt-5 -p"
OPENCODE = "opencode run -m {}/openai:gpt-5"
CODEX = "codex exec --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox"
SOCKET = "-c model_providers.hostler.supports_websockets=true"
PROGRAMS = {
    "claude code": Program(
        "claude-code.md", "claude -p", "claude -p --continue", "--allowedTools Read Bash"
    ),
    "codex": Program("codex.md", CODEX, f"{CODEX} resume --last", read="Please run `cat {}`"),
    "codex, websocket": Program(
        "codex.md",
        f"{CODEX} {SOCKET}",
        f"{CODEX} {SOCKET} resume --last",
        read="Please run `cat {}`",
    ),
    "opencode, chat": Program(
        "opencode.md",
        OPENCODE.format("hostler"),
        f"{OPENCODE.format('hostler')} --continue",
        seals=False,
    ),
    "opencode, messages": Program(
        "opencode.md",
        OPENCODE.format("hostler-messages"),
        f"{OPENCODE.format('hostler-messages')} --continue",
    ),
    "pi, chat": Program(
        "pi.md", PI.format("hostler"), f"{PI.format('hostler')} --continue", thinks=False
    ),
    "pi, messages": Program(
        "pi.md", PI.format("hostler-messages"), f"{PI.format('hostler-messages')} --continue"
    ),
}
each = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)


async def asks(at: Desk, program: Program, what: str, *, again: bool = False) -> str:
    return await at.run(f"{program.again if again else program.ask} '{what}' {program.after}")


@pytest.mark.parametrize("page", sorted({one.page for one in PROGRAMS.values()}))
async def test_what_a_page_says_gets_an_answer_that_is_counted(page: str, tmp_path: Path) -> None:
    async with desk(tmp_path, page) as at:
        told = await at.run()
        figures, (row,) = await at.series(), await at.usage()

    ends = [status for (status,) in columns(tmp_path / "log.db", "status")]
    replies = ends.count("replied")
    (first, *_) = at.coder.worked
    assert "Hello from the fake." in told
    assert len(first.system) > 1000, "its own instructions"
    # Who wanted a title may be gone before it has one.
    assert replies >= len(at.coder.worked)
    assert set(ends) <= {"replied", "dropped"}
    assert row["calls"] == len(ends) == len(at.coder.asked)
    assert (row["input_tokens"], row["output_tokens"]) == (
        replies * USED.input_tokens,
        replies * USED.output_tokens,
    )
    assert total(figures, "hostler_model_attempts_total", outcome="ok", model="gpt-5") == replies


@each
async def test_it_reads_a_file_and_runs_a_command(program: Program, tmp_path: Path) -> None:
    async with desk(tmp_path, program.page) as at:
        (at.folder / "note.txt").write_text("The word is heron.\n", encoding="utf-8")
        told = await asks(at, program, program.read.format(at.folder / "note.txt"))
        asked, answered = at.coder.worked
        await asks(at, program, "Please run `echo egret > made.txt`")

    (said,) = [one for one in answered.transcript if isinstance(one, ModelSaid)]
    (result,) = [one for one in answered.transcript if isinstance(one, ToolSaid)]
    assert "The word is heron." in told
    assert "The word is heron." in result.output
    assert not result.failed
    assert result.call == said.calls[0]
    assert said.thinking == (THOUGHT if program.thinks else None)
    sealed = at.coder.sealed(len(asked.transcript))
    assert said.replay == (sealed if program.seals else None)
    assert (at.folder / "made.txt").read_text(encoding="utf-8") == "egret\n"


async def test_claude_code_runs_its_tools_for_an_agent_and_shows_what_that_does(
    tmp_path: Path,
) -> None:
    own = ToolboxDouble({"bash": a_tool("bash")})
    program = PROGRAMS["claude code"]._replace(
        ask="ANTHROPIC_MODEL=agent:double claude -p",
        again="ANTHROPIC_MODEL=agent:double claude -p --continue",
        after="--allowedTools Read --disallowedTools Bash --output-format stream-json --verbose",
    )
    async with desk(tmp_path, program.page, tools=own) as at:
        (at.folder / "note.txt").write_text("The word is heron.\n", encoding="utf-8")
        read = await asks(at, program, f"Please read `{at.folder / 'note.txt'}`")
        did = await asks(at, program, "Please run `ls`", again=True)
        seen = await asks(at, program, "What was first?", again=True)
        found = await sessions(at.client)

    assert "It says: 1\\tThe word is heron." in read
    assert '"type":"mcp_tool_use"' in did
    assert "It says: {" in did
    assert "First was: " in seen
    assert [name for name, _ in own.done] == ["bash"]
    assert [one["metadata"] for one in found] == [{"face": "messages"}] * 3
    results = [one for one in at.coder.worked[-1].transcript if isinstance(one, ToolSaid)]
    assert [one.call.name for one in results] == ["Read", "bash"]


@each
async def test_it_goes_on_with_a_conversation(program: Program, tmp_path: Path) -> None:
    async with desk(tmp_path, program.page) as at:
        await asks(at, program, "Please run `echo ibis`")
        told = await asks(at, program, "What was first?", again=True)

    assert "First was: echo ibis" in told
    results = [one for one in at.coder.worked[-1].transcript if isinstance(one, ToolSaid)]
    assert ["ibis" in one.output for one in results] == [True]


async def test_codex_asks_over_a_websocket_if_it_is_told_of_one(tmp_path: Path) -> None:
    program, sockets = PROGRAMS["codex, websocket"], list[float]()
    async with desk(tmp_path, program.page) as at:

        async def look() -> None:
            sockets.append(total(await at.series(), "hostler_streams_open", kind="socket"))

        at.coder.when_asked = look
        await asks(at, program, "Please run `echo egret`")

    assert sockets == [1, 1]
