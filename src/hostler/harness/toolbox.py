"""An agent's tools, behind what guards them: each ring does one thing, from the outside in.

    check   cut off? ▸ which tool? ▸ which arguments? ▸ do they fit?          (pure, microseconds)
    run     shorten what is too long ▸ paused? ▸ name what went wrong ▸ time-out ▸ the tool

Whatever a tool does, its call has one outcome in words.  Only cancelling goes through.

Invariant: a call that was not checked is not run, and nothing a tool raises or returns leaves
`run` but as a `ToolFinished`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

import anyio
import anyio.to_thread
import msgspec
from msgspec.structs import replace

from hostler.core.decide import MOST_WAIT_S
from hostler.core.errors import SetupError, ToolDown, ToolError
from hostler.core.events import (
    ClientTool,
    Key,
    Outcome,
    RunId,
    RunKey,
    ToolCall,
    ToolFinished,
    ToolStarted,
)
from hostler.core.ports import CallContext, Tool, ToolSpec, mint
from hostler.core.trail import of_call
from hostler.faults import fault_point
from hostler.harness.breakers import Breakers, Passage
from hostler.harness.clients import Demanding, OfClient
from hostler.harness.permissions import ALL, Permissions
from hostler.harness.repair import Names, read_arguments
from hostler.harness.results import file_of
from hostler.harness.validate import Schema, is_loss

log = logging.getLogger(__name__)

LIMIT_CHARS = 32_000
"""About 8,000 tokens, above which one result crowds out the conversation (harness.md, section 4)."""
LEAST_CHARS = 1_000
KEPT_JOINED = 64
"""Sets of clients' tools whose schemas are kept compiled."""
LARGEST_FILE_CHARS = 64 * 1024 * 1024
"""Of one output, on disk; a tool that returns more has run wild."""
WRITTEN_CHARS = 1024 * 1024
"""At once, so that a large output does not hold the interpreter's lock for long."""
CUT = "Not run: the reply reached its length limit inside this call's arguments. Send less at once."
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What all providers take."""
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_UNREADABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class _Entry(NamedTuple):
    tool: Tool
    spec: ToolSpec
    schema: Schema


class Toolbox:
    """A `core.ports.Toolbox` over `tools`; outputs over `limit_chars` go to files.

    They are written whole where `harness.results` says, readable by the owner only; without a
    folder, the middle of a long output is lost, and that is said.
    """

    def __init__(
        self,
        tools: Iterable[Tool],
        *,
        spill_folder: Path | None,
        limit_chars: int = LIMIT_CHARS,
        permissions: Permissions = ALL,
        breakers: Breakers | None = None,
        owner: str = "",
    ) -> None:
        """Compile the schemas.

        `breakers` pause a tool whose calls find no answer, for one tenant of one `owner` (agent).

        Raises:
            SetupError: a tool's name, schema or time-out is wrong, or two have one name.
        """
        if limit_chars < LEAST_CHARS:
            raise SetupError(f"limit_chars is {limit_chars}, and must be at least {LEAST_CHARS}")
        self._entries = dict[str, _Entry]()
        for tool in tools:
            entry = _entry(tool)
            if entry.spec.name in self._entries:
                raise SetupError(f"two tools are called {entry.spec.name}: rename one")
            self._entries[entry.spec.name] = entry
        self._specs = tuple(self._entries[name].spec for name in sorted(self._entries))
        self._names = Names(self._entries)
        self._folder, self._limit_chars = spill_folder, limit_chars
        self._permissions = permissions
        self._breakers, self._owner = breakers or Breakers(), owner
        self._joined = dict[tuple[bytes, ...], Toolbox]()

    @property
    def specs(self) -> Sequence[ToolSpec]:
        return self._specs

    def check(self, call: ToolCall, run: RunId) -> ToolStarted | ToolFinished:
        if call.cut:
            return _refused(call, run, CUT)
        try:
            name, renamed = self._names.find(call.name)
            arguments, reread = read_arguments(call)
            arguments, fitted = self._entries[name].schema.fit(arguments)
            if isinstance(tool := self._entries[name].tool, Demanding):
                tool.demand(arguments)
        except ToolError as error:
            return _refused(call, run, str(error))
        if self._permissions.of(name) == "deny":
            told = f"{name} is not permitted to this agent."
            return ToolFinished(run=run, call=call.id, outcome="denied", output=told)
        return ToolStarted(
            run=run,
            call=call.id,
            name=name,
            arguments=arguments,
            repairs=(*renamed, *reread, *fitted),
        )

    def may_repeat(self, started: ToolStarted) -> bool:
        entry = self._entries.get(started.name)
        return entry is not None and entry.spec.twice == "safe"

    def is_reader(self, started: ToolStarted) -> bool:
        entry = self._entries.get(started.name)
        return entry is not None and entry.spec.effects == "read"

    def needs_approval(self, started: ToolStarted) -> bool:
        entry, permission = self._entries.get(started.name), self._permissions.of(started.name)
        if entry is None or permission == "allow":
            return False
        return permission == "ask" or entry.spec.approval

    def client_s(self, started: ToolStarted) -> float | None:
        entry = self._entries.get(started.name)
        return entry.spec.timeout_s if entry is not None and entry.spec.client else None

    def with_clients(self, tools: Sequence[ClientTool]) -> Toolbox:
        # Taken names were refused with the session; the agent may have got new tools since.
        tools = [tool for tool in tools if tool.name not in self._entries]
        if not tools:
            return self
        key = tuple(msgspec.json.encode(tool) for tool in tools)
        joined = self._joined.get(key)
        if joined is None:
            joined = Toolbox(
                [*(entry.tool for entry in self._entries.values()), *map(OfClient, tools)],
                spill_folder=self._folder,
                limit_chars=self._limit_chars,
                permissions=self._permissions,
                breakers=self._breakers,
                owner=self._owner,
            )
            if len(self._joined) >= KEPT_JOINED:
                self._joined.clear()
            self._joined[key] = joined
        return joined

    async def run(self, started: ToolStarted, context: CallContext) -> ToolFinished:
        entry = self._entries.get(started.name)
        if entry is None:  # a restart came between, with other tools
            outcome, output = "error", f"There is no tool {started.name} any more; it was not run."
        else:
            secrets = entry.spec.secrets
            granted = replace(context, secrets=secrets) if secrets else context
            with of_call(started.call):
                outcome, output = await self._passed(entry, started, granted)
            output = context.mask(output)
        finished = ToolFinished(run=started.run, call=started.call, outcome=outcome, output=output)
        return await self._tidied(started, finished, context.key)

    async def _passed(
        self, entry: _Entry, started: ToolStarted, context: CallContext
    ) -> tuple[Outcome, str]:
        """Run the tool, unless it is paused."""
        name = f"{context.key.tenant} {self._owner} {entry.spec.name}"
        passage = self._breakers.of("tool", name).enter()
        if not isinstance(passage, Passage):
            return "error", (
                f"Not run: {entry.spec.name} does not answer at present, and is paused; it may be "
                f"tried again in {passage:.0f} s. Go on without it, or say what is missing."
            )
        try:
            outcome, output, is_down = await _attempt(entry, started, context)
            if is_down:
                passage.failed()
            else:
                passage.worked()
        finally:
            passage.left()
        return outcome, output

    async def accept(
        self, started: ToolStarted, finished: ToolFinished, key: RunKey
    ) -> ToolFinished:
        entry = self._entries.get(started.name)
        if entry is not None and isinstance(entry.tool, Demanding) and finished.outcome == "ok":
            entry.tool.accept(started.arguments, finished.output)
        return await self._tidied(started, finished, key, answer=mint("ans"))

    async def drop(self, accepted: ToolFinished) -> None:
        if accepted.file is not None:
            await anyio.to_thread.run_sync(_removed, Path(accepted.file))

    async def _tidied(
        self, started: ToolStarted, finished: ToolFinished, key: RunKey, answer: str | None = None
    ) -> ToolFinished:
        """Return an outcome as models and databases can read it."""
        output, file = finished.output, None
        if len(output) > self._limit_chars:
            path = _place(self._folder, key, started, answer)
            output, file = await self._shortened(output, path)
        if _UNREADABLE.search(output):
            output = _readable(output)
        if started.repairs:
            output = "\n\n".join([output, *filter(is_loss, started.repairs)])
        return replace(finished, output=output, file=file)

    async def _shortened(self, output: str, path: Path | None) -> tuple[str, str | None]:
        """Return head and tail, and where the whole is."""
        kept = 0
        if path is not None:
            # The effect is done: a cancel that comes now must not lose its outcome.
            with anyio.CancelScope(shield=True):
                kept = await anyio.to_thread.run_sync(_written, path, output)
        whole = "the whole is" if kept == len(output) else f"the first {kept:,} are"
        where = f"{whole} in {path}" if kept else "the rest is lost"
        notice = f"\n\n[… cut here, from {len(output):,} characters; {where} …]\n\n"
        half = max(0, self._limit_chars - len(notice)) // 2
        return output[:half] + notice + output[-half:], str(path) if kept else None


def _entry(tool: Tool) -> _Entry:
    spec = tool.spec
    if not _NAME.fullmatch(spec.name):
        raise SetupError(
            f"a tool is called {spec.name!r}: names are 1 to 64 letters, digits, _ and -"
        )
    if not 0 < spec.timeout_s <= MOST_WAIT_S:
        raise SetupError(
            f"tool {spec.name}: timeout_s is {spec.timeout_s}, "
            f"not a time of more than 0 and at most {MOST_WAIT_S:g} seconds"
        )
    return _Entry(tool, spec, Schema(spec.name, spec.parameters))


def _refused(call: ToolCall, run: RunId, why: str) -> ToolFinished:
    return ToolFinished(run=run, call=call.id, outcome="error", output=_readable(why))


class _Ended(NamedTuple):
    outcome: Outcome
    output: str
    is_down: bool = False
    """It found no answer, as any other call would."""


async def _attempt(entry: _Entry, started: ToolStarted, context: CallContext) -> _Ended:
    """Run the tool within its time-out; whatever happens is an outcome, but for a cancel."""
    with anyio.move_on_after(entry.spec.timeout_s) as scope:
        try:
            output = cast("object", await entry.tool(started.arguments, context))
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            return _Ended("error", "The tool was cancelled by its own code.")
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001  a stranger's code: its errors are outcomes
            if not scope.cancel_called:
                return _Ended("error", _told(error, started), _is_down(error))
            # else: it answered the time-out with an error of its own
        else:
            if isinstance(output, str):
                return _Ended("ok", str.__str__(output))  # not a subclass, which no codec knows
            kind = type(output).__name__
            return _Ended("error", f"The tool returned {kind}, where a tool must return text.")
    within = f"{entry.spec.timeout_s:g} s"
    told = f"The tool gave no answer within {within}; it may have taken effect in part."
    return _Ended("error", told, is_down=True)


def _is_down(error: BaseException) -> bool:
    """Whether an error, or what caused it, is that nobody answered; not what a model did wrong."""
    if isinstance(error, ToolDown | ConnectionError | TimeoutError | socket.gaierror):
        return True
    if isinstance(error, ToolError):
        return False  # it says in words what went wrong, and would have said this
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_down, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    return error.__cause__ is not None and _is_down(error.__cause__)


def _is_cancelled() -> bool:
    """Whether it is this task that is cancelled, and not one that the tool waited for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _told(error: BaseException, started: ToolStarted) -> str:
    """Return an error as the model reads it, and log it if it is not meant for the model."""
    cause = error
    while isinstance(cause, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", cause).exceptions
        if len(inner) != 1:
            return _unexpected(error, started)
        cause = inner[0]
    if isinstance(cause, ToolError):
        return str(cause)
    return _unexpected(cause, started)


def _unexpected(error: BaseException, started: ToolStarted) -> str:
    log.warning("tool %s failed in %s", started.name, started.call, exc_info=error)
    # Unlike `str`, this never raises, whatever a stranger's `__str__` does.
    told = "".join(traceback.format_exception_only(error)).strip()
    return told.removeprefix(f"{type(error).__module__}.")


def _readable(text: str) -> str:
    """Return `text` without what no model reads and some databases refuse."""
    return _UNREADABLE.sub("\ufffd", _ANSI.sub("", text))


def _place(
    folder: Path | None, key: RunKey, started: ToolStarted, answer: str | None
) -> Path | None:
    if folder is None:
        return None
    path = file_of(folder, Key(key.tenant, key.session), started.call, answer)
    if path is None:
        log.error("no file for the output of call %r: its ids make no path", started.call)
    return path


def _written(path: Path, text: str) -> int:
    """Write `text` to a new file, in a thread; return how many characters are safely there."""
    kept = text[:LARGEST_FILE_CHARS]
    pieces = (kept[at : at + WRITTEN_CHARS] for at in range(0, len(kept), WRITTEN_CHARS))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # of this call, when it is run a second time
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fault_point("before a file of results")
        with open(os.open(path, flags, 0o600), "wb") as file:  # noqa: PTH123  the flags matter
            file.writelines(piece.encode(errors="replace") for piece in pieces)
            file.flush()
            fault_point("within a file of results")
            os.fsync(file.fileno())  # the fact that names it will be durable
        fault_point("after a file of results")
    except OSError as error:
        log.warning("the output of a tool could not be kept in %s: %s", path, error)
        _removed(path)
        return 0
    return len(kept)


def _removed(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
