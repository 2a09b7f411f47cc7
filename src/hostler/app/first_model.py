"""The model of agents that name none, when the settings name none either: found, and made ready.

Finding out asks servers on loopback, so it is done once, at the start; a model of this machine
whose weights are not here is fetched then.

Invariant: what is returned says which model was taken, and why, for a person to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import aclosing

from hostler.app import wiring
from hostler.app.agent import Agent
from hostler.app.settings import Settings
from hostler.core.errors import SetupError
from hostler.models.discover import LAST_RESORT, Chosen, discover
from hostler.models.transport import Aiohttp


def needs_model(agents: Iterable[Agent], settings: Settings) -> bool:
    """Whether there is an agent for which a model has to be found."""
    return settings.model is None and any(not agent.models for agent in agents)


async def first_model(settings: Settings, environ: Mapping[str, str]) -> Chosen:
    """Return the model for agents that name none, ready to be asked; may fetch weights.

    Raises:
        SetupError: what was set up does not answer, or nothing is there and nothing can be had.
    """
    if settings.model is not None:
        return Chosen(model=settings.model, why="the settings name it")
    async with aclosing(Aiohttp()) as transport:
        chosen = await discover(environ, transport)
    if chosen.model == LAST_RESORT:
        try:
            await wiring.fetch_weights(LAST_RESORT.partition(":")[2], settings.data)
        except SetupError as error:
            raise SetupError(
                "no model is named, no key is set and no model server runs on this machine; and "
                f"for a small model in this machine: {error}.  Set HOSTLER_MODEL=provider:model, "
                "a key such as OPENAI_API_KEY or ANTHROPIC_API_KEY, or OPENAI_BASE_URL; or start "
                "Ollama"
            ) from error
    return chosen
