"""Models by name: `provider:model`, through the table of `providers.toml`.

Invariant: a provider is data; what differs between wire APIs is in their adapters.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from urllib.parse import urlsplit

from msgspec import Struct, convert
from msgspec.structs import replace

from hostler.app.settings import OwnProvider
from hostler.core.errors import SetupError

BUILT_IN = ("scripted", "local")
"""Providers that are no server; see `wiring`."""


class Provider(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a provider is, whose key opens it, and which wire API it speaks."""

    wire: str
    base_url: str
    base_url_env: str
    key_env: tuple[str, ...]
    key_optional: bool = False
    """It may run without a key, though there can be one."""
    own: str | None = None
    own_wire: str | None = None
    """Spoken to the provider's `own` host only; imitations speak `wire`."""


class Place(Struct, frozen=True, kw_only=True):
    """Where to ask for one model."""

    provider: str
    model: str
    wire: str
    base_url: str
    key_env: tuple[str, ...]
    needs_key: bool = True


@cache
def providers() -> Mapping[str, Provider]:
    """Return the table."""
    text = (resources.files("hostler.app") / "providers.toml").read_text(encoding="utf-8")
    return convert(tomllib.loads(text), dict[str, Provider])


def table(own: Mapping[str, OwnProvider]) -> Mapping[str, Provider]:
    """Return the providers there are, with those of the operator.

    Raises:
        SetupError: a new one lacks what it needs.
    """
    made = dict(providers())
    for name, one in own.items():
        there = made.get(name)
        if there is None:
            if one.wire is None or one.base_url is None:
                raise SetupError(f"the provider {name} in the settings needs wire and base_url")
            there = Provider(wire=one.wire, base_url=one.base_url, base_url_env="", key_env=())
        changes = {
            "wire": one.wire,
            "own_wire": one.wire,
            "base_url": one.base_url,
            # What is set for Hostler alone goes before what all programs read.
            "base_url_env": None if one.base_url is None else "",
            "key_env": one.key_env,
        }
        made[name] = replace(there, **{k: v for k, v in changes.items() if v is not None})
    return made


def split(name: str, known: Iterable[str]) -> tuple[str, str]:
    """Return provider and model of `provider:model`.

    Raises:
        SetupError: it has another form, or there is no such provider; names the nearest.
    """
    provider, colon, model = name.partition(":")
    known = [*known, *BUILT_IN]
    if not colon or not model:
        raise SetupError(f"{name!r} is no model: write provider:model, as in openai:gpt-5-mini")
    if provider not in known:
        close = difflib.get_close_matches(provider, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise SetupError(f"there is no provider {provider!r}; {hint}")
    return provider, model


def place(
    name: str,
    environ: Mapping[str, str],
    *,
    base_url: str | None = None,
    own: Mapping[str, OwnProvider] | None = None,
) -> Place:
    """Return where the model `provider:model` is asked: at `base_url`, else where it usually is.

    Raises:
        SetupError: as `split` and `table`, or the base URL is none.
    """
    known = table(own or {})
    provider, model = split(name, known)
    about = known[provider]
    base_url = base_url or environ.get(about.base_url_env) or about.base_url
    try:
        host = urlsplit(base_url).hostname
    except ValueError:
        host = None
    if host is None:  # not told what it is: there may be a password in it
        named = about.base_url_env or provider
        raise SetupError(f"{named} is no URL: write http://HOST:PORT/v1")
    wire = about.own_wire if about.own_wire and host == about.own else about.wire
    return Place(
        provider=provider,
        model=model,
        wire=wire,
        base_url=base_url,
        key_env=about.key_env,
        needs_key=bool(about.key_env) and not about.key_optional,
    )
