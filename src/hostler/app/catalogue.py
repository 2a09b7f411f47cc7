"""The models that clients may ask themselves: those of agents, and those that the operator lists.

    openai:gpt-5          a model of an agent, or one that is listed
    openai:*              a pattern: whatever the provider has of that form
    gpt-5                 the one of these that is called so

Invariant: a pattern reaches models of servers alone, never what is opened on this machine; and of
what clients may name freely, so many are kept open and no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from fnmatch import fnmatchcase

from hostler.app.providers import BUILT_IN, table
from hostler.app.settings import Settings
from hostler.core.errors import SetupError
from hostler.core.ports import AgentSpec, Model

MOST = 500
"""Kept open by patterns; they hold no connection of their own."""
_WILD = frozenset("*?[")
_MODEL = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
"""What a client may call a model that fits a pattern: it becomes a part of URLs."""


class Catalogue:
    """A `core.ports.Catalog`."""

    def __init__(
        self, listed: Iterable[str] = (), providers: Collection[str] = (), *, most: int = MOST
    ) -> None:
        """`listed`: names and patterns; `providers`: those that patterns reach.

        Raises:
            SetupError: one of `listed` is neither.
        """
        self._providers, self._most = tuple(providers), most
        self._patterns, self._listed = list[str](), list[str]()
        for one in listed:
            provider, _, model = one.partition(":")
            if not (provider and model):
                raise SetupError(f"direct.models: {one!r} is no model; write provider:model")
            if not _WILD & {*one}:
                self._listed.append(one)
            elif provider in BUILT_IN:
                raise SetupError(f"direct.models: {one}: models of {provider} are listed by name")
            else:
                self._patterns.append(one)
        self._named: dict[str, Model | None] = dict.fromkeys(self._listed)
        """By name; None until it is opened."""
        self._found: dict[str, Model] = {}
        """By patterns; those that were longest not asked for first."""
        self._open: Callable[[str], Model] | None = None

    def take(
        self, specs: Iterable[AgentSpec], open_model: Callable[[str], Model] | None = None
    ) -> None:
        """Take in the models of agents, and how others are opened: without it, there are none."""
        models = {f"{one.provider}:{one.name}": one for spec in specs for one in spec.models}
        self._open = open_model
        self._named = {**models, **{k: v for k, v in self._named.items() if k not in models}}

    def names(self) -> Sequence[str]:
        return [*self._named]

    def find(self, name: str) -> Model | None:
        whole = self._whole(name)
        if whole is None:
            return None
        found = self._named.get(whole) or self._found.pop(whole, None)
        if found is None:
            if self._open is None:
                return None
            found = self._open(whole)
        if whole in self._named:
            self._named[whole] = found
        else:
            self._found[whole] = found
            if len(self._found) > self._most:
                del self._found[next(iter(self._found))]
        return found

    def _whole(self, name: str) -> str | None:
        """Return `provider:model` of a model that may be asked by this name."""
        if name in self._named or self._fits(name):
            return name
        called = [one for one in self._named if one.partition(":")[2] == name]
        if not called and ":" not in name:
            called = [whole for one in self._providers if self._fits(whole := f"{one}:{name}")]
        return called[0] if len(called) == 1 else None

    def _fits(self, name: str) -> bool:
        provider, _, model = name.partition(":")
        return (
            bool(self._patterns)
            and provider in self._providers
            and _MODEL.fullmatch(model) is not None
            and any(fnmatchcase(name, pattern) for pattern in self._patterns)
        )


def make_catalogue(settings: Settings) -> Catalogue:
    """Return what an installation lets clients ask, to be filled with its agents.

    Raises:
        SetupError: a model that is listed is none, or the providers are wrong.
    """
    return Catalogue(settings.direct.models, table(settings.providers))


def served(specs: Iterable[AgentSpec]) -> Catalogue:
    """Return the models of these agents, and no others."""
    made = Catalogue()
    made.take(specs)
    return made
