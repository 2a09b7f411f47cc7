"""Agents by the names of models: `agent:NAME`, for clients that carry their conversation.

Invariant: translation only; what becomes of it says `service.carried`.
"""

from __future__ import annotations

from hostler.core.events import ClientTool
from hostler.core.ports import Request
from hostler.core.terms import Terms
from hostler.service.conversation import ANSWERED_WITHIN_S, Conversation

PREFIX = "agent:"


def agent_of(model: str) -> str | None:
    """Return which agent a client means by the name of a model; None: it means a model."""
    return model[len(PREFIX) :] if model.startswith(PREFIX) else None


def conversation_of(request: Request, agent: str, *, face: str) -> Conversation:
    """Return a question to a model as one to an agent; `face`: which one asks."""
    tools = [
        ClientTool(
            name=one.name,
            description=one.description,
            parameters=one.parameters,
            timeout_s=ANSWERED_WITHIN_S,
        )
        for one in request.tools
    ]
    terms = Terms(
        instructions=request.system or None,
        max_output_tokens=request.max_output_tokens,
        wanted=request.wanted,
        ends_unanswered=True,
    )
    return Conversation(
        agent=agent,
        said=request.transcript,
        terms=terms,
        client_tools=tools,
        label={"face": face},
    )
