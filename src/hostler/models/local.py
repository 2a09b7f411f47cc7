"""Models that run on this machine: GGUF weights in llama.cpp, in a process of its own (`local_worker`).

The process starts with the first request and ends when it has been idle for long; when it dies the
request that it had fails, and the next one starts another.  It answers one request at a time;
others wait in order, so many and no more.

Invariant: no weights and no llama.cpp in the server's memory; the event loop only reads lines.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncGenerator, Iterable
from itertools import count
from pathlib import Path
from typing import TypeAlias

import anyio
import msgspec

from hostler.core.errors import SetupError
from hostler.core.events import JsonObject
from hostler.core.ports import Delta, Failure, Model, Reply, Request
from hostler.core.said import Content, ModelSaid, TextPart, ToolSaid, UserSaid
from hostler.models import weights
from hostler.models.content import in_words
from hostler.models.local_answer import Answer, Line, failed
from hostler.models.local_process import Process
from hostler.models.prompted import Prompted, named

CONTEXT_TOKENS = 8192
"""At most; models trained on less have less.  A model of 8 B takes a GB of memory for so many."""
IDLE_S = 600.0
QUIET_S = 300.0
"""Without a sign of life: loading weights, or between two batches of a prompt or two tokens."""
MOST_WAITING = 64
TINY_BYTES = 400_000_000
"""Weights below this cannot choose a tool (SmolLM2-135M: 98 MB); the smallest of Qwen2.5 can."""
SMALL_BYTES = 1_900_000_000
"""About 3 B parameters at 4 bits; below, calls are made with a grammar."""

Event: TypeAlias = Delta | Reply | Failure
_OURS = frozenset({"messages", "stream", "stream_options", "return_progress", "model", "tools"})


class _Down(Exception):
    """There is no process to answer, or not any more."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Local:
    """A `core.ports.Model`; close it to end its process.

    `defaults` are options of llama.cpp's chat completions, under those of a request.
    """

    provider = "local"

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        defaults: JsonObject | None = None,
        context_tokens: int = CONTEXT_TOKENS,
        threads: int | None = None,
        idle_s: float = IDLE_S,
        quiet_s: float = QUIET_S,
    ) -> None:
        """Raises SetupError: llama.cpp is not installed, or there are no weights at `path`."""
        require()
        if not path.is_file():
            raise SetupError(f"local:{name}: there are no weights at {path}")
        self.name = name
        self.path = path.resolve()
        self._defaults = dict(defaults or {})
        self._quiet_s = quiet_s
        self._setup: JsonObject = {
            "path": str(self.path),
            "context_tokens": context_tokens,
            "threads": threads,
            "idle_s": idle_s,
        }
        self._turn = anyio.Semaphore(1)
        self._numbers = count(1)
        self._child: Process | None = None
        self._closed = False

    @property
    def process_id(self) -> int | None:
        """The process that holds the weights, if there is one."""
        return self._child.process.pid if self._child is not None else None

    async def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        body = self._body(request)
        if self._turn.statistics().tasks_waiting >= MOST_WAITING:
            yield failed("overloaded", f"{MOST_WAITING} requests wait for {self.name} already")
            return
        async with self._turn:
            answer, ask, over = Answer(), next(self._numbers), False
            try:
                lines = await self._ask(ask, body)
                while True:
                    over = answer.take(lines)
                    for delta in answer.deltas():
                        yield delta
                    if over:
                        break
                    lines = await self._hear(ask)
            except _Down as down:
                over = True
                yield down.failure
                return
            finally:
                if not over and self._child is not None:
                    self._child.stop(ask)
        yield answer.end()

    async def aclose(self) -> None:
        """End the process.  Requests that run or come later fail."""
        self._closed = True
        if self._child is not None:
            await self._bury(self._child)

    async def _ask(self, ask: int, body: JsonObject) -> list[Line]:
        """Ask, and return the first lines of the answer.

        A process that was there before may have ended just now, out of idleness: before it says
        anything, another one may be asked the same.
        """
        order = msgspec.json.encode({"ask": ask, "body": body}) + b"\n"
        fresh = self._child is None
        while True:
            child = await self._awake()
            try:
                await child.send(order)
                return await self._hear(ask)
            except _Down as down:
                if fresh or down.failure.code != "server":
                    raise
            fresh = True

    async def _awake(self) -> Process:
        """Return a process that has loaded the weights."""
        if self._closed:
            raise self._gone()
        child = self._child
        if child is None:
            try:
                child = self._child = Process(self._setup)
            except OSError as error:
                told = f"no process for local:{self.name}: {error.strerror}"
                raise _Down(failed("server", told, again=True)) from error
        while not child.ready:
            for line in await self._read(child):
                if line.broken is not None:
                    await self._bury(child, now=False)
                    told = f"{self.path} cannot be loaded: {line.broken} {child.ended}"
                    raise _Down(failed("unavailable", told))
                child.ready = child.ready or line.ready
        return child

    async def _hear(self, ask: int) -> list[Line]:
        """Return what the process has said of this request since the last time, maybe nothing."""
        if self._child is None:  # closed since then
            raise self._gone()
        return [line for line in await self._read(self._child) if line.ask == ask]

    def _gone(self) -> _Down:
        return _Down(failed("unavailable", f"local:{self.name} is closed"))

    async def _read(self, child: Process) -> list[Line]:
        try:
            with anyio.fail_after(self._quiet_s):
                lines = await child.lines()
        except TimeoutError as error:
            await self._bury(child)
            told = f"local:{self.name} gave no sign of life for {self._quiet_s:g} s"
            raise _Down(failed("timeout_idle", told, again=True)) from error
        except msgspec.DecodeError as error:
            await self._bury(child)
            raise _Down(
                failed("server", f"local:{self.name} cannot be understood: {error}")
            ) from error
        if lines is None:
            await self._bury(child, now=False)
            told = f"the process of local:{self.name} ended: {child.ended}"
            raise _Down(failed("server", told, again=not self._closed))
        return lines

    async def _bury(self, child: Process, *, now: bool = True) -> None:
        """See a process to its end."""
        if self._child is child:
            self._child = None
        with anyio.CancelScope(shield=True):
            await child.end(now=now)

    def _body(self, request: Request) -> JsonObject:
        """Return a request of llama.cpp's chat completions."""
        body: JsonObject = self._defaults | {
            name: value for name, value in request.options.items() if name not in _OURS
        }
        body |= {
            "messages": list(_messages(request)),
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,
        }
        if request.max_output_tokens is not None:
            body["max_tokens"] = request.max_output_tokens
        body |= _wanted(request)
        if request.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": tool.parameters,
                    },
                }
                for tool in request.tools
            ]
        return body


def _wanted(request: Request) -> JsonObject:
    wanted = request.wanted
    made: JsonObject = {}
    if wanted.temperature is not None:
        made["temperature"] = wanted.temperature
    if wanted.top_p is not None:
        made["top_p"] = wanted.top_p
    if wanted.stop:
        made["stop"] = wanted.stop
    if wanted.json_schema is not None:
        made["json_schema"] = wanted.json_schema
    elif wanted.json:
        made["response_format"] = {"type": "json_object"}
    if request.tools and (wanted.calls != "any" or wanted.tool is not None):
        made["tool_choice"] = "none" if wanted.calls == "none" else "required"
    return made


def require() -> None:
    """Raises SetupError: llama.cpp is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise SetupError("local models need llama.cpp: pip install 'hostler[local]'")


def opened(name: str, folder: Path) -> Model:
    """Return the model `local:NAME`: weights that we know, in `folder`, or the path of a GGUF file.

    Raises:
        SetupError: no such weights, not fetched yet, no such file, or no llama.cpp.
    """
    require()
    if "/" in name or name.endswith(".gguf"):
        path = Path(name).expanduser()
        return with_tools(Local(path, path.stem))
    path = weights.path_of(name, folder)
    if not weights.have(name, folder):
        raise SetupError(
            f"the weights of local:{name} are not here: run `hostler models get {name}`"
        )
    return with_tools(Local(path, name, defaults=weights.KNOWN[name].defaults))


def with_tools(model: Local) -> Model:
    """Return the model with the way of calling tools that its size allows."""
    size = model.path.stat().st_size
    if size >= SMALL_BYTES:
        return model
    if size >= TINY_BYTES:
        return Prompted(model, constrain=held_to)
    return Prompted(model, constrain=held_to, offer=named)


def held_to(schema: JsonObject) -> JsonObject:
    """Return the options with which llama.cpp keeps a reply to a JSON Schema."""
    return {"json_schema": schema, "temperature": 0.0}


def _messages(request: Request) -> Iterable[JsonObject]:
    if request.system:
        yield {"role": "system", "content": request.system}
    waiting: list[str] = []  # chat templates refuse two messages of a user in a row
    for one in request.transcript:
        if isinstance(one, UserSaid):
            waiting.append(_words(one.content))
            continue
        if waiting:
            yield {"role": "user", "content": "\n\n".join(waiting)}
        waiting = []
        yield _message(one)
    if waiting:
        yield {"role": "user", "content": "\n\n".join(waiting)}


def _message(said: ModelSaid | ToolSaid) -> JsonObject:
    if isinstance(said, ToolSaid):
        return {"role": "tool", "tool_call_id": said.call.id, "content": said.output}
    message: JsonObject = {"role": "assistant", "content": said.text}
    if said.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": msgspec.json.encode(call.arguments).decode(),
                },
            }
            for call in said.calls
        ]
    return message


def _words(content: Content) -> str:
    if isinstance(content, str):
        return content
    return "\n\n".join(
        part.text if isinstance(part, TextPart) else in_words(part) for part in content
    )
