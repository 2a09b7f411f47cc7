"""Makes a tool of a Python function, which stays the function for whoever calls it as one.

What a model may send follows from the signature and the docstring (`tools/signature.py`).
Functions that are not `async` run in worker threads.

Invariant: what cannot be shown to a model is an error when the tool is made, never at a call.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

import anyio
import anyio.to_thread
import msgspec

from hostler.core.errors import SetupError, ToolError
from hostler.core.events import JsonObject
from hostler.core.ports import CallContext, ToolSpec
from hostler.tools.docstring import read_docstring
from hostler.tools.signature import Signature, encoded, signature

P = ParamSpec("P")
R = TypeVar("R")

DONE = "Done."
"""What a model reads of a function that returned nothing."""
THREADS = 40
"""Of one tool's calls, how many run side by side; anyio's own number."""


class ToolOptions(TypedDict, total=False):
    """What the signature does not say."""

    name: str | None
    """What the model calls it; the function's own name."""
    description: str | None
    """What the model reads about it; the docstring without its parameters."""
    timeout_s: float
    """How long a call may take; 60."""
    twice: Literal["safe", "never"]
    """May a call whose outcome was lost be run a second time?  `never`."""
    effects: Literal["read", "write"]
    """Readers run side by side, writers alone; `write`."""
    approval: bool
    """Must a person allow each call?  An agent's `permissions` can say otherwise; no."""
    secrets: Sequence[str]
    """Names of the tenant's secrets that `CallContext.secret` may return to it; none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionTool(Generic[P, R]):
    """A `core.ports.Tool`, and still the function: called as the function is, it is the function.

    Called with an object of arguments and a `CallContext`, and nothing else, it is the tool; for a
    function that itself takes just these two, `function` is the way to it.
    """

    spec: ToolSpec
    function: Callable[P, R]
    _signature: Signature
    _threads: _Threads

    @overload
    async def __call__(self, arguments: JsonObject, context: CallContext) -> str: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def __call__(self, *args: object, **kwargs: object) -> object:
        if len(args) + len(kwargs) == 2:
            given = dict(zip(("arguments", "context"), args, strict=False)) | kwargs
            arguments, context = given.get("arguments"), given.get("context")
            if isinstance(arguments, dict) and isinstance(context, CallContext):
                return self._run(cast("JsonObject", arguments), context)
        return cast("Callable[..., R]", self.function)(*args, **kwargs)

    async def _run(self, arguments: JsonObject, context: CallContext) -> str:
        call = self._signature.bind(self.function, arguments, context)
        result = call() if self._signature.is_async else await self._threads.run(call)
        if inspect.isawaitable(result):
            result = await result
        return _text(result, self.spec.name)


@overload
def tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...
@overload
def tool(**options: Unpack[ToolOptions]) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...
def tool(
    function: Callable[P, R] | None = None, /, **options: Unpack[ToolOptions]
) -> FunctionTool[P, R] | Callable[[Callable[P, R]], FunctionTool[P, R]]:
    """Make a tool of the function below, bare or with options.

    Raises:
        SetupError: as `function_tool`.
    """
    if function is not None:
        return function_tool(function, **options)

    def make(function: Callable[P, R]) -> FunctionTool[P, R]:
        return function_tool(function, **options)

    return make


def function_tool(
    function: Callable[P, R],
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float = 60.0,
    twice: Literal["safe", "never"] = "never",
    effects: Literal["read", "write"] = "write",
    approval: bool = False,
    secrets: Sequence[str] = (),
) -> FunctionTool[P, R]:
    """Make a tool of `function`.

    Raises:
        SetupError: a parameter has no type, or one that no JSON can be turned into.
    """
    if not inspect.isroutine(function):
        raise SetupError(f"a tool is made of a function, not of {type(function).__name__}")
    name = name or function.__name__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise SetupError(f"tool {name}: it must return its result, not yield it")
    about, documented = read_docstring(inspect.getdoc(function) or "")
    form = signature(function, name, documented)
    spec = ToolSpec(
        name=name,
        description=about if description is None else description,
        parameters=form.schema,
        twice=twice,
        effects=effects,
        timeout_s=timeout_s,
        approval=approval,
        secrets=tuple(secrets),
    )
    return FunctionTool(spec=spec, function=function, _signature=form, _threads=_Threads(name=name))


@dataclass(slots=True, kw_only=True)
class _Threads:
    """Calls in worker threads.  A thread cannot be stopped: one that hangs is left behind.

    Those left behind are limited, so that a tool that always hangs cannot fill the process.
    """

    name: str
    _limiter: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(THREADS))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: int = 0

    async def run(self, call: Callable[[], R]) -> R:
        left_behind = self._running - self._limiter.borrowed_tokens
        if left_behind >= THREADS:
            raise ToolError(f"{self.name} hangs: {left_behind} earlier calls have not returned.")
        return await anyio.to_thread.run_sync(
            self._counted, call, abandon_on_cancel=True, limiter=self._limiter
        )

    def _counted(self, call: Callable[[], R]) -> R:
        with self._lock:
            self._running += 1
        try:
            return call()
        finally:
            with self._lock:
                self._running -= 1


def _text(result: object, name: str) -> str:
    """Return a function's result as the model reads it."""
    if isinstance(result, str):
        return str.__str__(result)
    if result is None:
        return DONE
    if isinstance(result, bytes | bytearray | memoryview):
        raise TypeError(f"{name} returned bytes, which no model reads; return text or JSON values")
    try:
        return msgspec.json.encode(result, enc_hook=encoded).decode()
    except (TypeError, ValueError, RecursionError) as error:
        kind = type(result).__name__
        raise TypeError(f"{name} returned {kind}, which makes no JSON: {error}") from error
