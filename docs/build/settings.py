"""The page on what an operator can set: flag, variable, key in the file, default, meaning."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click
from docs.build.cli import commands
from docs.build.markdown import code, page, table
from docs.build.source import Undocumented, fields
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from hostler.app.identity.settings import Jwt, Mapped, Proxy
from hostler.app.settings import (
    FILE,
    PREFIX,
    DirectModels,
    EgressRules,
    OwnProvider,
    Rated,
    Settings,
    default_data,
)

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
EGRESS = """
## `[egress]`
`HOSTLER_EGRESS` takes the same as JSON. [Where tenants may point](../howto/egress.md) has examples.

"""
RATES = """
## `[rates]`
How often one principal may ask; what is beyond is 429, with `Retry-After`. Answers to those who have
a limit say how much is left in `RateLimit` and `RateLimit-Policy`. The holder of the admin key has
none.

"""
JWT = """
## `[[identity.jwt]]`
An issuer of tokens; several are several such sections. [How to use one](../howto/identity-with-oidc.md)
has examples.

"""
PROXY = """
## `[identity.proxy]`
A proxy that is trusted to say who calls. Without this section its headers mean nothing.

"""
DIRECT = """
## `[direct]`
Clients may ask models themselves, with no agent and no session: those that the served agents name,
and those that are listed here. `HOSTLER_DIRECT` takes the same as JSON.

"""
SECTIONS: dict[str, tuple[type[BaseModel], ...]] = {
    RATES: (Rated,),
    JWT: (Jwt, Mapped),
    PROXY: (Proxy, Mapped),
    PROVIDERS: (OwnProvider,),
    EGRESS: (EgressRules,),
    DIRECT: (DirectModels,),
}


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
    sections = (intro + _section(*several) for intro, several in SECTIONS.items())
    return page("Settings", INTRO, table(heads, rows), KEYS, *sections)


def _section(*several: type[BaseModel]) -> str:
    """Return a table of the keys of a section.  Raises Undocumented: one has no docstring."""
    rows: list[list[str]] = []
    for model in several:
        for one in fields(model):
            if one.name == "model_config":
                continue
            if not one.about:
                raise Undocumented(f"{model.__name__}.{one.name} has no docstring")
            default = model.model_fields[one.name].get_default()
            rows.append([code(one.name), _default(default), one.about])
    return table(["key", "default", "meaning"], rows)


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
    if value is None or value is PydanticUndefined or isinstance(value, SecretStr | BaseModel):
        return ""
    if isinstance(value, tuple):
        return ", ".join(map(code, map(str, cast("tuple[object, ...]", value))))
    return code(str(value).lower() if isinstance(value, bool) else str(value) if value else "")
