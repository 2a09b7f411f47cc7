"""Settings: flags, then `HOSTLER_*` variables, then `hostler.toml`, then defaults.

Invariant: a setting that does not exist is an error that names the nearest one that does, except
in the environment, which other programs share: there it is only remarked.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from json import JSONDecodeError
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from hostler.app.identity.settings import Identity
from hostler.core.errors import SetupError
from hostler.core.events import Principal
from hostler.service.rates import UNLIMITED, Limits, LimitsOf, Rate, check_per_s
from hostler.service.retention import Keep

PREFIX = "HOSTLER_"
FILE = Path("hostler.toml")
POSTGRES = frozenset({"postgresql", "postgres"})
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def default_data() -> Path:
    """Return where a user's programs keep their data (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "hostler"


class OwnProvider(BaseModel):
    """What is different about a provider, or a whole one of the operator's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wire: Literal["openai_chat", "openai_responses", "anthropic", "gemini"] | None = None
    """Which wire API it speaks; a new provider needs it."""
    base_url: str | None = None
    """Where it is; a new provider needs it."""
    key_env: tuple[str, ...] | None = None
    """Variables that may hold its key, the first that is set."""
    headers: dict[str, str] = {}
    """Sent with each question, beside the key."""
    capabilities: dict[str, object] = {}
    """What its models can and want, over what is known of them."""
    first_byte_s: float | None = None
    """How long the first event of an answer may take."""
    idle_s: float | None = None
    """How long the next one may."""
    at_once: int | None = Field(default=None, ge=1, le=1_000_000)
    """So many questions with one key may be on their way to one model, in all nodes together; without
    it there is a bound while the provider refuses what is too much."""


class EgressRules(BaseModel):
    """Where connections may go that a tenant, not the operator, asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow: tuple[str, ...] = ()
    """Networks and hosts, with a port or without, that are open though they are not public."""
    deny: tuple[str, ...] = ()
    """The same, closed though they are public, or are allowed."""
    ports: tuple[int, ...] = ()
    """If there are any, only these, and those that `allow` names."""


class DirectModels(BaseModel):
    """Which models clients may ask themselves, beside those of agents."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[str, ...] = ()
    """`provider:model`, and patterns of these: `openai:*`, `anthropic:claude-*`. Models that run on this
    machine are listed by name."""


class Rated(BaseModel):
    """How often one principal may ask; the holder of the admin key has no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_s: float = Field(default=200, ge=0, le=1e6)
    """Requests and verbs on sockets, over a longer time; 0: no limit."""
    requests_burst: int = Field(default=2000, ge=1, le=1_000_000)
    """So many at once before that counts."""
    runs_per_s: float = Field(default=10, ge=0, le=1e6)
    """Messages, each of which may begin a run; 0: no limit."""
    runs_burst: int = Field(default=200, ge=1, le=1_000_000)
    """So many at once before that counts."""

    @field_validator("requests_per_s", "runs_per_s")
    @classmethod
    def _is_a_rate(cls, per_s: float) -> float:
        check_per_s(per_s)
        return per_s

    def limits(self) -> LimitsOf:
        """Return what knows how often somebody may ask, where the tenant has no limits of its own."""
        requests = runs = None
        if self.requests_per_s:
            requests = Rate.of(self.requests_per_s, self.requests_burst)
        if self.runs_per_s:
            runs = Rate.of(self.runs_per_s, self.runs_burst)
        limits = Limits(requests, runs)

        def limits_of(who: Principal) -> Limits:
            return UNLIMITED if who.is_operator else limits

        return limits_of


class Settings(BaseSettings):
    """What an operator can set; the reference page of the documentation is made from this."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, toml_file=FILE
    )

    data: Path = default_data()
    """Folder for the database, the admin key, model weights and long tool results."""
    database: str | None = None
    """`sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME`; without it, `hostler.db` in the data
    folder."""
    redis: SecretStr | None = None
    """`redis://…` or `rediss://…`: the live bus between the nodes of a fleet. Nothing is kept there
    but, with `engine`, the queue. Without it, nodes on one PostgreSQL database hear each other over
    that, with more delay."""
    fleet: str = Field(default="hostler", pattern=r"^[a-z0-9][a-z0-9-]{0,23}$")
    """Name of this installation in Redis: nodes of one name hear each other, and share the queue."""
    engine: Literal["postgres", "redis"] | None = None
    """Where the queue of runs is, if the log is in PostgreSQL: there, which is the default, or in `redis`.
    The same for all nodes."""
    role: Literal["all", "api", "worker"] = "all"
    """What this node does in its fleet: `api` takes and shows, `worker` drives runs and answers for its
    health and figures alone."""
    processes: int = Field(default=1, ge=1, le=256)
    """So many servers share the port, each with a core of its own; the log has to be in PostgreSQL."""
    drain_s: float = Field(default=20, ge=0, le=3600)
    """Told to stop, a server lets each run that it drives end its step in this time; another node then
    goes on with it. With SQLite there is none, and runs wait for the next start."""
    model: str | None = None
    """`provider:model` for agents that name none; without it, the first that is found."""
    admin_key: SecretStr | None = None
    """At least 32 characters; without it, one is made and kept in the data folder."""
    master_key: SecretStr | None = None
    """What secrets are sealed with: 64 hex digits or base64 of 32 bytes; several in a rotation."""
    master_key_file: Path | None = None
    """A file with it, its owner's alone; without any, one is made in the data folder."""
    master_key_command: str | None = None
    """A command that prints it, run without a shell."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8420
    """Port to listen on; 0 takes a free one."""
    tls_cert: Path | None = None
    """Certificate chain, PEM."""
    tls_key: Path | None = None
    """The certificate's key, PEM."""
    insecure: bool = False
    """Allow an address other machines can reach without TLS (behind a proxy that has it)."""
    hosts: str = ""
    """Names that this server is called by, by comma: `agents.example.org`, `*.example.org`. Needed
    behind a proxy on this machine; without it, a server on loopback answers to `localhost` and to
    addresses alone, one that other machines reach to any name."""
    origins: str = ""
    """Of web pages elsewhere that may use this server: `https://app.example.org`, by comma."""
    retention_days: float = Field(default=90, ge=0)
    """Idle sessions that nobody touched for so many days are deleted; 0 keeps them."""
    retention_sessions: int = Field(default=100_000, ge=0)
    """So many sessions of a tenant are kept, those touched last; 0 keeps all."""
    audit_days: float = Field(default=400, ge=0)
    """Rows of the audit log are kept so many days (a year is what auditors ask for); 0 keeps all."""
    lease_s: float = Field(default=5, ge=1, le=600)
    """In a fleet: after so many seconds without a sign of life, a node's runs go on elsewhere."""
    rates: Rated = Rated()
    """How often one principal may ask."""
    identity: Identity = Identity()
    """Issuers of tokens, and a proxy that is trusted."""
    log: Literal["auto", "json", "text"] = "auto"
    """Form of the lines on standard error; `auto`: text on a terminal, else a JSON object a line."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged at least; `debug` has a line for each request."""
    metrics: bool = True
    """Count and time what happens, for `/metrics`."""
    metrics_open: bool = False
    """Let anybody who reaches the server read `/metrics`, without a key."""
    url: str | None = None
    """For the commands that talk to a server: which one."""
    providers: dict[str, OwnProvider] = {}
    """By name: providers of your own, and what is different about known ones."""
    egress: EgressRules = EgressRules()
    """Where connections may go that a tenant asks for."""
    direct: DirectModels = DirectModels()
    """Models that clients may ask themselves, with no agent."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def named_hosts(self) -> Sequence[str]:
        """Return the names in `hosts`."""
        return _listed(self.hosts)

    @property
    def named_origins(self) -> Sequence[str]:
        """Return those in `origins`."""
        return _listed(self.origins)

    @property
    def keep(self) -> Keep:
        """Return what is kept, and for how long."""
        return Keep(
            days=self.retention_days, sessions=self.retention_sessions, audit_days=self.audit_days
        )

    @property
    def given_key(self) -> str | None:
        """Return the admin key that the operator set."""
        return None if self.admin_key is None else self.admin_key.get_secret_value()

    @property
    def place(self) -> Path | str:
        """Return where the log is: a SQLite file, or the URL of a PostgreSQL database.

        Raises:
            SetupError: `database` names something that this build cannot use.
        """
        if self.database is None:
            return self.data / "hostler.db"
        scheme, _, path = self.database.partition("://")
        if scheme in POSTGRES and path:
            return self.database
        if scheme != "sqlite" or not path:
            raise SetupError(
                f"database is {scheme}://…; this build knows sqlite:///PATH and postgresql://…"
            )
        return Path(path)

    @property
    def database_file(self) -> Path:
        """Return the SQLite file.  Raises SetupError: the log is in none."""
        if isinstance(self.place, str):
            raise SetupError("this needs a SQLite file, and the log is in PostgreSQL")
        return self.place


def load_settings(flags: Mapping[str, object]) -> Settings:
    """Return the settings; a flag that is None was not given.

    Raises:
        SetupError: an unknown setting, a wrong value, or an address that is open without TLS.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SetupError("; ".join(_complaints(error))) from error
    except SettingsError as error:
        raise SetupError(_unread(error)) from None  # its cause has the whole value
    except TOMLDecodeError as error:
        raise SetupError(f"{FILE} is not TOML: {error}") from error
    has_tls = settings.tls_cert is not None and settings.tls_key is not None
    if settings.host not in LOOPBACK and not (has_tls or settings.insecure):
        raise SetupError(
            f"{settings.host} can be reached by other machines: give --tls-cert and --tls-key, "
            "or --insecure if a proxy in front of this server has TLS"
        )
    _check_names(settings)
    return settings


def _check_names(settings: Settings) -> None:
    """Return if hosts and origins can be what they are for.  Raises SetupError."""
    for one in settings.named_origins:
        if not re.fullmatch(r"https?://[a-z0-9.\[\]:_-]+", one):
            raise SetupError(f"origins: {one} is no origin; write https://app.example.org")
    for one in settings.named_hosts:
        if not re.fullmatch(r"\*|(\*\.)?[A-Za-z0-9._-]+", one):
            raise SetupError(f"hosts: {one} is no name; write agents.example.org, without a port")
    is_public = settings.host not in LOOPBACK
    if is_public and settings.identity.proxy is not None and not settings.named_hosts:
        raise SetupError(
            "identity.proxy needs hosts here: a page that binds its own name to this address "
            "(DNS rebinding) could say who it is from a browser on a machine that is trusted"
        )


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a remark for each `HOSTLER_*` variable that sets nothing."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    ours = [name for name in environ if name.startswith(PREFIX) and name not in known]
    return [f"{name} sets nothing{_nearest(name, known)}" for name in sorted(ours)]


def _listed(text: str) -> Sequence[str]:
    return [one for part in text.split(",") if (one := part.strip())]


def _complaints(error: ValidationError) -> Iterable[str]:
    for one in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in one["loc"])
        if one["type"] == "extra_forbidden":
            yield f"{name} is no setting{_nearest(name, Settings.model_fields)}"
        else:
            yield f"{name}: {one['msg']}"


def _unread(error: SettingsError) -> str:
    """Return which variable should have been JSON, and where it is not."""
    found = re.search(r'field "(\w+)"', str(error))  # it says so nowhere else
    name = "a variable" if found is None else f"{PREFIX}{found[1].upper()}"
    why = f": {error.__cause__}" if isinstance(error.__cause__, JSONDecodeError) else ""
    return f"{name} is not JSON{why}"


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
