"""Who may answer in a session: the agents that are served, and the models that clients may ask.

    support               an agent
    openai:gpt-5          a model as it is, without instructions and tools but those of the client

Invariant: only agents are listed; a model is found by its whole name, as `direct.models` allows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from hostler.app.catalogue import served
from hostler.core.decide import Limits
from hostler.core.errors import SetupError
from hostler.core.ports import AgentSpec, Catalog, Model
from hostler.core.state import Run
from hostler.harness.toolbox import Toolbox

log = logging.getLogger(__name__)

MOST_STEPS = 10_000
"""Of one run: each is asked for by its client, who answers the calls of the one before."""
MOST_KEPT = 500
"""Models that were asked of late; making one of them anew costs little."""


class Roster(Mapping[str, AgentSpec]):
    """Agents by name, and models by `provider:model`; lists and counts have the agents alone."""

    def __init__(self, agents: Mapping[str, AgentSpec], catalog: Catalog) -> None:
        self._agents, self._catalog = agents, catalog
        self._bare: dict[str, AgentSpec] = {}

    def __getitem__(self, name: str) -> AgentSpec:
        found = self._agents.get(name)
        if found is not None:
            return found
        if ":" not in name:  # no agent is called so
            raise KeyError(name)
        try:
            model = self._catalog.find(name)
        except SetupError as error:
            log.warning("the model %r cannot be opened: %s", name[:200], error)
            raise KeyError(name) from error
        if model is None:
            raise KeyError(name)
        return self._of(name, model)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._agents)

    def __len__(self) -> int:
        return len(self._agents)

    def _of(self, name: str, model: Model) -> AgentSpec:
        kept = self._bare.pop(name, None)
        if kept is None or kept.models[0] is not model:
            kept = bare(name, model)
        self._bare[name] = kept
        if len(self._bare) > MOST_KEPT:
            del self._bare[next(iter(self._bare))]
        return kept


def roster(agents: Mapping[str, AgentSpec], catalog: Catalog | None) -> tuple[Roster, Catalog]:
    """Return who may answer, and the models that clients may ask: without a catalog, the agents'."""
    models = catalog or served(agents.values())
    return Roster(agents, models), models


def bare(name: str, model: Model) -> AgentSpec:
    """Return an agent that is a model and nothing else: what it says is the answer."""
    limits = Limits(max_steps=MOST_STEPS, stop_when=_said_nothing, may_be_stuck=True)
    tools = Toolbox([], spill_folder=None)
    return AgentSpec(name=name, instructions="", models=[model], tools=tools, limits=limits)


def _said_nothing(run: Run) -> bool:
    """Whether the model's last word was none: that is an answer, too."""
    return run.empty > 0
