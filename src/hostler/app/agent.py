"""The agents that users write: as Python objects, or as Markdown files with front matter.

Invariant: an `Agent` is a description.  It opens nothing until it is served or run.
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Mapping,
    MutableMapping,
    Sequence,
)
from dataclasses import KW_ONLY, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import msgspec
from msgspec import Struct

from hostler.app import wiring
from hostler.app.frames import Finished, Frame
from hostler.core.decide import MOST_WAIT_S, Limits
from hostler.core.errors import SetupError
from hostler.core.events import ClientTool, JsonObject, Policy
from hostler.core.ports import Model, Tool
from hostler.core.state import Run
from hostler.harness.permissions import ALL, Permissions

FRONT = re.compile(r"---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)(.*)", re.DOTALL | re.MULTILINE)

_Message: TypeAlias = MutableMapping[str, Any]
ToolLike: TypeAlias = Tool | Callable[..., object] | str
"""A tool, a function to make one of, or the name of a built-in one."""


class Budget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run may use; reaching any of them ends it before its next call."""

    tokens: int | None = None
    """Input and output, summed over the run."""
    seconds: float | None = None
    """Since the run started; waiting counts."""
    usd: Decimal | None = None
    """A call at an unknown price counts as nothing, and is reported as unknown."""


NO_BUDGET = Budget()
APPROVAL_TIMEOUT_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Agent:
    """A model with instructions and tools.

    `model` is `provider:model`, a `Model`, or a list to fall back along; None takes what the
    server has.  The same names are the front matter's keys of an agent file.
    """

    name: str
    """Letters, digits, `.`, `_` and `-`, at most 64."""
    _: KW_ONLY
    model: str | Model | Sequence[str | Model] | None = None
    """First choice first."""
    instructions: str = ""
    """What the model is told before everything else."""
    tools: Sequence[ToolLike] = ()
    """Functions, tools, or names of built-in ones."""
    permissions: Permissions = ALL
    """Which tools are allowed, asked about or denied."""
    client_tools: Sequence[ClientTool] = ()
    """Tools of the clients of every session: shown to the model here, answered by them."""
    description: str = ""
    """For people who choose an agent; the model does not see it."""
    policy: Policy = "queue"
    """What becomes of a message that arrives while a run is going, if it does not say."""
    max_steps: int = 100
    """Model replies in one run."""
    budget: Budget = NO_BUDGET
    """What one run may use."""
    caps: Mapping[str, int] = field(default_factory=dict[str, int])
    """By tool name: how often it may begin within one run."""
    stop_when: Callable[[Run], bool] | None = None
    """Asked after each step; True ends the run as done."""
    stuck_after: int = 5
    """Equal calls with equal results in a row that end a run; 0 switches this off."""
    approval_timeout_s: float = APPROVAL_TIMEOUT_S
    """How long a call waits for an approval before it is denied."""
    max_output_tokens: int | None = None
    """Of one reply."""
    options: JsonObject = field(default_factory=dict[str, object])
    """Passed on to the provider as they are, under its own names."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", self.name, re.ASCII):
            raise SetupError(f"an agent's name is letters, digits, . _ -; not {self.name!r}")
        if not 0 < self.approval_timeout_s <= MOST_WAIT_S:
            wanted = f"more than 0 and at most {MOST_WAIT_S:g}"
            raise SetupError(f"approval_timeout_s is {self.approval_timeout_s:g}, not {wanted}")

    @property
    def models(self) -> Sequence[str | Model]:
        """Return the chain of models; empty for what the server has."""
        if self.model is None:
            return ()
        if isinstance(self.model, Sequence) and not isinstance(self.model, str):
            return self.model
        return (self.model,)

    def limits(self, *, models: int) -> Limits:
        """Return when a run of this agent stops."""
        return Limits(
            max_steps=self.max_steps,
            max_tokens=self.budget.tokens,
            max_seconds=self.budget.seconds,
            max_cost=self.budget.usd,
            tool_caps=self.caps,
            stop_when=self.stop_when,
            models=models,
            approval_s=self.approval_timeout_s,
            stuck_after=self.stuck_after,
        )

    async def run(
        self, prompt: str, *, session: str | None = None, data: str | Path | None = None
    ) -> Finished:
        """Run the agent in this process, without a server, and return how that ended.

        With `data`, a folder, what happens is stored there: a later call with the `session` of an
        earlier one goes on with it, and so does a server on the same folder.
        """
        return await _embedding().run(self, prompt, session=session, data=data)

    def stream(
        self, prompt: str, *, session: str | None = None, data: str | Path | None = None
    ) -> AsyncGenerator[Frame, None]:
        """As `run`, yielding each frame as it comes, up to the run's `run_ended`."""
        return _embedding().stream(self, prompt, session=session, data=data)

    def asgi(self, *, data: str | Path | None = None, admin_key: str | None = None) -> Asgi:
        """Return an ASGI application that serves this agent, to be run or mounted.

        It opens the data folder at its lifespan's start or, mounted where there is none, at the
        first request.
        """
        return _embedding().asgi(self, data=data, admin_key=admin_key)


class Asgi(Protocol):
    """An ASGI application, in words that need no framework."""

    async def __call__(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None: ...
    async def aclose(self) -> None:
        """Stop the work; runs that are open go on when the data folder is opened again."""
        ...


class _Embedding(Protocol):
    """`app.embed`, which is loaded when it is needed."""

    async def run(
        self, agent: Agent, prompt: str, *, session: str | None, data: str | Path | None
    ) -> Finished: ...
    def stream(
        self, agent: Agent, prompt: str, *, session: str | None, data: str | Path | None
    ) -> AsyncGenerator[Frame, None]: ...
    def asgi(self, agent: Agent, *, data: str | Path | None, admin_key: str | None) -> Asgi: ...


def _embedding() -> _Embedding:
    return cast("_Embedding", wiring.embedding())


class _Front(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of an agent file."""

    model: str | list[str] | None = None
    tools: tuple[str, ...] = ()
    permissions: Permissions = ALL
    client_tools: tuple[ClientTool, ...] = ()
    description: str = ""
    policy: Policy = "queue"
    max_steps: int = 100
    budget: Budget = NO_BUDGET
    caps: dict[str, int] = {}
    stuck_after: int = 5
    approval_timeout_s: float = APPROVAL_TIMEOUT_S
    max_output_tokens: int | None = None
    options: JsonObject = {}


def load_target(target: str) -> list[Agent]:
    """Return the agents of `module:attribute`, of a folder of agent files, or of one such file.

    Raises:
        SetupError: there are none there, or one of them is wrong; says where and how.
    """
    path = Path(target)
    if path.is_dir():
        files = sorted(path.glob("*.md"))
        if not files:
            raise SetupError(f"{path} has no agent files (NAME.md)")
        return [read_agent(file) for file in files]
    if path.suffix == ".md":
        return [read_agent(path)]
    module, colon, attribute = target.partition(":")
    if not colon:
        raise SetupError(f"{target!r} is neither a folder of agent files nor MODULE:AGENT")
    return _imported(module, attribute)


def read_agent(file: Path) -> Agent:
    """Return the agent of a Markdown file: YAML front matter, then the instructions.

    Raises:
        SetupError: the file cannot be read, or its front matter is wrong; names the key.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{file} cannot be read: {error}") from error
    match = FRONT.match(text)
    matter, body = (match[1], match[2]) if match else ("", text)
    front = _front(file, wiring.read_yaml(file, matter) or {})
    return Agent(
        file.stem,
        instructions=body.strip(),
        model=front.model,
        tools=front.tools,
        permissions=front.permissions,
        client_tools=front.client_tools,
        description=front.description,
        policy=front.policy,
        max_steps=front.max_steps,
        budget=front.budget,
        caps=front.caps,
        stuck_after=front.stuck_after,
        approval_timeout_s=front.approval_timeout_s,
        max_output_tokens=front.max_output_tokens,
        options=front.options,
    )


def _front(file: Path, values: object) -> _Front:
    known = _Front.__struct_fields__
    if isinstance(values, dict):
        for key in cast("dict[object, object]", values):
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
                hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
                raise SetupError(f"{file}: {key} is no key of an agent{hint}")
    try:
        return msgspec.convert(values, _Front, strict=False)
    except msgspec.ValidationError as error:
        raise SetupError(f"{file}: {error}") from error


def _imported(module: str, attribute: str) -> list[Agent]:
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: what lies in the working folder can be named
    try:
        found = cast("object", getattr(importlib.import_module(module), attribute, None))
    except ImportError as error:
        raise SetupError(f"module {module} cannot be imported: {error}") from error
    several = cast("Sequence[object]", found if isinstance(found, list | tuple) else [found])
    agents = [one for one in several if isinstance(one, Agent)]
    if not agents or len(agents) != len(several):
        raise SetupError(f"{module}:{attribute} is no Agent and no list of them")
    return agents
