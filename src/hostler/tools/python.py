"""The built-in `python` tool: calculations and text work in a sandbox that can touch nothing.

Code runs in pydantic-monty, a Python written for this: its worker processes have no environment,
no files, no network and no imports but its own; memory, time and recursion are limited in them.
Workers start with the first call.  Each call has a session of its own, and a worker that dies or
is cancelled in one is replaced.  Monty has no limits unless they are asked for, so all are here.

Threads of ours wait for the workers, not Monty's own asyncio half: that resolves futures on
threads which abort the process when it ends meanwhile (PyO3/pyo3-async-runtimes issue 40), which
was one exit in three here.

Invariant: whatever the code does is an outcome in words, and no call sees anything of another.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import cast

import anyio
import anyio.to_thread
from pydantic_monty import (
    CollectString,
    Monty,
    MontyError,
    MontyRuntimeError,
    MontySession,
    MontySyntaxError,
    ResourceLimits,
)

from hostler.core.errors import ToolError
from hostler.core.events import JsonObject
from hostler.core.ports import CallContext, ToolSpec
from hostler.tools.literal import literal

MEMORY_BYTES = 64 * 1024 * 1024
DURATION_S = 2.0
GRACE_S = 0.5
"""After that, a worker that is inside one long operation and does not look is killed."""
SLEEP_S = 2.0
RECURSION = 200
WORKERS = 4
WAIT_S = 10.0
"""For a worker to start, or to be replaced; a call that waits for its turn does not wait here."""
RECYCLED_AFTER = 100
"""Calls of one worker, so that a leak in it stays small; a new one costs 7 ms."""
LIMIT_CHARS = 100_000
"""Of what is printed, and of the value shown."""
SILENT = "Nothing was printed, and the last line has no value: print what you want to see."
CLOSED = "The sandbox is being shut down; the code did not run to its end."
DESCRIPTION = f"""\
Run Python code; returns what it prints, and the value of its last line if that is an expression.
It is a sandbox: no files, no network, no packages, no class inheritance, nothing kept from call \
to call; at most {DURATION_S:g} seconds and {MEMORY_BYTES >> 20} MiB. Of the standard library it \
has math, re, json, datetime, random, collections, itertools, functools, decimal, csv, base64, \
hashlib, dataclasses and little else."""
_LIMITS: ResourceLimits = {
    "max_memory": MEMORY_BYTES,
    "max_feed_duration_secs": DURATION_S,
    "max_recursion_depth": RECURSION,
    "max_total_sleep_secs": SLEEP_S,
}


class PythonTool:
    """A `core.ports.Tool`; close it to end its workers, and the calls that still run."""

    def __init__(self) -> None:
        self.spec = ToolSpec(
            name="python",
            description=DESCRIPTION,
            parameters={
                "type": "object",
                "properties": {"code": {"type": "string"}},
                "required": ["code"],
                "additionalProperties": False,
            },
            twice="safe",
            effects="read",
        )
        self._free = anyio.CapacityLimiter(WORKERS)
        self._running = set[_Worker]()
        self._pool: Monty | None = None
        self._lock = threading.Lock()
        self._closed = False

    async def __call__(self, arguments: JsonObject, context: CallContext) -> str:
        del context  # the same code has the same outcome wherever it runs
        code = arguments.get("code")
        if not isinstance(code, str):
            raise ToolError("`code` must be a string of Python.")
        worker = _Worker()
        self._running.add(worker)
        try:
            return await anyio.to_thread.run_sync(
                self._run, code, worker, abandon_on_cancel=True, limiter=self._free
            )
        finally:
            worker.kill()  # if it still runs: the thread that waits for it then ends as well
            self._running.discard(worker)

    async def aclose(self) -> None:
        """End the workers.  Calls that run or come later fail in words."""
        self._closed = True
        for worker in self._running:
            worker.kill()
        await anyio.to_thread.run_sync(self._end)

    def _run(self, code: str, worker: _Worker) -> str:
        printed = CollectString(max_bytes=LIMIT_CHARS)
        try:
            with self._opened().checkout(limits=_LIMITS) as session, worker.lent(session):
                value = cast("object", session.feed_run(code, print_callback=printed))
        except (MontyError, RuntimeError, TimeoutError, ValueError, OSError) as error:
            told = CLOSED if self._closed else _told(error)
            raise ToolError(_joined(printed.output, _cut(told))) from error
        return (
            _joined(printed.output, "" if value is None else _cut(literal(value, LIMIT_CHARS + 1)))
            or SILENT
        )

    def _opened(self) -> Monty:
        with self._lock:
            if self._closed:
                raise ToolError(CLOSED)
            if self._pool is None:
                pool = Monty(
                    min_processes=0,
                    max_processes=WORKERS,
                    checkout_timeout=WAIT_S,
                    max_checkouts_per_worker=RECYCLED_AFTER,
                    feed_duration_limit_grace=GRACE_S,
                )
                self._pool = pool.__enter__()
            return self._pool

    def _end(self) -> None:
        with self._lock:
            if self._pool is not None:
                self._pool.__exit__(None, None, None)
                self._pool = None


class _Worker:
    """The process that serves one call, to be killed from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._killed = False

    @contextmanager
    def lent(self, session: MontySession) -> Generator[None]:
        with self._lock:
            if self._killed:
                raise ToolError(CLOSED)
            self._pid = session.worker_pid
        try:
            yield
        finally:
            with self._lock:  # before it serves anybody else
                self._pid = None

    def kill(self) -> None:
        with self._lock, suppress(ProcessLookupError):
            self._killed = True
            if self._pid is not None:
                os.kill(self._pid, signal.SIGKILL)


def _told(error: Exception) -> str:
    match error:
        case MontyRuntimeError() | MontySyntaxError():
            return error.display()
        case TimeoutError():
            return f"No worker was free for {WAIT_S:g} s; try again."
        case MontyError():
            return f"The sandbox ended: {error}"
        case _:  # a value that cannot leave the sandbox, or a worker that cannot start
            return f"{type(error).__name__}: {error}"


def _joined(printed: str, more: str) -> str:
    return f"{printed}\n{more}" if printed and more and printed[-1] != "\n" else printed + more


def _cut(text: str) -> str:
    if len(text) <= LIMIT_CHARS:
        return text
    return f"{text[:LIMIT_CHARS]}\n[… cut after {LIMIT_CHARS:,} characters]"
