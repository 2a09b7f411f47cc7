"""A program that a tool starts ends with the call, and so does all that it started."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from tests.serving import serving

from hostler.core.errors import ToolError
from hostler.core.events import CallId, ToolCall
from hostler.core.ports import AgentSpec, Reply
from hostler.harness.toolbox import Toolbox
from hostler.testing.doubles import ModelDouble
from hostler.tools.command import run_command
from hostler.tools.function import function_tool

pytestmark = pytest.mark.anyio
STUBBORN = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0 and os.fork() == 0:
    with open(sys.argv[1], "w") as file:
        file.write(str(os.getpgid(0)))
    os.rename(sys.argv[1], sys.argv[2])
signal.pause()
"""
"""A program with a child and a grandchild, all of which ignore being asked to end."""


def stubborn(folder: Path) -> list[str]:
    return [sys.executable, "-c", STUBBORN, str(folder / "new"), str(folder / "group")]


async def group_of(folder: Path) -> int:
    """Wait until the program runs; return its process group."""
    with anyio.fail_after(20):
        while not (folder / "group").exists():
            await anyio.lowlevel.checkpoint()
    return int((folder / "group").read_text())


async def is_gone(group: int) -> bool:
    """Wait until no process of the group is alive; the dead may wait for their parents."""
    with anyio.move_on_after(5):
        while _living(group):
            await anyio.lowlevel.checkpoint()
        return True
    return False


def _living(group: int) -> list[str]:
    found = list[str]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state not in "ZX":
                found.append(stat.parent.name)
    return found


async def test_what_a_program_says_and_how_it_ends_is_told() -> None:
    program = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"
    done = await run_command([sys.executable, "-c", program])
    assert (done.exit_code, done.output, done.left_out) == (3, "out\nerr\n", 0)


async def test_a_program_that_reads_reads_nothing() -> None:
    done = await run_command([sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))"])
    assert done.output == "''\n"


async def test_what_is_over_the_limit_is_left_out_and_the_program_goes_on() -> None:
    program = "import sys; sys.stdout.write('x' * 300_000); sys.stdout.flush(); sys.exit(7)"
    done = await run_command([sys.executable, "-c", program], limit_bytes=1000)
    assert (done.exit_code, done.output, done.left_out) == (7, "x" * 1000, 299_000)


async def test_bytes_that_are_no_text_are_replaced() -> None:
    program = "import sys; sys.stdout.buffer.write(b'a\\xffb')"
    assert (await run_command([sys.executable, "-c", program])).output == "a\ufffdb"


async def test_a_program_that_is_not_there_is_told_to_the_model() -> None:
    with pytest.raises(ToolError, match="no-such-program cannot be run: No such file"):
        await run_command(["no-such-program"])


async def test_a_program_that_dies_of_a_signal_says_so() -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert (await run_command([sys.executable, "-c", program])).exit_code == -signal.SIGKILL


async def test_what_a_program_leaves_behind_ends_with_it() -> None:
    program = (
        "import os, subprocess, sys; "
        "subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'], stdout=2); "
        "os.close(2); print(os.getpid())"
    )
    leaving = f"import os; os.dup2(os.open('/dev/null', os.O_WRONLY), 2); {program}"
    with anyio.fail_after(10):
        done = await run_command([sys.executable, "-c", leaving])
    assert await is_gone(int(done.output))


async def test_what_is_left_behind_with_the_output_of_a_program_holds_nobody_up() -> None:
    with anyio.fail_after(20):
        done = await run_command(["sh", "-c", "sleep 60 & echo $$; exit 3"])
    assert done.exit_code == 3
    assert await is_gone(int(done.output))


async def test_what_has_left_the_group_with_the_output_of_a_program_holds_nobody_up() -> None:
    program = (
        "import subprocess; "
        "print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid, 'x' * 200_000)"
    )
    with anyio.fail_after(20):
        done = await run_command([sys.executable, "-c", program])
    daemon, said = done.output.split()
    os.kill(int(daemon), signal.SIGKILL)
    assert said == "x" * 200_000


async def test_a_call_that_is_out_of_time_ends_the_whole_group(tmp_path: Path) -> None:
    group = 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_command, stubborn(tmp_path))
        group = await group_of(tmp_path)
        assert len(_living(group)) == 3
        tasks.cancel_scope.cancel()
    assert await is_gone(group)


async def test_a_stopped_run_has_ended_with_its_programs_within_two_seconds(
    tmp_path: Path,
) -> None:
    async def build() -> str:
        """Build it."""
        return (await run_command(stubborn(tmp_path))).output

    call = ToolCall(id=CallId("call_1"), name="build", arguments={})
    model = ModelDouble(lambda _: Reply(text="", calls=(call,), stop="tools"))
    tools = Toolbox([function_tool(build)], spill_folder=None)
    agent = AgentSpec(name="plain", instructions="", models=[model], tools=tools)
    async with serving(agent, file=tmp_path / "log.db") as client:
        session = await client.session()
        await client.call("POST", f"/api/sessions/{session}/messages", {"content": "go"})
        with anyio.fail_after(20):
            group = await group_of(tmp_path)
            began = time.monotonic()
            status, _ = await client.call("POST", f"/api/sessions/{session}/cancel", {})
            acknowledged_s = time.monotonic() - began
            path = f"/api/sessions/{session}/events?until=run_end"
            last = [frame async for frame in client.frames(path)][-1]
            took_s = time.monotonic() - began

        assert (status, last.data["status"]) == (202, "cancelled")
        assert await is_gone(group)
        facts = await client.facts(session)
        assert [f["outcome"] for f in facts if f["kind"] == "tool_finished"] == ["cancelled"]
        # Promised: 0.2 s and 2 s.  A busy machine gets some more; nothing here takes longer.
        assert acknowledged_s < 1
        assert took_s < 4
