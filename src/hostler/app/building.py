"""Agents as users describe them, made into what the core drives: models opened, tools guarded.

Invariant: a key is asked for at each call, of the vault or the environment, so that it can be
changed under a running server; no model keeps one.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeAlias, cast, runtime_checkable

import anyio
from msgspec.structs import replace

from hostler.app import wiring
from hostler.app.agent import Agent, ToolLike
from hostler.app.catalogue import Catalogue
from hostler.app.endpoints import Elsewhere, Placed, egress_guard
from hostler.app.providers import Place, place
from hostler.app.settings import OwnProvider, Settings
from hostler.app.vaults import environment_key
from hostler.core.errors import SetupError
from hostler.core.events import TenantId
from hostler.core.ports import AgentSpec, Model, Tool
from hostler.harness.clients import OfClient
from hostler.harness.key_limits import KeyLimits
from hostler.harness.toolbox import Toolbox
from hostler.models.breaker import Breaking
from hostler.models.capabilities import capabilities
from hostler.models.discover import Chosen
from hostler.models.exchange import Patience
from hostler.models.transport import Aiohttp
from hostler.service.endpoints import Endpoints
from hostler.tools.function import function_tool
from hostler.vault.vault import SealedVault

RESULTS = "results"
"""Folder, in the data folder, for tool results that are too long for a model."""


KeyOf: TypeAlias = Callable[[str], str | None]
"""Returns the key that a tenant's requests are made with.  Raises SetupError."""


@runtime_checkable
class _Closable(Protocol):
    async def aclose(self) -> None: ...


@dataclass(slots=True)
class Parts:
    """What agents share: one transport, one of each built-in tool, one of each model."""

    settings: Settings
    environ: Mapping[str, str]
    chosen: Chosen | None = None
    """The model of agents that name none, when the settings name none either."""
    key_limits: KeyLimits = field(default_factory=KeyLimits)
    """Of the operator's keys, and breakers beside them."""
    transport: Aiohttp = field(default_factory=Aiohttp)
    """For what the operator configures: goes wherever it is told."""
    vault: SealedVault | None = None
    """Where tenants' own keys are, which go before the operator's."""
    endpoints: Endpoints = field(default_factory=Endpoints)
    """Where tenants have models asked."""
    elsewhere: Elsewhere = field(init=False)
    """What is open for that: it goes where the operator's egress rules let it."""
    _models: dict[str, Model] = field(default_factory=dict[str, Model])
    _tools: dict[str, Tool] = field(default_factory=dict[str, Tool])

    def __post_init__(self) -> None:
        """Raises SetupError: the egress rules cannot be read."""
        guard = egress_guard(self.settings.egress)
        self.elsewhere = Elsewhere(self.endpoints, guard, news=self.key_limits.news)

    def model(self, name: str) -> Model:
        """Return the model `provider:model`.  Raises SetupError."""
        if name not in self._models:
            self._models[name] = self._make_model(name)
        return self._models[name]

    def open(self, name: str) -> Model:
        """Return a model that others keep, or not; what has to be closed is kept here, too.

        Raises SetupError.
        """
        if name in self._models:
            return self._models[name]
        model = self._make_model(name)
        if isinstance(model, _Closable):
            self._models[name] = model
        return model

    def tool(self, like: ToolLike) -> Tool:
        """Return a tool for what an agent lists.  Raises SetupError."""
        if isinstance(like, str):
            if like not in self._tools:
                self._tools[like] = wiring.built_in_tool(like)
            return self._tools[like]
        if hasattr(like, "spec"):
            return cast("Tool", like)
        return function_tool(cast("Callable[..., object]", like))

    async def aclose(self) -> None:
        models = (one.own if isinstance(one, Placed) else one for one in self._models.values())
        for part in (*models, *self._tools.values(), self.transport, self.elsewhere):
            if isinstance(part, _Closable):
                await part.aclose()

    def _make_model(self, name: str) -> Model:
        kind, _, rest = name.partition(":")
        if kind == "scripted" and rest:
            return wiring.scripted(rest)
        if kind == "local" and rest:
            return wiring.local(rest, self.settings.data)
        where = self._place(name)
        own = self.settings.providers.get(where.provider, OwnProvider())
        key = partial(self._key, where)
        model = self._open(where, own, key, self.transport, self.key_limits)
        return Placed(model, self.elsewhere, partial(self._tenant_s, name))

    def _tenant_s(self, name: str, base_url: str, transport: Aiohttp, limits: KeyLimits) -> Model:
        """Return a model at a place that a tenant named, to be asked with a key of theirs.

        It gets none of the headers that the operator sends to a provider of that name.  Raises
        SetupError.
        """
        where = place(name, self.environ, base_url=base_url, own=self.settings.providers)
        known = self.settings.providers.get(where.provider, OwnProvider())
        own = known.model_copy(update={"headers": {}})
        return self._open(where, own, partial(self._tenant_key, where), transport, limits)

    def _open(
        self, where: Place, own: OwnProvider, key: KeyOf, transport: Aiohttp, limits: KeyLimits
    ) -> Model:
        patience = {"first_byte_s": own.first_byte_s, "idle_s": own.idle_s}
        made = wiring.wire(where.wire)(
            name=where.model,
            base_url=where.base_url,
            transport=transport,
            key=key,
            provider=where.provider,
            headers=own.headers,
            able=own.capabilities,
            patience=Patience(**{k: v for k, v in patience.items() if v is not None}),
        )
        able = capabilities(where.provider, where.base_url, where.model, own.capabilities)
        model = Breaking(made, limits, place=where.base_url, key=key, at_once=own.at_once)
        return model if able.native_tools else wiring.prompted(model)

    def _key(self, where: Place, tenant: str) -> str | None:
        """Return the tenant's own key, else the operator's.  Raises SetupError."""
        return self._own_key(where, tenant) or environment_key(where.key_env, self.vault)

    def _tenant_key(self, where: Place, tenant: str) -> str | None:
        """Return the tenant's own key: where they point is not shown the operator's.

        Raises:
            SetupError: there is none, and the provider wants one; or it cannot be opened.
        """
        own = self._own_key(where, tenant)
        if own is None and where.needs_key:
            raise SetupError(
                f"this tenant has an endpoint for {where.provider} and no key of its own: "
                f"its admin sets the secret model:{where.provider}"
            )
        return own

    def _own_key(self, where: Place, tenant: str) -> str | None:
        if self.vault is not None:
            for name in (f"model:{where.provider}", where.provider):
                own = self.vault.find(TenantId(tenant), name)
                if own is not None:
                    return own
        return None

    def _place(self, name: str) -> Place:
        chosen, own = self.chosen, self.settings.providers
        if chosen is None or chosen.base_url is None or chosen.model != name:
            return place(name, self.environ, own=own)
        where = place(name, self.environ, base_url=chosen.base_url, own=own)
        return replace(where, key_env=()) if chosen.keyless else where


@asynccontextmanager
async def build_agents(
    agents: Sequence[Agent],
    settings: Settings,
    *,
    chosen: Chosen | None = None,
    key_limits: KeyLimits | None = None,
    vault: SealedVault | None = None,
    endpoints: Endpoints | None = None,
    catalogue: Catalogue | None = None,
) -> AsyncGenerator[dict[str, AgentSpec]]:
    """Yield the agents by name; leaving closes what they opened.

    `chosen` is for agents that name no model, unless the settings do (`app.first_model`).
    `key_limits`: those to use, for who wants to see them.  `endpoints`: where tenants have models
    asked; those that the house opens.  `catalogue`: takes in what clients may ask themselves.

    Raises:
        SetupError: two have one name, or a model or tool of theirs is wrong; says which agent.
    """
    parts = Parts(
        settings,
        os.environ,
        chosen,
        key_limits or KeyLimits(),
        vault=vault,
        endpoints=endpoints or Endpoints(),
    )
    specs: dict[str, AgentSpec] = {}
    try:
        for agent in agents:
            if agent.name in specs:
                raise SetupError(f"two agents are called {agent.name}: rename one")
            try:
                specs[agent.name] = _spec(agent, parts)
            except SetupError as error:
                raise SetupError(f"agent {agent.name}: {error}") from error
        if catalogue is not None:
            catalogue.take(specs.values(), parts.open)
        yield specs
    finally:
        with anyio.CancelScope(shield=True):
            await parts.aclose()


def _spec(agent: Agent, parts: Parts) -> AgentSpec:
    default = parts.settings.model or (parts.chosen.model if parts.chosen else None)
    chain = agent.models or ([default] if default else [])
    if not chain:
        raise SetupError("it names no model, and there is none to fall back on")
    models = [parts.model(one) if isinstance(one, str) else one for one in chain]
    tools = [*map(parts.tool, agent.tools), *map(OfClient, agent.client_tools)]
    return AgentSpec(
        name=agent.name,
        instructions=agent.instructions,
        models=models,
        tools=Toolbox(
            tools,
            spill_folder=parts.settings.data / RESULTS,
            permissions=agent.permissions,
            breakers=parts.key_limits.breakers,
            owner=agent.name,
        ),
        limits=agent.limits(models=len(models)),
        policy=agent.policy,
        max_output_tokens=agent.max_output_tokens,
        options=agent.options,
        description=agent.description,
    )
