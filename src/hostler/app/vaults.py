"""The vault of an installation: whose master key opens it, and what the operator's own keys are.

Invariant: a key file that others can read is refused, and no key is on a command line.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from hostler.app.keys import kept_key
from hostler.app.providers import table
from hostler.app.settings import Settings
from hostler.core.errors import SetupError
from hostler.faces.http.keepsakes import KeepsakesOf
from hostler.harness.limit_news import LimitNews
from hostler.vault.envelope import MasterKey, new_key, read_master_keys
from hostler.vault.vault import SealedVault

COMMAND_S = 30
LEAST_OF_ENVIRONMENT = 16
"""Characters: shorter values of key variables are stand-ins, like `not-needed`, and no secrets."""
_CARRIES_A_KEY = re.compile(r"auth|key|token|secret|cookie|password|credential", re.IGNORECASE)


def master_key_file(data: Path) -> Path:
    return data / "master-key"


@dataclass(slots=True)
class MasterKeys:
    """Reads the master keys from where the settings say; again each time they are asked for."""

    settings: Settings
    _read: tuple[MasterKey, ...] | None = None

    def __call__(self, *, make: bool, again: bool = False) -> Sequence[MasterKey]:
        """Return them, the newest first; none, if none is given and none is to be made.

        Raises:
            SetupError: more than one place is given, or it cannot be used; says which.
        """
        if self._read is None or again:
            self._read = self._keys(make=make) or None
        return self._read or ()

    def _keys(self, *, make: bool) -> tuple[MasterKey, ...]:
        given, file, command = (
            self.settings.master_key,
            self.settings.master_key_file,
            self.settings.master_key_command,
        )
        if sum(one is not None for one in (given, file, command)) > 1:
            raise SetupError(
                "give one of master_key, master_key_file and master_key_command, not several"
            )
        if given is not None:
            return read_master_keys(given.get_secret_value(), "HOSTLER_MASTER_KEY")
        if command is not None:
            return read_master_keys(_printed(command), "what master_key_command prints")
        if file is not None:
            return read_master_keys(_owned(file), str(file))
        path = master_key_file(self.settings.data)
        if make and not path.exists():
            kept_key(path, new_key().hex())
        return read_master_keys(_owned(path), str(path)) if path.exists() else ()


def _owned(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise SetupError(f"{path} can be read by others: `chmod 600 {shlex.quote(str(path))}`")
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"the master key file {path} cannot be read: {error}") from error


def _printed(command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603  the operator's own command
            shlex.split(command),
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_S,
            check=True,
            encoding="ascii",
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # Not the error's own words: they may hold what the command printed.
        raise SetupError(f"master_key_command failed: {type(error).__name__}") from None
    return done.stdout


def make_vault(settings: Settings, *, admin_key: str, environ: Mapping[str, str]) -> SealedVault:
    """Return the installation's vault; it masks the operator's own keys from now on.

    Raises:
        SetupError: a provider of the settings is not whole.
    """
    vault = SealedVault(MasterKeys(settings))
    vault.learn(None, "HOSTLER_ADMIN_KEY", admin_key)
    for value in secret_parts(settings.database or ""):
        vault.learn(None, "HOSTLER_DATABASE", value)
    known = table(settings.providers)
    for name in {name for one in known.values() for name in one.key_env}:
        value = environ.get(name, "")
        if len(value) >= LEAST_OF_ENVIRONMENT:
            vault.learn(None, name, value)
    for provider, one in known.items():
        url = environ.get(one.base_url_env) or one.base_url
        for value in secret_parts(url):
            vault.learn(None, one.base_url_env or f"{provider}:base_url", value)
    for provider, own in settings.providers.items():
        for header, value in own.headers.items():
            if _CARRIES_A_KEY.search(header):
                vault.learn(None, f"{provider}:{header}", value.rpartition(" ")[2])
    return vault


async def kept_by_clients(vault: SealedVault) -> KeepsakesOf:
    """Return what gives out keepsakes that outlive this process.  Raises SetupError.

    They are good on every server that has the same master key.
    """
    return KeepsakesOf(await vault.derived("keepsakes"))


async def limit_news(vault: SealedVault, bus: object | None) -> LimitNews:
    """Return what tells other nodes of keys that are limited, if there may be any.  Raises SetupError."""
    return LimitNews(None if bus is None else (await vault.derived("limits"))[0])


def secret_parts(url: str) -> Sequence[str]:
    """Return the password of a URL, and what in its query carries a key."""
    try:
        parts = urlsplit(url)
        given = [unquote(parts.password or "")]
    except ValueError:
        return ()  # whoever uses it says so
    given += [value for name, value in parse_qsl(parts.query) if _CARRIES_A_KEY.search(name)]
    return [one for one in given if len(one) >= LEAST_OF_ENVIRONMENT]


def environment_key(names: Sequence[str], vault: SealedVault | None) -> str | None:
    """Return the operator's key, from the first variable that has one; it is masked from now on."""
    for name in names:
        value = os.environ.get(name)
        if value:
            if vault is not None and len(value) >= LEAST_OF_ENVIRONMENT:
                vault.learn(None, name, value)
            return value
    return None
