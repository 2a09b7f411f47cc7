"""The `python` tool: code has an outcome in words, and neither reaches out nor stays behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from hostler.core.errors import ToolError
from hostler.core.events import CallId, JsonObject, RunId, RunKey, SessionId, TenantId
from hostler.core.ports import CallContext, Tool
from hostler.harness.toolbox import Toolbox
from hostler.tools.literal import literal
from hostler.tools.python import CLOSED, LIMIT_CHARS, SILENT, WORKERS, PythonTool

pytestmark = pytest.mark.anyio

RUN = RunKey(TenantId("default"), SessionId("ses_1"), RunId("run_1"))
CONTEXT = CallContext(call=CallId("call_1"), key=RUN)
ENDLESS = "while True: pass"


@pytest.fixture
async def python() -> AsyncGenerator[PythonTool]:
    async with aclosing(PythonTool()) as tool:
        yield tool


async def outcome(python: PythonTool, code: object) -> str:
    return await python({"code": code}, CONTEXT)


async def failure(python: PythonTool, code: object) -> str:
    with pytest.raises(ToolError) as failed:
        await outcome(python, code)
    assert len(str(failed.value)) <= 2 * LIMIT_CHARS + 100
    return str(failed.value)


def workers() -> set[int]:
    """Return the processes that this one has started and not seen the end of."""
    found = set[int]()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            children = (thread / "children").read_text(encoding="ascii").split()
            found |= {child for child in map(int, children) if "monty" in name(child)}
    return found


def name(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8")
    except OSError:
        return ""


async def the_end_of(process: int) -> None:
    """Wait for a process to end; at once if it has."""
    try:
        watched = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        with anyio.fail_after(5):
            await anyio.wait_readable(watched)
    finally:
        os.close(watched)


# -- what it says ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("6 * 7", "42"),
        ("print('a'); print('b')", "a\nb\n"),
        ("print('a', end='')\n[1, 'b']", "a\n[1, 'b']"),
        ("x = 1", SILENT),
        ("", SILENT),
        ("None", SILENT),
        ("import json, math\njson.dumps({'pi': round(math.pi, 2)})", "'{\"pi\": 3.14}'"),
        (
            "(1,), (), {1: {2}}, set(), b'z', 1.5, None",
            "((1,), (), {1: {2}}, set(), b'z', 1.5, None)",
        ),
        ("class A:\n  def __init__(self): self.x = [1]\nA()", "A(x=[1])"),
        ("ValueError('a')", "ValueError('a')"),
        ("2 ** 100_000", "<an integer of 100,001 bits>"),
        ("'nul \\x00 é'", "'nul \\x00 é'"),
        ("import datetime\ndatetime.date(2026, 11, 21)", "datetime.date(2026, 11, 21)"),
        ("import asyncio\nawait asyncio.sleep(0)\n'slept'", "'slept'"),
    ],
)
async def test_what_is_printed_and_the_last_value_are_the_outcome(
    python: PythonTool, code: str, said: str
) -> None:
    assert await outcome(python, code) == said


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def (", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("nowhere", "NameError: name 'nowhere' is not defined"),
        ("raise ValueError('x' * 1_000_000)", "cut after"),
        ("'\ud800'", "not valid UTF-8"),
        (3, "must be a string"),
        (None, "must be a string"),
        (["1"], "must be a string"),
    ],
)
async def test_code_that_fails_says_how(python: PythonTool, code: object, said: str) -> None:
    assert said in await failure(python, code)


async def test_a_failure_says_where_and_what_was_printed_before(python: PythonTool) -> None:
    said = await failure(python, "print('so far')\n1 / 0")
    assert said.startswith("so far\nTraceback")
    assert "line 2" in said


async def test_nothing_is_kept_from_call_to_call(python: PythonTool) -> None:
    await outcome(python, "secret = 1\ndef len(x): return 7")
    assert "NameError" in await failure(python, "secret")
    assert await outcome(python, "len([1])") == "1"


async def test_it_is_a_tool_that_reads_and_may_be_repeated(python: PythonTool) -> None:
    tool: Tool = python
    assert (tool.spec.name, tool.spec.effects, tool.spec.twice) == ("python", "read", "safe")
    assert [spec.name for spec in Toolbox([tool], spill_folder=None).specs] == ["python"]


# -- what it cannot do -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd').read()",
        "open('/tmp/escaped', 'w').write('x')",
        "from pathlib import Path\nPath('/etc/passwd').read_text()",
        "from pathlib import Path\nlist(Path('/').iterdir())",
        "import os\nos.environ",
        "import os\nos.getenv('PATH')",
        "import os\nos.system('true')",
        "import os\nos.listdir('/')",
        "import os\nos.kill(1, 9)",
        "import subprocess\nsubprocess.run(['true'])",
        "import socket\nsocket.socket()",
        "import ctypes",
        "import importlib",
        "import urllib.request",
        "import threading",
        "import sys\nsys.modules",
        "__import__('os')",
        "().__class__.__bases__[0].__subclasses__()",
        "(lambda: 0).__globals__",
        "(lambda: 0).__code__",
        "''.__class__.__mro__",
        "'{0.__class__.__init__.__globals__}'.format(ValueError())",
        "getattr((), '__cla' + 'ss__').__bases__",
        "eval('__import__(\"os\")')",
        "exec('import socket')",
        "globals()['__builtins__']",
        "__builtins__",
        "try:\n  1 / 0\nexcept Exception as e:\n  e.__traceback__.tb_frame.f_globals",
        "compile('1', '', 'eval')",
        "input()",
        "breakpoint()",
    ],
)
async def test_the_code_cannot_reach_out(python: PythonTool, code: str) -> None:
    said = await failure(python, code)
    assert "Error" in said
    assert "root:" not in said
    assert not Path("/tmp/escaped").exists()  # noqa: ASYNC240  a look


async def test_a_worker_does_not_have_our_environment(
    python: PythonTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTLER_CANARY", "secret")
    await outcome(python, "1")
    (worker,) = workers()
    assert Path(f"/proc/{worker}/environ").read_bytes() == b""  # noqa: ASYNC240  no disk


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("s = 'x'\nwhile True: s += s", "MemoryError"),
        ("'x' * 10 ** 10", "MemoryError"),
        ("[0] * 10 ** 9", "MemoryError"),
        ("list(range(5_000_000))", "memory limit"),
        ("def f(n): return f(n + 1)\nf(0)", "RecursionError"),
        ("print('x' * 10 ** 6)", "MemoryError"),
        (ENDLESS, "TimeoutError"),
        ("while True: print('x' * 100)", "MemoryError"),
        ("10 ** 25_000_000", "time"),
        ("from time import sleep\nfor i in range(1000): sleep(1)", "sleep limit exceeded"),
    ],
)
async def test_code_that_wants_too_much_is_ended_and_the_next_call_is_not(
    python: PythonTool, code: str, said: str
) -> None:
    with anyio.fail_after(10):
        assert said in await failure(python, code)
        assert await outcome(python, "1 + 1") == "2"


@pytest.mark.parametrize(
    "code", ["'x' * 1_000_000", "x = [[]] * 1000\ny = [x] * 1000\n[y] * 1000", "[[1]] * 300_000"]
)
async def test_a_value_without_end_is_shown_in_part_and_that_is_said(
    python: PythonTool, code: str
) -> None:
    said = await outcome(python, code)
    assert said.endswith(f"[… cut after {LIMIT_CHARS:,} characters]")
    assert len(said) < LIMIT_CHARS + 100


# -- what stays behind -----------------------------------------------------------------------


async def test_a_tool_that_was_never_called_has_no_worker() -> None:
    before = workers()
    async with aclosing(PythonTool()):
        assert workers() == before


async def test_the_event_loop_goes_on_while_code_runs(python: PythonTool) -> None:
    longest_s = 0.0
    await outcome(python, "1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(failure, python, ENDLESS)
        last = began = time.perf_counter()
        while last - began < 1:
            await anyio.lowlevel.checkpoint()
            now = time.perf_counter()
            longest_s, last = max(longest_s, now - last), now
        tasks.cancel_scope.cancel()
    assert longest_s < 0.5


async def test_a_cancelled_call_ends_at_once_and_so_does_its_worker(python: PythonTool) -> None:
    await outcome(python, "1")
    (worker,) = workers()
    began = time.perf_counter()
    with anyio.move_on_after(0.2):
        await outcome(python, ENDLESS)
    assert time.perf_counter() - began < 1.5
    await the_end_of(worker)
    assert await outcome(python, "1 + 1") == "2"


async def test_a_call_that_is_cancelled_while_it_waits_for_its_turn_never_runs(
    python: PythonTool,
) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(WORKERS):
            tasks.start_soon(failure, python, ENDLESS)
        while len(working(python)) < WORKERS:
            await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(0.05) as scope:
            await outcome(python, "1")
        assert scope.cancelled_caught
        assert len(workers()) == WORKERS
        tasks.cancel_scope.cancel()
    assert await outcome(python, "1 + 1") == "2"


def working(python: PythonTool) -> list[int]:
    return [one._pid for one in python._running if one._pid is not None]  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("code", [ENDLESS, "'x' * 10"])
async def test_a_worker_that_is_killed_is_an_error_in_words_and_is_replaced(
    python: PythonTool, code: str
) -> None:
    said = list[str]()
    if code != ENDLESS:  # while it is idle: then nobody even notices
        await outcome(python, code)
        (worker,) = workers()
        os.kill(worker, signal.SIGKILL)
        await the_end_of(worker)
    else:
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                said.append(await failure(python, code))

            tasks.start_soon(call)
            while not working(python):
                await anyio.lowlevel.checkpoint()
            os.kill(working(python)[0], signal.SIGKILL)
        assert "The sandbox ended" in said[0]
    assert await outcome(python, "1 + 1") == "2"


async def test_closing_ends_the_workers_and_the_calls_that_run(python: PythonTool) -> None:
    said, left = list[str](), set[int]()

    async def call() -> None:
        said.append(await failure(python, ENDLESS))

    with anyio.fail_after(1.5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            while not working(python):
                await anyio.lowlevel.checkpoint()
            left |= workers()
            await python.aclose()
    assert said == [CLOSED]
    for worker in left:
        await the_end_of(worker)
    assert await failure(python, "1") == CLOSED
    await python.aclose()


async def test_many_calls_at_once_share_few_workers(python: PythonTool) -> None:
    sums = dict[int, str]()

    async def call(i: int) -> None:
        sums[i] = await outcome(python, f"sum(range({i}))")

    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks:
            for i in range(40):
                tasks.start_soon(call, i)
    assert sums == {i: str(sum(range(i))) for i in range(40)}
    assert 1 <= len(workers()) <= WORKERS


SCRIPT = """
import os, sys
from pathlib import Path
import anyio
from hostler.core.ports import CallContext
from hostler.tools.python import PythonTool

async def main():
    tool = PythonTool()
    print(await tool({"code": "6 * 7"}, CallContext(call="call_1", key=("t", "s", "r"))))
    tasks = Path("/proc/self/task").iterdir()
    print(*[(task / "children").read_text() for task in tasks], flush=True)
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), 9)
    if sys.argv[1] == "closed":
        await tool.aclose()

anyio.run(main)
"""


@pytest.mark.parametrize("end", ["closed", "closed again", "forgotten", "killed"])
async def test_a_process_ends_as_it_would_without_the_tool_and_leaves_no_worker(end: str) -> None:
    done = await anyio.run_process(
        [sys.executable, "-c", SCRIPT, end.partition(" ")[0]], check=False
    )
    said, children = done.stdout.decode().splitlines()
    assert (said, done.returncode) == ("42", -9 if end == "killed" else 0), done.stderr
    assert children.split()
    for worker in map(int, children.split()):
        await the_end_of(worker)


# -- writing values out ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        (),
        [[1, "a'", b"\0"], {(1, 2): {3}}, (4,)],
        {"a": [None, True, 1.5, -3]},
        frozenset({1}),
    ],
)
def test_a_literal_is_what_python_reads_as_the_same_value(value: object) -> None:
    written = literal(value, 1_000)
    assert written == (repr(value) if not isinstance(value, frozenset) else "{1}")


def test_a_literal_of_any_depth_and_width_is_bounded() -> None:
    deep: JsonObject = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert literal(deep, 1_000).startswith("{'a': {'a': ")
    assert len(literal([0] * 1_000_000, 1_000)) < 1_100
