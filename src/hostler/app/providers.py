"""Models by name: `provider:model`, through the table of `providers.toml`.

Invariant: a provider is data; what differs between wire APIs is in their adapters.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from urllib.parse import urlsplit

from msgspec import Struct, convert

from hostler.core.errors import SetupError

BUILT_IN = ("scripted", "local")
"""Providers that are no server; see `wiring`."""


class Provider(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a provider is, whose key opens it, and which wire API it speaks."""

    wire: str
    base_url: str
    base_url_env: str
    key_env: tuple[str, ...]
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


@cache
def providers() -> Mapping[str, Provider]:
    """Return the table."""
    text = (resources.files("hostler.app") / "providers.toml").read_text(encoding="utf-8")
    return convert(tomllib.loads(text), dict[str, Provider])


def split(name: str) -> tuple[str, str]:
    """Return provider and model of `provider:model`.

    Raises:
        SetupError: it has another form, or there is no such provider; names the nearest.
    """
    provider, colon, model = name.partition(":")
    known = [*providers(), *BUILT_IN]
    if not colon or not model:
        raise SetupError(f"{name!r} is no model: write provider:model, as in openai:gpt-5-mini")
    if provider not in known:
        close = difflib.get_close_matches(provider, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise SetupError(f"there is no provider {provider!r}; {hint}")
    return provider, model


def place(name: str, environ: Mapping[str, str]) -> Place:
    """Return where the model `provider:model` is asked.

    Raises:
        SetupError: as `split`, or the base URL is none.
    """
    provider, model = split(name)
    about = providers()[provider]
    base_url = environ.get(about.base_url_env) or about.base_url
    host = urlsplit(base_url).hostname
    if host is None:
        raise SetupError(f"{about.base_url_env} is {base_url!r}, which is no URL")
    wire = about.own_wire if about.own_wire and host == about.own else about.wire
    return Place(
        provider=provider, model=model, wire=wire, base_url=base_url, key_env=about.key_env
    )
