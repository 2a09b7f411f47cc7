"""Agents as users describe them, made into what the core drives: models opened, tools guarded.

Invariant: a key is read from the environment at each call, so that it can be changed under a
running server, and is kept nowhere.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, cast, runtime_checkable

import anyio
from msgspec.structs import replace

from hostler.app import wiring
from hostler.app.agent import Agent, ToolLike
from hostler.app.providers import Place, place
from hostler.app.settings import OwnProvider, Settings
from hostler.core.errors import SetupError
from hostler.core.ports import AgentSpec, Model, Tool
from hostler.harness.clients import OfClient
from hostler.harness.toolbox import Toolbox
from hostler.models.capabilities import capabilities
from hostler.models.discover import Chosen
from hostler.models.exchange import Patience
from hostler.models.transport import Aiohttp
from hostler.tools.function import function_tool

RESULTS = "results"
"""Folder, in the data folder, for tool results that are too long for a model."""


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
    transport: Aiohttp = field(default_factory=Aiohttp)
    _models: dict[str, Model] = field(default_factory=dict[str, Model])
    _tools: dict[str, Tool] = field(default_factory=dict[str, Tool])

    def model(self, name: str) -> Model:
        """Return the model `provider:model`.  Raises SetupError."""
        if name not in self._models:
            self._models[name] = self._make_model(name)
        return self._models[name]

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
        for part in (*self._models.values(), *self._tools.values(), self.transport):
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
        patience = {"first_byte_s": own.first_byte_s, "idle_s": own.idle_s}
        made = wiring.wire(where.wire)(
            name=where.model,
            base_url=where.base_url,
            transport=self.transport,
            key=partial(_first, where.key_env),
            provider=where.provider,
            headers=own.headers,
            able=own.capabilities,
            patience=Patience(**{k: v for k, v in patience.items() if v is not None}),
        )
        able = capabilities(where.provider, where.base_url, where.model, own.capabilities)
        return made if able.native_tools else wiring.prompted(made)

    def _place(self, name: str) -> Place:
        chosen, own = self.chosen, self.settings.providers
        if chosen is None or chosen.base_url is None or chosen.model != name:
            return place(name, self.environ, own=own)
        where = place(name, self.environ, base_url=chosen.base_url, own=own)
        return replace(where, key_env=()) if chosen.keyless else where


@asynccontextmanager
async def build_agents(
    agents: Sequence[Agent], settings: Settings, *, chosen: Chosen | None = None
) -> AsyncGenerator[dict[str, AgentSpec]]:
    """Yield the agents by name; leaving closes what they opened.

    `chosen` is for agents that name no model, unless the settings do (`app.first_model`).

    Raises:
        SetupError: two have one name, or a model or tool of theirs is wrong; says which agent.
    """
    parts = Parts(settings, os.environ, chosen)
    specs: dict[str, AgentSpec] = {}
    try:
        for agent in agents:
            if agent.name in specs:
                raise SetupError(f"two agents are called {agent.name}: rename one")
            try:
                specs[agent.name] = _spec(agent, parts)
            except SetupError as error:
                raise SetupError(f"agent {agent.name}: {error}") from error
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
            tools, spill_folder=parts.settings.data / RESULTS, permissions=agent.permissions
        ),
        limits=agent.limits(models=len(models)),
        policy=agent.policy,
        max_output_tokens=agent.max_output_tokens,
        options=agent.options,
        description=agent.description,
    )


def _first(names: Sequence[str]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)
