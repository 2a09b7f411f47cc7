"""The page on what an operator can set: flag, variable, key in the file, default, meaning."""

from __future__ import annotations

from pathlib import Path

import click
from docs.build.cli import commands
from docs.build.markdown import code, page, table
from docs.build.source import Undocumented, fields
from pydantic import SecretStr

from hostler.app.settings import FILE, PREFIX, OwnProvider, Settings, default_data

INTRO = f"""
A flag goes before a variable, a variable before `{FILE}` in the working folder, the file before
the default. In the file an unknown key is an error that names the nearest known one; an unknown
`{PREFIX}…` variable is remarked when the server starts.
"""
KEYS = """
Keys of model providers are never in the settings: they are read from the environment at each call,
under the names in [providers](providers.md).
"""
PROVIDERS = """
## `[providers.NAME]`
What is different about a provider, or a whole one of your own; `HOSTLER_PROVIDERS` takes the same
as JSON. [How to use a provider](../howto/use-a-provider.md) has examples.

"""


def settings() -> str:
    """Return the page.  Raises Undocumented: a setting has no docstring."""
    flags = _flags()
    rows: list[list[str]] = []
    for one in fields(Settings):
        if one.name == "model_config":
            continue
        if not one.about:
            raise Undocumented(f"Settings.{one.name} has no docstring")
        default = Settings.model_fields[one.name].default
        rows.append(
            [
                code(one.name),
                code(flags.get(one.name, "")),
                code(PREFIX + one.name.upper()),
                _default(default),
                one.about,
            ]
        )
    heads = [f"`{FILE}`", "flag", "variable", "default", "meaning"]
    return page("Settings", INTRO, table(heads, rows), KEYS, _own_providers())


def _own_providers() -> str:
    """Return the section on `[providers.NAME]`."""
    rows: list[list[str]] = []
    for one in fields(OwnProvider):
        if one.name == "model_config":
            continue
        if not one.about:
            raise Undocumented(f"OwnProvider.{one.name} has no docstring")
        rows.append([code(one.name), one.about])
    return PROVIDERS + table(["key", "meaning"], rows)


def _flags() -> dict[str, str]:
    """Return the flags of all commands, by the setting that they set."""
    found: dict[str, str] = {}
    for context in commands():
        for parameter in context.command.params:
            if isinstance(parameter, click.Option) and parameter.name in Settings.model_fields:
                found[str(parameter.name)] = max(parameter.opts, key=len)
    return found


def _default(value: object) -> str:
    if isinstance(value, Path) and value == default_data():
        return "`hostler` in `$XDG_DATA_HOME` or `~/.local/share`"
    if value is None or isinstance(value, SecretStr):
        return ""
    return code(str(value).lower() if isinstance(value, bool) else str(value))
