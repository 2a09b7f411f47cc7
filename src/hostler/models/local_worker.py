"""The process that holds llama.cpp: run as a file by `hostler.models.local`, never imported.

What crashes, leaks or spins here does not do so in the server.  Both sides speak lines of JSON
over one socket:

    in   {path, context_tokens, threads, idle_s, parent} once, then {ask: n, body} and {stop: n}
    out  {ready: true} or {broken: why} once, then {ask: n, chunk} …, {ask: n, end: true}

A body is a request of llama.cpp's chat completions, or has a `json_schema` beside; its chunks are
passed on as they are.  One ask is answered at a time, in their order.

Invariant: it imports nothing of ours, so that it is llama.cpp and little else; it ends when its
parent does, when nothing was asked for long, and when it does not stop on being told to.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypedDict, cast

import xllamacpp  # pyright: ignore[reportMissingTypeStubs]

STOP_S = 2.0
"""To stop within; between two batches of the prompt llama.cpp does not look."""
BATCH_TOKENS = 128
"""Of the prompt at a time: few, so that a stop is seen soon; more was not faster on CPUs."""
PROMPTS_MIB = 128
"""Kept of other conversations, so that coming back to one does not mean reading it again."""
NICE = 5
"""The server goes before what it serves."""
FIRST_TO_GO = 500
"""When memory runs out: this process, not the server (Linux `oom_score_adj`)."""
PR_SET_PDEATHSIG = 1

Json = dict[str, object]


class Setup(TypedDict):
    path: str
    context_tokens: int
    threads: int | None
    idle_s: float
    parent: int


class _Threads(Protocol):
    n_threads: int


class _File(Protocol):
    path: str


class _Params(Protocol):
    model: _File
    cpuparams: _Threads
    cpuparams_batch: _Threads
    n_ctx: int
    n_parallel: int
    n_batch: int
    n_threads_http: int
    cache_ram_mib: int
    verbosity: int
    fit_params: bool
    warmup: bool
    ui: bool
    endpoint_slots: bool
    hostnames: list[str]


class _Server(Protocol):
    def handle_chat_completions(self, prompt: bytes, callback: Callable[[bytes], bool]) -> None: ...


class _Llama(Protocol):
    @property
    def CommonParams(self) -> Callable[[], _Params]: ...  # noqa: N802 - their name
    @property
    def Server(self) -> Callable[[_Params], _Server]: ...  # noqa: N802 - their name
    def json_schema_to_grammar(self, schema: Json) -> str: ...


llama = cast("_Llama", xllamacpp)


class Worker:
    """Answers what is asked over `link`, on the thread that calls `work`."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._asked: queue.SimpleQueue[tuple[int, Json]] = queue.SimpleQueue()
        self._at = 0
        """The ask that is being answered; 0: none."""
        self._stopped = 0
        """All asks up to this one are to be stopped."""

    def listen(self, lines: Iterable[bytes]) -> None:
        """Take orders until the other side is gone, and end the process then."""
        for line in lines:
            order = cast("Json", json.loads(line))
            if "stop" in order:
                self._stop(cast("int", order["stop"]))
            else:
                self._asked.put((cast("int", order["ask"]), cast("Json", order["body"])))
        os._exit(0)

    def work(self, server: _Server, idle_s: float) -> None:
        """Answer until nothing was asked for `idle_s`."""
        with suppress(queue.Empty):
            while True:
                self._at, body = self._asked.get(timeout=idle_s)
                self._answer(server, self._at, body)
                self._at = 0

    def send(self, **message: object) -> None:
        self._link.sendall(json.dumps(message).encode() + b"\n")

    def _answer(self, server: _Server, ask: int, body: Json) -> None:
        def on_chunk(chunk: bytes) -> bool:
            if self._stopped < ask:
                self._link.sendall(b'{"ask":%d,"chunk":%b}\n' % (ask, chunk))
            return self._stopped >= ask

        try:
            if "json_schema" in body:
                body["grammar"] = _grammar(cast("Json", body.pop("json_schema")))
            if self._stopped < ask:
                server.handle_chat_completions(json.dumps(body).encode(), on_chunk)
        except (RuntimeError, TypeError, ValueError) as error:
            self.send(ask=ask, chunk={"error": {"code": 400, "message": str(error)}})
        self.send(ask=ask, end=True)

    def _stop(self, ask: int) -> None:
        self._stopped = max(self._stopped, ask)
        insist = threading.Timer(STOP_S, self._insist, [ask])
        insist.daemon = True
        insist.start()

    def _insist(self, ask: int) -> None:
        if self._at == ask:
            os._exit(1)


def _grammar(schema: Json) -> str:
    # Compact JSON saves a third of the tokens; unknown keywords of a schema are passed over.
    return llama.json_schema_to_grammar(
        schema | {"x-guidance": {"whitespace_flexible": False, "lenient": True}}
    )


def load(setup: Setup) -> _Server:
    """Return llama.cpp's server with the weights in memory.  Raises RuntimeError if it cannot."""
    params = llama.CommonParams()
    params.model.path = setup["path"]
    params.n_ctx = setup["context_tokens"]
    params.n_parallel = 1
    params.n_batch = BATCH_TOKENS
    threads = setup["threads"] or max(1, cores() - 1)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = PROMPTS_MIB
    params.verbosity = -1
    params.fit_params = params.warmup = params.ui = params.endpoint_slots = False
    # It insists on listening for HTTP: on a socket that is gone before anybody could find it.
    params.n_threads_http = 1
    params.hostnames = ["llama.sock"]
    folder = tempfile.mkdtemp(prefix="hostler-llama-")
    os.chdir(folder)  # the path of a socket has to be short
    try:
        return llama.Server(params)
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)
        for number in (signal.SIGINT, signal.SIGTERM):  # llama.cpp took them
            signal.signal(number, signal.SIG_DFL)


def cores() -> int:
    """Return how many cores this process may use, counting the quota of a container."""
    affinity = getattr(os, "sched_getaffinity", None)
    free = len(cast("set[int]", affinity(0))) if affinity else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        free = min(free, max(1, int(quota) // int(period)))
    return free


def depend_on(parent: int) -> None:
    """Be killed with the parent, give way to it, and go first when memory runs out."""
    os.nice(NICE)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(FIRST_TO_GO), encoding="ascii")
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)


def main() -> None:
    link = socket.socket(fileno=int(sys.argv[1]))
    lines = link.makefile("rb")
    setup = cast("Setup", json.loads(lines.readline()))
    depend_on(setup["parent"])
    worker = Worker(link)
    try:
        server = load(setup)
    except RuntimeError as error:
        worker.send(broken=str(error))
        return
    worker.send(ready=True)
    threading.Thread(target=worker.listen, args=[lines], daemon=True).start()
    worker.work(server, setup["idle_s"])
    os._exit(0)  # what llama.cpp would tidy up goes with the process


if __name__ == "__main__":
    main()
