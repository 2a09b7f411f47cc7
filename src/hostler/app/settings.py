"""Settings: flags, then `HOSTLER_*` variables, then `hostler.toml`, then defaults.

Invariant: a setting that does not exist is an error that names the nearest one that does, except
in the environment, which other programs share: there it is only remarked.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from hostler.core.errors import SetupError

PREFIX = "HOSTLER_"
FILE = Path("hostler.toml")
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


class Settings(BaseSettings):
    """What an operator can set; the reference page of the documentation is made from this."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, toml_file=FILE
    )

    data: Path = default_data()
    """Folder for the database, the admin key, model weights and long tool results."""
    database: str | None = None
    """`sqlite:///PATH`; without it, `hostler.db` in the data folder."""
    model: str | None = None
    """`provider:model` for agents that name none; without it, the first that is found."""
    admin_key: SecretStr | None = None
    """At least 32 characters; without it, one is made and kept in the data folder."""
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
    origins: str = ""
    """Of web pages elsewhere that may open sockets here: `https://app.example.org`, by comma."""
    retention_days: float = Field(default=90, ge=0)
    """Idle sessions that nobody touched for so many days are deleted; 0 keeps them."""
    retention_sessions: int = Field(default=100_000, ge=0)
    """So many sessions of a tenant are kept, those touched last; 0 keeps all."""
    url: str | None = None
    """For the commands that talk to a server: which one."""
    providers: dict[str, OwnProvider] = {}
    """By name: providers of your own, and what is different about known ones."""

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
    def given_key(self) -> str | None:
        """Return the admin key that the operator set."""
        return None if self.admin_key is None else self.admin_key.get_secret_value()

    @property
    def database_file(self) -> Path:
        """Return where the log is.

        Raises:
            SetupError: `database` names something that this build cannot use.
        """
        if self.database is None:
            return self.data / "hostler.db"
        scheme, _, path = self.database.partition("://")
        if scheme != "sqlite" or not path:
            raise SetupError(f"database is {scheme}://…; this build knows sqlite:///PATH")
        return Path(path)


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
    except TOMLDecodeError as error:
        raise SetupError(f"{FILE} is not TOML: {error}") from error
    has_tls = settings.tls_cert is not None and settings.tls_key is not None
    if settings.host not in LOOPBACK and not (has_tls or settings.insecure):
        raise SetupError(
            f"{settings.host} can be reached by other machines: give --tls-cert and --tls-key, "
            "or --insecure if a proxy in front of this server has TLS"
        )
    return settings


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a remark for each `HOSTLER_*` variable that sets nothing."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    ours = [name for name in environ if name.startswith(PREFIX) and name not in known]
    return [f"{name} sets nothing{_nearest(name, known)}" for name in sorted(ours)]


def _complaints(error: ValidationError) -> Iterable[str]:
    for one in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in one["loc"])
        if one["type"] == "extra_forbidden":
            yield f"{name} is no setting{_nearest(name, Settings.model_fields)}"
        else:
            yield f"{name}: {one['msg']}"


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
