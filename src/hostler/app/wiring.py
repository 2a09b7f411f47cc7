"""Late imports, all of them: nobody pays for adapters and commands that they do not use.

`import hostler` loads none of what is named here; `hostler sessions` loads no model, no tool and
no engine; a server loads the wire APIs that its agents speak.

Invariant: what is loaded late is loaded here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeAlias, cast

from hostler.app.observing import Observing
from hostler.beside.shared import Shared
from hostler.beside.webhooks import Webhooks
from hostler.core.audited import AuditRow, Audits
from hostler.core.directory import Directory
from hostler.core.errors import SetupError
from hostler.core.events import TenantId
from hostler.core.ports import Engine, Model, Tool
from hostler.core.sealed import SealedRows
from hostler.core.store import Store
from hostler.stores.moving import Tables, Target
from hostler.stores.survey import Survey
from hostler.telemetry.timeline import Reader


class ModelMaker(Protocol):
    """The constructor that all wire APIs share."""

    def __call__(
        self,
        *,
        name: str,
        base_url: str,
        transport: object,
        key: Callable[[str], str | None],
        provider: str,
        headers: Mapping[str, str],
        able: Mapping[str, object],
        patience: object,
    ) -> Model: ...


class SpanReader(Reader, Protocol):
    """What makes spans of what runs do."""

    content: bool
    """It wants what was said, too."""

    def counts(self) -> tuple[int, int]:
        """Return how many spans were exported, and dropped."""
        ...

    def close(self) -> None: ...


Kept: TypeAlias = tuple[Store, Audits, Directory, SealedRows, Webhooks, Shared]
"""A store, and what is kept beside the logs in the same place."""


class PostgresSchema(Protocol):
    """`hostler.stores.postgres_schema`."""

    async def migrate(self, url: str, *, contract: bool = False) -> Sequence[int]:
        """Take the steps that were not taken, and return them."""
        ...

    async def look(self, url: str) -> tuple[str, bool, Sequence[int]]:
        """Return the server's version, whether it keeps tenants apart, and what steps are left."""
        ...


class PostgresMoving(Protocol):
    """`hostler.stores.postgres_moving`."""

    def reading(self, url: str, *, alone: bool) -> AbstractAsyncContextManager[Tables]:
        """Open a snapshot; `alone`: of a database that no server has."""
        ...

    def writing(self, url: str) -> AbstractAsyncContextManager[Target]:
        """Open a database that no server has, to be written if nothing is in it."""
        ...


class Chains(Protocol):
    """`hostler.stores.postgres_audit.Chains`."""

    async def tenants(self) -> Sequence[TenantId]:
        """Return those that have a chain."""
        ...

    async def rows(self, tenant: TenantId, after: int, limit: int) -> Sequence[AuditRow]:
        """Return rows as they stand in a chain, past one."""
        ...


ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Variables that name a collector of traces."""

COMMANDS = {
    "serve": "Serve agents.",
    "chat": "Talk to an agent in the terminal.",
    "run": "Say one thing, and show what comes of it.",
    "sessions": "List sessions.",
    "attach": "Show a session, live.",
    "search": "Search all that was said.",
    "tenants": "Make and list tenants.",
    "keys": "Make, list and revoke keys.",
    "doctor": "Check this installation.",
    "models": "List and fetch local models.",
    "migrate": "Bring a PostgreSQL database's schema up to date.",
    "backup": "Copy all that is kept to a file, while servers run.",
    "restore": "Make a database of such a copy.",
    "move": "Move everything to another database: SQLite to PostgreSQL, or back.",
    "upgrade": "See what this build would do to a database.",
    "audit": "Who did what: the audit log, and its check.",
    "verify": "Check that a server keeps its promises.",
    "endpoints": "Have models asked at a tenant's own URLs.",
    "secrets": "Keep keys for models and tools, and keep them out of what is written.",
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


def client() -> object:
    """Return the class whose objects speak to a server."""
    return cast("object", import_module("hostler.app.client").Client)


def identity(said: object, exists: object) -> AbstractAsyncContextManager[object]:
    """Return the ways to say who one is that settings name, to be opened."""
    opened = import_module("hostler.app.identity.opened").open_identity
    return cast("Callable[..., AbstractAsyncContextManager[object]]", opened)(said, exists=exists)


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


def traces(version: str, environ: Mapping[str, str]) -> SpanReader | None:
    """Return what sends spans to the collector that the environment names; None if it names none.

    Raises:
        SetupError: the extra `otel` is not installed.
    """
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    none = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    if off or none or not any(environ.get(name) for name in ENDPOINTS):
        return None
    try:
        make = import_module("hostler.telemetry.traces").Traces
    except ImportError as error:
        raise SetupError(
            "the environment names a collector of traces, and the extra that sends them is "
            "not installed: pip install 'hostler[otel]', or set OTEL_SDK_DISABLED=true"
        ) from error
    return cast("Callable[..., SpanReader]", make)(version=version)


def measuring() -> Callable[..., AbstractAsyncContextManager[Observing]]:
    """Return what makes metrics and traces of a house."""
    made = import_module("hostler.app.measuring").measuring
    return cast("Callable[..., AbstractAsyncContextManager[Observing]]", made)


def postgres() -> Callable[..., AbstractAsyncContextManager[Kept]]:
    """Return what opens a PostgreSQL database.  Raises SetupError."""
    opened = _postgres("postgres_beside").open_all
    return cast(
        "Callable[..., AbstractAsyncContextManager[Kept]]",
        opened,
    )


def postgres_engine(url: str, *, lease_s: float, ahead: Callable[[], int]) -> Engine:
    """Return the engine of a fleet, by the URL of its database.  Raises SetupError."""
    opened = cast(
        "Callable[[], object]",
        partial(_postgres("postgres_jobs").PostgresJobs, url, answer_s=lease_s),
    )
    made = import_module("hostler.engine.postgres").PostgresEngine
    return cast("Engine", made(opened, lease_s=lease_s, ahead=ahead))


def redis_engine(url: str, fleet: str, *, lease_s: float, ahead: Callable[[], int]) -> Engine:
    """Return the engine of a fleet whose queue is in Redis.  Raises SetupError."""
    opened = cast(
        "Callable[[], object]",
        partial(_redis("engine.docket_queue").Queue, url, fleet, answer_s=lease_s),
    )
    return cast(
        "Engine", _redis("engine.docket").DocketEngine(opened, lease_s=lease_s, ahead=ahead)
    )


def postgres_schema() -> PostgresSchema:
    """Return what looks after the schema of a PostgreSQL database.  Raises SetupError."""
    return cast("PostgresSchema", _postgres("postgres_schema"))


def postgres_chains() -> Callable[[str], AbstractAsyncContextManager[Chains]]:
    """Return what opens a PostgreSQL database to check its audit log.  Raises SetupError."""
    opened = cast("object", _postgres("postgres_audit").open_chains)
    return cast("Callable[[str], AbstractAsyncContextManager[Chains]]", opened)


def notify_wire() -> Callable[[str], object]:
    """Return what carries messages between nodes over a PostgreSQL database.  Raises SetupError."""
    made = cast("object", _postgres("notify_wire", of="signals").NotifyWire)
    return cast("Callable[[str], object]", made)


def postgres_moving() -> PostgresMoving:
    """Return what moves into and out of PostgreSQL databases.  Raises SetupError."""
    return cast("PostgresMoving", _postgres("postgres_moving"))


def postgres_survey() -> Callable[[str], Awaitable[Survey]]:
    """Return what looks at a PostgreSQL database before it is used.  Raises SetupError."""
    return cast("Callable[[str], Awaitable[Survey]]", _postgres("postgres_survey").survey)


def _postgres(module: str, of: str = "stores") -> ModuleType:
    try:
        return import_module(f"hostler.{of}.{module}")
    except ImportError as error:
        if error.name != "asyncpg":
            raise
        raise SetupError(
            "the database is PostgreSQL, and the extra that speaks to it is not installed: "
            "pip install 'hostler[postgres]'"
        ) from error


def redis_wire() -> Callable[[str], object]:
    """Return what carries messages between nodes over the Redis of a URL.

    Raises:
        SetupError: the extra `fleet` is not installed.
    """
    return cast("Callable[[str], object]", _redis("signals.redis_wire").RedisWire)


def _redis(module: str) -> ModuleType:
    try:
        return import_module(f"hostler.{module}")
    except ImportError as error:
        raise SetupError(
            "a Redis is set, and the extra that speaks to it is not installed: "
            "pip install 'hostler[fleet]'"
        ) from error


def configure_logs(form: str, level: str) -> None:
    """Let all that is logged in this process be lines of one form."""
    cast("Callable[[str, str], None]", import_module("hostler.telemetry.logs").configure)(
        form, level
    )


def mask_telemetry(hide: Callable[[str], str]) -> None:
    """Let all that is told of this process, its lines and its spans, pass `hide`."""
    take = import_module("hostler.telemetry.masking").set_mask
    cast("Callable[[Callable[[str], str]], None]", take)(hide)


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
