"""Late imports, all of them: nobody pays for adapters and commands that they do not use.

`import hostler` loads none of what is named here; `hostler sessions` loads no model, no tool and
no engine; a server loads the wire APIs that its agents speak.

Invariant: what is loaded late is loaded here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from hostler.core.errors import SetupError
from hostler.core.ports import Model, Tool


class ModelMaker(Protocol):
    """The constructor that all wire APIs share."""

    def __call__(
        self,
        *,
        name: str,
        base_url: str,
        transport: object,
        key: Callable[[], str | None],
        provider: str,
        headers: Mapping[str, str],
        able: Mapping[str, object],
        patience: object,
    ) -> Model: ...


COMMANDS = {
    "serve": "Serve agents.",
    "chat": "Talk to an agent in the terminal.",
    "run": "Say one thing, and show what comes of it.",
    "sessions": "List sessions.",
    "attach": "Show a session, live.",
    "search": "Search all that was said.",
    "doctor": "Check this installation.",
    "models": "List and fetch local models.",
}
"""Commands with what they do, in the order of the help."""
_WIRES = {
    "openai_chat": ("hostler.models.openai_chat", "OpenAIChat"),
    "openai_responses": ("hostler.models.openai_responses", "OpenAIResponses"),
    "anthropic": ("hostler.models.anthropic", "Anthropic"),
    "gemini": ("hostler.models.gemini", "Gemini"),
}
_TOOLS = {
    "python": ("hostler.tools.python", "PythonTool"),
    "ask_user": ("hostler.tools.ask_user", "AskUser"),
}


def embedding() -> object:
    """Return the module that runs agents in this process."""
    return import_module("hostler.app.embed")


def command(name: str) -> object:
    """Return a command of the command line, None when there is none of this name."""
    if name not in COMMANDS:
        return None
    return cast("object", getattr(import_module(f"hostler.app.commands.{name}"), name))


def terminal(module: str, name: str) -> Callable[..., object]:
    """Return a function of the terminal's, for commands that show their help without it."""
    found = getattr(import_module(f"hostler.app.terminal.{module}"), name)
    return cast("Callable[..., object]", found)


def wire(name: str) -> ModelMaker:
    """Return the adapter of a wire API."""
    module, attribute = _WIRES[name]
    return cast("ModelMaker", getattr(import_module(module), attribute))


def built_in_tool(name: str) -> Tool:
    """Return a tool that comes with Hostler.

    Raises:
        SetupError: there is none of this name.
    """
    if name not in _TOOLS:
        raise SetupError(f"there is no built-in tool {name!r}; there are: {', '.join(_TOOLS)}")
    module, attribute = _TOOLS[name]
    return cast("Callable[[], Tool]", getattr(import_module(module), attribute))()


def scripted(script: str) -> Model:
    """Return the model that plays a script.  Raises SetupError."""
    make = import_module("hostler.models.scripted").scripted
    return cast("Callable[[str], Model]", make)(script)


def local(name: str, data: Path) -> Model:
    """Return a model that runs on this machine.  Raises SetupError."""
    opened = import_module("hostler.models.local").opened
    return cast("Callable[[str, Path], Model]", opened)(name, data)


async def fetch_weights(name: str, data: Path) -> Path:
    """Return the file of a local model, fetched if it is not there.  Raises SetupError."""
    fetch = import_module("hostler.app.fetching").fetch
    return await cast("Callable[[str, Path], Awaitable[Path]]", fetch)(name, data)


def prompted(model: Model) -> Model:
    """Return a model with tools, made of one that has none."""
    module = import_module("hostler.models.prompted")
    wrap = cast("Callable[..., Model]", module.Prompted)
    return wrap(model, constrain=cast("object", module.by_response_format))


def read_yaml(file: Path, text: str) -> object:
    """Return what YAML says.

    Raises:
        SetupError: it says nothing that can be understood; names file and place.
    """
    yaml = import_module("yaml")
    try:
        return cast("Callable[[str], object]", yaml.safe_load)(text)
    except yaml.YAMLError as error:
        raise SetupError(f"{file}: the front matter is not YAML: {error}") from error
